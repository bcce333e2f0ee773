"""The page in a browser, end to end on the embedded base: what an artist does in an afternoon.

Debian's Chromium and Playwright; skipped, with the reason, where no Chromium is installed. Screenshots go to
``SD_LORA_SCREENSHOTS`` if that is set.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serving import Served, pixels, served, until

from sd_lora.demo import demo_scenes, write_captioned_folder
from sd_lora.tinybase.styles import STYLES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")
SHOTS = os.environ.get("SD_LORA_SCREENSHOTS", "")
PATIENCE = 90_000
TABS = ("Preview", "Compare", "Mix", "Adapters", "Train", "Dataset")
HOSTILE = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs and one of six captioned pictures."""
    home = tmp_path_factory.mktemp("page")
    write_captioned_folder(home / "data" / "photos", STYLES["woodcut"], demo_scenes()[:6])
    (home / "runs").mkdir()
    return home


@pytest.fixture(scope="module")
def page(home: Path) -> Iterator[Served]:
    with served(home / "runs", "--data", str(home / "data")) as running:
        yield running


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


class Tab:
    """An open page, with everything that it asked of other hosts and complained about."""

    def __init__(self, chromium: Any, address: str, **settings: Any) -> None:
        self.context = chromium.new_context(viewport={"width": 1280, "height": 900}, **settings)
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.foreign: list[str] = []
        self.bytes = 0
        self.page.on("request", lambda request: self._note(request.url, address))
        self.page.goto(address)
        self.page.wait_for_selector("#preview-generate")

    def _note(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.foreign.append(url)

    def open(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def choose(self, field: str, option: str | re.Pattern[str]) -> None:
        self.page.locator(f"#{field} input").first.click()
        self.page.get_by_role("option", name=option).first.click()

    def fill(self, field: str, text: str) -> None:
        self.page.locator(f"#{field} :is(textarea, input)").first.fill(text)

    def says(self, field: str, text: str | re.Pattern[str]) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator(f"#{field}")).to_contain_text(text, timeout=PATIENCE)

    def cell(self, text: str) -> Any:
        """A cell of the table of adapters; what measures the columns holds its text too, unseen."""
        return self.page.locator("#adapters-table span.text", has_text=text).last

    def pictures(self, gallery: str) -> list[bytes]:
        """The pixels of what a gallery shows."""
        sources = self.page.locator(f"#{gallery} .grid-container img").evaluate_all("all => all.map(i => i.src)")
        return [pixels(self.context.request.get(source).body()) for source in sources]

    def shoot(self, name: str, *, full: bool = True) -> None:
        if SHOTS:
            self.page.wait_for_timeout(400)
            self.page.screenshot(path=f"{SHOTS}/{name}.png", full_page=full)


@pytest.fixture
def tab(chromium: Any, page: Served) -> Iterator[Tab]:
    opened = Tab(chromium, page.address)
    yield opened
    opened.context.close()
    assert opened.foreign == []
    assert not any("Traceback" in line for line in page.printed), "".join(page.printed)


def steps_of(home: Path, name: str) -> list[dict[str, Any]]:
    log = home / "runs" / name / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


# ---- one afternoon, in order


def test_a_run_is_started_watched_stopped_and_resumed(tab: Tab, home: Path) -> None:
    tab.open("Train")
    tab.choose("train-dataset", "photos")
    tab.fill("train-name", "wood")
    tab.fill("train-trigger", "zwq")
    tab.fill("train-steps", "40")
    tab.fill("train-batch-size", "2")
    tab.page.click("#train-check")
    tab.says("train-findings", re.compile("40 steps|exposures"))
    tab.shoot("train-checked")
    tab.page.click("#train-start")
    tab.says("train-message", "has started")
    until(lambda: len(steps_of(home, "wood")) >= 3, 180)
    tab.says("train-progress", re.compile(r"of 40|/ ?40"))
    tab.page.reload()  # the page finds the run again
    tab.page.wait_for_selector("#preview-generate")
    tab.open("Train")
    tab.page.wait_for_selector("#train-stop:not([disabled])")
    tab.page.click("#train-stop")
    tab.page.wait_for_selector("#train-resume:not([disabled])")
    done = len(steps_of(home, "wood"))
    assert 0 < done < 40
    tab.shoot("train-stopped")
    tab.page.click("#train-resume")
    until(lambda: len(steps_of(home, "wood")) == 40, 180)
    until((home / "runs" / "wood" / "diffusers" / "README.md").exists, 180)
    tab.says("train-run", "")
    tab.page.wait_for_selector("#train-preview:visible")
    tab.shoot("train-finished")
    losses = [line["loss"] for line in steps_of(home, "wood")]
    assert len(set(losses)) == 40


def test_the_result_is_drawn_at_three_strengths(tab: Tab, page: Served) -> None:
    tab.fill("preview-prompts", "a big red boat on the sea, in zwq style")
    tab.fill("preview-strengths", "0")
    tab.page.click("#preview-generate")
    tab.says("preview-status", "1 pictures")
    base = tab.pictures("preview-gallery")
    tab.page.click("#preview-refresh")
    tab.choose("preview-adapters", "wood")
    tab.page.keyboard.press("Escape")
    tab.fill("preview-strengths", "0, 0.5, 1")
    tab.page.click("#preview-generate")
    tab.says("preview-status", re.compile(r"3 pictures in"))
    three = tab.pictures("preview-gallery")
    assert len(three) == 3
    assert len(set(three)) == 3
    assert three[0] == base[0]
    tab.shoot("preview")
    tab.page.reload()  # nothing is lost
    tab.says("preview-status", "3 pictures")
    assert tab.pictures("preview-gallery") == three


def test_the_slider_moves_by_mouse_and_keyboard(tab: Tab) -> None:
    tab.choose("preview-adapters", "wood")
    tab.page.keyboard.press("Escape")
    tab.fill("preview-prompts", "a big red boat on the sea, in zwq style")
    tab.fill("preview-strengths", "0, 0.5, 1")
    tab.page.click("#preview-generate")
    tab.says("preview-status", re.compile(r"3 pictures"))
    image = tab.page.locator("#preview-picture img")
    image.wait_for()
    seen = [image.get_attribute("src")]
    slider = tab.page.locator("#preview-slider input[type=range]")
    slider.focus()
    tab.page.keyboard.press("ArrowLeft")
    until_changes(tab, image, seen)
    box = slider.bounding_box()
    assert box is not None
    tab.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    until_changes(tab, image, seen)
    assert len(set(seen)) == 3


def until_changes(tab: Tab, image: Any, seen: list[str | None]) -> None:
    tab.page.wait_for_function("([e, old]) => e.src !== old", arg=[image.element_handle(), seen[-1]])
    seen.append(image.get_attribute("src"))


def test_stop_ends_a_drawing(tab: Tab) -> None:
    tab.fill("preview-prompts", "\n".join(f"a red house {n}" for n in range(6)))
    tab.fill("preview-seed", "77")
    tab.page.click("#preview-generate")
    tab.says("preview-status", "step")
    tab.page.click("#preview-stop")
    tab.says("preview-status", "stopped")


def test_two_pictures_and_a_run_are_compared(tab: Tab) -> None:
    tab.open("Compare")
    tab.choose("compare-right", "wood")
    tab.page.click("#compare-draw")
    tab.page.wait_for_selector("#compare-slider img")
    tab.choose("compare-run", "wood")
    tab.fill("compare-run-strengths", "0, 1")
    tab.page.click("#compare-run-draw")
    tab.page.wait_for_function("document.querySelectorAll('#compare-run-gallery .grid-container img').length == 2")
    tab.shoot("compare")


def test_a_mix_is_drawn_and_its_snippets_name_it(tab: Tab) -> None:
    tab.open("Mix")
    tab.page.click("#mix-refresh")
    tab.choose("mix-adapters", "wood")
    tab.page.keyboard.press("Escape")
    tab.page.wait_for_selector("#mix-strength-0")
    tab.page.click("#mix-generate")
    tab.page.wait_for_function("document.querySelectorAll('#mix-gallery .grid-container img').length == 3")
    assert "wood" in tab.page.locator("#tabs").inner_text()
    tab.shoot("mix")


def test_captions_are_edited_and_undone(tab: Tab, home: Path) -> None:
    tab.open("Dataset")
    tab.choose("dataset-choice", "photos")
    tab.page.click("#dataset-check")
    tab.page.wait_for_function("document.querySelectorAll('#dataset-gallery img').length >= 6")
    tab.page.locator("#dataset-gallery img").first.click()
    field = tab.page.locator("#dataset-caption textarea")
    field.wait_for()
    before = {path.name: path.read_bytes() for path in (home / "data" / "photos").glob("*.txt")}
    field.fill(f"a changed caption {HOSTILE}")
    tab.page.click("#dataset-save")
    folder = home / "data" / "photos"
    until(lambda: any(b"a changed caption" in path.read_bytes() for path in folder.glob("*.txt")))
    tab.says("dataset-tokens", re.compile(r"\d"))
    tab.shoot("dataset")
    tab.page.click("#dataset-undo")
    until(lambda: {path.name: path.read_bytes() for path in folder.glob("*.txt")} == before)


# ---- how it is


def test_nothing_in_files_is_run(chromium: Any, page: Served, home: Path) -> None:
    folder = home / "data" / "hostile"
    shutil.copytree(home / "data" / "photos", folder)
    first = next(iter(sorted(folder.glob("*.txt"))))
    first.write_text(HOSTILE)
    name = "wood <img src=x onerror=window.pwned=1>"
    shutil.copytree(home / "runs" / "wood", home / "runs" / name)
    tab = Tab(chromium, page.address)
    tab.fill("preview-prompts", HOSTILE)
    tab.fill("preview-strengths", "0")
    tab.fill("preview-steps", "1")
    tab.page.click("#preview-generate")
    tab.says("preview-status", "1 pictures")
    for each in ("Compare", "Mix", "Adapters", "Train", "Dataset"):
        tab.open(each)
        tab.page.wait_for_timeout(300)
    tab.open("Adapters")
    tab.page.click("#adapters-refresh")
    tab.cell("onerror").click()
    tab.page.wait_for_timeout(500)
    tab.open("Dataset")
    tab.page.click("#dataset-reload")
    tab.choose("dataset-choice", "hostile")
    tab.page.click("#dataset-check")
    tab.page.wait_for_function("document.querySelectorAll('#dataset-gallery img').length >= 6")
    tab.page.wait_for_timeout(500)
    assert tab.page.evaluate("window.pwned") is None
    assert tab.foreign == []
    tab.context.close()
    shutil.rmtree(home / "runs" / name)
    shutil.rmtree(folder)
