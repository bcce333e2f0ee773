"""The Dataset tab: hostile uploads, names and ids change nothing; drafts are not lost; names and captions are text."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from PIL import Image
from sd_lora.webui import dataset_checker, dataset_report, dataset_tab, dataset_upload
from sd_lora.webui.dataset_desk import Visit
from sd_lora.webui.site import Site
from sd_lora.webui.telling import telling

import sd_lora
from sd_lora.config import RunConfig
from sd_lora.data.listing import list_folder

SCRIPT, HOSTILE = '<script>alert(1)</script> & "x"', "<img src=x onerror=alert(1)>.png"
IDS = """
choice reload trigger check upload name create add status summary duplicates findings buckets gallery picture-name
picture caption tokens previous next save undo discard told drafts
"""
Write = Callable[..., Path]


def count(text: str) -> tuple[int, int]:
    return len(text.split()) + 2, 8


@pytest.fixture
def site(tmp_path: Path) -> Site:
    service: Any = SimpleNamespace(token_count=count, base="tiny")
    (tmp_path / "data").mkdir()
    return Site(service, tmp_path / "runs", tmp_path / "data", tmp_path / "work")


@pytest.fixture(scope="module")
def one_tab() -> Any:
    """The components, which take long to build."""
    service: Any = SimpleNamespace(token_count=count, base="tiny")
    with gr.Blocks():
        return dataset_tab._Tab(Site(service, Path("runs"), Path("nowhere"), Path("work")))


@pytest.fixture
def tab(one_tab: Any, site: Site) -> Any:
    one_tab.site = one_tab.captions.site = one_tab.checker._site = site
    return one_tab


@pytest.fixture
def folder(captioned: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three captioned pictures in the dataset ``ink``, which checks look at without a base model."""

    def look(config: RunConfig, *, thumbnails: bool, watch: Any) -> sd_lora.Check:
        listing = list_folder(config.data)
        watch(len(listing.entries), len(listing.entries))
        rows = [sd_lora.check.model.ImageRow(e.name, e.captions or ("",), 64, 64, b"jpeg") for e in listing.entries]
        return sd_lora.Check(config.data.folder, listing.layout, listing.summary, rows, listing.findings, None)

    monkeypatch.setattr(dataset_checker, "check_folder", look)
    return captioned("data/ink", count=3, size=16)


def opened(tab: Any, name: str = "ink") -> tuple[str, Visit, dict[Any, Any]]:
    """A dataset checked: its id, the visit and the last updates."""
    identity = dict(tab.choices())[name]
    visit = tab.on_choose(identity, None, "", "", "")[tab.visit]
    *_, last = tab.on_check(identity, visit, "", "", "")
    return identity, visit, last


def value(update: Any) -> Any:
    return update["value"] if isinstance(update, dict) else update


def png(path: Path, size: tuple[int, int] = (16, 16)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.radial_gradient("L").resize(size).save(path, "PNG")
    return path


def uploads(tmp_path: Path, *names: str | tuple[str, bytes]) -> list[str]:
    """Uploaded files, each in a folder of its own as Gradio keeps them."""
    files = []
    for number, given in enumerate(names):
        name, content = given if isinstance(given, tuple) else (given, None)
        path = tmp_path / "uploads" / str(number) / name
        png(path)
        if content is not None or path.suffix in dataset_upload.TEXTS:
            path.write_bytes(b"a cat" if content is None else content)
        files.append(str(path))
    return files


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(updates: Callable[[], Any]) -> str:
    with pytest.raises(sd_lora.SdLoraError) as caught:
        list(updates() or ())
    assert str(caught.value).isprintable()
    return str(caught.value)


# ---- what is on the page


def test_components_can_be_found_and_no_event_is_public(site: Site) -> None:
    with gr.Blocks() as page:
        dataset_tab.build(site)
    found = {getattr(block, "elem_id", None) for block in page.blocks.values()}
    assert {f"dataset-{name}" for name in IDS.split()} <= found
    assert page.fns
    assert all(event.api_visibility == "private" for event in page.fns.values())
    assert dataset_tab.STYLES.is_file()


def test_a_real_check_is_shown_and_all_that_files_say_is_text(tab: Any, site: Site, captioned: Write) -> None:
    folder = captioned("data/ink", count=3)
    (folder / "00.txt").write_text(f"{SCRIPT}\n")
    (folder / HOSTILE).write_bytes((folder / "01.png").read_bytes())
    (folder / f"{HOSTILE[:-4]}.txt").write_text("a house\na red house\n")
    (folder / "02.txt").unlink()
    identity = dict(tab.choices())["ink"]
    updates = list(tab.on_check(identity, None, "", "", "xlora"))
    assert "loading" in updates[0][tab.status]
    shown = updates[-1]
    html = "".join(shown[part] for part in (tab.summary, tab.found, tab.duplicates, tab.buckets, tab.captions.tokens))
    assert not re.search(r"<(?!/?(div|p|ul|li|section|h4|span|code|table|caption|thead|tbody|tr|th|td|img)\b)", html)
    assert not re.search(r"<img (?!src=\"data:image/jpeg;base64)", html)
    for text in ("1 error", "caption-missing", "Duplicates", "400 steps of 8", "64 × 64", "&lt;img src=x onerror"):
        assert text in html
    assert str(site.data) not in html
    names = [label for _, label in value(shown[tab.captions.gallery])]
    assert names[0].startswith("00.png · <script>alert(1)</script>")  # cut as it is trained
    assert names[-1].startswith(f"2× · {HOSTILE}")
    for path, _ in value(shown[tab.captions.gallery]):
        assert Path(path).is_relative_to(site.work)
    assert isinstance(shown[tab.captions.picture], Image.Image)
    assert shown[tab.captions.shown] == "00.png"
    assert value(shown[tab.captions.caption]) == SCRIPT


def test_other_texts_are_text_too() -> None:
    hostile = dataset_report.drafts_html([HOSTILE] * 9) + dataset_report.told_html(HOSTILE, 0.5)
    assert "<img" not in hostile
    assert "and 1 more" in hostile
    assert "&lt;img" in str(telling_message(HOSTILE))


def test_where_a_folder_lies_is_left_out() -> None:
    found = sd_lora.Finding("no-images", None, "no images to learn from in /srv/secret/ink or below it")
    check = sd_lora.Check("/srv/secret/ink", "bare", "no images in /srv/secret/ink", [], [found], None)
    html = dataset_report.findings_html(check) + dataset_report.summary_html(check)
    assert "no images to learn from in ink or below it" in html
    assert "secret" not in html
    assert dataset_report.buckets_html(check) == dataset_report.duplicates_html(check) == ""


def telling_message(name: str) -> str:
    def fails() -> None:
        dataset_upload.folder_name(name, ())

    with pytest.raises(gr.Error) as caught:
        telling(fails)()
    return str(caught.value.message)


def test_tokens_are_counted_as_they_will_be_trained(tab: Any, folder: Path) -> None:
    _, visit, _ = opened(tab)
    on_type = tab.captions.on_type
    visit.known().bases["00.png"] = "a b"
    assert "4 of 8 tokens<" in on_type(visit, "00.png", "a b", "")
    assert "7 of 8 tokens · not saved" in on_type(visit, "00.png", "a  b", "xyz ")  # "in xyz style" is added
    assert "line 2: 9 of 8 tokens; the end is not read" in on_type(visit, "00.png", "a\n1 2 3 4 5 6 7", "")
    assert "no caption" in on_type(visit, "00.png", " \n ", "")
    assert on_type(None, "00.png", "a", "") == on_type(visit, "no.png", "a", "") == ""


def test_the_service_counts_as_training_does() -> None:
    pipe, family = sd_lora.load_base("tiny")
    service = sd_lora.PreviewService(pipe)
    try:
        texts = ["", "a red house", "漢字 😀 " * 40]
        assert [service.token_count(text)[0] for text in texts] == family.token_counts(pipe, texts)
        assert service.token_count("")[1] == family.token_limit(pipe)
        assert service._tokenizers[0] is not pipe.tokenizer  # that one is the drawing thread's
    finally:
        service.close()


# ---- uploads


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["a.png", ".hidden.png"], "hidden: .hidden.png"),
        (["  .png"], "hidden"),
        (["a\\..\\b.png"], "a path"),
        (["CON.png"], "a device: CON.png"),
        (["com1.x.png", "com1.x.txt"], "a device: com1.x.png, com1.x.txt"),
        (["a.png", "A.PNG"], "given twice: A.PNG"),
        (["caf\u00e9.png", "cafe\u0301.png"], "given twice"),
        (["a?b.png", "a*b.png"], "given twice"),
        (["a.png", "a.svg"], "neither a picture nor .txt or .caption: a.svg"),
        (["a.png", "metadata.jsonl"], "neither a picture"),
        (["a.png", "a.png.html"], "neither a picture"),
        (["a.png", "noending"], "neither a picture"),
        ([HOSTILE + ".exe"], f"neither a picture nor .txt or .caption: {HOSTILE}.exe"),
        (["a.txt"], "only captions were given"),
        ([], "no files were given"),
    ],
)
def test_hostile_names_are_refused(tab: Any, site: Site, tmp_path: Path, names: list[str], why: str) -> None:
    assert why in refusal(lambda: tab.on_create("new", uploads(tmp_path, *names)))
    assert everything(site.data) == {}
    assert os.listdir(site.data) == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("a.png", b"<svg onload='alert(1)'></svg>"), "a.png"),
        (("a.png", b""), "a.png"),
        (("a.gif", b"GIF89a" + b"\xff" * 40), "a.gif"),
        (("a.jpg", b"%!PS-Adobe (%pipe%id) file"), "a.jpg"),
        (("a.txt", b"x\0y"), "captions that are no text: a.txt"),
        (("a.txt", b"x" * 64_001), "captions over 64 kB: a.txt"),
        (("b.txt", bytes(range(1, 32)) * 9 + b"\xff\xfe\xfd"), "b.txt"),
    ],
)
def test_hostile_contents_are_refused(tab: Any, site: Site, tmp_path: Path, given: tuple[str, bytes], why: str) -> None:
    assert why in refusal(lambda: tab.on_create("new", uploads(tmp_path, "b.png", given)))
    assert os.listdir(site.data) == []


def test_a_picture_bomb_is_refused_unopened(tab: Any, site: Site, tmp_path: Path) -> None:
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    bomb = ("a.png", b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xaeB`\x82")
    assert "a.png" in refusal(lambda: tab.on_create("new", uploads(tmp_path, bomb)))
    assert os.listdir(site.data) == []


def test_too_many_too_large_and_links(
    tab: Any, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    files = uploads(tmp_path, "a.png")
    assert "201 files were given, and 200 are taken" in refusal(lambda: tab.on_create("new", files * 201))
    link = tmp_path / "uploads" / "link.png"
    link.symlink_to(files[0])
    assert "no file: link.png" in refusal(lambda: tab.on_create("new", [str(link)]))
    assert "no file: gone.png" in refusal(lambda: tab.on_create("new", ["/etc/gone.png"]))
    monkeypatch.setattr(dataset_upload, "MOST_BYTES", 10)
    assert "MB are taken at once" in refusal(lambda: tab.on_create("new", files))
    assert os.listdir(site.data) == []


@pytest.mark.parametrize(
    "name", ["", "  ", ".hidden", "..", "a/b", "/etc", "a\\b", "nul", "COM1.x", 'a"b', "a\0b", "a\u202eb", "dot.",
             "x" * 61, "INK", "<script>"],
)  # fmt: skip
def test_names_that_no_dataset_can_have(tab: Any, site: Site, tmp_path: Path, folder: Path, name: str) -> None:
    before = everything(site.data)
    assert "name" in refusal(lambda: tab.on_create(name, uploads(tmp_path, "a.png")))
    assert everything(site.data) == before
    assert os.listdir(site.data) == ["ink"]


def test_a_new_dataset(tab: Any, site: Site, tmp_path: Path) -> None:
    long = "漢" * 80
    given = [
        "a?b <1>.PNG",
        "a?b <1>.txt",
        f"{long}.png",
        f"{long}.txt",
        "ü.caption",
        "ü.webp",
        ("c.txt", b"\xff\xfec\0"),
    ]
    *_, last = tab.on_create(" ink  wash ", uploads(tmp_path, *given))
    stored = everything(site.data / "ink  wash")
    assert sorted(stored) == sorted(["a_b _1_.png", "a_b _1_.txt", f"{'漢' * 50}.png", f"{'漢' * 50}.txt", "ü.caption",
                                     "ü.webp", "c.txt"])  # fmt: skip
    assert os.listdir(site.data) == ["ink  wash"]
    assert last[tab.dataset]["value"] == dict(tab.choices())["ink  wash"]
    assert "7 files in the new dataset" in last[tab.status]
    editor = sd_lora.CaptionEditor(site.data / "ink  wash")
    assert {editor.read(name) for name in editor.names} == {"a cat"}


def test_pictures_are_added_or_none(
    tab: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    identity, before = dict(tab.choices())["ink"], everything(folder)
    assert "there already: 00.PNG" in refusal(lambda: tab.on_add(identity, uploads(tmp_path, "new.png", "00.PNG")))
    png(folder / "cafe\u0301.png")
    assert "there already" in refusal(lambda: tab.on_add(identity, uploads(tmp_path, "caf\u00e9.png")))
    (folder / "cafe\u0301.png").unlink()
    move = dataset_upload._move_new

    def fails_at_last(file: Path, target: Path) -> None:
        move(file, target)
        if file.name == "z.png":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset_upload, "_move_new", fails_at_last)
    assert "no space left" in refusal(lambda: tab.on_add(identity, uploads(tmp_path, "y.png", "z.txt", "z.png")))
    assert {k: v for k, v in everything(folder).items() if k != "z.png"} == before
    (folder / "z.png").unlink(missing_ok=True)
    monkeypatch.setattr(dataset_upload, "_move_new", move)
    *_, last = tab.on_add(identity, uploads(tmp_path, "y.png", "y.txt"))
    assert everything(folder).keys() - before.keys() == {"y.png", "y.txt"}
    assert "2 files added to ink" in last[tab.status]


def test_what_came_between_is_not_overwritten(tab: Any, site: Site, tmp_path: Path) -> None:
    creating = tab.on_create("new", uploads(tmp_path, "a.png"))
    next(creating)
    (site.data / "new").mkdir()
    assert "that is taken" in refusal(lambda: creating)
    assert os.listdir(site.data) == ["new"]
    adding = tab.on_add(dict(tab.choices())["new"], uploads(tmp_path, "a.png"))
    next(adding)
    (site.data / "new" / "a.png").write_text("theirs")
    assert "nothing was stored" in refusal(lambda: adding)
    assert everything(site.data) == {"new/a.png": b"theirs"}


def test_what_a_killed_server_left_is_swept(tab: Any, site: Site, tmp_path: Path) -> None:
    old, young = site.data / ".new-1", site.data / ".new-2"
    png(old / "a.png")
    png(young / "a.png")
    os.utime(old, (0, 0))
    list(tab.on_create("new", uploads(tmp_path, "a.png")))
    assert not old.exists()
    assert young.exists()


# ---- ids and names from browsers


@pytest.mark.parametrize("identity", [None, "", "../../etc", "0" * 12, "/etc"])
def test_unknown_datasets_are_refused(tab: Any, folder: Path, tmp_path: Path, identity: str | None) -> None:
    assert "dataset" in refusal(lambda: tab.on_check(identity, None, "", "", ""))
    assert "dataset" in refusal(lambda: tab.on_add(identity, uploads(tmp_path, "a.png")))
    if identity:
        assert "dataset" in refusal(lambda: tab.on_choose(identity, None, "", "", ""))
    assert tab.on_reload(identity)["value"] is None


@pytest.mark.parametrize("name", ["", "../ink/00.png", "/etc/passwd", "00.txt", "03.png"])
def test_unknown_pictures_are_refused(tab: Any, folder: Path, name: str) -> None:
    _, visit, _ = opened(tab)
    before = everything(folder.parent)
    assert "no picture is chosen" in refusal(lambda: tab.captions.on_save(visit, name, "x", ""))
    assert "no picture is chosen" in refusal(lambda: tab.captions.on_discard(visit, name, "x", ""))
    tab.captions.on_next(visit, name, "x", "")
    assert visit.known().drafts == {}
    assert everything(folder.parent) == before


@pytest.mark.parametrize("index", [-1, 3, 10**9, None, "0", [0], True, 1.0])
def test_a_place_that_is_none_is_refused(tab: Any, folder: Path, index: Any) -> None:
    _, visit, _ = opened(tab)
    event: Any = SimpleNamespace(index=index)
    if index is not True:  # which is 1
        assert "not there any more" in refusal(lambda: tab.captions.on_select(visit, "00.png", "", "", event))


def test_without_a_dataset_nothing_happens(tab: Any) -> None:
    for handler in (tab.captions.on_save, tab.captions.on_undo, tab.captions.on_discard, tab.captions.on_next):
        assert "check it first" in refusal(lambda handler=handler: handler(None, "00.png", "x", ""))


# ---- captions


def test_drafts_are_not_lost(tab: Any, folder: Path, captioned: Write) -> None:
    identity, visit, shown = opened(tab)
    words = tab.captions
    first = value(shown[words.caption])
    saved = (folder / "00.txt").read_bytes()
    shown = words.on_next(visit, "00.png", "a draft", "")
    assert shown[words.shown] == "01.png"
    assert "not saved: <span" in shown[words.drafts]
    assert value(shown[words.gallery])[0][1].startswith("✎ 00.png")
    event: Any = SimpleNamespace(index=0)
    second = value(shown[words.caption])
    shown = words.on_select(visit, "01.png", second, "", event)
    assert value(shown[words.caption]) == "a draft"
    assert "value" not in shown[words.gallery]  # marks are as they were
    assert set(words.on_select(visit, "00.png", "typed since", "", event)) == {words.shown}
    captioned("data/other", count=1, size=16)
    other = dict(tab.choices())["other"]
    assert tab.on_choose(other, visit, "00.png", "a draft, longer", "")[words.caption] == ""
    *_, shown = tab.on_check(other, visit, "", "", "")
    assert "not saved" not in shown[words.drafts]
    tab.on_choose(identity, visit, "00.png", "of the other", "")
    *_, shown = tab.on_check(identity, visit, "", "", "")
    assert value(shown[words.caption]) == "a draft, longer"
    assert (folder / "00.txt").read_bytes() == saved
    assert words.on_save(visit, "00.png", "a draft, longer", "")[words.drafts] == '<div class="drafts"></div>'
    assert (folder / "00.txt").read_text() == "a draft, longer\n"
    shown = words.on_undo(visit, "00.png", "a draft, longer", "")
    assert value(shown[words.caption]) == first
    assert (folder / "00.txt").read_bytes() == saved


def test_undo_shows_its_picture_and_keeps_what_is_not_saved(tab: Any, folder: Path) -> None:
    _, visit, _ = opened(tab)
    words = tab.captions
    words.on_save(visit, "02.png", "two", "")
    words.on_next(visit, "02.png", "two, not saved", "")
    shown = words.on_undo(visit, "00.png", "zero, not saved", "")
    assert shown[words.shown] == "02.png"
    assert value(shown[words.caption]) == "two, not saved"
    assert "kept here" in shown[words.told]
    assert "00.png, 02.png" in shown[words.drafts]
    assert "nothing was written" in refusal(lambda: words.on_undo(visit, "02.png", "two, not saved", ""))
    shown = words.on_discard(visit, "02.png", "two, not saved", "")
    assert value(shown[words.caption]) == (folder / "02.txt").read_text().strip()
    assert words.on_previous(visit, "00.png", "", "")[words.shown] == "02.png"


def test_what_others_changed_is_told(tab: Any, folder: Path) -> None:
    _, visit, _ = opened(tab)
    words = tab.captions
    (folder / "00.txt").write_text("theirs")
    assert "Discard shows what is there" in refusal(lambda: words.on_save(visit, "00.png", "mine", ""))
    assert (folder / "00.txt").read_text() == "theirs"
    assert visit.known().drafts["00.png"].text == "mine"
    assert value(words.on_discard(visit, "00.png", "mine", "")[words.caption]) == "theirs"
    assert "saved" in words.on_save(visit, "00.png", "mine", "")[words.told]
    assert "is that already" in words.on_save(visit, "00.png", "mine", "")[words.told]


def test_a_second_check_keeps_what_is_typed_and_what_can_be_undone(tab: Any, folder: Path) -> None:
    identity, visit, _ = opened(tab)
    words = tab.captions
    before = (folder / "00.txt").read_bytes()
    words.on_save(visit, "00.png", "saved", "")
    (folder / "02.png").unlink()
    *_, shown = tab.on_check(identity, visit, "00.png", "typed", "")
    assert words.caption not in shown  # the field stays, with what was typed meanwhile
    assert words.shown not in shown
    assert len(value(shown[words.gallery])) == 2
    assert words.on_next(visit, "00.png", "typed, longer", "")[words.shown] == "01.png"
    assert visit.known().drafts["00.png"].text == "typed, longer"
    words.on_undo(visit, "01.png", visit.known().bases["01.png"], "")
    assert (folder / "00.txt").read_bytes() == before


def test_a_check_of_a_dataset_that_is_left_changes_nothing(tab: Any, folder: Path, captioned: Write) -> None:
    captioned("data/other", count=1, size=16)
    ids = dict(tab.choices())
    visit = tab.on_choose(ids["ink"], None, "", "", "")[tab.visit]
    checking = tab.on_check(ids["ink"], visit, "", "", "")
    next(checking)
    tab.on_choose(ids["other"], visit, "", "", "")
    assert set(list(checking)[-1]) == {tab.status}
    assert visit.desk is None


def test_captions_that_cannot_be_edited_are_shown(tab: Any, folder: Path) -> None:
    (folder / "set.toml").write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir='.'\n")
    _, visit, shown = opened(tab)
    words = tab.captions
    assert shown[words.caption]["interactive"] is False
    assert "dataset file" in shown[words.told]
    assert "dataset file" in refusal(lambda: words.on_save(visit, "00.png", "x", ""))
    assert words.on_next(visit, "00.png", "x", "")[words.shown] == "01.png"


def test_one_check_at_a_time_and_errors_take_the_bar_away(
    tab: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    identity, begun, go = dict(tab.choices())["ink"], threading.Event(), threading.Event()
    looked = dataset_checker.check_folder

    def slow(*args: Any, **options: Any) -> Any:
        begun.set()
        assert go.wait(20)
        return looked(*args, **options)

    monkeypatch.setattr(dataset_checker, "check_folder", slow)
    first = tab.checker.check(folder, "")
    started = threading.Thread(target=lambda: list(first))
    started.start()
    assert begun.wait(20)
    try:
        second = tab.on_check(identity, None, "", "", "")
        next(second)
        assert 'class="bar"' not in next(second)[tab.status]
        assert "another dataset is being checked" in refusal(lambda: second)
    finally:
        go.set()
        started.join()
    assert "comma" in refusal(lambda: tab.on_check(identity, None, "", "", "a, b"))
    monkeypatch.setattr(dataset_checker, "check_folder", looked)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    assert "not there any more" in refusal(lambda: tab.on_check(identity, None, "", "", ""))
