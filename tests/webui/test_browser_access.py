"""The page for everyone: phones, dark mode, keyboards, screen readers, machines without a network."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import run
from typing import Any

import pytest
from browsing import TABS, Tab, first_visit, furnish, needs_chromium
from serving import Served, Visitor, served

pytestmark = [needs_chromium, pytest.mark.slow]
GUARDED = Path(__file__).parent / "guarded"
#: bytes of a first visit, as they come over the wire
LIGHT = 1.5e6
SCHEMES = ("light", "dark")


@pytest.fixture(scope="module")
def reached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server notes connections to other machines."""
    return tmp_path_factory.mktemp("reached") / "hosts.txt"


@pytest.fixture(scope="module")
def env(reached: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(GUARDED), "SD_LORA_REACHED": str(reached), "HF_HUB_OFFLINE": "0"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, env: dict[str, str]) -> Iterator[Served]:
    home = furnish(tmp_path_factory.mktemp("access"))
    train = [sys.executable, "-P", "-m", "sd_lora", "train", str(home / "data" / "photos"), "--base", "tiny"]
    settings = ["training.steps=2", "training.batch_size=1", "preview.every=0", "preview.inference_steps=1"]
    run([*train, "--trigger", "zwq", "--out", str(home / "runs" / "wood"), *settings], check=True, env=os.environ | env)
    with served(home / "runs", "--data", str(home / "data"), env=env) as running:
        yield running


def test_the_guard_notes_connections_to_other_machines(env: dict[str, str], tmp_path: Path) -> None:
    notes = tmp_path / "hosts.txt"
    script = "import urllib.request as u\ntry: u.urlopen('http://example.org')\nexcept OSError as e: print(e)"
    run([sys.executable, "-c", script], check=True, env=os.environ | env | {"SD_LORA_REACHED": str(notes)})
    assert notes.read_text() == "example.org\n"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_phone_shows_every_tab_without_scrolling_sideways(chromium: Any, page: Served, scheme: str) -> None:
    tab = Tab(chromium, page.address, color_scheme=scheme, viewport={"width": 390, "height": 844}, has_touch=True)
    for name in TABS:
        tab.open(name)
        tab.page.wait_for_timeout(300)
        assert tab.page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, name
        tab.shoot(f"phone-{scheme}-{name.lower()}")
    dark = tab.page.evaluate("document.body.classList.contains('dark')")
    assert dark == (scheme == "dark")
    tab.open("Preview")
    tab.fill("preview-strengths", "0, 1")
    tab.fill("preview-steps", "1")
    tab.page.click("#preview-generate")
    tab.says("preview-status", "2 pictures in")
    tab.shoot(f"phone-{scheme}-drawn")
    tab.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_accessibility_checks_find_nothing_serious(chromium: Any, page: Served, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    tab, problems = Tab(chromium, page.address, color_scheme=scheme), []
    for name in TABS:
        tab.open(name)
        if name == "Preview":
            tab.fill("preview-steps", "1")
            tab.page.click("#preview-generate")
            tab.says("preview-status", "pictures in")
        elif name == "LoRAs":
            tab.card("wood").click()
            tab.says("adapters-description", "It fits tiny")
        elif name == "Dataset":
            tab.choose("dataset-choice", "photos")
            tab.page.wait_for_function("document.querySelectorAll('#dataset-gallery img').length >= 6")
        tab.page.wait_for_timeout(600)
        for problem in Axe().run(tab.page).response["violations"]:
            if problem["impact"] in ("serious", "critical"):
                problems += [f"{name}: {problem['id']}: {node['html'][:160]}" for node in problem["nodes"]]
    assert problems == []
    tab.close()


def test_everything_can_be_done_by_keyboard(chromium: Any, page: Served) -> None:
    tab = Tab(chromium, page.address)
    press = tab.page.keyboard.press
    for name in TABS:
        reach(tab, f"[role=tab]:text-is('{name}')", forward=False)
        press("Enter")
        panel = tab.page.get_by_role("tab", name=name, exact=True)
        assert panel.get_attribute("aria-selected") == "true"
        ids = [focused(tab) for _ in range(120) if press("Tab") is None]
        assert ids[-1] != ids[-2] != ids[-3], f"{name} does not let go of the keyboard"
    reach(tab, "[role=tab]:text-is('Preview')", forward=False)
    press("Enter")
    reach(tab, "#preview-adapters input")
    tab.page.keyboard.type("wood")
    press("Enter")
    press("Escape")
    reach(tab, "#preview-strengths :is(textarea, input)")
    press("Control+A")
    tab.page.keyboard.type("0, 1")
    press("Control+Enter")
    tab.says("preview-status", "4 pictures in")
    reach(tab, "#preview-strengths :is(textarea, input)", forward=False)
    press("Control+A")
    tab.page.keyboard.type("0-2(+0.1)")
    press("Control+Enter")
    tab.says("preview-status", "step")
    press("Escape")
    tab.says("preview-status", "stopped")
    reach(tab, "#preview-slider input[type=range]")
    press("ArrowLeft")
    tab.page.wait_for_selector("#preview-picture img")
    tab.close()


def focused(tab: Tab) -> str:
    """The element that has the focus."""
    where = "(e => { const r = e.getBoundingClientRect(); return `${e.tagName} ${e.id} ${r.x} ${r.y}`; })"
    return str(tab.page.evaluate(f"{where}(document.activeElement)"))


def reach(tab: Tab, wanted: str, *, forward: bool = True) -> None:
    """Press Tab, or Shift+Tab, until `wanted` has the focus."""
    target = tab.page.locator(wanted).first.element_handle()
    for _ in range(200):
        if tab.page.evaluate("e => document.activeElement === e", target):
            return
        tab.page.keyboard.press("Tab" if forward else "Shift+Tab")
    raise AssertionError(f"{wanted} is not reached by the keyboard")


def test_a_first_visit_is_light(chromium: Any, page: Served) -> None:
    assert 0 < first_visit(chromium, page.address)[1] < LIGHT


def test_an_adapter_is_shown_downloaded_and_converted(chromium: Any, page: Served) -> None:
    tab = Tab(chromium, page.address)
    tab.open("LoRAs")
    tab.card("wood").click()
    tab.says("adapters-description", "It fits tiny")
    assert tab.page.locator("#adapters-line :is(textarea, input)").input_value() == "in zwq style <lora:wood:1>"
    tab.page.locator("button.label-wrap:visible", has_text="Details").click()
    tab.says("adapters-metadata", "sdlora.base")
    files: list[Any] = []
    tab.page.on("download", lambda file: files.append(file))  # noqa: PLW0108 — it must be a function
    tab.page.click("#adapters-download")
    while len(files) < 3:
        tab.page.wait_for_event("download")
    assert [file.suggested_filename for file in files] == ["wood.safetensors", "wood.json", "wood.png"]
    assert b"sdlora.base" in Path(files[0].path()).read_bytes()[:20_000]
    assert json.loads(Path(files[1].path()).read_text("utf-8"))["activation text"] == "in zwq style"
    tab.page.locator("button.label-wrap:visible", has_text="Convert").click()
    tab.page.locator("#adapters-layout").get_by_text("diffusers").click()
    tab.page.click("#adapters-convert")
    with tab.page.expect_download() as caught:
        tab.page.click("#adapters-converted")
    assert b"unet.down_blocks" in Path(caught.value.path()).read_bytes()[:200_000]
    tab.shoot("adapters")
    tab.page.click("#adapters-use")
    tab.page.wait_for_selector("#preview-generate:visible")
    assert "wood" in tab.page.locator("#preview-adapters").inner_text()
    lines = "document.querySelector('#preview-prompts textarea').value.split('\\n')"
    tab.page.wait_for_function(f"{lines}.every((line) => line.endsWith(', in zwq style'))")
    tab.close()


def test_a_url_given_as_a_file_is_not_fetched(page: Served) -> None:
    with page.client() as client:
        visitor = Visitor(client)
        file = {
            "path": "http://example.org/a.png",
            "url": "http://example.org/a.png",
            "meta": {"_type": "gradio.FileData"},
        }
        with pytest.raises(AssertionError, match="not fetched"):
            visitor.press("dataset-upload", 4, [[file], "new"], event="upload")


def test_no_other_host_was_contacted(page: Served, reached: Path) -> None:
    """After all tests: the server opened no connection; each Tab checks that no browser did."""
    assert not reached.exists() or reached.read_text() == ""
    assert not any("Traceback" in line for line in page.printed), json.dumps(page.printed)
