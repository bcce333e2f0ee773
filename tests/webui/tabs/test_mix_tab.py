"""The Mix tab: the fields become one job, and a mix that is not possible is refused before drawing."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from rows import every_row
from sd_lora.webui.phrases import PhraseOffer
from sd_lora.webui.site import Site
from sd_lora.webui.tabs import mix as mix_tab

from sd_lora import ConfigError
from sd_lora.preview.service import PreviewService

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture
def site(service: PreviewService, pipe: Any, tmp_path: Path, trained_adapter: Callable[..., Any]) -> Site:
    """Three adapters, two of them with a trigger, and a damaged one."""
    for folder in ("runs", "work"):
        (tmp_path / folder).mkdir()
    for seed, (name, phrase) in enumerate((("ink", "in ink style"), ("wood", MARKUP), ("plain", ""))):
        adapter = trained_adapter(pipe, "attn", seed=seed)
        adapter.metadata["modelspec.trigger_phrase"] = phrase
        adapter.save(tmp_path / "runs" / f"{name}.safetensors")
    (tmp_path / "runs/damaged.safetensors").write_bytes(b"pickle")
    return Site(service, tmp_path / "runs", tmp_path / "data", tmp_path / "work")


@pytest.fixture
def tab(site: Site) -> Any:
    with gr.Blocks():
        made = mix_tab._Tab(site)
        made.phrases = PhraseOffer(site, "mix-triggers")
        return made


def ids(site: Site, *names: str) -> list[str]:
    by_name = {path.stem: identity for identity, path in site.adapters().items()}
    return [by_name[name] for name in names]


def test_a_mix_is_one_row_from_the_base_to_the_full_mix(tab: Any, site: Site) -> None:
    ink, wood = ids(site, "ink", "wood")
    job = tab.job([ink, wood, ink], {ink: {"strength": 0.5}, wood: {"up": 0.5}, "gone": {"x": 9}}, "a red house", 3, 9)
    (row,) = job.rows
    assert (job.columns, job.seed, job.steps, row.prompt) == ((0.0, 0.5, 1.0), 3, 9, "a red house")
    assert [mixed.path.stem for mixed in row.mix] == ["ink", "wood"]
    assert [mixed.strength for mixed in row.mix] == [0.5, {"unet": {"down": 1.0, "mid": 1.0, "up": 0.5}}]


def test_a_mix_is_drawn_and_shown(tab: Any, site: Site) -> None:
    ink, wood = ids(site, "ink", "wood")
    visitor = SimpleNamespace(session_hash="v")
    shown = list(tab.on_generate(visitor, [ink, wood], {ink: {"down": 0.5}}, "a red house", 0, 2))
    status, gallery, sheet = shown[-1]
    assert "3 pictures in" in status
    assert len(gallery["value"]) == 3
    assert sheet["interactive"] is True
    assert all(Path(file).is_relative_to(site.work) for file, _ in gallery["value"])


def test_stop_ends_only_the_drawing_of_that_visitor(tab: Any, site: Site) -> None:
    mine, other = SimpleNamespace(session_hash="mine"), SimpleNamespace(session_hash="other")
    drawing = tab.on_generate(mine, ids(site, "ink"), {}, "a slow house", 0, 100)
    next(drawing)
    tab.drawings.stop(other)
    assert "stopped" not in next(drawing)[0]
    tab.drawings.stop(mine)
    assert "stopped; " in list(drawing)[-1][0]


def refusals(site: Site) -> dict[str, tuple[Any, ...]]:
    (ink,) = ids(site, "ink")
    return {
        "no LoRA is chosen": ([], {}, "a", 0, 5),
        "no longer exists": (["../../etc/passwd"], {}, "a", 0, 5),
        "at most 6": ([str(i) for i in range(7)], {}, "a", 0, 5),
        "damaged cannot be used on": (ids(site, "ink", "damaged"), {}, "a", 0, 5),
        "choose LoRAs from the list": ([ink], {}, "a <lora:wood:1>", 0, 5),
        "seed must be a whole number": ([ink], {}, "a", float("nan"), 5),
        "steps must be a whole number": ([ink], {}, "a", 0, None),
        "a strength must be between": ([ink], {ink: {"strength": 50.0}}, "a", 0, 5),
        "a prompt": ([ink], {}, "  ", 0, 5),
    }


@pytest.mark.parametrize("number", range(9))
def test_a_mix_that_is_not_possible_is_refused_before_drawing(tab: Any, site: Site, number: int) -> None:
    why, asked = list(refusals(site).items())[number]
    with pytest.raises(ConfigError, match=why if why != "a prompt" else "prompt") as caught:
        list(tab.on_generate(SimpleNamespace(session_hash="v"), *asked))
    assert str(site.runs) not in str(caught.value)
    assert not list(site.work.iterdir())


def test_snippets_follow_the_sliders(tab: Any, site: Site) -> None:
    ink, wood = ids(site, "ink", "wood")
    made = tab.on_snippets([ink, wood], {ink: {"strength": 0.5}, wood: {"mid": 0.0}}, "a house", 3, 20)
    python, _, a1111, noted, comfy, _ = made
    ast.parse(python)
    assert "'mid': 0.0" in python
    assert a1111 == f"a house, in ink style, {MARKUP} <lora:ink:0.5> <lora:wood:1>\n"
    assert "extension" in noted
    assert json.loads(comfy)["2"]["inputs"]["lora_name"] == "ink.safetensors"


def test_without_a_snippet_the_reason_is_shown_as_text(tab: Any, site: Site) -> None:
    (ink,) = ids(site, "ink")
    code, note, *_ = tab.on_snippets([ink], {}, "a", MARKUP, 5)
    assert code == ""
    assert "seed must be" in note
    assert "<img" not in note


def test_events_are_private(site: Site) -> None:
    with gr.Blocks() as page:
        mix_tab.build(site)
    assert page.get_api_info()["named_endpoints"] == {}
    assert "public" not in {fn.api_visibility for fn in page.fns.values()}


def test_each_adapter_has_a_slider_for_what_it_has(tab: Any, site: Site) -> None:
    (ink,) = ids(site, "ink")
    with gr.Blocks() as page:
        tab.values = gr.State({})
        tab._sliders_of(0, ink, {"strength": 0.5, "up": 0.2})
    sliders = {block.label: block for block in page.blocks.values() if isinstance(block, gr.Slider)}
    assert list(sliders) == ["ink", "UNet", "down", "mid", "up", "down_0", "up_1"]
    assert (sliders["ink"].value, sliders["up"].value, sliders["mid"].value) == (0.5, 0.2, 1.0)
    assert all((slider.minimum, slider.maximum, slider.interactive) == (-1, 2, True) for slider in sliders.values())
    (changed,) = page.fns.values()
    parts = ["strength", "unet", "down", "mid", "up", "down.block_0", "up.block_1"]
    assert changed.fn is None  # an answer of the server would undo what was moved meanwhile
    assert isinstance(changed.js, str)
    assert f"const parts = {json.dumps(parts)};" in changed.js
    assert f"...known, [{json.dumps(ink)}]" in changed.js


def test_an_unusable_adapter_is_reported_as_soon_as_it_is_chosen(tab: Any, site: Site) -> None:
    (damaged,) = ids(site, "damaged")
    with gr.Blocks() as page:
        tab.values = gr.State({})
        tab._sliders_of(0, damaged, {})
        tab._sliders_of(1, "gone", {})
    texts = [str(block.value) for block in page.blocks.values() if isinstance(block, gr.HTML)]
    assert any("cannot be used on" in text and str(site.runs) not in text for text in texts)
    assert any("no longer exists" in text for text in texts)


@every_row(
    "chosen, ids",
    [('["b", "a", "b"]', ["b", "a"]), (["a"], ["a"]), ("[1]", ["1"]), ("[]", []), ("", []), (None, []), ("{}", []),
     ('"ab"', []), ("[", []), ("[" * 10_000, []), ({"a": 1}, [])],
)  # fmt: skip
def test_chosen_ids_are_read_from_text_too(chosen: Any, ids: list[str]) -> None:
    assert mix_tab._ids(chosen) == ids


def test_kept_strengths_that_are_not_numbers_are_left_out() -> None:
    kept = {
        "ink": {"up": 0.5, "down": float("inf"), "mid": "1", "unet": float("nan"), "x": 10**400, "y": [1]},
        "wood": 3,
    }
    assert mix_tab._kept_strengths(kept, "ink") == {"up": 0.5}
    assert mix_tab._kept_strengths(kept, "wood") == mix_tab._kept_strengths("x", "ink") == {}


def test_a_kept_strength_for_a_missing_part_is_ignored(tab: Any, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (ink,) = ids(site, "ink")
    summary = mix_tab.read_summary(site.adapter(ink))
    monkeypatch.setattr(mix_tab, "read_summary", lambda _: replace(summary, parts=("unet", *summary.parts)))
    plain, more = (tab._shares([ink], {ink: {"strength": 0.7, **kept}}) for kept in ({}, {"down": 0.5}))
    assert plain == more
