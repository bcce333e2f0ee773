"""Pictures people bring: every row of the table gets its verdict, and what the decoding promises beside it."""

from __future__ import annotations

import hashlib
import io
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from picture_makers import noise, oriented, quarters, saved, stored
from picture_refusals import REFUSED
from picture_table import FILES, SEEN, Case
from PIL import Image
from rows import every_row

from sd_lora.data.findings import CODES, numbered
from sd_lora.data.pictures import decode as pictures
from sd_lora.data.pictures.decode import (  # fmt: skip
    FOREIGN_SUFFIXES,
    IMAGE_SUFFIXES,
    Picture,
    PictureError,
    check_colour,
    decode,
    read_mask,
    read_picture,
)
from sd_lora.errors import DataError

CASES = [*SEEN, *REFUSED]


def test_the_table_is_long_and_its_titles_differ() -> None:
    assert len(CASES) >= 120
    assert len({case.title for case in CASES}) == len(CASES)


@every_row("case", CASES, ids=lambda case: case.title)
def test_the_table(case: Case, tmp_path: Path) -> None:
    file = tmp_path / case.name
    if isinstance(case.content, bytes):
        file.write_bytes(case.content)
    else:
        case.content(file)
    if case.code:
        with pytest.raises(PictureError) as caught:
            read_picture(file)
        assert (caught.value.code, case.words) == (case.code, case.words if case.words in caught.value.detail else "")
        assert caught.value.detail
        assert str(caught.value).isprintable()
        assert str(caught.value).endswith(f"; {numbered(CODES[case.code].remedy, 1)}")
        return
    picture = read_picture(file)
    assert type(picture.image) is Image.Image
    assert picture.image.mode == "RGB"
    assert case.size in (None, picture.image.size)
    assert tuple(code for code, _ in picture.remarks) == case.remarks
    assert picture.digest == hashlib.sha256(file.read_bytes()).hexdigest()
    for place, colour in case.pixels.items():
        seen = picture.image.getpixel(place)
        assert np.abs(np.subtract(seen, colour)).max() <= case.near, (place, seen, colour)


def refusal(content: bytes, name: str = "a.png") -> PictureError:
    with pytest.raises(PictureError) as caught:
        decode(content, name)
    return caught.value


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_one_may_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(saved(quarters(), "PNG"))
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(PictureError, match="permission denied"):
        read_picture(tmp_path / "a.png")


def test_a_file_that_may_not_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.png").write_bytes(saved(quarters(), "PNG"))
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PictureError, match=r"a\.png: permission denied"):
        read_picture(tmp_path / "a.png")


def test_a_name_that_no_file_can_have() -> None:
    with pytest.raises(PictureError, match="null"):
        read_picture(Path("a\0.png"))


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    pictures._reads_heif.cache_clear()
    try:
        error = refusal((FILES / "small.heic").read_bytes(), "a.heic")
    finally:
        pictures._reads_heif.cache_clear()
    assert error.code == "image-unsupported"
    assert 'pip install "sd-lora[heic]"' in str(error)


def test_every_ending_is_either_read_or_foreign() -> None:
    assert not IMAGE_SUFFIXES & FOREIGN_SUFFIXES.keys()
    for suffix in (*IMAGE_SUFFIXES, *FOREIGN_SUFFIXES):
        assert suffix == suffix.lower()
        assert suffix[0] == "."
    for suffix in FOREIGN_SUFFIXES:
        assert refusal(b"\1\2\3\4" * 9, f"a{suffix}").code == "image-unsupported"


# ---- what the remarks and the fields say


def test_remarks_tell_what_was_found() -> None:
    frames = saved(quarters(), "GIF", save_all=True, append_images=[noise(48, 32), quarters("L")])
    assert decode(frames, "a.png").remarks == (
        ("image-extension", "GIF data under the ending .png"), ("image-animated", "several frames"),
    )  # fmt: skip
    quarter = quarters("RGBA")
    quarter.paste((0, 0, 0, 0), (0, 0, 24, 16))
    assert decode(saved(quarter, "PNG"), "a.png").remarks == (("image-alpha", "25% of it is transparent"),)
    quarter.putalpha(0)
    assert decode(saved(quarter, "PNG"), "a.png").remarks == (("image-transparent", "100% of it is invisible"),)


@pytest.mark.parametrize("quality", [8, 30, 50, 75, 90, 98])
def test_the_quality_of_a_jpeg_is_found(quality: int) -> None:
    assert decode(saved(noise(), "JPEG", quality=quality), "a.jpg").jpeg_quality == pytest.approx(quality, abs=1)


def test_only_a_jpeg_has_a_quality() -> None:
    assert decode(saved(noise(), "WEBP", quality=30), "a.webp").jpeg_quality is None
    assert decode(saved(noise(), "MPO", save_all=True, append_images=[noise()], quality=30), "a.jpg").jpeg_quality == 30


def test_the_format_is_that_of_the_content() -> None:
    assert decode(saved(quarters(), "WEBP"), "a.png").format == "WEBP"
    assert decode((FILES / "small.heic").read_bytes(), "a.heic").format == "HEIF"


@pytest.mark.parametrize(("colour", "seen"), [("black", (0, 0, 0)), ("#10f", (17, 0, 255)), ("rgb(1,2,3)", (1, 2, 3))])
def test_the_background_shows_through(colour: str, seen: tuple[int, int, int]) -> None:
    assert decode(saved(Image.new("RGBA", (2, 2)), "PNG"), "a.png", colour).image.getpixel((0, 0)) == seen
    check_colour(colour)


@pytest.mark.parametrize("text", ["", "whitish", "#12", "rgb(1,2,999)", "x" * 200])
def test_what_is_no_colour(text: str) -> None:
    with pytest.raises(DataError, match=r"data\.background"):
        check_colour(text)
    with pytest.raises(DataError, match=r"data\.background"):
        decode(saved(quarters(), "PNG"), "a.png", text)


def test_an_odd_name_does_not_break_the_line() -> None:
    assert str(refusal(b"", "a\n\x1b.png")).isprintable()


# ---- limits


def test_the_cap_is_on_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "MAX_PIXELS", 48 * 32)
    whole = saved(quarters(), "PNG")
    assert decode(whole, "a.png").image.size == (48, 32)
    monkeypatch.setattr(pictures, "MAX_PIXELS", 48 * 32 - 1)
    assert refusal(whole[:60]).code == "image-oversized"  # cut after the header: decoding would say something else


def test_large_pictures_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_LARGE_PIXELS", 40 * 30)
    inside, most, guard = [0], [0], threading.Lock()
    original = pictures.layers

    def watched(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
        with guard:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        threading.Event().wait(0.02)
        with guard:
            inside[0] -= 1
        return original(image)

    monkeypatch.setattr(pictures, "layers", watched)

    def together(content: bytes) -> int:
        most[0] = 0
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: decode(content, "a.png"), range(8)))
        return most[0]

    assert together(saved(quarters(), "PNG")) == 1
    assert together(saved(Image.new("RGB", (40, 30)), "PNG")) > 1


def test_a_refusal_lets_the_next_large_picture_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_LARGE_PIXELS", 1)
    refusal(saved(noise(), "PNG")[:500])
    assert decode(saved(quarters(), "PNG"), "a.png").image.size == (48, 32)


def test_threads_see_what_one_alone_sees() -> None:
    files = [(case.name, case.content) for case in CASES if isinstance(case.content, bytes)]

    def outcome(file: tuple[str, bytes]) -> object:
        try:
            picture = decode(file[1], file[0])
        except PictureError as error:
            return error.code, error.detail
        return picture.image.tobytes(), picture.remarks

    alone = [outcome(file) for file in files]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(outcome, files)) == alone


def test_nothing_of_the_file_is_kept() -> None:
    content = saved(stored(quarters(), 6), "JPEG", exif=oriented(6), icc_profile=b"x" * 999)
    picture = decode(content, "a.jpg")
    assert isinstance(picture, Picture)
    assert picture.image.info == {}
    again = io.BytesIO()
    picture.image.save(again, "JPEG")
    assert Image.open(again).getexif() == {}


# ---- masks


def mask_of(tmp_path: Path, image: Image.Image, size: tuple[int, int] = (48, 32), **options: object) -> np.ndarray:
    image.save(tmp_path / "mask.png", **options)
    mask = read_mask(tmp_path / "mask.png", size)
    assert (mask.mode, mask.size) == ("L", size)
    return np.asarray(mask)


def left_white(mode: str) -> Image.Image:
    image = Image.new("L", (48, 32), 0)
    image.paste(255, (0, 0, 24, 32))
    return image if mode == "alpha" else image.convert(mode)


@every_row("mode", ["1", "L", "P", "LA", "RGB", "RGBA", "I;16"])
def test_a_mask_is_white_where_it_is_white(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.asarray(left_white("L")).astype(np.uint16) * 257) if mode == "I;16" else left_white(mode)
    values = mask_of(tmp_path, image)
    assert (values[:, :24] == 255).all()
    assert (values[:, 24:] == 0).all()


@pytest.mark.parametrize("colour", ["black", "white", "red"])
def test_a_mask_of_one_colour_is_its_alpha(colour: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (48, 32), colour)
    image.putalpha(left_white("L"))
    values = mask_of(tmp_path, image)
    assert (values[:, :24] == 255).all()
    assert (values[:, 24:] == 0).all()


def test_what_is_transparent_in_a_mask_is_black(tmp_path: Path) -> None:
    image = left_white("RGBA")
    image.paste((255, 255, 255, 0), (0, 0, 48, 16))
    values = mask_of(tmp_path, image)
    assert (values[:16] == 0).all()
    assert (values[16:, :24] == 255).all()
    assert (values[16:, 24:] == 0).all()


def test_a_mask_is_scaled_and_turned(tmp_path: Path) -> None:
    values = mask_of(tmp_path, left_white("L"), (24, 16))
    assert (values[:, :11] == 255).all()
    assert (values[:, 13:] == 0).all()
    turned = mask_of(tmp_path, stored(left_white("L"), 8), exif=oriented(8))
    assert (turned == np.asarray(left_white("L"))).all()


@pytest.mark.parametrize(
    ("size", "fits"), [((1000, 663), True), ((100, 67), True), ((480, 310), False), ((32, 48), False)]
)
def test_a_mask_must_have_the_shape_of_its_image(size: tuple[int, int], fits: bool, tmp_path: Path) -> None:
    if fits:
        mask_of(tmp_path, left_white("L"), size)
        return
    with pytest.raises(PictureError) as caught:
        mask_of(tmp_path, left_white("L"), size)
    assert caught.value.code == "mask-size"
    assert f"48 × 32 pixels for an image of {size[0]} × {size[1]}" in caught.value.detail


def test_a_broken_mask_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mask.png").write_bytes(saved(noise(), "PNG")[:400])
    with pytest.raises(PictureError, match="truncated"):
        read_mask(tmp_path / "mask.png", (64, 48))
