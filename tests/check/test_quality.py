"""What is seen in a decoded picture: every remark on a picture that deserves it, and none on one that does not."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter, ImageOps
from rows import every_row

from sd_lora.check import quality
from sd_lora.check.quality import duplicates, look_at, thumbnail
from sd_lora.data.findings import CODES
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene

Change = Callable[[Image.Image], Image.Image]


def scene(seed: int = 0, style: str = "flat", side: int = 512) -> Image.Image:
    return render(sample_scene(seed, pair=False), style, side)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def grainy(image: Image.Image, levels: float = 4) -> Image.Image:
    noise = np.random.default_rng(0).normal(0, levels, (*image.size[::-1], 3))
    return Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))


def gradient(size: tuple[int, int] = (512, 512)) -> Image.Image:
    """A sky: nothing in it is sharp, and nothing is wrong with it but that."""
    across = np.linspace(40, 220, size[0])[None, :, None] + np.linspace(-30, 30, size[1])[:, None, None]
    return Image.fromarray(np.broadcast_to(across, (*size[::-1], 3)).clip(0, 255).astype(np.uint8))


def sharp_in_one_place(image: Image.Image) -> Image.Image:
    """The whole picture out of focus, but for its middle: what a photographer means."""
    soft = image.filter(ImageFilter.GaussianBlur(8))
    box = (171, 171, 341, 341)
    soft.paste(image.crop(box), box)
    return soft


def poster(image: Image.Image) -> Image.Image:
    """A subject on plain white that touches no side: no border, for nothing straight ends it."""
    page = Image.new("RGB", image.size, "white")
    ImageDraw.Draw(page).ellipse([60, 50, 440, 470], fill="navy", outline="black", width=6)
    return page


def one_sided(image: Image.Image) -> Image.Image:
    """A dark floor: one side of one colour with a straight edge, as a horizon is."""
    page = image.copy()
    page.paste("black", (0, 430, 512, 512))
    return page


def remarks(image: Image.Image, trained: tuple[int, int] = (512, 512), quality: float | None = None) -> dict[str, str]:
    return dict(look_at(image, trained=trained, jpeg_quality=quality).remarks)


DESERVED: dict[str, tuple[str, Change]] = {
    "blurred by 1 %": ("image-blurred", lambda i: i.filter(ImageFilter.GaussianBlur(5))),
    "blurred by 3 %": ("image-blurred", lambda i: i.filter(ImageFilter.GaussianBlur(15))),
    "blurred, then sent as a JPEG": ("image-blurred", lambda i: jpeg(i.filter(ImageFilter.GaussianBlur(6)), 75)),
    "blurred, under grain": ("image-blurred", lambda i: grainy(i.filter(ImageFilter.GaussianBlur(6)), 2)),
    "enlarged eight times": ("image-blurred", lambda i: i.resize((64, 64)).resize((512, 512))),
    "a JPEG of quality 10, saved again": ("image-compressed", lambda i: jpeg(grainy(i), 10)),
    "a JPEG of quality 20, then one of 95": ("image-compressed", lambda i: jpeg(jpeg(grainy(i), 20), 95)),
    "a white frame": ("image-bordered", lambda i: ImageOps.expand(i, 24, "white")),
    "black bars above and below": ("image-bordered", lambda i: ImageOps.expand(i, (0, 60), "black")),
    "grey bars at the sides, as a JPEG": ("image-bordered", lambda i: jpeg(ImageOps.expand(i, (50, 0), "#888"), 75)),
    "white": ("image-blank", lambda i: Image.new("RGB", i.size, "white")),
    "black under grain": ("image-blank", lambda i: grainy(Image.new("RGB", i.size, "black"), 1.5)),
}

HARMLESS: dict[str, Change] = {
    "as it is": lambda i: i,
    "grain": grainy,
    "a JPEG of quality 80": lambda i: jpeg(grainy(i), 80),
    "one thing in focus": sharp_in_one_place,
    "a subject on white": poster,
    "a dark floor": one_sided,
    "grey": lambda i: ImageOps.grayscale(i).convert("RGB"),
    "inverted": ImageOps.invert,
    "of 40 px": lambda i: i.resize((40, 40)),
}


@every_row("name", DESERVED)
def test_what_is_wrong_is_seen(name: str) -> None:
    code, change = DESERVED[name]
    missed = [seed for seed in range(4) if code not in remarks(change(scene(seed)))]
    assert not missed


@every_row("name", HARMLESS)
def test_nothing_is_seen_where_nothing_is_wrong(name: str) -> None:
    sizes = {"image-tiny", "image-small"}
    alarms = {seed: found for seed in range(4) if (found := set(remarks(HARMLESS[name](scene(seed)))) - sizes)}
    assert not alarms


def test_every_remark_is_a_code_of_the_table() -> None:
    for code, change in DESERVED.values():
        assert set(remarks(change(scene()))) | {code} <= set(CODES)


def test_a_picture_without_edges_is_not_called_blurred() -> None:
    assert not remarks(gradient())


@every_row(
    "size, trained, code, said",
    [
        ((512, 512), (512, 512), None, ""),
        ((490, 490), (512, 512), None, ""),  # 4 % more: nobody sees it
        ((400, 400), (512, 512), "image-small", "400 × 400, upscaled 1.3 times"),
        ((255, 270), (512, 512), "image-tiny", "255 × 270, upscaled 2.0 times"),
        ((100, 100), (512, 512), "image-tiny", "100 × 100, upscaled 5.1 times"),
        ((2048, 2048), (512, 512), None, ""),
        ((2100, 2100), (512, 512), "image-huge", "2100 × 2100, trained at 512 × 512"),
        ((1024, 512), (512, 512), "image-aspect", "1024 × 512, of which 50% is cropped away"),
        ((600, 512), (512, 512), None, ""),
    ],
)  # fmt: skip
def test_sizes(size: tuple[int, int], trained: tuple[int, int], code: str | None, said: str) -> None:
    found = remarks(scene().resize(size), trained)
    assert {c: d for c, d in found.items() if c in ("image-small", "image-tiny", "image-huge", "image-aspect")} == (
        {code: said} if code else {}
    )


@pytest.mark.parametrize("quality", [1, 30, 39.9])
def test_a_file_that_says_it_is_heavily_compressed_is_believed(quality: float) -> None:
    assert remarks(scene(), quality=quality)["image-compressed"] == f"JPEG quality {quality:.0f} of 100"


@pytest.mark.parametrize("quality", [40, 75, 100])
def test_a_file_that_says_it_is_well_compressed_is_believed(quality: float) -> None:
    assert "image-compressed" not in remarks(scene(), quality=quality)


def test_a_border_is_told_in_pixels_of_the_original() -> None:
    framed = ImageOps.expand(scene(side=1024), (0, 100), "white")
    found = remarks(framed)["image-bordered"]
    assert found.startswith("#ffffff: ")
    top, bottom = (int(part.split()[0]) for part in found.removeprefix("#ffffff: ").split(", "))
    assert abs(top - 100) <= 4
    assert abs(bottom - 100) <= 4


def test_a_blank_picture_is_the_duplicate_of_nothing() -> None:
    white, black = (look_at(Image.new("RGB", (64, 64), colour), trained=(64, 64)) for colour in ("white", "black"))
    assert white.phash == black.phash == 0
    assert not duplicates(["a", "b"], ["1", "2"], [white.phash, black.phash])


@pytest.mark.parametrize(
    ("how", "change"),
    [
        ("the same as", lambda i: i.resize((360, 360))),
        ("the same as", lambda i: jpeg(i, 40)),
        ("the same as", lambda i: i.point(lambda v: min(255, round(0.9 * v + 20)))),
        ("the same as", lambda i: ImageOps.crop(i, 4)),
        ("the mirror image of", ImageOps.mirror),
    ],
)
def test_copies_are_found(how: str, change: Change) -> None:
    original = scene(3, "woodcut")
    hashes = [look_at(picture, trained=(512, 512)).phash for picture in (original, change(original))]
    (found,) = duplicates(["first.png", "second.png"], ["1", "2"], hashes)
    assert (found.code, found.file, found.detail) == ("image-near-duplicate", "second.png", f"almost {how} first.png")


def test_the_same_file_is_told_once_and_as_such() -> None:
    found = duplicates(["a", "b", "c"], ["1", "1", "1"], [5, 5, 5])
    assert [(f.code, f.file, f.detail) for f in found] == [
        ("image-duplicate", "b", "the same as a"), ("image-duplicate", "c", "the same as a"),
    ]  # fmt: skip


def test_near_duplicates_are_those_within_six_bits_however_many_there_are() -> None:
    """Against a plain loop over pairs, beyond one block of the matrix."""
    rng = np.random.default_rng(0)
    hashes = [int(h) for h in rng.integers(1, 2**63, 1200, dtype=np.uint64)]
    for i in rng.choice(1200, 200, replace=False):
        bits = rng.choice(64, int(rng.integers(1, 12)), replace=False)
        hashes[int(i)] = hashes[int(rng.integers(1200))] ^ sum(1 << int(b) for b in bits)
    columns = sum(1 << (63 - bit) for bit in range(64) if bit % 2)
    names = [str(i) for i in range(len(hashes))]

    expected = {}
    for later, mine in enumerate(hashes):
        for how, turned in (("the same as", mine), ("the mirror image of", mine ^ columns)):
            near = [i for i in range(later) if (hashes[i] ^ turned).bit_count() <= 6]
            if near and str(later) not in expected:
                expected[str(later)] = f"almost {how} {near[0]}"
    found = {f.file: f.detail for f in duplicates(names, names, hashes)}
    assert found == expected
    assert len(found) > 80


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (7, 7), (2000, 3), (300, 200)])
def test_pictures_of_any_size_are_looked_at_and_have_a_thumbnail(size: tuple[int, int]) -> None:
    picture = scene().resize(size)
    look_at(picture, trained=(512, 512))
    small = Image.open(io.BytesIO(thumbnail(picture)))
    assert small.format == "JPEG"
    assert max(small.size) == min(176, max(size))
    assert abs(small.width / small.height - picture.width / picture.height) < 0.02 or min(small.size) < 20


def test_a_picture_too_narrow_for_a_block_is_not_cut_into_millions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "crop", lambda *_: pytest.fail("there is no block in it"))
    for size in ((7, 5000), (5000, 7), (1, 1)):
        assert quality._blocks(Image.new("RGB", size)).shape == (0, 8, 8, 3)
