"""From a finished run to its pictures and to other programs, in a browser: in how few clicks, and by keyboard."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Tab, furnish, needs_chromium, train_wood
from serving import Served, served

pytestmark = [needs_chromium, pytest.mark.slow]
PICTURES = "#preview-gallery .grid-container img"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = train_wood(furnish(tmp_path_factory.mktemp("pictures")))
    (made / "a1111" / "models" / "Lora").mkdir(parents=True)
    return made


@pytest.fixture(scope="module")
def page(home: Path) -> Iterator[Served]:
    with served(home / "runs", "--data", str(home / "data"), "--install-to", str(home / "a1111")) as running:
        yield running


def test_a_finished_run_is_two_clicks_from_its_picture_with_its_phrase(tab: Tab) -> None:
    tab.open("Train")
    tab.page.click("#train-preview:visible")  # one
    tab.page.wait_for_function("document.querySelector('#preview-prompts textarea')?.value.includes(', in zwq style')")
    assert "wood" in tab.page.locator("#preview-adapters").inner_text()
    tab.page.wait_for_selector("#preview-phrases", state="hidden")
    tab.page.click("#preview-generate")  # two
    tab.says("preview-status", "6 pictures in")
    assert len(tab.pictures("preview-gallery", 6)) == 6
    tab.shoot("preview")


def test_a_run_is_two_clicks_from_its_files_for_other_programs(tab: Tab, home: Path) -> None:
    files: list[Any] = []
    tab.page.on("download", lambda file: files.append(file))  # noqa: PLW0108 — it must be a function
    tab.open("LoRAs")  # one
    tab.says("adapters-description", "It fits tiny")
    tab.page.click("#adapters-download")  # two
    while len(files) < 3:
        tab.page.wait_for_event("download")
    assert [file.suggested_filename for file in files] == ["wood.safetensors", "wood.json", "wood.png"]
    tab.page.click("#adapters-copy-0")
    tab.says("adapters-copied", "wood.safetensors, wood.json, wood.png copied to A1111")
    there = home / "a1111" / "models" / "Lora"
    assert (there / "wood.safetensors").read_bytes() == (home / "runs" / "wood" / "adapter.safetensors").read_bytes()
    tab.shoot("loras")


def test_cards_are_found_by_words(tab: Tab) -> None:
    tab.open("LoRAs")
    tab.card("wood").wait_for()
    tab.fill("adapters-find", "no such")
    tab.card("wood").wait_for(state="hidden")
    tab.fill("adapters-find", "TINY zwq")
    tab.card("wood").wait_for()


def test_a_phrase_that_is_missing_is_offered_and_added(tab: Tab) -> None:
    tab.fill("preview-prompts", "a cup\na boat --s 2")
    tab.choose("preview-adapters", "wood")
    tab.page.keyboard.press("Escape")
    tab.page.get_by_role("button", name="Add to the prompt: in zwq style").click()
    tab.holds("preview-prompts", "a cup, in zwq style\na boat, in zwq style --s 2")
    tab.page.wait_for_selector("#preview-phrases", state="hidden")


def test_the_keyboard_draws_and_stops_and_another_seed_is_taken(tab: Tab) -> None:
    tab.fill("preview-prompts", "\n".join(f"a red house {n}" for n in range(40)))
    tab.page.keyboard.press("Control+Enter")
    tab.says("preview-status", "step")
    tab.page.keyboard.press("Escape")
    tab.says("preview-status", "stopped")
    tab.fill("preview-prompts", "a cup")
    tab.fill("preview-seed", "7")
    tab.page.click("#preview-seed-1")
    tab.holds("preview-seed", "8")
    tab.fill("preview-seeds", "3")
    tab.page.get_by_label("Keep the seed").uncheck()
    tab.page.keyboard.press("Control+Enter")
    tab.says("preview-status", "3 pictures in")
    tab.page.wait_for_function("document.querySelector('#preview-seed input').value != '8'")
    assert len(set(tab.pictures("preview-gallery", 3))) == 3


def test_what_was_drawn_earlier_is_kept_and_saved(tab: Tab) -> None:
    for prompt in ("a red cup", "a blue cup"):
        tab.fill("preview-prompts", prompt)
        tab.fill("preview-strengths", "0")
        tab.page.click("#preview-generate")
        tab.page.wait_for_selector(f"{PICTURES}[alt*='{prompt}'], #preview-gallery :text('{prompt}')")
        tab.says("preview-status", re.compile("1 picture in"))
    tab.page.locator("#preview-earlier button.label-wrap").click()
    tab.page.wait_for_function("document.querySelectorAll('#preview-strip img').length == 2")
    with tab.page.expect_download() as caught:
        tab.page.click("#preview-zip")
    with zipfile.ZipFile(caught.value.path()) as archive:
        assert len(archive.namelist()) == 2
    tab.page.locator("#preview-strip button:has(img)").nth(1).click()
    tab.page.click("#preview-again")
    tab.says("preview-status", "settings loaded")
    tab.holds("preview-prompts", "a red cup")
    tab.shoot("preview-earlier")
