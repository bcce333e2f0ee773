"""The phrases that LoRAs were trained on: a button offers those of the chosen ones that are in no prompt."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import gradio as gr

from sd_lora.adapters.summary import AdapterSummary, read_summary
from sd_lora.errors import ConfigError

from .components import on
from .site import Site

#: what a line of prompts ends with that is not its text: options, and tags of adapters
_REST = re.compile(r"\s+(?:--[A-Za-z]|<lora:).*$", re.DOTALL)
_MOST_SHOWN = 120
#: the ids of what is chosen, from the values of fields
Ids = Callable[..., Iterable[str]]


class PhraseOffer:
    """A button "Add to the prompt: in … style", which is there while a phrase of what is chosen is in no prompt."""

    def __init__(self, site: Site, elem_id: str) -> None:
        self.site = site
        self.button = gr.Button("", size="sm", visible=False, elem_id=elem_id)

    def wire(self, prompts: gr.Textbox, chosen: Sequence[Any], ids: Ids, arrival: gr.Button | None = None) -> None:
        """Connect the button with the field of prompts and the fields in which adapters are chosen. A click of
        `arrival` adds the phrases too: what another tab sends is meant to be seen."""

        def offered(text: str, *values: Any) -> Any:
            phrases = missing(text, self.summaries(ids(*values)))
            return gr.update(value=f"Add to the prompt: {', '.join(phrases)}"[:_MOST_SHOWN], visible=bool(phrases))

        def added(text: str, *values: Any) -> str:
            return with_phrases(text, missing(text, self.summaries(ids(*values))))

        inputs = [prompts, *chosen]
        latest = {"trigger_mode": "always_last"}
        on([*(field.change for field in chosen), prompts.blur], offered, inputs, self.button, **latest)
        clicks = [self.button.click, *([] if arrival is None else [arrival.click])]
        on(on(clicks, added, inputs, prompts).success, offered, inputs, self.button)

    def summaries(self, ids: Iterable[str]) -> list[AdapterSummary]:
        """Of the adapters with these ids, those that still exist."""
        found = []
        for identity in dict.fromkeys(ids):
            try:
                found.append(read_summary(self.site.adapter(identity)))
            except ConfigError:
                continue
        return found


def missing(prompts: str | None, summaries: Iterable[AdapterSummary]) -> list[str]:
    """The phrases of adapters of which neither the phrase nor the trigger word is in any prompt."""
    text = (prompts or "").casefold()
    lacking = [
        one.phrase for one in summaries
        if one.phrase and one.phrase.casefold() not in text and not (one.trigger and _has(text, one.trigger))
    ]  # fmt: skip
    return list(dict.fromkeys(lacking))


def with_phrases(prompts: str | None, phrases: Sequence[str]) -> str:
    """The prompts, one per line, each with the phrases at the end of its text."""
    lines = [line for line in (prompts or "").splitlines() if line.strip()] or [""]
    return "\n".join(_extended(line, phrases) for line in lines)


def _extended(line: str, phrases: Sequence[str]) -> str:
    rest = _REST.search(f" {line}")
    text = line[: max(0, rest.start() - 1)] if rest else line
    joined = ", ".join(part for part in (text.strip().rstrip(", "), *phrases) if part)
    return f"{joined}{rest[0] if rest else ''}"


def _has(text: str, trigger: str) -> bool:
    """Whether `trigger` is in `text` as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(trigger.casefold())}(?!\w)", text) is not None
