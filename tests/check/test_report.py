"""The page of a check: everything found is on it, it needs nothing from elsewhere, and text stays text."""

from __future__ import annotations

import base64
import os
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image
from rows import every_row
from typer.testing import CliRunner

from sd_lora.check.quality import thumbnail
from sd_lora.check.report import write_report
from sd_lora.check.result import BucketRow, Check, ImageRow, Plan, duration
from sd_lora.commands.app import app
from sd_lora.data.findings import CODES, Finding
from sd_lora.errors import ConfigError, SdLoraError

PICTURE = thumbnail(Image.new("RGB", (30, 20), "teal"))
HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><svg/onload=alert(1)>', "{{ 7 * 7 }}{% raw %}",
    "javascript:alert(1)", "</style><script>1</script>", "</title><script>1</script>", "&lt;b&gt;", "a\u202egnp.exe",
    "' onmouseover='alert(1)", "]]><!--", "قطة تجلس على كرسي", "\udcff\udcfe",
]  # fmt: skip


class Page(HTMLParser):
    """The elements, attributes and text of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self.html = path.read_text("utf-8")
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def values(self, *names: str) -> list[str]:
        return [value or "" for _, name, value in self.attributes if name in names]


def row(name: str, caption: str = "a cat", picture: bytes | None = PICTURE) -> ImageRow:
    return ImageRow(name, (caption,), 30, 20, picture)


def check(rows: list[ImageRow], findings: list[Finding], *, folder: str = "/data/photos") -> Check:
    plan = Plan(len(rows), 1200, 300, 4, (BucketRow(64, 48, len(rows), 1200),), 95.0, 3 * 2**30, "three steps here")
    return Check(folder, "sidecars", f"{len(rows)} images with captions beside them", rows, findings, plan)


def page_of(tmp_path: Path, what: Check) -> Page:
    write_report(what, tmp_path / "check.html")
    return Page(tmp_path / "check.html")


def test_all_that_was_found_is_on_the_page(tmp_path: Path) -> None:
    files = [f"{i}.png" for i in range(len(CODES))]
    found = [Finding(code, file, f"detail of {code}") for code, file in zip(CODES, files, strict=True)]
    page = page_of(tmp_path, check([row(file, f"caption of {file}") for file in files], found))
    for code, file in zip(CODES, files, strict=True):
        assert code in page.values("id")
        assert f"detail of {code}" in page.text
        assert f"docs/findings.md#{code}" in page.text
        assert f"caption of {file}" in page.text
    for said in ("1,200", "300", "95 s", "3.0 GB", "64 × 48", "three steps here", "/data/photos"):
        assert said in page.text
    errors = sum(code.severity == "error" for code in CODES.values())
    assert f"{errors} errors" in page.text


def test_links_lead_somewhere_on_the_page(tmp_path: Path) -> None:
    found = [Finding("image-blurred", "a.png", "soft"), Finding("image-tiny", "gone.png", "small")]
    page = page_of(tmp_path, check([row("a.png"), row("b.png")], found))
    targets = [value[1:] for value in page.values("href") if value.startswith("#")]
    assert len(targets) == 2
    assert set(targets) <= set(page.values("id"))
    assert len(page.values("id")) == len(set(page.values("id")))


def test_the_page_needs_nothing_from_elsewhere_and_runs_nothing(tmp_path: Path) -> None:
    found = [Finding(code, "a.png", "detail") for code in CODES]
    page = page_of(tmp_path, check([row("a.png")], found))
    assert not {"script", "link", "iframe", "object", "embed", "form", "base", "video"} & set(page.tags)
    assert all(value.startswith("#") for value in page.values("href"))
    assert all(value.startswith("data:image/jpeg;base64,") for value in page.values("src", "srcset", "action"))
    assert not [name for _, name, _ in page.attributes if name.startswith("on") or name == "style"]
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", page.html)
    (policy,) = [value for value in page.values("content") if "default-src" in value]
    assert "default-src 'none'" in policy
    assert "script" not in policy


@every_row("text", HOSTILE)
def test_names_captions_and_details_are_text_wherever_they_stand(tmp_path: Path, text: str) -> None:
    def shown(folder: Path, word: str) -> Page:
        places = [("image-blurred", word), ("image-blurred", "b.png"), ("set-small", None)]
        found = [Finding(code, file, word) for code, file in places]
        folder.mkdir()
        return page_of(folder, check([row(word, word), row("b.png", word)], found, folder=f"/data/{word}"))

    hostile, usual = shown(tmp_path / "hostile", text), shown(tmp_path / "usual", "a")
    assert hostile.tags == usual.tags
    assert [(tag, name) for tag, name, _ in hostile.attributes] == [(tag, name) for tag, name, _ in usual.attributes]
    assert hostile.text.count(text.encode("utf-8", "replace").decode()) >= 6


def test_thumbnails_are_of_the_images_and_at_most_five_hundred(tmp_path: Path) -> None:
    page = page_of(tmp_path, check([row(f"{i}.png") for i in range(620)], []))
    sources = page.values("src")
    assert len(sources) == 500
    assert base64.b64decode(sources[0].split(",")[1]) == PICTURE
    assert "and 120 more" in page.text


def test_captions_in_any_script_choose_their_own_direction(tmp_path: Path) -> None:
    page = page_of(tmp_path, check([row("a.png", "قطة تجلس على كرسي")], []))
    assert ("p", "dir", "auto") in page.attributes


def test_a_folder_without_images_or_findings_has_a_page_too(tmp_path: Path) -> None:
    page = page_of(tmp_path, Check("/data/empty", "bare", "nothing", [], [], None))
    assert "no problems found" in page.text
    assert "img" not in page.tags


def test_many_findings_of_a_kind_are_folded(tmp_path: Path) -> None:
    page = page_of(tmp_path, check([], [Finding("image-blurred", f"{i}.png", "soft") for i in range(40)]))
    assert "40 images are blurred" in page.text
    assert "and 32 more" in page.text
    assert all(f"{i}.png" in page.text for i in range(40))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2.0 h"), (90000, "25.0 h")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_a_place_that_cannot_be_written_is_an_error_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SdLoraError) as error:
        write_report(check([], []), tmp_path / "file" / "check.html")
    assert "check.html" in str(error.value)


def test_the_command_writes_the_page_even_when_there_are_errors(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(4):
        Image.new("RGB", (64 + i, 64), (40 * i, 90, 200 - 40 * i)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(f"picture {i}", "utf-8")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "broken.txt").write_text("nothing", "utf-8")
    page = tmp_path / "check.html"
    done = CliRunner().invoke(app, ["check", str(folder), "--base", "tiny", "--report", str(page)])
    assert done.exit_code == 2
    read = Page(page)
    assert "broken.png" in read.text
    assert "image-unreadable" in read.text
    assert len(read.values("src")) == 4


@every_row("name", ["a0.png", "notes", "a.html.txt", "pipe.html", "folder.html", "link.html", "no/a.html"])
def test_nothing_but_a_page_is_replaced_by_a_report(name: str, tmp_path: Path) -> None:
    (tmp_path / "a0.png").write_bytes(PICTURE)
    os.mkfifo(tmp_path / "pipe.html")
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "link.html").symlink_to("a0.png")
    before = sorted((path, path.lstat()) for path in tmp_path.rglob("*"))
    done = CliRunner().invoke(app, ["check", str(tmp_path), "--report", str(tmp_path / name)])
    assert isinstance(done.exception, ConfigError)
    assert name in str(done.exception)
    with pytest.raises(ConfigError, match="--report is a page"):
        write_report(check([], []), tmp_path / name)
    assert sorted((path, path.lstat()) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["a.html", "A.HTM"])
def test_an_earlier_report_is_replaced(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("old")
    write_report(check([], []), tmp_path / name)
    assert "no problems found" in (tmp_path / name).read_text("utf-8")
