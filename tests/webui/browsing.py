"""The page in Debian's Chromium, driven by Playwright. Screenshots go to ``SD_LORA_SCREENSHOTS`` if that is set."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import pixels

from sd_lora.tinybase.folder import demo_scenes, write_captioned_folder
from sd_lora.tinybase.styles import STYLES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (apt-get install chromium)")
SHOTS = os.environ.get("SD_LORA_SCREENSHOTS", "")
PATIENCE = 180_000  # milliseconds: what is asserted is what happens, on a machine with other work as well
TABS = ("Dataset", "Train", "Preview", "Compare", "Mix", "LoRAs")


@contextmanager
def browser() -> Iterator[Any]:
    """Chromium, for the length of a ``with`` block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


def furnish(home: Path) -> Path:
    """Create in `home` an empty folder of runs, and a dataset of six captioned pictures called photos."""
    write_captioned_folder(home / "data" / "photos", STYLES["woodcut"], demo_scenes()[:6])
    (home / "runs").mkdir()
    return home


def train_wood(home: Path) -> Path:
    """Add to `home` a run called wood, of a few steps on its photos."""
    import sd_lora

    settings = ("training.steps=20", "training.batch_size=2", "preview.every=0", "preview.inference_steps=1")
    paths = (f"data.folder={home / 'data' / 'photos'}", f"output.folder={home / 'runs' / 'wood'}")
    config = sd_lora.load_config("tiny-style", "model.base=tiny", "data.trigger=zwq", *settings, *paths)
    sd_lora.train(config)
    return home


#: notes when the list of datasets was in a frame, and the page answered from then on: for 100 ms without a pause of 50
_USABLE = """
(() => {
  const first = () => document.querySelector('#dataset-choice')?.getBoundingClientRect().width;
  const look = () => first() ? tick(performance.now(), performance.now()) : requestAnimationFrame(look);
  const tick = (calm, last) => setTimeout(() => {
    const now = performance.now(), since = now - last > 60 ? now : calm;
    if (now - since > 100) window.usableAfter = since / 1000; else tick(since, now);
  }, 10);
  look();
})();
"""


def first_visit(chromium: Any, address: str) -> tuple[float, float]:
    """Seconds from requesting the page until it can be used, and bytes over the wire, for a browser that was never
    there. It is the browser that looks at its clock, as a program beside it hears of things late."""
    tab, got = Tab(chromium), list[float]()
    tab.page.add_init_script(_USABLE)
    session = tab.context.new_cdp_session(tab.page)
    session.send("Network.enable")
    session.on("Network.loadingFinished", lambda event: got.append(event["encodedDataLength"]))
    tab.go(address)
    seconds, seen = float(tab.page.wait_for_function("window.usableAfter").json_value()), -1
    while seen != len(got):
        seen = len(got)
        tab.page.wait_for_timeout(1500)
    tab.close()
    return seconds, sum(got)


class Tab:
    """An open page, on its Preview tab or the one that is `opened`; `close` fails if it has asked other hosts for
    anything."""

    def __init__(self, chromium: Any, address: str = "", opened: str = "Preview", **settings: Any) -> None:
        self.context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **settings})
        self.page = self.context.new_page()
        self.page.set_default_timeout(PATIENCE)
        self.foreign: list[str] = []
        if address:
            self.go(address)
            self.open(opened)

    def go(self, address: str) -> None:
        self.page.on("request", lambda request: self._note(request.url, f"{address}/"))
        self.page.goto(address)
        self.page.wait_for_selector("#dataset-choice")

    def reload(self) -> None:
        self.page.reload()
        self.page.wait_for_selector("#tabs [role=tab]")
        self.page.wait_for_timeout(1500)  # for the kept values to be filled in

    def close(self) -> None:
        self.context.close()
        assert self.foreign == []

    def _note(self, url: str, address: str) -> None:
        if not url.startswith((address, "data:", "blob:")):
            self.foreign.append(url)

    def open(self, name: str) -> None:
        """Choose a tab; where the window is too narrow for all, from the menu of the rest."""
        wanted = self.page.get_by_role("tab", name=name, exact=True)
        if wanted.count() and wanted.first.is_visible():
            wanted.first.click()
            return
        self.page.locator("#tabs .overflow-menu > button").first.click()
        self.page.locator("#tabs .overflow-dropdown button", has_text=name).first.click()

    def more(self) -> None:
        """Open the settings of the Train tab that are behind those that every run needs."""
        self.page.locator("#train-more button.label-wrap").first.click()
        self.page.wait_for_selector("#train-steps:visible")

    def choose(self, field: str, option: str | re.Pattern[str]) -> None:
        self.page.locator(f"#{field} input").first.click()
        self.page.get_by_role("option", name=option).first.click()

    def fill(self, field: str, text: str) -> None:
        self.page.locator(f"#{field} :is(textarea, input)").first.fill(text)

    def says(self, field: str, text: str | re.Pattern[str]) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator(f"#{field}")).to_contain_text(text, timeout=PATIENCE)

    def card(self, text: str) -> Any:
        """A card of the list of LoRAs."""
        return self.page.locator("#adapters-cards button", has_text=text).first

    def holds(self, field: str, value: str) -> None:
        from playwright.sync_api import expect

        expect(self.page.locator(f"#{field} :is(textarea, input)").first).to_have_value(value, timeout=PATIENCE)

    def pictures(self, gallery: str, count: int) -> list[bytes]:
        """The pixels of what a gallery shows, once there are `count` of them."""
        shown = "([id, n]) => document.querySelectorAll(`#${id} .grid-container img`).length == n"
        self.page.wait_for_function(shown, arg=[gallery, count])
        sources = self.page.locator(f"#{gallery} .grid-container img").evaluate_all("all => all.map(i => i.src)")
        return [pixels(self.context.request.get(source).body()) for source in sources]

    def shoot(self, name: str, *, full: bool = True) -> None:
        if SHOTS:
            self.page.wait_for_timeout(400)
            self.page.screenshot(path=f"{SHOTS}/{name}.png", full_page=full)
