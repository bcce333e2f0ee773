"""The page in a browser, end to end on the embedded base: what an artist does in an afternoon.

The first test is the main path: from pictures to a trained style that is drawn. The others begin with a trained run.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Tab, furnish, needs_chromium, train_wood
from serving import Served, served, until

from sd_lora import ConfigError
from sd_lora.runs.control import stop_run

pytestmark = needs_chromium
HOSTILE = "<img src=x onerror=window.pwned=1><script>window.pwned=1</script>"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def wood(home: Path) -> None:
    train_wood(home)


def with_wood(test: Callable[..., None]) -> Callable[..., None]:
    """In the second tier, with a trained run called wood."""
    return pytest.mark.slow(pytest.mark.usefixtures("wood")(test))


@pytest.fixture(scope="module")
def page(home: Path) -> Iterator[Served]:
    with served(home / "runs", "--data", str(home / "data")) as running:
        yield running


@pytest.fixture
def lasting(home: Path) -> Iterator[Path]:
    """The folder of a run that is stopped when the test ends, however it ends."""
    yield home / "runs" / "lasting"
    with contextlib.suppress(ConfigError):
        stop_run(home / "runs" / "lasting")


def steps_of(home: Path, name: str) -> list[dict[str, Any]]:
    log = home / "runs" / name / "log.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def test_a_style_is_trained_stopped_resumed_and_drawn_at_three_strengths(tab: Tab, home: Path) -> None:
    tab.open("Train")
    tab.choose("train-dataset", "photos")
    tab.holds("train-name", "photos")  # which follows from it
    tab.fill("train-name", "fresh")
    tab.fill("train-trigger", "zwq")
    tab.more()
    tab.fill("train-steps", "120")
    tab.fill("train-batch-size", "18")  # so slow that it is stopped before its end
    tab.page.click("#train-check")
    tab.says("train-findings", re.compile("120 steps|exposures"))
    tab.shoot("train-checked")
    tab.page.click("#train-start")
    tab.says("train-message", "has started")
    until(lambda: len(steps_of(home, "fresh")) >= 3, 180)
    tab.says("train-progress", re.compile(r"of 120|/ ?120"))
    tab.reload()  # the page finds the run again, and is where it was
    tab.page.wait_for_selector("#train-start:visible")
    tab.page.wait_for_selector("#train-stop:not([disabled])")
    tab.page.click("#train-stop")
    tab.page.wait_for_selector("#train-resume:not([disabled])")
    done = len(steps_of(home, "fresh"))
    assert 0 < done < 120
    tab.shoot("train-stopped")
    tab.page.click("#train-resume")
    until(lambda: len(steps_of(home, "fresh")) == 120, 480)
    until((home / "runs" / "fresh" / "diffusers" / "README.md").exists, 180)
    tab.says("train-run", "")
    tab.page.wait_for_selector("#train-preview:visible")
    tab.shoot("train-finished")
    losses = [line["loss"] for line in steps_of(home, "fresh")]
    assert len(set(losses)) == 120
    tab.open("Preview")
    draw_at_three_strengths(tab, home)


def draw_at_three_strengths(tab: Tab, home: Path) -> None:
    tab.fill("preview-prompts", "a big red boat on the sea, in zwq style")
    tab.fill("preview-strengths", "0")
    tab.page.click("#preview-generate")
    tab.says("preview-status", "1 picture")
    base = tab.pictures("preview-gallery", 1)
    tab.choose("preview-adapters", "fresh")
    tab.page.keyboard.press("Escape")
    tab.fill("preview-strengths", "0, 0.5, 1")
    tab.page.click("#preview-generate")
    tab.says("preview-status", re.compile(r"3 pictures in"))
    three = tab.pictures("preview-gallery", 3)
    assert len(set(three)) == 3
    assert three[0] == base[0]
    tab.shoot("preview")
    with tab.page.expect_download() as caught:
        tab.page.click("#preview-sheet")
    caught.value.save_as(sheet := home / "sheet.png")
    tab.fill("preview-seed", "5")
    tab.page.locator("button.label-wrap:visible", has_text="More").click()
    with tab.page.expect_file_chooser() as chooser:
        tab.page.click("#preview-load")
    chooser.value.set_files(sheet)
    tab.says("preview-status", "settings loaded")
    tab.holds("preview-seed", "0")
    tab.reload()  # nothing is lost
    tab.says("preview-status", "3 pictures")
    assert tab.pictures("preview-gallery", 3) == three


# ---- what else can be done


@with_wood
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


@with_wood
def test_without_an_adapter_the_base_is_drawn_once(tab: Tab) -> None:
    tab.fill("preview-prompts", "a small white cup")
    tab.fill("preview-strengths", "0, 0.5, 1")
    tab.page.click("#preview-generate")
    tab.says("preview-status", re.compile("1 picture in .*; without a LoRA strengths have no effect"))
    tab.says("preview-picture", "Without a LoRA: the base model")
    base = tab.pictures("preview-gallery", 1)
    tab.reload()
    tab.says("preview-status", "1 picture, drawn before; without a LoRA")
    assert tab.pictures("preview-gallery", 1) == base
    tab.choose("preview-adapters", "wood")
    tab.page.click("#preview-generate")
    tab.says("preview-status", "3 pictures in")
    tab.says("preview-picture", "At this strength")


def until_changes(tab: Tab, image: Any, seen: list[str | None]) -> None:
    tab.page.wait_for_function("([e, old]) => e.src !== old", arg=[image.element_handle(), seen[-1]])
    seen.append(image.get_attribute("src"))


@with_wood
def test_stop_ends_a_drawing(tab: Tab) -> None:
    tab.fill("preview-prompts", "\n".join(f"a red house {n}" for n in range(40)))
    tab.fill("preview-seed", "77")
    tab.page.click("#preview-generate")
    tab.says("preview-status", "step")
    tab.page.click("#preview-stop")
    tab.says("preview-status", "stopped")


@with_wood
def test_two_pictures_and_a_run_are_compared(tab: Tab) -> None:
    tab.open("Compare")
    tab.choose("compare-right", "wood")
    tab.page.click("#compare-draw")
    tab.page.wait_for_selector("#compare-slider img")
    tab.choose("compare-run", "wood")
    tab.fill("compare-run-strengths", "0, 1")
    tab.page.click("#compare-run-generate")
    tab.page.wait_for_function("document.querySelectorAll('#compare-run-gallery .grid-container img').length == 2")
    tab.shoot("compare")


@with_wood
def test_a_mix_is_drawn_and_its_snippets_name_it(tab: Tab) -> None:
    tab.open("Mix")
    tab.choose("mix-adapters", "wood")
    tab.page.keyboard.press("Escape")
    tab.page.wait_for_selector("#mix-strength-0")
    tab.page.click("#mix-generate")
    tab.page.wait_for_function("document.querySelectorAll('#mix-gallery .grid-container img').length == 3")
    assert "wood" in tab.page.locator("#tabs").inner_text()
    tab.shoot("mix")


@with_wood
def test_captions_are_edited_and_undone(tab: Tab, home: Path) -> None:
    tab.open("Dataset")
    tab.choose("dataset-choice", "photos")
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
    asked: list[str] = []
    tab.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
    field.press_sequentially(" more")
    tab.page.reload()  # what was typed would be lost
    assert asked == ["beforeunload"]


@with_wood
def test_a_reload_restores_the_fields(tab: Tab) -> None:
    tab.open("Train")
    tab.choose("train-dataset", "photos")
    tab.holds("train-name", "photos")
    tab.fill("train-trigger", "inky")
    tab.more()
    tab.fill("train-steps", "77")
    tab.choose("train-preset", "settings of the run wood")
    tab.page.wait_for_function("document.querySelector('#train-batch-size input').value == '2'")
    tab.open("Compare")
    tab.fill("compare-prompt", "a cup")
    tab.choose("compare-right", "the base model")
    tab.open("Mix")
    tab.fill("mix-prompt", "a boat")
    tab.choose("mix-adapters", "wood")
    tab.page.keyboard.press("Escape")
    strength = tab.page.locator("#mix-strength-0 input[type=number]")
    strength.fill("0.35")
    strength.press("Enter")
    tab.says("mix-diffusers", "0.35")
    tab.open("Dataset")
    tab.choose("dataset-choice", "photos")
    tab.holds("dataset-trigger", "inky")  # which is kept with the dataset
    tab.page.wait_for_timeout(1000)
    tab.reload()
    tab.open("Train")
    tab.page.wait_for_function("document.querySelector('#train-trigger :is(textarea, input)').value == 'inky'")
    tab.more()
    of_wood = "settings of the run wood"
    for field, value in {"dataset": "photos", "steps": "77", "preset": of_wood, "batch-size": "2"}.items():
        tab.holds(f"train-{field}", value)
    tab.choose("train-preset", re.compile("^tiny-style"))  # what was changed by hand is still known
    tab.page.wait_for_function("document.querySelector('#train-batch-size input').value == '8'")
    tab.holds("train-steps", "77")
    tab.open("Compare")
    tab.holds("compare-prompt", "a cup")
    tab.holds("compare-right", "the base model")
    tab.open("Mix")
    tab.holds("mix-prompt", "a boat")
    strength.wait_for()
    assert strength.input_value() == "0.35"
    strength.fill("0.65")  # the restored sliders work
    strength.press("Enter")
    tab.says("mix-diffusers", "0.65")
    tab.open("Dataset")
    tab.holds("dataset-choice", "photos")
    tab.holds("dataset-trigger", "inky")


@with_wood
def test_a_run_outlives_the_page(chromium: Any, home: Path, lasting: Path) -> None:
    folders, env = (
        (home / "runs", "--data", str(home / "data")),
        {"TMPDIR": str(home)},
    )  # a killed page leaves files there
    with served(*folders, env=env) as first:
        tab = Tab(chromium, first.address)
        tab.open("Train")
        tab.choose("train-dataset", "photos")
        tab.holds("train-name", "photos")
        tab.fill("train-name", lasting.name)
        tab.fill("train-trigger", "zwq")
        tab.more()
        tab.fill("train-steps", "4000")
        tab.fill("train-batch-size", "1")
        tab.page.click("#train-start")
        until(lambda: len(steps_of(home, lasting.name)) >= 3, 180)
        tab.close()
        first.process.kill()
        first.process.wait()
    done = len(steps_of(home, lasting.name))
    until(lambda: len(steps_of(home, lasting.name)) > done + 3, 180)
    with served(*folders, env=env) as second:
        tab = Tab(chromium, second.address)
        tab.open("Train")
        tab.says("train-progress", re.compile(r"running.*of 4,?000"))
        tab.page.click("#train-stop:not([disabled])")
        tab.page.wait_for_selector("#train-resume:not([disabled])")
        tab.says("train-progress", "stopped")
        tab.close()


# ---- properties


@with_wood
def test_no_text_from_files_is_executed(chromium: Any, page: Served, home: Path) -> None:
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
    tab.says("preview-status", "1 picture")
    for each in ("Compare", "Mix", "LoRAs", "Train", "Dataset"):
        tab.open(each)
        tab.page.wait_for_timeout(300)
    tab.open("LoRAs")
    tab.card("onerror").click()
    tab.page.wait_for_timeout(500)
    tab.open("Dataset")
    tab.choose("dataset-choice", "hostile")
    tab.page.wait_for_function("document.querySelectorAll('#dataset-gallery img').length >= 6")
    tab.page.wait_for_timeout(500)
    assert tab.page.evaluate("window.pwned") is None
    tab.close()
    shutil.rmtree(home / "runs" / name)
    shutil.rmtree(folder)
