"""Settings of a dataset TOML that change nothing about the captions that are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from sd_lora.data.captions import Tags
from sd_lora.data.folders.entries import Entry
from sd_lora.data.folders.tree import Notes

#: what a subset gives by kohya's names, and its images
Given = tuple[dict[str, Any], Sequence[Entry]]
_TAGS = "no caption has tags that it could change"
#: setting → whether it acts on an image with these tags of a caption, and why it does not otherwise
_ACTS: dict[str, tuple[Callable[[Entry, Tags], bool], str]] = {
    "shuffle_caption": (lambda _, tags: len(tags.free) > 1, _TAGS),
    "caption_tag_dropout_rate": (lambda _, tags: bool(tags.free) and len(tags.middle + tags.first) > 1, _TAGS),
    "keep_tokens": (lambda entry, tags: entry.rules.vary and bool(tags.first), "no tags are shuffled or left out"),
    "keep_tokens_separator": (lambda _, tags: tags.marked, "no caption has it"),
}


def note_idle(subsets: Sequence[Given], name: str, trigger: str, notes: Notes) -> None:
    """Note each setting of the file `name` that acts in none of its `subsets`."""
    for key, (acts, why) in _ACTS.items():
        values = [(given[key], entries) for given, entries in subsets if given.get(key)]
        tags = (
            (entry, Tags.of(caption, entry.rules, "" if entry.prior else trigger))
            for _, entries in values
            for entry in entries
            for caption in entry.captions
        )
        if any(entries for _, entries in values) and not any(acts(entry, each) for entry, each in tags):
            value = values[0][0]
            shown = str(value).lower() if isinstance(value, bool) else value
            notes.add("setting-unknown", name, f"{key} = {shown} has no effect, as {why}", "remove [it|them]")
