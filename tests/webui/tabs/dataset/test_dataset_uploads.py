"""Uploads on the Dataset tab: hostile names and contents change nothing; all pictures are added or none."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from dataset_pages import HOSTILE, everything, png, refusal, uploads
from sd_lora.webui.site import Site
from sd_lora.webui.tabs.dataset import upload as dataset_upload

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
        (("a.txt", b"x\0y"), "captions that are not text: a.txt"),
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


def test_too_many_files_too_large_files_and_links_are_refused(
    tab: Any, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    files = uploads(tmp_path, "a.png")
    assert "201 files were given, but 200 are the most" in refusal(lambda: tab.on_create("new", files * 201))
    link = tmp_path / "uploads" / "link.png"
    link.symlink_to(files[0])
    assert "not a file: link.png" in refusal(lambda: tab.on_create("new", [str(link)]))
    assert "not a file: gone.png" in refusal(lambda: tab.on_create("new", ["/etc/gone.png"]))
    monkeypatch.setattr(dataset_upload, "MOST_BYTES", 10)
    assert "MB are the most at once" in refusal(lambda: tab.on_create("new", files))
    assert os.listdir(site.data) == []


@pytest.mark.parametrize(
    "name", ["", "  ", ".hidden", "..", "a/b", "/etc", "a\\b", "nul", "COM1.x", 'a"b', "a\0b", "a\u202eb", "dot.",
             "x" * 61, "INK", "<script>"],
)  # fmt: skip
def test_impossible_names_of_datasets_are_refused(
    tab: Any, site: Site, tmp_path: Path, folder: Path, name: str
) -> None:
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
    assert last[tab.dataset]["value"] == dict(tab.site.dataset_choices())["ink  wash"]
    assert "7 files in the new dataset" in last[tab.status]
    editor = CaptionEditor(site.data / "ink  wash")
    assert {editor.read(name) for name in editor.names} == {"a cat"}


def test_all_pictures_are_added_or_none(
    tab: Any, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    identity, before = dict(tab.site.dataset_choices())["ink"], everything(folder)
    assert "in the dataset already: 00.PNG" in refusal(
        lambda: tab.on_add(identity, uploads(tmp_path, "new.png", "00.PNG"))
    )
    png(folder / "cafe\u0301.png")
    assert "in the dataset already" in refusal(lambda: tab.on_add(identity, uploads(tmp_path, "caf\u00e9.png")))
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


def test_files_created_meanwhile_are_not_overwritten(tab: Any, site: Site, tmp_path: Path) -> None:
    creating = tab.on_create("new", uploads(tmp_path, "a.png"))
    next(creating)
    (site.data / "new").mkdir()
    assert "it is taken" in refusal(lambda: creating)
    assert os.listdir(site.data) == ["new"]
    adding = tab.on_add(dict(tab.site.dataset_choices())["new"], uploads(tmp_path, "a.png"))
    next(adding)
    (site.data / "new" / "a.png").write_text("theirs")
    assert "nothing was stored" in refusal(lambda: adding)
    assert everything(site.data) == {"new/a.png": b"theirs"}


def test_leftovers_of_a_killed_server_are_removed(tab: Any, site: Site, tmp_path: Path) -> None:
    old, young = site.data / ".new-1", site.data / ".new-2"
    png(old / "a.png")
    png(young / "a.png")
    os.utime(old, (0, 0))
    list(tab.on_create("new", uploads(tmp_path, "a.png")))
    assert not old.exists()
    assert young.exists()
