"""`sd-lora caption` with a tiny model: what is written, what is kept, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image
from small_captioners import write_captioner
from typer.testing import CliRunner, Result

from sd_lora.commands.folders import caption
from sd_lora.errors import ConfigError, DataError, SdLoraError
from sd_lora.models.captioner import Captioner
from sd_lora.tools import caption as tool
from sd_lora.tools.caption import CaptionReport, caption_folder

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_captioner("blip", tmp_path_factory.mktemp("captioners") / "blip")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images, of which ``b.png`` has a caption."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in {"a.png": "red", "b.png": "green", "c.jpg": "blue"}.items():
        Image.new("RGB", (40, 30), colour).save(folder / name)
    (folder / "b.txt").write_text("mine, as a watercolour\n", "utf-8")
    return folder


@pytest.fixture
def says(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Let every model say a given text."""

    def say(text: str) -> None:
        monkeypatch.setattr(Captioner, "describe", lambda _, images: [text] * len(images))

    return say


@pytest.fixture
def run() -> Run:
    app = typer.Typer()
    app.command()(caption)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


def draft(folder: Path, model: Path, **options: Any) -> CaptionReport:
    return caption_folder(folder, str(model), device="cpu", **options)


def captions_of(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text("utf-8") for file in sorted(folder.glob("*.txt"))}


def test_images_without_a_caption_get_one_and_the_others_keep_theirs(photos: Path, blip: Path, run: Run) -> None:
    mine = photos / "b.txt"
    os.utime(mine, ns=(10**18, 10**18))
    before = mine.read_bytes(), mine.stat().st_mtime_ns
    result = run(photos, "--model", blip, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert (mine.read_bytes(), mine.stat().st_mtime_ns) == before
    found = captions_of(photos)
    assert list(found) == ["a.txt", "b.txt", "c.txt"]
    for name in ("a.txt", "c.txt"):
        assert found[name].strip()
        assert found[name].count("\n") == 1
        assert found[name].endswith("\n")
        assert found[name].strip() in result.output
    assert "wrote 2 captions and kept 1" in result.output
    assert sorted(p.name for p in photos.iterdir()) == ["a.png", "a.txt", "b.png", "b.txt", "c.jpg", "c.txt"]


def test_a_second_run_writes_nothing_and_loads_nothing(
    photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft(photos, blip)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in photos.iterdir()}
    monkeypatch.setattr(Captioner, "open", lambda *_: pytest.fail("there is nothing to describe"))
    report = draft(photos, blip)
    assert (report.written, report.refused) == ([], [])
    assert report.kept == ["a.png", "b.png", "c.jpg"]
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in photos.iterdir()} == before


def test_any_caption_file_keeps_its_image_from_being_captioned(
    photos: Path, blip: Path, says: Callable[[str], None]
) -> None:
    says("a new one")
    (photos / "a.caption").write_text("old", "utf-8")
    (photos / "C.TXT").write_text("old", "utf-8")
    report = draft(photos, blip)
    assert report.written == []
    assert report.kept == ["a.png", "b.png", "c.jpg"]


@pytest.mark.parametrize("name", ["a.json", "a.tags", "a.caption.txt"])
def test_a_caption_that_is_read_from_another_file_is_kept(
    name: str, photos: Path, blip: Path, says: Callable[[str], None]
) -> None:
    (photos / name).write_text('"mine"', "utf-8")
    says("a draft")
    report = draft(photos, blip)
    assert report.kept == ["a.png", "b.png"]
    assert not (photos / "a.txt").exists()


def test_images_of_a_folder_with_a_table_of_its_own_are_left_alone(
    photos: Path, blip: Path, says: Callable[[str], None]
) -> None:
    (photos / "reg").mkdir()
    Image.new("RGB", (40, 30), "red").save(photos / "reg" / "d.png")
    (photos / "reg" / "metadata.jsonl").write_text(json.dumps({"file_name": "d.png", "text": "mine"}), "utf-8")
    says("a draft")
    assert [name for name, _ in draft(photos, blip).written] == ["a.png", "c.jpg"]
    assert not (photos / "reg" / "d.txt").exists()


def test_style_words_are_left_out_of_drafts_and_told(
    photos: Path, blip: Path, says: Callable[[str], None], run: Run
) -> None:
    says("a watercolor painting of a žlutý kůň")
    result = run(photos, "--model", blip)
    assert (photos / "a.txt").read_bytes() == "a žlutý kůň\n".encode()
    assert "a.png  a žlutý kůň  (left out: watercolor painting)" in result.output


def test_style_words_can_be_kept_and_a_prefix_comes_first(
    photos: Path, blip: Path, says: Callable[[str], None]
) -> None:
    says("a watercolor painting of a cat")
    report = draft(photos, blip, keep_style=True, prefix=" [trigger], ")
    assert (photos / "a.txt").read_text("utf-8") == "[trigger], a watercolor painting of a cat\n"
    assert report.removed == {}


@pytest.mark.parametrize(
    ("text", "said"), [("a watercolor painting", 'nothing but "a watercolor painting"'), (" ", "")]
)
def test_a_draft_that_says_nothing_is_refused(
    text: str, said: str, photos: Path, blip: Path, says: Callable[[str], None]
) -> None:
    says(text)
    report = draft(photos, blip)
    assert report.written == []
    assert [name for name, _ in report.refused] == ["a.png", "c.jpg"]
    assert said in report.refused[0][1]
    assert "write a caption yourself" in report.refused[0][1]
    assert list(captions_of(photos)) == ["b.txt"]


def test_a_dry_run_shows_the_captions_and_writes_nothing(photos: Path, blip: Path, run: Run) -> None:
    result = run(photos, "--model", blip, "--dry-run", "--json")
    found = json.loads(result.stdout)
    assert [row["file"] for row in found["written"]] == ["a.png", "c.jpg"]
    assert all(row["caption"] for row in found["written"])
    assert found["dry_run"] is True
    assert found["kept"] == ["b.png"]
    assert list(captions_of(photos)) == ["b.txt"]


def test_what_cannot_be_captioned_is_told_and_the_others_are_written(photos: Path, blip: Path, run: Run) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    (photos / "empty.png").write_bytes((photos / "a.png").read_bytes())
    (photos / "empty.txt").write_bytes(b" \n")
    (photos / "odd.png").write_bytes((photos / "a.png").read_bytes())
    (photos / "odd.caption").write_bytes(b"\0\0\0")
    result = run(photos, "--model", blip, "--json")
    assert result.exit_code == 2
    assert "3 of 6 images" in result.stderr
    found = json.loads(result.stdout)
    reasons = {row["file"]: row["reason"] for row in found["refused"]}
    assert "no image" in reasons["broken.png"]
    assert "empty.txt is empty; remove it" in reasons["empty.png"]
    assert "odd.caption cannot be read" in reasons["odd.png"]
    assert all(name in result.stderr for name in reasons)
    assert [row["file"] for row in found["written"]] == ["a.png", "c.jpg"]
    assert (photos / "empty.txt").read_bytes() == b" \n"
    assert not (photos / "odd.txt").exists()


def test_images_of_one_stem_get_a_file_each(photos: Path, blip: Path, says: Callable[[str], None]) -> None:
    says("a cat")
    (photos / "a.JPG").write_bytes((photos / "c.jpg").read_bytes())
    (photos / "b.jpg").write_bytes((photos / "c.jpg").read_bytes())  # b.txt is its caption too
    draft(photos, blip)
    assert {"a.png.txt", "a.JPG.txt"} <= captions_of(photos).keys()
    assert not {"a.txt", "b.jpg.txt", "b.png.txt"} & captions_of(photos).keys()
    assert draft(photos, blip).written == []


def test_masks_are_no_images_and_folders_within_are_read(photos: Path, blip: Path, says: Callable[[str], None]) -> None:
    says("a cat")
    Image.new("L", (40, 30)).save(photos / "a_mask.png")
    (photos / "more").mkdir()
    Image.new("RGB", (40, 30)).save(photos / "more" / "d.png")
    report = draft(photos, blip)
    assert [name for name, _ in report.written] == ["a.png", "c.jpg", "more/d.png"]
    assert (photos / "more" / "d.txt").read_text("utf-8") == "a cat\n"


def test_the_name_of_a_kohya_folder_is_no_caption_file(tmp_path: Path, blip: Path, says: Callable[[str], None]) -> None:
    says("a cat")
    folder = tmp_path / "set" / "10_ink"
    folder.mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    assert draft(tmp_path / "set", blip).written == [("10_ink/a.png", "a cat")]
    assert (folder / "a.txt").is_file()


def test_a_caption_written_meanwhile_is_kept(photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def describe(self: Captioner, images: list[Any]) -> list[str]:
        (photos / "a.txt").write_text("faster", "utf-8")
        return ["a cat"]

    monkeypatch.setattr(Captioner, "describe", describe)
    report = draft(photos, blip)
    assert (photos / "a.txt").read_text("utf-8") == "faster"
    assert sorted(report.kept) == ["a.png", "b.png"]
    assert report.written == [("c.jpg", "a cat")]


@pytest.mark.parametrize("meanwhile", [False, True])
def test_where_there_are_no_links_nothing_is_overwritten_either(
    meanwhile: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", fail)
    file = tmp_path / "a.txt"
    if meanwhile:
        file.write_text("faster", "utf-8")
    assert tool._write_new(file, "a cat") is not meanwhile
    assert file.read_text("utf-8") == ("faster" if meanwhile else "a cat\n")
    assert list(tmp_path.iterdir()) == [file]


def test_a_place_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    with pytest.raises(SdLoraError, match=r"a\.txt cannot be written"):
        tool._write_new(tmp_path / "gone" / "a.txt", "a cat")


def test_what_was_written_stays_when_a_run_is_ended(photos: Path, blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(["a cat"])
    monkeypatch.setattr(Captioner, "describe", lambda *_: [next(said)])
    with pytest.raises(StopIteration):
        draft(photos, blip)
    assert (photos / "a.txt").read_text("utf-8") == "a cat\n"
    assert not (photos / "c.txt").exists()


def test_progress_counts_what_is_described(photos: Path, blip: Path, says: Callable[[str], None]) -> None:
    says("a cat")
    seen: list[tuple[int, int]] = []
    draft(photos, blip, watch=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_captions_of_a_table_are_not_touched(photos: Path, blip: Path) -> None:
    (photos / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a cat"}\n', "utf-8")
    with pytest.raises(DataError, match="metadata table, which is never rewritten"):
        draft(photos, blip)
    assert list(captions_of(photos)) == ["b.txt"]


def test_a_folder_without_images_is_told(tmp_path: Path, blip: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        draft(tmp_path / "empty", blip)
    with pytest.raises(DataError, match="does not exist"):
        draft(tmp_path / "gone", blip)


def test_without_a_model_it_is_told_what_to_name(photos: Path, run: Run) -> None:
    result = run(photos)
    assert isinstance(result.exception, ConfigError)
    assert all(word in str(result.exception) for word in ("--model", "folder", "hub", "BLIP", "Florence-2"))


def test_a_device_that_is_none_is_refused(photos: Path, blip: Path, run: Run) -> None:
    result = run(photos, "--model", blip, "--device", "toaster")
    assert isinstance(result.exception, ConfigError)
    assert "toaster" in str(result.exception)


def test_a_caption_that_cannot_be_written_does_not_keep_the_others_from_it(
    photos: Path, blip: Path, says: Callable[[str], None]
) -> None:
    """Beside another image of its stem it would be NAME.png.txt, which is too long a name."""
    says("a cat")
    for suffix in (".png", ".jpg"):
        (photos / f"{'a' * 251}{suffix}").write_bytes((photos / "a.png").read_bytes())
    report = draft(photos, blip)
    assert [name for name, _ in report.written] == ["a.png", "c.jpg"]
    assert [name for name, _ in report.refused] == [f"{'a' * 251}.jpg", f"{'a' * 251}.png"]
    assert "file name too long" in report.refused[0][1]
