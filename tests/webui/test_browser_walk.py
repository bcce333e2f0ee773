"""The walk of a newcomer, in a browser: from pictures on a disk to a run and the best of its checkpoints. How many
clicks and fields it takes, with the keyboard alone, and with a page that is reloaded, opened twice or killed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Tab, needs_chromium
from serving import Served, served, until

from sd_lora import ConfigError
from sd_lora.runs.control import stop_run
from sd_lora.tinybase.folder import demo_scenes, write_captioned_folder

pytestmark = [needs_chromium, pytest.mark.slow]
UNCAPTIONED, CAPTIONS = (2, 5, 7), ("a blue cat", "a red boat at night", "a big star")
CLICKS, FIELDS = 5, 4
#: counts what a person does: clicks, and fields that are typed into
COUNTING = """
window.done = { clicks: 0, fields: new Set() };
addEventListener('pointerdown', () => { window.done.clicks++; }, true);
const picture = () => document.querySelector('#dataset-picture-name :is(input, textarea)')?.value;
addEventListener('input', (e) => {
  if (e.isTrusted && e.target.type !== 'file') window.done.fields.add(`${e.target.closest('[id]').id} ${picture()}`);
}, true);
"""


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Eight pictures, three of them without captions, in a folder called My Ink."""
    folder = tmp_path / "My Ink"
    write_captioned_folder(folder, "woodcut", demo_scenes(8))
    for number in UNCAPTIONED:
        (folder / f"{number:02d}.txt").unlink()
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """An empty site; a run that is left in it is stopped."""
    home = tmp_path / "home"
    home.mkdir()
    yield home
    for run in (home / "runs").glob("*"):
        with contextlib.suppress(ConfigError):
            stop_run(run)


@contextlib.contextmanager
def site(home: Path) -> Iterator[Served]:
    with served(home / "runs", "--data", str(home / "data"), env={"TMPDIR": str(home)}) as page:
        yield page


def give_folder(tab: Tab, pictures: Path) -> None:
    """Choose the folder of pictures, by one click."""
    with tab.page.expect_file_chooser() as chooser:
        tab.page.click("#dataset-folder")
    chooser.value.set_files(pictures)


def shows(tab: Tab, name: str) -> None:
    tab.holds("dataset-picture-name", name)


def steps(home: Path, name: str = "My Ink") -> int:
    log = home / "runs" / name / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def test_eight_pictures_become_a_run_in_five_clicks_and_four_fields(
    chromium: Any, home: Path, pictures: Path
) -> None:  # fmt: skip
    with site(home) as page:
        tab = Tab(chromium)
        tab.page.add_init_script(COUNTING)
        tab.go(page.address)
        assert tab.page.locator("#dataset-welcome").inner_text().startswith("Teach the base model a style")
        tab.shoot("walk-empty")
        give_folder(tab, pictures)
        tab.pictures("dataset-gallery", 8)
        for number, caption in zip(UNCAPTIONED, CAPTIONS, strict=True):
            shows(tab, f"{number:02d}.png")  # it leads from one to the next
            tab.shoot(f"walk-caption-{number}")
            tab.page.locator("#dataset-caption textarea").focus()  # one may have clicked into it only once
            tab.page.keyboard.type(caption)
            tab.page.keyboard.press("Control+Enter")
        tab.says("dataset-message", "no picture is without a caption")
        tab.fill("dataset-trigger", "my-ink")
        tab.page.click("#dataset-train")
        tab.page.wait_for_selector("#train-start:visible")
        tab.holds("train-dataset", "My Ink")
        tab.holds("train-trigger", "my-ink")
        tab.holds("train-name", "My Ink")
        tab.page.click("#train-start")
        tab.says("train-progress", "starting")
        tab.shoot("walk-starting")
        until(lambda: steps(home) >= 1, 240)
        tab.says("train-progress", "running")
        done = tab.page.evaluate("({ clicks: window.done.clicks, fields: [...window.done.fields] })")
        # a click into the caption field, which the test focuses, counts as well
        assert done["clicks"] + 1 <= CLICKS, done
        assert len(done["fields"]) <= FIELDS, done
        texts = [(home / "data" / "My Ink" / f"{number:02d}.txt").read_text() for number in UNCAPTIONED]
        assert texts == [f"{caption}\n" for caption in CAPTIONS]
        tab.close()


def test_the_walk_with_the_keyboard_alone(chromium: Any, home: Path, pictures: Path) -> None:
    with site(home) as page:
        tab = Tab(chromium, page.address, "Dataset")
        press = tab.page.keyboard.press
        with tab.page.expect_file_chooser() as chooser:  # Chromium hears of it later than of a key
            reach(tab, "#dataset-folder")
            press("Enter")
        chooser.value.set_files(pictures)
        tab.pictures("dataset-gallery", 8)
        shows(tab, "02.png")
        reach(tab, "#dataset-caption textarea")
        for number, caption in zip(UNCAPTIONED, CAPTIONS, strict=True):
            shows(tab, f"{number:02d}.png")
            tab.page.keyboard.type(caption)
            press("Control+Enter")
        tab.says("dataset-message", "no picture is without a caption")
        reach(tab, "#dataset-trigger :is(input, textarea)", forward=False)
        tab.page.keyboard.type("my-ink")
        reach(tab, "#dataset-train")
        press("Enter")
        tab.page.wait_for_selector("#train-start:visible")
        tab.holds("train-trigger", "my-ink")
        reach(tab, "#train-length input")
        press("ArrowRight")
        press("ArrowLeft")
        press("ArrowLeft")
        reach(tab, "#train-more button.label-wrap")
        press("Enter")
        tab.holds("train-steps", "160")
        reach(tab, "#train-start", forward=False)
        press("Enter")
        tab.says("train-progress", "starting")
        until(lambda: steps(home) >= 1, 240)
        reach(tab, "#train-stop", forward=False)
        press("Enter")
        tab.page.wait_for_selector("#train-resume:not([disabled])")
        settings = (home / "runs" / "My Ink" / "config.toml").read_text()
        assert "steps = 160" in settings
        tab.close()


def reach(tab: Tab, wanted: str, *, forward: bool = True) -> None:
    """Press Tab, or Shift+Tab, until `wanted`, or something in it, has the focus."""
    tab.page.wait_for_selector(wanted)
    for _ in range(200):
        if tab.page.evaluate("id => document.activeElement?.matches(`${id}, ${id} *`)", wanted):
            return
        tab.page.keyboard.press("Tab" if forward else "Shift+Tab")
    raise AssertionError(f"{wanted} is not reached by the keyboard")


def test_captions_survive_a_reload_a_killed_server_and_a_second_page(
    chromium: Any, home: Path, pictures: Path
) -> None:  # fmt: skip
    folder = home / "data" / "My Ink"
    with site(home) as page:
        tab = Tab(chromium, page.address, "Dataset")
        give_folder(tab, pictures)
        tab.pictures("dataset-gallery", 8)
        shows(tab, "02.png")
        tab.page.locator("#dataset-caption textarea").fill(CAPTIONS[0])
        tab.page.locator("#dataset-trigger :is(input, textarea)").fill("my-ink")  # which leaves the caption
        until((folder / "02.txt").exists)
        tab.page.locator("#dataset-caption textarea").focus()
        until((folder / ".sd-lora.json").exists)
        tab.reload()
        tab.pictures("dataset-gallery", 8)
        shows(tab, "05.png")  # the first one that is still without a caption
        tab.holds("dataset-trigger", "my-ink")
        kill(page)
        tab.context.close()
    with site(home) as page:
        tab, other = (Tab(chromium, page.address, "Dataset") for _ in range(2))
        assert [path.name for path in (home / "data").iterdir()] == ["My Ink"]
        for each in (tab, other):
            each.choose("dataset-choice", "My Ink")
            each.pictures("dataset-gallery", 8)
            shows(each, "05.png")
            each.holds("dataset-trigger", "my-ink")
        for number, caption in zip(UNCAPTIONED[1:], CAPTIONS[1:], strict=True):
            shows(tab, f"{number:02d}.png")
            tab.page.locator("#dataset-caption textarea").fill(caption)
            tab.page.keyboard.press("Control+Enter")
        tab.says("dataset-message", "no picture is without a caption")
        other.page.locator("#dataset-caption textarea").fill("written over that")
        other.page.locator("#dataset-next").click()
        other.says("dataset-drafts", "05.png")  # its own text is kept, and the other's is not overwritten
        assert (folder / "05.txt").read_text() == f"{CAPTIONS[1]}\n"
        tab.close()
        other.close()


def test_a_run_survives_a_reload_and_a_killed_server(chromium: Any, home: Path, pictures: Path) -> None:
    for number, caption in zip(UNCAPTIONED, CAPTIONS, strict=True):
        (pictures / f"{number:02d}.txt").write_text(caption)
    (home / "data").mkdir()
    pictures.rename(home / "data" / "My Ink")
    with site(home) as page:
        tab = Tab(chromium, page.address, "Train")
        tab.choose("train-dataset", "My Ink")
        tab.holds("train-name", "My Ink")
        tab.page.click("#train-start")
        tab.says("train-message", "there is no trigger word")
        tab.page.click("#train-suggested")
        tab.says("train-message", "has started")
        tab.reload()
        tab.holds("train-trigger", "my-ink")
        tab.page.click("#train-start")  # it waits
        tab.says("train-message", "My Ink-2 starts when the run before it ended")
        until(lambda: steps(home) >= 1, 240)
        kill(page)
        tab.context.close()
    with site(home) as page:
        tab = Tab(chromium, page.address, "Train")
        tab.says("train-progress", "running")
        tab.says("train-waiting", "waiting: My Ink-2")
        assert [path.name for path in (home / "runs").iterdir() if not path.name.startswith(".")] == ["My Ink"]
        tab.page.click("#train-drop")
        tab.page.wait_for_selector("#train-waiting", state="hidden")
        tab.page.click("#train-stop:not([disabled])")
        tab.page.wait_for_selector("#train-resume:not([disabled])")
        tab.close()


def kill(server: Served) -> None:
    server.process.kill()
    server.process.wait()


def test_the_best_checkpoint_of_a_run_is_one_click_away(chromium: Any, home: Path) -> None:
    with site(home) as page:
        tab = Tab(chromium, page.address, "Dataset")
        tab.page.click("#dataset-demo")
        tab.pictures("dataset-gallery", 12)
        tab.holds("dataset-trigger", "xlora")
        tab.page.click("#dataset-train")
        tab.page.wait_for_selector("#train-start:visible")
        tab.more()
        for field, value in {"steps": 6, "batch-size": 1, "training-save-every": 3, "every": 3,
                             "preview-inference-steps": 2}.items():  # fmt: skip
            tab.fill(f"train-{field}", str(value))
        tab.page.click("#train-start")
        tab.page.wait_for_selector("#train-strips img", timeout=240_000)
        tab.page.wait_for_selector("#train-compare:visible", timeout=240_000)
        tab.page.click("#train-compare")
        tab.says("train-grid-status", "18 pictures in")  # 2 checkpoints × 3 prompts × 3 strengths
        tab.shoot("walk-grid")
        tab.page.locator("#train-grid-gallery .grid-container button").nth(2).click()
        tab.says("train-grid-choice", "step 3 at strength 1")
        tab.page.click("#train-use")
        tab.holds("train-adapter", "step 3 · used")
        slider = tab.page.locator("#train-strips input[type=range]")
        slider.fill("0")
        assert tab.page.locator("#train-strips li.is-shown").first.get_attribute("data-step") == "3"
        tab.page.click("#train-preview")
        tab.page.wait_for_selector("#preview-generate:visible")
        assert "step-000003" in tab.page.locator("#preview-adapters").inner_text()
        tab.close()


def test_pictures_are_dropped_on_the_page_and_on_the_gallery(chromium: Any, home: Path, pictures: Path) -> None:
    with site(home) as page:
        tab = Tab(chromium, page.address, "Dataset")
        names = [f"{number:02d}{end}" for number in (1, 3) for end in (".png", ".txt")]
        drop(tab, "#dataset-welcome", [pictures / name for name in names])
        tab.pictures("dataset-gallery", 2)
        drop(tab, "#dataset-gallery", [pictures / "04.png", pictures / "04.txt"])
        tab.pictures("dataset-gallery", 3)
        (folder,) = [path for path in (home / "data").iterdir() if not path.name.startswith(".")]
        assert folder.name.startswith("pictures 20")
        tab.page.wait_for_selector("#dataset-name :is(textarea, input)")  # where pictures are added, which a drop opens
        tab.fill("dataset-name", "washes")
        tab.page.click("#dataset-rename")
        tab.holds("dataset-choice", "washes")
        assert [path.name for path in (home / "data").iterdir() if not path.name.startswith(".")] == ["washes"]
        drop(tab, "#dataset-choice", [pictures / "06.png", pictures / "06.txt"])  # the way in is closed by now
        tab.pictures("dataset-gallery", 1)
        assert len(list((home / "data").glob("*/*.png"))) == 4
        tab.close()


def drop(tab: Tab, target: str, files: list[Path]) -> None:
    """Drop files on an element, as a file manager does."""
    contents = [(file.name, list(file.read_bytes())) for file in files]
    tab.page.wait_for_selector(target)
    tab.page.evaluate(
        """([target, contents]) => {
          const dataTransfer = new DataTransfer();
          contents.forEach(([name, bytes]) => dataTransfer.items.add(new File([new Uint8Array(bytes)], name)));
          const e = document.querySelector(target);
          for (const type of ['dragenter', 'dragover', 'drop'])
            e.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
        }""",
        [target, contents],
    )
