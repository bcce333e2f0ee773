"""Captions on the Dataset tab: saved when they are left, one undo for all, changes by others are reported."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from dataset_pages import Write, chosen, everything, opened, refusal, value
from PIL import Image
from sd_lora.webui.tabs.dataset import captioning

from sd_lora.tools.caption import CaptionReport


def test_a_caption_is_saved_whichever_way_it_is_left(tab: Any, folder: Path, captioned: Write) -> None:
    identity, visit, shown = opened(tab)
    words = tab.captions
    shown = words.on_next(visit, "00.png", "first", "")
    assert shown[words.name] == "01.png"
    assert (folder / "00.txt").read_text() == "first\n"
    assert value(shown[words.gallery])[0][1] == "00.png · first"
    event: Any = SimpleNamespace(index=0)
    words.on_select(visit, "01.png", "second", "", event)
    assert (folder / "01.txt").read_text() == "second\n"
    assert set(words.on_select(visit, "00.png", "typed since", "", event)) == {words.name}
    list(words.on_leave(visit, "00.png", "left", "", identity))
    assert (folder / "00.txt").read_text() == "left\n"
    list(words.on_leave(visit, "00.png", "of another dataset", "", "another"))
    assert (folder / "00.txt").read_text() == "left\n"
    words.on_previous(visit, "00.png", "left", "")
    captioned("data/other", count=1, size=16)
    other = dict(tab.site.dataset_choices())["other"]
    assert chosen(tab, other, visit, "02.png", "third")[words.drafts] == '<div class="drafts"></div>'
    assert (folder / "02.txt").read_text() == "third\n"
    chosen(tab, identity, visit)
    assert "nothing was changed" in refusal(lambda: words.on_undo(visit, "00.png", "left", ""))  # of another visit


def test_undo_takes_back_captions_and_pictures_in_turn(tab: Any, folder: Path) -> None:
    _, visit, _ = opened(tab)
    words, before = tab.captions, everything(folder)
    words.on_save(visit, "02.png", "two", "")
    shown = words.on_remove(visit, "00.png", before["00.txt"].decode().strip(), "")
    assert not (folder / "00.png").exists()
    assert not (folder / "00.txt").exists()
    assert shown[words.name] == "01.png"
    assert len(value(shown[words.gallery])) == 2
    words.on_turn(visit, "01.png", before["01.txt"].decode().strip(), "")
    assert (folder / "01.png").read_bytes() != before["01.png"]
    words.on_undo(visit, "01.png", before["01.txt"].decode().strip(), "")
    assert (folder / "01.png").read_bytes() == before["01.png"]
    shown = words.on_undo(visit, "01.png", before["01.txt"].decode().strip(), "")
    assert shown[words.name] == "00.png"
    shown = words.on_undo(visit, "00.png", before["00.txt"].decode().strip(), "")
    assert shown[words.name] == "02.png"
    assert {name: content for name, content in everything(folder).items() if not name.startswith(".")} == before


def test_a_picture_is_turned_clockwise(tab: Any, folder: Path) -> None:
    Image.new("RGB", (16, 32)).save(folder / "01.png")
    with Image.open(folder / "01.png") as picture:
        marked = picture.copy()
    marked.putpixel((0, 0), (255, 0, 0))
    marked.save(folder / "01.png")
    _, visit, _ = opened(tab)
    tab.captions.on_turn(visit, "01.png", visit.open_desk().text("01.png")[0], "")
    with Image.open(folder / "01.png") as turned:
        assert turned.size == (32, 16)
        assert turned.getpixel((31, 0)) == (255, 0, 0)


def test_saving_leads_to_the_next_picture_without_a_caption(tab: Any, folder: Path) -> None:
    for name in ("00.txt", "02.txt"):
        (folder / name).unlink()
    _, visit, shown = opened(tab)
    words = tab.captions
    assert shown[words.name] == "00.png"
    assert value(shown[words.gallery])[0][1] == "00.png · no caption"
    shown = words.on_save(visit, "00.png", "a cup", "")
    assert shown[words.name] == "02.png"
    assert "02.png has no caption yet" in shown[words.message]
    shown = words.on_save(visit, "02.png", "a boat", "")
    assert words.name not in shown
    assert "no picture is without a caption" in shown[words.message]


@pytest.mark.parametrize(
    ("words", "others", "line", "expected"),
    [
        ("red", "", "a red house, red", "a house"),
        ("red", "blue", "a Red house", "a blue house"),
        ("red", "", "predators, redder", "predators, redder"),
        ("ink", "", "ink, a house, ink, a tree", "a house, a tree"),
    ],
)
def test_words_are_replaced_or_removed_in_all_captions(
    tab: Any, folder: Path, words: str, others: str, line: str, expected: str
) -> None:
    before = everything(folder)
    (folder / "00.txt").write_text(line)
    _, visit, _ = opened(tab)
    tab.captions.on_replace(visit, "00.png", line, "", words, others)
    assert (folder / "00.txt").read_text().strip() == expected
    if expected != line:
        tab.captions.on_undo(visit, "00.png", expected, "")
    (folder / "00.txt").write_bytes(before["00.txt"])
    assert {name: text for name, text in everything(folder).items() if name in before} == before


def test_words_are_added_to_all_captions_and_taken_back_at_once(tab: Any, folder: Path) -> None:
    (folder / "01.txt").unlink()
    _, visit, _ = opened(tab)
    before = everything(folder)
    shown = tab.captions.on_add_words(visit, "01.png", "", "", " on paper, ", "")
    assert "3 captions changed" in shown[tab.captions.message]
    assert (folder / "01.txt").read_text() == "on paper\n"
    assert (folder / "00.txt").read_text().strip().endswith(", on paper")
    tab.captions.on_undo(visit, "01.png", "on paper", "")
    assert everything(folder) == before
    assert "no words" in refusal(lambda: tab.captions.on_add_words(visit, "01.png", "", "", " , ", ""))
    assert "no words" in refusal(lambda: tab.captions.on_replace(visit, "01.png", "", "", " ", "x"))


def test_a_caption_changed_by_others_is_reported(tab: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, visit, _ = opened(tab)
    words, warned = tab.captions, list[str]()
    (folder / "00.txt").write_text("theirs")
    assert "Discard then shows the saved one" in refusal(lambda: words.on_save(visit, "00.png", "mine", ""))
    assert (folder / "00.txt").read_text() == "theirs"
    monkeypatch.setattr(gr, "Warning", warned.append)
    shown = words.on_next(visit, "00.png", "mine", "")  # leaving it loses nothing either
    assert "changed elsewhere" in warned[0]
    assert "not saved: <span" in shown[words.drafts]
    assert value(shown[words.gallery])[0][1].startswith("✎ 00.png")
    assert visit.open_desk().drafts["00.png"].text == "mine"
    assert value(words.on_discard(visit, "00.png", "mine", "")[words.caption]) == "theirs"
    assert "saved" in words.on_save(visit, "00.png", "mine", "")[words.message]
    assert "is unchanged" in words.on_save(visit, "00.png", "mine", "")[words.message]


def test_a_second_check_keeps_typed_text_and_undo(tab: Any, folder: Path) -> None:
    identity, visit, _ = opened(tab)
    words = tab.captions
    before = (folder / "00.txt").read_bytes()
    words.on_save(visit, "00.png", "saved", "")
    (folder / "02.png").unlink()
    *_, shown = tab.on_check(identity, visit, "00.png", "typed", "")
    assert words.caption not in shown  # the field keeps what was typed meanwhile
    assert words.name not in shown
    assert len(value(shown[words.gallery])) == 2
    for text in ("typed", "saved"):
        words.on_undo(visit, "00.png", text, "")
    assert (folder / "00.txt").read_bytes() == before


def test_a_check_of_a_dataset_no_longer_chosen_changes_nothing(tab: Any, folder: Path, captioned: Write) -> None:
    captioned("data/other", count=1, size=16)
    ids = dict(tab.site.dataset_choices())
    _, visit, _ = opened(tab)
    checking = tab.on_check(ids["ink"], visit, "", "", "")
    next(checking)
    chosen(tab, ids["other"], visit)
    assert set(list(checking)[-1]) == {tab.status}
    assert visit.open_desk().identity == ids["other"]


def test_captions_that_cannot_be_edited_are_shown(tab: Any, folder: Path) -> None:
    (folder / "set.toml").write_text("[[datasets]]\n[[datasets.subsets]]\nimage_dir='.'\n")
    _, visit, shown = opened(tab)
    words = tab.captions
    assert shown[words.caption]["interactive"] is False
    assert "dataset file" in shown[words.message]
    assert "dataset file" in refusal(lambda: words.on_save(visit, "00.png", "x", ""))
    assert words.on_next(visit, "00.png", "x", "")[words.name] == "01.png"
    assert "table in ink names its pictures" in refusal(lambda: words.on_remove(visit, "00.png", "x", ""))


def test_a_button_among_the_findings_shows_or_removes_its_picture(tab: Any, folder: Path) -> None:
    (folder / "03.png").write_bytes((folder / "00.png").read_bytes())
    (folder / "03.txt").write_text("a copy")
    _, visit, shown = opened(tab)
    first = value(shown[tab.captions.caption])
    shown = tab.captions.on_act(visit, "00.png", first, "", "show 02.png\n1")
    assert shown[tab.captions.name] == "02.png"
    shown = tab.captions.on_act(visit, "00.png", "rewritten", "", "remove 03.png\n2")
    assert not (folder / "03.png").exists()
    assert (folder / "00.txt").read_text() == "rewritten\n"
    assert len(value(shown[tab.captions.gallery])) == 3
    for asked in ("remove ../ink/00.png\n3", "remove /etc/passwd\n4", "\n5", ""):
        assert "no picture is chosen" in refusal(lambda asked=asked: tab.captions.on_act(visit, "", "", "", asked))


def test_drafts_are_written_for_pictures_without_a_caption_and_taken_back(
    tab: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("00.txt", "01.txt"):
        (folder / name).unlink()
    before = everything(folder)

    def describe(where: Path, model: str, *, watch: Any) -> CaptionReport:
        assert (where, model) == (folder, "blip")
        written = [("00.png", "a cup"), ("01.png", "a boat")]
        for number, (name, caption) in enumerate(written, 1):
            (folder / name).with_suffix(".txt").write_text(f"{caption}\n")
            watch(number, 2)
        return CaptionReport(written, ["02.png"], [("odd.png", "it cannot be read")])

    monkeypatch.setattr(captioning, "caption_folder", describe)
    _, visit, _ = opened(tab)
    tab.captions.site = dataclasses.replace(tab.site, captioner="blip")
    *_, last = tab.captions.on_draft(visit, "00.png", "", "")
    assert (
        "2 captions drafted; read and correct them; odd.png has none: it cannot be read" in last[tab.captions.message]
    )
    assert value(last[tab.captions.caption]) == "a cup"
    (folder / "01.txt").write_text("a boat at night\n")
    tab.captions.on_undo(visit, "00.png", "a cup", "")
    assert everything(folder) == before | {"01.txt": b"a boat at night\n"}
    monkeypatch.setattr(captioning, "caption_folder", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(tab.captions.on_draft(visit, "00.png", "", ""))
    assert not captioning._drafting.locked()


def test_drafts_are_offered_only_with_a_captioning_model(tab: Any) -> None:
    assert tab.captions.draft.visible is False
