"""Folders of images: every kind of picture people bring, and all problems in one message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sd_lora.config import DataConfig
from sd_lora.data import Example, read_folder, square, triggered, warnings_for
from sd_lora.data import folder as folder_module
from sd_lora.errors import DataError

Add = Callable[..., Path]


@pytest.fixture
def add(tmp_path: Path) -> Add:
    """Write a picture and its caption into the folder of the test."""

    def write(name: str, image: Image.Image | None = None, caption: str | None = "a cat", **options: object) -> Path:
        file = tmp_path / name
        (image or Image.new("RGB", (8, 8), "red")).save(file, **options)
        if caption is not None:
            file.with_suffix(".txt").write_text(caption, "utf-8")
        return file

    return write


def read(folder: Path, **settings: object) -> list[Example]:
    return read_folder(DataConfig(folder=str(folder), **settings))


def refusal(folder: Path, **settings: object) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def only_pixels(folder: Path) -> np.ndarray:
    (example,) = read(folder)
    assert example.image.mode == "RGB"
    return np.asarray(example.image).astype(int)


# ---- captions


def test_images_come_sorted_with_their_captions(add: Add, tmp_path: Path) -> None:
    add("b.png", caption="two")
    add("a.png", caption="one\n")
    (tmp_path / "notes.md").write_text("no image")
    (tmp_path / ".hidden.png").write_text("no image either")
    assert [(e.name, e.caption) for e in read(tmp_path)] == [("a.png", "one"), ("b.png", "two")]


def test_the_trigger_word_ends_the_caption(add: Add, tmp_path: Path) -> None:
    add("a.png", caption="a red house")
    assert read(tmp_path, trigger="W")[0].caption == "a red house, in W style"
    assert triggered("a red house", "") == "a red house"


def test_the_default_caption_serves_only_images_without_one(add: Add, tmp_path: Path) -> None:
    add("a.png", caption="own")
    add("b.png", caption=None)
    add("c.png", caption=" \n ")
    captions = [e.caption for e in read(tmp_path, default_caption="a picture", trigger="W")]
    assert captions == ["own, in W style", "a picture, in W style", "a picture, in W style"]


def test_a_byte_order_mark_and_line_breaks_are_no_part_of_a_caption(add: Add, tmp_path: Path) -> None:
    add("a.png", caption=None).with_suffix(".txt").write_bytes("\ufeffa  žlutý\r\n kůň\n".encode())
    assert read(tmp_path)[0].caption == "a žlutý kůň"


def test_a_caption_that_is_no_utf8_is_named(add: Add, tmp_path: Path) -> None:
    add("a.png", caption=None).with_suffix(".txt").write_bytes(b"caf\xe9")
    assert "a.txt" in refusal(tmp_path)


def test_suffixes_are_read_in_any_case(add: Add, tmp_path: Path) -> None:
    for name in ("a.PNG", "b.Jpg", "c.JPEG", "d.WebP", "e.BMP", "f.TIF", "g.GIF"):
        add(name)
    assert len(read(tmp_path)) == 7


# ---- problems


def test_all_problems_are_listed_at_once(add: Add, tmp_path: Path) -> None:
    add("good.png")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), "RGB")
    whole = add("cut.png", noise).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("this is no picture")
    (tmp_path / "text.txt").write_text("a cat")
    add("bare1.png", caption=None)
    add("bare2.png", caption=None)
    message = refusal(tmp_path)
    assert "2 of 5" in message
    for name in ("cut.png", "text.jpg", "bare1.png", "bare2.png", "bare1.txt", "data.default_caption"):
        assert name in message
    assert "good.png" not in message


def test_a_broken_image_without_a_caption_is_named_for_both(add: Add, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    message = refusal(tmp_path)
    assert "cannot be read" in message
    assert "no caption" in message


def test_images_that_share_a_caption_file_are_refused(add: Add, tmp_path: Path) -> None:
    add("cat.png")
    add("cat.jpg")
    add("dog.png")
    message = refusal(tmp_path)
    assert "cat" in message
    assert "dog" not in message


@pytest.mark.parametrize(
    ("name", "said"), [("none", "does not exist"), ("file.txt", "is a file"), ("empty", "no images")]
)
def test_what_is_no_folder_of_images(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    message = refusal(tmp_path / name)
    assert said in message
    assert name in message


def test_no_folder_given() -> None:
    with pytest.raises(DataError, match="none given"):
        read_folder(DataConfig())


def test_huge_images_are_refused_from_their_header(add: Add, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = add("huge.png", Image.new("RGB", (40, 40))).read_bytes()
    (tmp_path / "huge.png").write_bytes(whole[:45])  # the header only: decoding it would say something else
    add("small.png", Image.new("RGB", (30, 30)))
    monkeypatch.setattr(folder_module, "MAX_PIXELS", 1000)
    message = refusal(tmp_path)
    assert "huge.png" in message
    assert "40 × 40" in message
    assert "small.png" not in message


# ---- pixels


def test_exif_rotation_is_applied(add: Add, tmp_path: Path) -> None:
    stored = Image.new("RGB", (40, 20), "blue")
    stored.paste("red", (0, 0, 20, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the stored left side is the top
    add("a.png", stored, exif=exif)
    pixels = only_pixels(tmp_path)
    assert pixels.shape == (40, 20, 3)
    assert pixels[5, 10].tolist() == [255, 0, 0]
    assert pixels[35, 10].tolist() == [0, 0, 255]


def test_transparency_lies_on_white(add: Add, tmp_path: Path) -> None:
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 255))
    image.putpixel((0, 0), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    add("a.png", image)
    pixels = only_pixels(tmp_path)[0]
    assert pixels[0].tolist() == [255, 255, 255]
    assert abs(pixels[1] - 127).max() <= 1
    assert pixels[2].tolist() == [0, 0, 0]


def test_grey_with_alpha_lies_on_white(add: Add, tmp_path: Path) -> None:
    image = Image.new("LA", (2, 1), (0, 0))
    image.putpixel((1, 0), (90, 255))
    add("a.png", image)
    assert only_pixels(tmp_path)[0].tolist() == [[255] * 3, [90] * 3]


TONES = np.array([[0, 64, 128, 200, 255]])


@pytest.mark.parametrize(
    ("name", "mode", "kind"), [("a.png", "I;16", "<u2"), ("a.tif", "I;16", "<u2"), ("b.tif", "I;16B", ">u2")]
)
def test_16_bit_grey_keeps_its_tones(name: str, mode: str, kind: str, add: Add, tmp_path: Path) -> None:
    add(name, Image.frombytes(mode, (5, 1), (TONES * 257).astype(kind).tobytes()))
    assert abs(only_pixels(tmp_path)[0, :, 0] - TONES).max() <= 1


def test_floating_point_grey_is_refused_or_keeps_its_tones(add: Add, tmp_path: Path) -> None:
    add("a.tif", Image.fromarray((TONES / 255).astype(np.float32)))
    try:
        found = only_pixels(tmp_path)[0, :, 0]
    except DataError:
        return  # a refusal is honest; the black picture of a plain conversion is not
    assert abs(found - TONES).max() <= 1


def test_a_palette_keeps_its_colours(add: Add, tmp_path: Path) -> None:
    image = Image.new("P", (3, 1))
    image.putpalette([10, 200, 30, 250, 5, 5, 0, 0, 0])
    image.putdata([0, 1, 2])
    add("a.gif", image, transparency=2)
    pixels = only_pixels(tmp_path)[0]
    assert pixels[:2].tolist() == [[10, 200, 30], [250, 5, 5]]
    assert pixels[2].tolist() == [255, 255, 255]


def test_cmyk_opens_in_its_colours(add: Add, tmp_path: Path) -> None:
    add("a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
    red, green, blue = only_pixels(tmp_path)[8, 8]
    assert red > 200
    assert max(green, blue) < 60


def test_black_and_white_opens(add: Add, tmp_path: Path) -> None:
    add("a.png", Image.new("1", (2, 2), 1))
    assert only_pixels(tmp_path).min() == 255


# ---- what is said, and what is done to them


def example(size: tuple[int, int] = (64, 64), caption: str = "a cat", name: str = "a.png") -> Example:
    return Example(name, Image.new("RGB", size), caption)


def test_notes_name_the_images_that_lose_something() -> None:
    wide, small = example((128, 64), name="wide.png"), example((32, 32), name="small.png")
    notes = warnings_for([example(), wide, small], 64)
    assert len(notes) == 2
    assert any("not square" in note and "wide.png" in note and "1 of 3" in note for note in notes)
    assert any("smaller than 64" in note and "small.png" in note for note in notes)
    assert warnings_for([example(), example()], 64) == []


def test_one_image_only_is_worth_a_note() -> None:
    assert any("one image only" in note for note in warnings_for([example()], 64))


@pytest.mark.parametrize(
    "caption", ["a boat on the left", "Right of the tree", "a page of text", "a road sign", "TEXT"]
)
def test_sides_and_writing_forbid_mirroring(caption: str) -> None:
    assert not example(caption=caption).may_flip


@pytest.mark.parametrize("caption", ["a cat", "a bright day", "leftover soup", "a texture"])
def test_other_captions_may_be_mirrored(caption: str) -> None:
    assert example(caption=caption).may_flip


def test_square_keeps_the_middle() -> None:
    image = Image.new("RGB", (90, 30), "blue")
    image.paste("red", (30, 0, 60, 30))
    cut = square(image, 16)
    assert cut.size == (16, 16)
    assert np.asarray(cut)[:, 4:12].reshape(-1, 3).tolist() == [[255, 0, 0]] * 128
