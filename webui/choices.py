"""Lists of what is on this machine, which are never out of date."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from .browser_state import tab_selected
from .components import on
from .site import Site


def adapters_field(tab: str, site: Site, info: str, **options: Any) -> gr.Dropdown:
    """A list from which any number of adapters are chosen."""
    options = {"label": "LoRAs", "info": info, "value": [], "multiselect": True, **options}
    return always_fresh(gr.Dropdown(site.adapter_choices(), elem_id=f"{tab}-adapters", **options), site.adapter_choices)


def newest_first(files: Mapping[str, Path]) -> list[tuple[str, Path]]:
    """The ids and files of adapters, those written last first."""

    def changed(item: tuple[str, Path]) -> int:
        try:
            return item[1].stat().st_mtime_ns
        except OSError:
            return 0

    return sorted(files.items(), key=changed, reverse=True)


def always_fresh(field: gr.Dropdown, choices: Callable[[], Sequence[Any]]) -> gr.Dropdown:
    """`field`, whose choices are read again when its tab is opened, and when it is about to be used."""
    on([field.focus, *tab_selected()], lambda: gr.update(choices=choices()), None, field)
    return field
