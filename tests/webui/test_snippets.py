"""Snippets of a mix: other programs draw what we draw, and no name or prompt breaks out of them."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rows import every_row
from sd_lora.webui.snippets import Scene, Share, a1111, comfyui, diffusers, file_names, share

import sd_lora
from sd_lora import ConfigError
from sd_lora.adapters.summary import AdapterSummary
from sd_lora.preview.events import PreviewCell
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewRow
from sd_lora.preview.prompts import plain_name
from sd_lora.preview.service import PreviewService

UNET = ("unet.down.block_0", "unet.mid", "unet.up.block_0", "unet.up.block_1")
SCENE = Scene("a red house", 7, "tiny", 64)
HOSTILE = 'x"""\'\\\n{0}%s<script>alert(1)</script>\ud800 :)'


def summary(*parts: str, beyond: tuple[str, ...] = (), variant: str = "lora") -> AdapterSummary:
    return AdapterSummary(Path("a.safetensors"), parts=parts or UNET, beyond=beyond, variant=variant)


# ---- strengths


@every_row(
    "factors, expected",
    [
        ({}, 0.8),
        ({"unet": 1.0, "up": 1.0, "up.block_0": 1.0}, 0.8),
        ({"unet": 0.5}, 0.4),
        ({"text_encoder": 0.5}, 0.8),  # it has none
        ({"up": 0.5}, {"unet": {"down": 0.8, "mid": 0.8, "up": 0.4}}),
        ({"unet": 0.5, "up": 0.5, "up.block_1": 0.5},
         {"unet": {"down": 0.4, "mid": 0.4, "up": {"block_0": 0.2, "block_1": 0.1}}}),
        ({"mid": 0.0}, {"unet": {"down": 0.8, "mid": 0.0, "up": 0.8}}),
    ],
)  # fmt: skip
def test_factors_multiply_to_the_form_of_diffusers(factors: dict[str, float], expected: Any) -> None:
    assert share("a", 0.8, factors, summary()).strength == expected


def test_each_component_has_its_own_strength() -> None:
    both = summary("text_encoder", "text_encoder_2", *UNET)
    assert share("a", 0.5, {}, both).strength == 0.5
    made = share("a", 0.5, {"text_encoder": 0.0}, both)
    assert made.strength == {"text_encoder": 0.0, "text_encoder_2": 0.0, "unet": 0.5}
    assert (made.unet, made.text) == (0.5, 0.0)
    assert share("a", 0.5, {"text_encoder": 0.5, "unet": 2.0}, summary("text_encoder")).strength == 0.25


def test_blocks_have_no_strengths_if_modules_are_outside_of_them() -> None:
    assert share("a", 0.5, {"unet": 0.5}, summary("unet", *UNET)).strength == 0.25
    with pytest.raises(ConfigError, match="outside"):
        share("a", 0.5, {"mid": 0.5}, summary("unet", *UNET))


@every_row("odd", [float("nan"), float("inf"), 2.1, -1.1, "1", None, True])
def test_anything_but_a_strength_is_refused(odd: Any) -> None:
    with pytest.raises(ConfigError, match=r"between -1 and 2"):
        share("a", odd, {}, summary())
    with pytest.raises(ConfigError, match=r"between -1 and 2"):
        share("a", 1.0, {"mid": odd}, summary())


# ---- names


@every_row(
    "name, expected",
    [
        ("runs/ink", "runs_ink"), ("../../etc/passwd", "etc_passwd"), ("<lora:a:9>", "lora_a_9"), ("", "adapter"),
        ("..", "adapter"), ("a, b", "a_b"), ("style-v1.5", "style-v1.5"), ("墨", "墨"), ("a\0\n\u202eb\ud800", "a_b"),
    ],
)  # fmt: skip
def test_names_of_files_are_harmless(name: str, expected: str) -> None:
    assert plain_name(name) == expected


def test_names_of_files_are_short_and_unique() -> None:
    assert len(plain_name("墨" * 300).encode()) <= 120
    assert file_names(["a", "a", "a-2", "a"]) == ["a", "a-2", "a-2-2", "a-3"]


# ---- what other programs make of them


def test_diffusers_draws_what_we_draw(
    random_sd_folder: Path, tmp_path: Path, trained_adapter: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("peft")
    pipe = sd_lora.load_base(random_sd_folder)[0]
    files = [tmp_path / "ink v1.5.safetensors", tmp_path / "ink_v1 5.safetensors"]
    for seed, file in enumerate(files):
        trained_adapter(pipe, "attn", std=0.6, seed=seed).save(file, dtype="float32")
    read = [sd_lora.read_summary(file) for file in files]
    names = file_names(file.stem for file in files)
    shares = [share(names[0], 0.5, {}, read[0]), share(names[1], 1.5, {"up": 0.2, "mid": 2.0}, read[1])]
    for file, name in zip(files, names, strict=True):  # as they are called when downloaded
        (tmp_path / f"{name}.safetensors").write_bytes(file.read_bytes())
    scene = Scene(HOSTILE.replace("\ud800", ""), 3, str(random_sd_folder), 16, steps=2)
    monkeypatch.chdir(tmp_path)
    exec(diffusers(shares, scene).text, {})
    drawn = np.asarray(Image.open("mix.png"), dtype=int)

    mix = tuple(MixedAdapter(file, one.strength) for file, one in zip(files, shares, strict=True))
    service = PreviewService(pipe)
    cells = [
        cell for cell in service.draw(PreviewJob((PreviewRow(scene.prompt, mix),), (1.0,), seed=3, steps=2))
        if isinstance(cell, PreviewCell)
    ]  # fmt: skip
    service.close()
    ours = {cell.column: np.asarray(cell.image, dtype=int) for cell in cells}
    assert np.abs(drawn - ours[1]).max() <= 1
    assert np.abs(drawn - ours[0]).max() > 20


def test_any_prompt_is_valid_in_python() -> None:
    text = diffusers([Share("a.b"), Share("a_b")], Scene(HOSTILE, 0, "o\"wner/na'me", 64)).text
    strings = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)]
    assert HOSTILE.replace("\ud800", "?") in strings
    assert {"a.b.safetensors", "a_b", "a_b_2", "o\"wner/na'me"} <= set(
        strings
    )  # PEFT accepts neither dots nor duplicates
    text.encode()


def test_a1111_takes_two_numbers_the_text_encoders_first() -> None:
    both = summary("text_encoder", *UNET)
    shares = [share("ink", 0.8, {}, summary()), share("wood", 0.5, {"text_encoder": 0.0}, both)]
    made = a1111(shares, SCENE)
    assert made.text == "a red house <lora:ink:0.8> <lora:wood:0:0.5>\n"
    assert made.notes == ()
    a1111(shares, Scene(HOSTILE, 0, "tiny", 64)).text.encode()


def test_comfyui_gets_a_chain_from_the_checkpoint_to_the_sampler() -> None:
    shares = [
        share("ink", 0.8, {}, summary()),
        share("wood", 0.5, {"text_encoder": 0.0}, summary("text_encoder", *UNET)),
    ]
    nodes = json.loads(comfyui(shares, Scene(HOSTILE, 7, "owner/base", 512, 30, 6.5)).text)
    by_kind: dict[str, list[str]] = {}
    for key, node in nodes.items():
        by_kind.setdefault(node["class_type"], []).append(key)
    checkpoint, (first, second), sampler = (
        by_kind["CheckpointLoaderSimple"][0],
        by_kind["LoraLoader"],
        by_kind["KSampler"][0],
    )
    assert nodes[first]["inputs"] == {
        "lora_name": "ink.safetensors", "strength_model": 0.8, "strength_clip": 0.8,
        "model": [checkpoint, 0], "clip": [checkpoint, 1],
    }  # fmt: skip
    assert nodes[second]["inputs"]["model"] == [first, 0]
    assert (nodes[second]["inputs"]["strength_model"], nodes[second]["inputs"]["strength_clip"]) == (0.5, 0.0)
    assert nodes[sampler]["inputs"]["model"] == [second, 0]
    prompt = nodes[nodes[sampler]["inputs"]["positive"][0]]["inputs"]
    assert (prompt["text"], prompt["clip"]) == (HOSTILE.replace("\ud800", "?"), [second, 1])
    assert (nodes[sampler]["inputs"]["seed"], nodes[sampler]["inputs"]["steps"]) == (7, 30)
    links = [value for node in nodes.values() for value in node["inputs"].values() if isinstance(value, list)]
    assert all(key in nodes for key, _ in links)


def test_notes_say_what_a_program_cannot_do() -> None:
    blocked = share("ink", 1.0, {"up": 0.5}, summary(beyond=("unet.up.block_0", "unet.down.block_0")))
    assert blocked.beyond == ("up.block_0",)  # the other acts at 1 in any case
    assert "up.block_0 of ink" in diffusers([blocked], SCENE).notes[0]
    assert "sd-webui-lora-block-weight" in a1111([blocked], SCENE).notes[0]
    assert "Inspire Pack" in comfyui([blocked], SCENE).notes[0]
    assert "convert dora" in diffusers([share("dora", 1.0, {}, summary(variant="dora"))], SCENE).notes[0]
    plain = share("ink", 1.0, {}, summary(beyond=("unet.mid",)))
    assert [made.notes for made in (diffusers([plain], SCENE), a1111([plain], SCENE), comfyui([plain], SCENE))] == [
        ()
    ] * 3


def test_no_adapter_is_the_base_model() -> None:
    assert "set_adapters" not in diffusers([], SCENE).text
    assert "tiny_base_path()" in diffusers([], SCENE).text
    assert a1111([], SCENE).text == "a red house\n"
    assert "LoraLoader" not in comfyui([], SCENE).text
