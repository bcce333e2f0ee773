"""The phrases of chosen LoRAs are offered while they are in no prompt, and added where they belong."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
from rows import every_row
from sd_lora.webui.phrases import PhraseOffer, missing, with_phrases
from sd_lora.webui.site import Site

from sd_lora.adapters.summary import AdapterSummary

INK = AdapterSummary(Path("ink"), phrase="in zwq style", trigger="zwq")
WOOD = AdapterSummary(Path("wood"), phrase="in wood style")
PLAIN = AdapterSummary(Path("plain"))


@every_row(
    "prompts, lacking",
    [
        ("a cat", ["in zwq style", "in wood style"]),
        ("a cat, In Zwq Style", ["in wood style"]),
        ("a zwq cat\na dog", ["in wood style"]),  # the trigger word is enough, in one of the prompts
        ("a zwqs cat, in wood style", ["in zwq style"]),  # part of another word is not
        ("", ["in zwq style", "in wood style"]),
        (None, ["in zwq style", "in wood style"]),
        ("in zwq style and in wood style", []),
    ],
)
def test_phrases_that_are_in_no_prompt_are_missing(prompts: str | None, lacking: list[str]) -> None:
    assert missing(prompts, [INK, PLAIN, WOOD, INK]) == lacking


@every_row(
    "prompts, extended",
    [
        ("a cat", "a cat, in zwq style"),
        ("a cat, \n\na dog", "a cat, in zwq style\na dog, in zwq style"),
        ("a cat --n blurry --w 512", "a cat, in zwq style --n blurry --w 512"),
        ("a cat <lora:wood:0.5> --s 9", "a cat, in zwq style <lora:wood:0.5> --s 9"),
        ("a well-known -- but odd -- cat", "a well-known -- but odd -- cat, in zwq style"),
        ("<lora:wood:1>", "in zwq style <lora:wood:1>"),
        ("", "in zwq style"),
        (None, "in zwq style"),
    ],
)
def test_phrases_come_before_options_and_tags(prompts: str | None, extended: str) -> None:
    assert with_phrases(prompts, ["in zwq style"]) == extended
    assert with_phrases(extended, []) == extended


def test_adapters_that_no_longer_exist_have_no_phrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gradio as gr

    site = Site(cast("Any", None), tmp_path, tmp_path, tmp_path)
    with gr.Blocks():
        offer = PhraseOffer(site, "x")
    assert offer.summaries(["gone", "../x"]) == []
