"""Base models on the page: which there are, what the present one is, and the command that changes to another."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gradio as gr
import pytest
from browsing import Tab, needs_chromium
from sd_lora.webui import bases
from sd_lora.webui.site import Site
from serving import served

from sd_lora import ConfigError, tiny_base_path
from sd_lora.tinybase.world import BACKGROUNDS, COLOURS, SUBJECTS


def pipeline(folder: Path, name: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": name}))
    return folder


def test_only_base_models_of_known_families_are_listed(tmp_path: Path) -> None:
    sd, xl = (
        pipeline(tmp_path / "b-sd", "StableDiffusionPipeline"),
        pipeline(tmp_path / "a-xl", "StableDiffusionXLPipeline"),
    )
    pipeline(tmp_path / "other", "NobodysPipeline")
    pipeline(tmp_path / ".hidden", "StableDiffusionPipeline")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "adapter.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    (tmp_path / "damaged.safetensors").write_bytes(b"x")
    assert bases.bases_in(tmp_path) == [xl, sd]
    with pytest.raises(ConfigError, match="cannot be read"):
        bases.bases_in(tmp_path / "nowhere")


def test_the_embedded_base_is_described_by_its_world(tmp_path: Path) -> None:
    assert f"a {SUBJECTS[0]}" in bases.about("tiny")
    for prompt in bases.example_prompts("tiny"):
        assert any(subject in prompt for subject in SUBJECTS)
        assert any(colour in prompt for colour in COLOURS)
        assert any(background in prompt for background in BACKGROUNDS)
    xl = str(pipeline(tmp_path / "xl", "StableDiffusionXLPipeline"))
    assert "XL" in bases.about(xl)
    assert bases.presets_for(xl) == ("style", "sdxl-style-block")
    assert bases.about("owner/model") == ""
    assert bases.presets_for("owner/model") == bases.presets_for("tiny") == ()


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        (["python", "-m", "sd_lora", "webui"], ["python", "-m", "sd_lora", "webui"]),
        (["python", "webui", "--base", "tiny", "--runs", "r", "--port", "0"], ["python", "webui", "--runs", "r"]),
        (["python", "webui", "--base=tiny", "--port=1", "--auth", "a:b"], ["python", "webui", "--auth", "a:b"]),
    ],
)
def test_the_program_starts_again_with_another_base_and_the_same_port(command: list[str], kept: list[str]) -> None:
    assert bases.command_on("/models/my xl", 7860, command) == [*kept, "--base", "/models/my xl", "--port", "7860"]


def test_a_base_model_is_chosen_by_id_and_only_from_the_list(tmp_path: Path) -> None:
    asked: list[str] = []
    models = (pipeline(tmp_path / "sd", "StableDiffusionPipeline"),)
    service = cast(Any, SimpleNamespace(base="tiny"))
    site = Site(service, tmp_path, tmp_path, tmp_path, models=models, restart=asked.append)
    with gr.Blocks() as page:
        bases.header(site)
    change = next(fn.fn for fn in page.fns.values() if fn.name == "change")
    assert change is not None
    for odd in ("", "/etc", str(models[0])):
        with pytest.raises(gr.Error, match="not in the list"):
            change(odd)
    change(site.id_of(Path("tiny")))
    assert asked == []
    assert "loading the base model sd" in change(site.id_of(models[0]))
    assert asked == [str(models[0])]


@needs_chromium
@pytest.mark.slow
def test_the_page_comes_back_on_another_base_model(chromium: Any, tmp_path: Path) -> None:
    other = tmp_path / "models" / "practice"
    shutil.copytree(tiny_base_path(), other)
    with served(tmp_path / "runs", "--models", str(tmp_path / "models")) as page:
        tab = Tab(chromium, page.address, "Dataset")
        tab.says("base-status", "")
        tab.choose("base", "practice")
        tab.says("base-status", "loading the base model practice")
        tab.page.wait_for_function("document.querySelector('h1')?.textContent.includes('practice')", timeout=180_000)
        tab.holds("base", "practice")
        tab.close()
