"""Uploads on the Dataset tab: hostile names and contents change nothing; all pictures are added or none."""

from __future__ import annotations

import os
import subprocess
import zipfile
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from dataset_pages import HOSTILE, everything, opened, png, refusal, uploads
from sd_lora.webui.dataset_notes import trigger_of
from sd_lora.webui.site import Site
from sd_lora.webui.tabs.dataset import intake as dataset_intake
from sd_lora.webui.tabs.dataset import upload as dataset_upload
from sd_lora.webui.tabs.dataset.intake import new_name

from sd_lora.data.editing.editor import CaptionEditor


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
    assert why in refusal(lambda: tab.on_create(uploads(tmp_path, *names), ""))
    assert everything(site.data) == {}
    assert os.listdir(site.data) == []


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (("a.png", b"<svg onload='alert(1)'></svg>"), "a.png"),
        (("a.png", b""), "a.png"),
        (("a.gif", b"GIF89a" + b"\xff" * 40), "a.gif"),
        (("a.jpg", b"%!PS-Adobe (%pipe%id) file"), "a.jpg"),
        (("a.txt", b"x\0y"), "captions that are not text: a.txt"),
        (("a.txt", b"x" * 64_001), "captions over 64 kB: a.txt"),
        (("b.txt", bytes(range(1, 32)) * 9 + b"\xff\xfe\xfd"), "b.txt"),
    ],
)
def test_hostile_contents_are_refused(tab: Any, site: Site, tmp_path: Path, given: tuple[str, bytes], why: str) -> None:
    assert why in refusal(lambda: tab.on_create(uploads(tmp_path, "b.png", given), ""))
    assert os.listdir(site.data) == []


def test_a_picture_bomb_is_refused_unopened(tab: Any, site: Site, tmp_path: Path) -> None:
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    bomb = ("a.png", b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT\x35\xaf\x06\x1e\0\0\0\0IEND\xaeB`\x82")
    assert "a.png" in refusal(lambda: tab.on_create(uploads(tmp_path, bomb), "new"))
    assert os.listdir(site.data) == []


def test_too_many_files_too_large_files_and_links_are_refused(
    tab: Any, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    files = uploads(tmp_path, "a.png")
    assert "201 files were given, but 200 are the most" in refusal(lambda: tab.on_create(files * 201, "new"))
    link = tmp_path / "uploads" / "link.png"
    link.symlink_to(files[0])
    assert "not a file: link.png" in refusal(lambda: tab.on_create([str(link)], "new"))
    assert "not a file: gone.png" in refusal(lambda: tab.on_create(["/etc/gone.png"], "new"))
    monkeypatch.setattr(dataset_upload, "MOST_BYTES", 10)
    assert "MB are the most at once" in refusal(lambda: tab.on_create(files, "new"))
    assert os.listdir(site.data) == []


@pytest.mark.parametrize(
    "name", ["", "  ", ".hidden", "..", "a/b", "/etc", "a\\b", "nul", "COM1.x", 'a"b', "a\0b", "a\u202eb", "dot.",
             "x" * 61, "INK", "<script>"],
)  # fmt: skip
def test_impossible_names_of_datasets_are_refused(
    tab: Any, site: Site, tmp_path: Path, folder: Path, name: str
) -> None:
    identity, visit, _ = opened(tab)
    before = everything(site.data)
    assert "name" in refusal(lambda: tab.on_rename(name, identity, visit, "", "", ""))
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
    *_, last = tab.on_create(uploads(tmp_path, *given), " ink  wash ")
    stored = everything(site.data / "ink  wash")
    assert sorted(stored) == sorted(["a_b _1_.png", "a_b _1_.txt", f"{'漢' * 50}.png", f"{'漢' * 50}.txt", "ü.caption",
                                     "ü.webp", "c.txt"])  # fmt: skip
    assert os.listdir(site.data) == ["ink  wash"]
    assert last[tab.dataset]["value"] == dict(tab.site.dataset_choices())["ink  wash"]
    assert "7 files in the new dataset ink  wash<" in last[tab.status]
    editor = CaptionEditor(site.data / "ink  wash")
    assert {editor.read(name) for name in editor.names} == {"a cat"}


def test_all_pictures_are_added_or_none(
    tab: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    identity, before = dict(tab.site.dataset_choices())["ink"], everything(folder)
    assert "in the dataset already: 00.PNG" in refusal(
        lambda: tab.on_add(identity, uploads(tmp_path, "new.png", "00.PNG"), "")
    )
    png(folder / "cafe\u0301.png")
    assert "in the dataset already" in refusal(lambda: tab.on_add(identity, uploads(tmp_path, "caf\u00e9.png"), ""))
    (folder / "cafe\u0301.png").unlink()
    move = dataset_upload._move_new

    def fails_at_last(file: Path, target: Path) -> None:
        move(file, target)
        if file.name == "z.png":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(dataset_upload, "_move_new", fails_at_last)
    assert "no space left" in refusal(lambda: tab.on_add(identity, uploads(tmp_path, "y.png", "z.txt", "z.png"), ""))
    assert {k: v for k, v in everything(folder).items() if k != "z.png"} == before
    (folder / "z.png").unlink(missing_ok=True)
    monkeypatch.setattr(dataset_upload, "_move_new", move)
    *_, last = tab.on_add(identity, uploads(tmp_path, "y.png", "y.txt"), "")
    assert everything(folder).keys() - before.keys() == {"y.png", "y.txt"}
    assert "2 files added to ink" in last[tab.status]


def test_files_created_meanwhile_are_not_overwritten(tab: Any, site: Site, tmp_path: Path) -> None:
    creating = tab.on_create(uploads(tmp_path, "a.png"), "new")
    next(creating)
    (site.data / "new").mkdir()
    list(creating)
    assert sorted(os.listdir(site.data)) == ["new", "new-2"]
    adding = tab.on_add(dict(tab.site.dataset_choices())["new"], uploads(tmp_path, "a.png"), "")
    next(adding)
    (site.data / "new" / "a.png").write_text("theirs")
    assert "nothing was stored" in refusal(lambda: adding)
    assert everything(site.data / "new") == {"a.png": b"theirs"}


def test_leftovers_of_a_killed_server_are_removed_when_the_next_one_starts(site: Site, tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    mine, killed, inside, odd = (
        site.data / name
        for name in (f".new-{os.getpid()}-a", f".new-{ended.pid}-b", f"ink/.new-{ended.pid}-c", ".new-x")
    )
    for folder in (mine, killed, inside, odd):
        png(folder / "a.png")
    dataset_upload.remove_leftovers(site.data)
    assert [folder.exists() for folder in (mine, killed, inside, odd)] == [True, False, False, False]


@pytest.mark.parametrize(
    ("files", "folder", "name"),
    [
        (["a.png", "b.png"], "My Ink", "My Ink"),
        (["ink.zip"], "", "ink"),
        (["a.png"], "", f"pictures {date.today():%Y-%m-%d}"),
        (["a.png"], "a:b?", "a-b-"),
        (["a.png"], "CON", "CON-2"),
        (["a.png"], "...", f"pictures {date.today():%Y-%m-%d}"),
        (["a.png"], "taken", "taken-2"),
        (["a.png", "ink.zip"], "", f"pictures {date.today():%Y-%m-%d}"),
    ],
)
def test_a_new_dataset_is_named_after_its_folder_its_archive_or_the_date(
    files: list[str], folder: str, name: str
) -> None:
    assert new_name(files, folder, ["Taken", "other"]) == name


def archive(path: Path, members: dict[str, bytes]) -> str:
    with zipfile.ZipFile(path, "w") as content:
        for name, data in members.items():
            content.writestr(name, data)
    return str(path)


def test_an_archive_is_unpacked_without_what_is_hidden(tab: Any, site: Site, tmp_path: Path) -> None:
    members = dict.fromkeys(("__MACOSX/ink/._a.png", "ink/.DS_Store", "ink/notes.pdf", "ink/Thumbs.db"), b"")
    members |= {"ink/deep/a.png": png(tmp_path / "a.png").read_bytes(), "ink/a.txt": b"a cat"}
    *_, last = tab.on_create([archive(tmp_path / "My Ink.zip", members)], "")
    assert everything(site.data / "My Ink").keys() == {"a.png", "a.txt"}
    assert "left out, as neither a picture nor a caption: notes.pdf<" in last[tab.status]
    assert os.listdir(site.work) == []


def test_a_folder_may_hold_other_files_and_they_are_named(tab: Any, site: Site, tmp_path: Path) -> None:
    *_, last = tab.on_create(uploads(tmp_path, "a.png", "metadata.jsonl", "b.psd"), "ink")
    assert everything(site.data / "ink").keys() == {"a.png"}
    assert "left out, as neither pictures nor captions: metadata.jsonl, b.psd" in last[tab.status]


@pytest.mark.parametrize("kind", ["broken", "bomb", "outside", "link", "encrypted", "many"])
def test_hostile_archives_store_nothing_outside(
    tab: Any, site: Site, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.zip"
    if kind == "broken":
        path.write_bytes(b"PK\3\4" + b"x" * 100)
    elif kind == "many":
        archive(path, {f"{i}.png": b"" for i in range(201)})
    elif kind == "bomb":
        monkeypatch.setattr(dataset_intake, "MOST_BYTES", 1000)
        archive(path, {"a.png": b"0" * 2000})
    elif kind == "encrypted":
        archive(path, {"a.png": b"0"})
        path.write_bytes(path.read_bytes().replace(b"\x14\0\0\0", b"\x14\0\1\0"))
    else:
        with zipfile.ZipFile(path, "w") as content:
            info = zipfile.ZipInfo("../../../evil.png")
            info.external_attr = (0o120777 << 16) if kind == "link" else 0
            content.writestr(info, b"/etc/passwd")
    assert refusal(lambda: tab.on_create([str(path)], ""))
    assert os.listdir(site.data) == os.listdir(site.work) == []
    assert not list(tmp_path.parent.rglob("evil.png"))


def test_a_dataset_is_renamed_unless_a_run_needs_its_name(tab: Any, site: Site, folder: Path) -> None:
    identity, visit, _ = opened(tab)
    run = site.runs / "stopped"
    run.mkdir(parents=True)
    (run / "config.toml").write_text(f'[data]\nfolder = "{folder}"\n')
    assert "the run stopped is not finished" in refusal(lambda: tab.on_rename("washes", identity, visit, "", "", ""))
    (run / "config.toml").write_text(f'[data]\nfolder = "{site.data / "another"}"\n')
    shown = tab.on_rename(" washes ", identity, visit, "00.png", "left so", "")
    assert shown[tab.dataset]["value"] == dict(site.dataset_choices())["washes"]
    assert (site.data / "washes" / "00.txt").read_text() == "left so\n"


def test_the_demo_is_a_dataset_with_its_trigger_word(tab: Any, site: Site) -> None:
    for _ in range(2):  # the second time it is there already
        *_, last = tab.on_demo()
        assert last[tab.dataset]["value"] == dict(site.dataset_choices())["woodcuts"]
    assert len(list((site.data / "woodcuts").glob("*.png"))) == 12
    assert trigger_of(site.data / "woodcuts") == "xlora"
    assert os.listdir(site.data) == ["woodcuts"]
