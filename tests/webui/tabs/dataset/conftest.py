"""The Dataset tab on its own site, and a dataset that is checked without a base model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import pytest
from dataset_pages import Write, count
from sd_lora.webui.site import Site
from sd_lora.webui.tabs.dataset import checker as dataset_checker
from sd_lora.webui.tabs.dataset import tab as dataset_tab

from sd_lora.check.result import Check, ImageRow
from sd_lora.config.schema import RunConfig
from sd_lora.data.folders.listing import list_folder


def fake_service() -> Any:
    reader = SimpleNamespace(token_count=count, is_small=False, open_base=lambda: None)
    return SimpleNamespace(base="tiny", reader=reader)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    for name in ("data", "work"):
        (tmp_path / name).mkdir()
    return Site(fake_service(), tmp_path / "runs", tmp_path / "data", tmp_path / "work")


@pytest.fixture(scope="module")
def one_tab() -> Any:
    """The components, which take long to build."""
    with gr.Blocks():
        return dataset_tab._Tab(Site(fake_service(), Path("runs"), Path("nowhere"), Path("work")))


@pytest.fixture
def tab(one_tab: Any, site: Site) -> Any:
    one_tab.site = one_tab.captions.site = one_tab.checker._site = site
    return one_tab


@pytest.fixture
def folder(captioned: Write, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three captioned pictures in the dataset ``ink``, which is checked without a base model."""

    def look(config: RunConfig, *, watch: Any = None, **_: Any) -> Check:
        listing = list_folder(config.data)
        if watch is not None:
            watch(len(listing.entries), len(listing.entries))
        rows = [ImageRow(e.name, e.captions or ("",), 64, 64, b"jpeg") for e in listing.entries]
        return Check(config.data.folder, listing.layout, listing.summary, rows, listing.findings, None)

    monkeypatch.setattr(dataset_checker, "check_folder", look)
    return captioned("data/ink", count=3, size=16)
