"""Captions on the Dataset tab: drafts are not lost, and changes by others are reported."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dataset_pages import Write, opened, refusal, value
from sd_lora.webui.tabs.dataset.drafts import Visit


def test_drafts_are_not_lost(tab: Any, folder: Path, captioned: Write) -> None:
    identity, visit, shown = opened(tab)
    words = tab.captions
    first = value(shown[words.caption])
    saved = (folder / "00.txt").read_bytes()
    shown = words.on_next(visit, "00.png", "a draft", "")
    assert shown[words.name] == "01.png"
    assert "not saved: <span" in shown[words.drafts]
    assert value(shown[words.gallery])[0][1].startswith("✎ 00.png")
    event: Any = SimpleNamespace(index=0)
    second = value(shown[words.caption])
    shown = words.on_select(visit, "01.png", second, "", event)
    assert value(shown[words.caption]) == "a draft"
    assert "value" not in shown[words.gallery]  # the marks have not changed
    assert set(words.on_select(visit, "00.png", "typed since", "", event)) == {words.name}
    captioned("data/other", count=1, size=16)
    other = dict(tab.site.dataset_choices())["other"]
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


def test_undo_shows_its_picture_and_keeps_unsaved_text(tab: Any, folder: Path) -> None:
    _, visit, _ = opened(tab)
    words = tab.captions
    words.on_save(visit, "02.png", "two", "")
    words.on_next(visit, "02.png", "two, not saved", "")
    shown = words.on_undo(visit, "00.png", "zero, not saved", "")
    assert shown[words.name] == "02.png"
    assert value(shown[words.caption]) == "two, not saved"
    assert "unsaved text is kept" in shown[words.message]
    assert "00.png, 02.png" in shown[words.drafts]
    assert "nothing was written" in refusal(lambda: words.on_undo(visit, "02.png", "two, not saved", ""))
    shown = words.on_discard(visit, "02.png", "two, not saved", "")
    assert value(shown[words.caption]) == (folder / "02.txt").read_text().strip()
    assert words.on_previous(visit, "00.png", "", "")[words.name] == "02.png"


def test_a_caption_changed_by_others_is_reported(tab: Any, folder: Path) -> None:
    _, visit, _ = opened(tab)
    words = tab.captions
    (folder / "00.txt").write_text("theirs")
    assert "Discard then shows the saved one" in refusal(lambda: words.on_save(visit, "00.png", "mine", ""))
    assert (folder / "00.txt").read_text() == "theirs"
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
    assert words.on_next(visit, "00.png", "typed, longer", "")[words.name] == "01.png"
    assert visit.open_desk().drafts["00.png"].text == "typed, longer"
    words.on_undo(visit, "01.png", visit.open_desk().bases["01.png"], "")
    assert (folder / "00.txt").read_bytes() == before


def test_a_check_of_a_dataset_no_longer_chosen_changes_nothing(tab: Any, folder: Path, captioned: Write) -> None:
    captioned("data/other", count=1, size=16)
    ids = dict(tab.site.dataset_choices())
    visit = tab.on_choose(ids["ink"], Visit(), "", "", "")[tab.visit]
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
    assert "dataset file" in shown[words.message]
    assert "dataset file" in refusal(lambda: words.on_save(visit, "00.png", "x", ""))
    assert words.on_next(visit, "00.png", "x", "")[words.name] == "01.png"
