"""Captions besides NAME.txt: in names, in other files, and what is said of those that are not read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from caption_table import as_json, beside
from layout_table import photos
from PIL import Image
from rows import every_row
from test_layouts_of_folders import build, listing, said

from sd_lora.config.reading import parse_config
from sd_lora.data.editing.editor import CaptionEditor
from sd_lora.data.folders.caption_names import caption_of, reads_like_caption
from sd_lora.data.pictures.decode import holds_image
from sd_lora.errors import ConfigError


@every_row(
    "stem, caption, like_one",
    [
        ("a red house on a hill", "a red house on a hill", True),
        ("0012_a_red_house (3)", "a red house", True),
        ("john smith on a boat_999", "john smith on a boat", True),
        ("00012-3871234-a red house", "a red house", True),
        ("(1) a cat", "a cat", False),
        ("a-red-house-12", "a red house", True),
        ("a.red.house", "a red house", True),
        ("a_red_house_", "a red house", True),
        ("a red house - Copy", "a red house", True),
        ("a red house copy (2)", "a red house", True),
        ("me_a_red_house_9b1c33aa-1234-4abc-9def-0123456789ab", "me a red house", True),
        ("a cat 12", "a cat", False),
        ("a house in 1920", "a house in 1920", True),
        ("1920s house by the sea", "1920s house by the sea", True),
        ("3 cats on a roof", "3 cats on a roof", True),
        ("03 cats", "cats", False),
        ("1girl, solo, red hair", "1girl, solo, red hair", True),
        ("a well-known man on a hill", "a well-known man on a hill", True),
        ("red facade decade", "red facade decade", True),
        ("赤い家", "赤い家", False),
        ("IMG_2033", "", False),
        ("DSC00012", "", False),
        ("ComfyUI_00012_", "", False),
        ("IMG 20240101 a boat on a lake", "a boat on a lake", True),
        ("IMG-20240101-WA0001 a boat", "a boat", False),
        ("DSC01234_a_boat", "a boat", False),
        ("WhatsApp Image 2024-01-01 at 12.33.10 a red boat", "a red boat", True),
        ("a dog v2 final", "a dog", False),
        ("a_dog_final_v2", "a dog", False),
        ("a_dog_v2_final", "a dog", False),
        ("woman in hat upscayl 4x", "woman in hat", True),
        ("a-green-tree_upscayl_4x_realesrgan-x4plus-anime", "a green tree", True),
        ("a red house-removebg-preview (1)", "a red house", True),
        ("tree@2x", "tree", False),
        ("a house 1024x768", "a house", False),
        ("the world cup final", "the world cup final", True),
        ("a bmw x3", "a bmw x3", False),
        ("ford v8", "ford v8", False),
        ("IMG_20240101_123456", "", False),
        ("v2_" * 80, "", False),
        ("IMG 1_" * 40, "", False),
        ("Screenshot from 2024-01-01", "Screenshot from 2024", False),
        ("a photo of a cat at night", "a photo of a cat at night", True),
        ("000001", "", False),
        ("a", "", False),
        ("_" * 250, "", False),
        ("1_" * 120, "", False),
    ],
)
def test_a_name_is_a_caption_without_its_counters(stem: str, caption: str, like_one: bool) -> None:
    assert caption_of(stem) == caption
    assert reads_like_caption(stem) is like_one


@every_row(
    "files, settings, code, told",
    [
        (as_json(seed=3), {}, "caption-unread", "a.json: it has none of text, caption, prompt, description, tags, but "
         "seed; save the caption as NAME.txt, or set data.layout=bare to train without it"),
        (beside("a.json", "{"), {}, "caption-unread", "a.json: it is not JSON: Expecting"),
        (beside("a.json", "[1]"), {}, "caption-unread", "a.json: it holds a list, not an object with a caption"),
        (as_json(tags=[3]), {}, "caption-unread", "a.json: its caption is a number, not text"),
        (as_json(caption="one", tags="two"), {}, "column-unread", "a.json: not read is tags"),
        (beside("a.yaml", "x"), {}, "caption-unread", "a.png: its caption may be in a.yaml, which is not read; save"),
        (beside("a.tags", "x"), {"caption_suffixes": (".txt",)}, "caption-unread",
         "a.png: its caption may be in a.tags, which is not read; name its ending in data.caption_suffixes, or in"),
        (beside("captions.csv", "x"), {"trigger": "zwq"}, "caption-elsewhere",
         "no image has a caption, but other files may hold them: captions.csv; save them as NAME.txt beside"),
        (photos("a red house on a hill_3.png"), {"trigger": "zwq"}, "caption-names",
         '1 of 1 image has a name that reads like a caption, such as "a red house on a hill"; set data.captions_from='),
        (photos("a red house on a hill.png", "IMG_1.png", "IMG_2.png"), {"trigger": "zwq"}, "caption-names",
         '1 of 3 images has a name that reads like a caption, "a red house on a hill"; set data.captions_from=name to '
         "train on them, and data.default_caption for the other 2"),
        (as_json(caption=None), {}, "caption-empty", "a.png: an empty caption; write one"),
        (photos("p/a.png", "b.png", "text/a.txt", b="c"), {}, "caption-unread",
         "p/a.png: its caption may be in text/a.txt, which is read only as p/a.txt; move or rename it, or set data"),
        (photos("p/a.png", "text/a.cap", "q.png", "q.cap"), {"caption_suffixes": (".cap",)}, "caption-unread",
         "p/a.png: its caption may be in text/a.cap, which is read only as p/a.cap; move or rename it, or set data"),
        ({**photos("a.png"), "photos/a.txt": "c", "photos/metadata.jsonl": '{"file_name": "a.png"}'}, {},
         "caption-unread", "a.png: its caption may be in a.txt, which is not read; give its row a text, or set data"),
        (beside("photos.zip", "PK"), {"trigger": "zwq"}, "not-read", "1 entry is not read: photos.zip;"),
        ({"photos/photos.zip": "PK"}, {}, "no-images", "unpack photos.zip and give the folder that this makes"),
        ({**photos("a.png", a="c"), **{f"photos/{n}.mp4": "x" for n in range(7)}, "photos/x": "y"}, {}, "not-read",
         "8 entries are not read: 7 .mp4 and 1 other: 0.mp4, 1.mp4, 2.mp4, 3.mp4, 4.mp4 and 3 more;"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named_with_the_remedy(
    files: dict[str, str], settings: dict[str, object], code: str, told: str, tmp_path: Path
) -> None:
    build(tmp_path, files)
    assert told in said(listing(tmp_path, **dict(settings)), code)


def test_captions_from_names_are_told_in_one_line(tmp_path: Path) -> None:
    build(tmp_path, photos("a cat_1.png", "b/002.png"))
    found = listing(tmp_path, captions_from="name", default_caption="d")
    assert found.summary == "2 images, 1 captioned by name, 1 captioned by default, 1 of them in b/"


@every_row(
    "settings, told",
    [
        (["data.layout=bare"], "data.captions_from=name cannot act with data.layout=bare, which reads no captions"),
        (["data.caption_suffixes=.cap"], "data.caption_suffixes has no effect with data.captions_from=name"),
        (["data.caption_lines=joined"], "data.caption_lines has no effect with data.captions_from=name"),
    ],
)
def test_settings_of_files_cannot_act_on_names(settings: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_config([], ["data.captions_from=name", *settings])


@every_row(
    "name",
    [
        "a",
        "a.jpg_large",
        "a.jpeg_large",
        "a.jfif",
        "a.jpg!large",
        "a.jpg~orig",
        "a.20231012",
        "v1.2 final",
        "a.pnglarge",
        "a.jpeg-1",
        "a.xyz",
    ],
)
def test_a_jpeg_of_any_ending_is_an_image(name: str, tmp_path: Path) -> None:
    build(tmp_path, {"photos/b.txt": "x", "photos/notes": "not an image", "photos/c.2": "BM"})
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name, "JPEG")
    (tmp_path / f"photos/{name}.txt").write_text("a cat")
    found = listing(tmp_path)
    assert [(entry.name, entry.captions) for entry in found.entries] == [(name, ("a cat",))]
    assert "3 entries are not read" in said(found, "not-read")


@every_row("name", ["a.jpg.bak", "a.part", "a.crdownload", "a.thm", "a.txt"])
def test_a_jpeg_that_is_put_aside_or_incomplete_is_none(name: str, tmp_path: Path) -> None:
    build(tmp_path, photos("b.png", b="a cat"))
    Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name, "JPEG")
    found = listing(tmp_path)
    assert [entry.name for entry in found.entries] == ["b.png"]
    assert name in said(found, "not-read")


@every_row("content", [b"", b"BM is how a text may begin", b"\0\0\0 ftypisom", b"{}", None])
def test_what_may_not_be_an_image_is_none(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "a"
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    assert not holds_image(file)


@every_row("name", ["a.json", "a.tags", "a.caption.txt"])
def test_a_caption_of_another_file_is_edited_in_a_new_one(name: str, tmp_path: Path) -> None:
    text = json.dumps({"caption": "a cat"}) if name == "a.json" else "a cat"
    build(tmp_path, beside(name, text))
    editor = CaptionEditor(tmp_path / "photos")
    assert editor.read("a.png") == "a cat"
    assert editor.write("a.png", "a dog")
    assert (tmp_path / "photos/a.txt").read_text() == "a dog\n"
    assert (tmp_path / "photos" / name).read_text() == text
    assert [entry.captions for entry in listing(tmp_path).entries] == [("a dog",)]
    editor.undo()
    assert [entry.captions for entry in listing(tmp_path).entries] == [("a cat",)]
