"""`verify`: what loads here and in six programs, held to the table those programs' own loaders gave."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from published_sizes import components
from rows import every_row
from safetensors.torch import load_file, save_file
from small_weights import weights_of
from typer.testing import CliRunner

import sd_lora
from sd_lora.adapters.clients import CLIENTS, answers
from sd_lora.adapters.keys import kohya_stem, name_of_module
from sd_lora.adapters.parts import facts_of
from sd_lora.adapters.writing import write_adapter
from sd_lora.commands.app import app
from sd_lora.lora.targets import plan_targets
from sd_lora.models.families import FAMILIES, kinds
from sd_lora.tools.verify import verify_adapter

MODELS = {"sd1": "sd15", "sd2": "sd21", "sdxl": "sdxl"}


@pytest.fixture(scope="module")
def named() -> dict[str, dict[str, dict[str, tuple[tuple[int, ...], tuple[int, ...]]]]]:
    """kind → group → module → shapes of its rank-1 factors, from the published sizes."""
    found: dict[str, Any] = {}
    for kind, model in MODELS.items():
        family = FAMILIES["sdxl" if kind == "sdxl" else "sd"]
        parts = components(model)
        found[kind] = {
            group: {
                name_of_module(*t.name.split(".", 1)): (
                    (1, *t.module.weight.shape[1:]), (t.module.weight.shape[0], 1, *[1] * (t.module.weight.ndim - 2)),
                )
                for t in plan_targets(parts, family.target_groups, [group])
            }
            for group in ("attn", "ff", "proj", "conv", "text", "text_ff")
        }  # fmt: skip
    return found


def kohya(kind: str, modules: dict[str, Any], naming: str | None = None) -> dict[str, tuple[int, ...]]:
    keys: dict[str, tuple[int, ...]] = {}
    for name, (down, up) in modules.items():
        stem = kohya_stem(name, "sdxl" if kind == "sdxl" else "sd")
        if naming and name.startswith("unet."):
            stem = naming_of(name, naming)
        keys |= {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up, f"{stem}.alpha": ()}
    return keys


def naming_of(name: str, naming: str) -> str:
    return kohya_stem(name, "sdxl" if naming == "sgm" else "sd")


def peft(modules: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {f"{n}.lora_{side}.weight": s for n, shapes in modules.items() for side, s in zip("AB", shapes, strict=True)}


def loaded(
    kind: str, shapes: dict[str, tuple[int, ...]], alphas: dict[str, float] | None = None,
    metadata: dict[str, str] | None = None,
) -> dict[str, tuple[int, int]]:  # fmt: skip
    """Client → (loaded, modules)."""
    alphas = {key: 1.0 for key in shapes if key.endswith(".alpha")} | (alphas or {})
    file = facts_of(shapes, kinds()[kind].marks if metadata is None else metadata, alphas, kind, 1000)
    return {answer.client: (answer.loaded, answer.modules) for answer in answers(file)}


def of(named: Any, kind: str, *groups: str) -> dict[str, Any]:
    return {name: shapes for group in groups for name, shapes in named[kind][group].items()}


def all_whole(found: dict[str, tuple[int, int]]) -> bool:
    return set(found) == set(CLIENTS) and all(count == total > 0 for count, total in found.values())


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize(
    "groups", [("attn",), ("attn", "text", "text_ff"), ("attn", "ff", "proj"), ("attn", "ff", "proj", "conv", "text")]
)
def test_the_default_file_is_whole_everywhere(named: Any, kind: str, groups: tuple[str, ...]) -> None:
    assert all_whole(loaded(kind, kohya(kind, of(named, kind, *groups))))


def test_what_diffusers_writes_is_whole_in_diffusers_only(named: Any) -> None:
    modules = of(named, "sd1", "attn", "text")
    found, total = loaded("sd1", peft(modules)), len(modules)
    assert found["diffusers"] == (total, total)
    assert found["AUTOMATIC1111"][0] == found["Forge"][0] == found["sd-scripts"][0] == found["InvokeAI"][0] == 0
    assert found["ComfyUI"] == (48, total)  # the text encoder


def test_original_block_names_are_for_sdxl(named: Any) -> None:
    modules = of(named, "sd1", "attn")
    found = loaded("sd1", kohya("sd1", modules, "sgm"))
    assert found["diffusers"][0] == found["sd-scripts"][0] == found["InvokeAI"][0] == 0
    assert found["ComfyUI"] == found["AUTOMATIC1111"] == found["Forge"] == (128, 128)


def test_sdxl_under_diffusers_names_loses_an_upsampler_in_one_program(named: Any) -> None:
    modules = of(named, "sdxl", "attn", "conv")
    found = loaded("sdxl", kohya("sdxl", modules, "diffusers"))
    assert found.pop("AUTOMATIC1111") == (len(modules) - 1, len(modules))
    assert all(count == total for count, total in found.values())


def test_a_minority_alpha_is_scaled_wrongly_by_diffusers(named: Any) -> None:
    keys = kohya("sd1", of(named, "sd1", "attn"))
    odd = next(key for key in keys if key.endswith("attn1_to_q.alpha"))
    found = loaded("sd1", keys, {odd: 8.0})
    assert found.pop("diffusers") == (127, 128)
    assert all(count == 128 for count, _ in found.values())


def test_partial_text_attention_is_refused_or_dropped(named: Any) -> None:
    for kind, lost in (("sd1", 0), ("sd2", 46)):
        text = {n: s for n, s in of(named, kind, "text").items() if n.endswith(("q_proj", "v_proj"))}
        modules = of(named, kind, "attn") | text
        found = loaded(kind, kohya(kind, modules))
        assert found["diffusers"][0] == 0
        assert found["AUTOMATIC1111"] == (len(modules) - lost, len(modules))
        assert found["ComfyUI"][0] == found["sd-scripts"][0] == found["InvokeAI"][0] == len(modules)


def test_text_keys_without_their_level_are_dropped(named: Any) -> None:
    keys = kohya("sd1", of(named, "sd1", "attn", "text"))
    found = loaded("sd1", {key.replace("text_model_", ""): shape for key, shape in keys.items()})
    assert found["diffusers"] == (176, 176)
    assert found["ComfyUI"] == found["AUTOMATIC1111"] == found["sd-scripts"] == (128, 176)
    assert found["Forge"][0] == 0  # more unknown keys than it takes


def test_fourteen_stray_keys_make_forge_refuse(named: Any) -> None:
    keys = kohya("sd1", of(named, "sd1", "attn"))
    stray = {f"lora_unet_nothing_{i}.lora_up.weight": (4, 1) for i in range(14)}
    found = loaded("sd1", keys | stray)
    assert found["Forge"][0] == found["diffusers"][0] == found["InvokeAI"][0] == 0
    assert found["ComfyUI"] == (128, 128)


def test_flat_projections_are_refused_for_sd1_only(named: Any) -> None:
    keys = {key: shape[:2] for key, shape in kohya("sd1", of(named, "sd1", "attn", "proj")).items()}
    found = loaded("sd1", keys)
    assert found["diffusers"][0] == found["sd-scripts"][0] == 0
    assert found["ComfyUI"] == found["Forge"] == (160, 160)
    assert all_whole(loaded("sd2", kohya("sd2", of(named, "sd2", "attn", "proj"))))


def test_kohya_files_with_diffusers_own_record_are_refused_by_it(named: Any) -> None:
    keys = kohya("sd1", of(named, "sd1", "attn"))
    found = loaded("sd1", keys, metadata=kinds()["sd1"].marks | {"lora_adapter_metadata": "{}"})
    assert found["diffusers"][0] == 0
    assert found["ComfyUI"] == (128, 128)


def test_self_attention_alone_is_not_known_by_invokeai(named: Any) -> None:
    modules = {n: s for n, s in of(named, "sd1", "attn").items() if ".attn1." in n}
    found = loaded("sd1", kohya("sd1", modules))
    assert found.pop("InvokeAI")[0] == 0
    assert all(count == 64 for count, _ in found.values())


def in_file_order(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """As safetensors writes them: by type, the float32 alphas first, then by name."""
    return {key: shapes[key] for key in sorted(shapes, key=lambda key: (not key.endswith(".alpha"), key))}


def first_block(name: str) -> bool:
    return ".attn1." in name and ".down_blocks.1." in name


#: kind, groups, which modules, and whether InvokeAI takes the file for one of its base
BY_WIDTH = [
    ("sdxl", ("attn",), None, True),
    ("sdxl", ("conv",), None, False),
    ("sdxl", ("proj",), None, False),
    ("sdxl", ("text", "conv"), None, False),
    ("sdxl", ("attn",), first_block, False),
    ("sdxl", ("attn",), lambda name: ".attn1." in name, True),  # it has transformers of more than two layers
    ("sd1", ("attn", "conv"), None, True),
    ("sd1", ("attn", "conv"), lambda name: ".attn" not in name or ".up_blocks.3." in name, False),  # taken for SDXL
    ("sd1", ("text", "conv"), None, True),
    ("sd2", ("attn", "conv"), None, True),
    ("sd2", ("ff",), None, False),
]


@every_row("kind, groups, chosen, is_known", BY_WIDTH)
def test_invokeai_recognises_the_base_by_the_first_width_in_the_file(
    kind: str, groups: tuple[str, ...], chosen: Any, is_known: bool, named: Any
) -> None:
    modules = {name: s for name, s in of(named, kind, *groups).items() if chosen is None or chosen(name)}
    count, total = loaded(kind, in_file_order(kohya(kind, modules)))["InvokeAI"]
    assert count == (total if is_known else 0)


def test_missing_marks_are_noted(named: Any) -> None:
    keys = kohya("sdxl", of(named, "sdxl", "attn"))
    alphas = {key: 1.0 for key in keys if key.endswith(".alpha")}
    for metadata, client, shown in (({"format": "pt"}, "AUTOMATIC1111", "SD1"), ({"format": "pt"}, "Forge", "Unknown")):
        answer = next(a for a in answers(facts_of(keys, metadata, alphas, "sdxl")) if a.client == client)
        assert any(f"shown as {shown}, not SDXL" in note for note in answer.notes)
    assert not any(answer.notes for answer in answers(facts_of(keys, kinds()["sdxl"].marks, alphas, "sdxl")))


# ---- the command


def test_a_trained_adapter_verifies_on_its_base(
    bases: dict[str, Path], trained_adapter: Callable[..., Any], tmp_path: Path
) -> None:
    pipe, family = sd_lora.load_base(bases["sd1"])
    adapter = trained_adapter(pipe)
    adapter.metadata |= family.kind(pipe).marks
    path = adapter.save(tmp_path / "a.safetensors")
    run = CliRunner().invoke(app, ["verify", str(path), "--base", str(bases["sd1"])])
    assert run.exit_code == 0, run.output
    assert run.stdout.count("loads completely") == 1 + len(CLIENTS)
    report = json.loads(CliRunner().invoke(app, ["verify", str(path), "--json"]).stdout)
    assert report["whole"]
    assert {answer["client"] for answer in report["clients"]} == set(CLIENTS)


@pytest.mark.parametrize(
    ("stem", "count"),
    [
        ("unet._orig_mod.mid_block.attentions.0.transformer_blocks.0.attn2.to_k", 1),
        ("lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_out", 1),
        ("lora_te_model_transformer_resblocks_3_mlp_c_fc", 1),
        ("lora_te2_text_model_encoder_layers_3_mlp_fc1", 0),  # SDXL's
    ],
)
def test_of_modules_that_no_base_has_nothing_is_said(stem: str, count: int, tmp_path: Path) -> None:
    """As no program has a place for them, none loads them; whether it then refuses the file was not measured."""
    up, down = (".lora_B.weight", ".lora_A.weight") if "." in stem else (".lora_up.weight", ".lora_down.weight")
    save_file({stem + up: torch.ones(8, 1), stem + down: torch.ones(1, 8)}, tmp_path / "a.safetensors")
    said = "not judged: 1 of 1 with names of modules that no base has"
    for answer in verify_adapter(tmp_path / "a.safetensors").clients:
        assert answer.unjudged == (said,) * count
        assert not count or answer.loaded == 0


def test_a_file_that_we_do_not_read_is_still_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
    write_adapter(path, {name: weights_of(torch.ones(1, 768), torch.ones(8, 1), 1.0)}, kinds()["sd1"].marks, "float32")
    save_file(load_file(path) | {"mystery.weight": torch.ones(1)}, path)
    found = verify_adapter(path)
    assert not found.is_whole
    assert "1 of 4 keys" in found.problems[0]
    by_client = {answer.client: answer for answer in found.clients}
    assert by_client["diffusers"].loaded == 0
    assert by_client["ComfyUI"].loaded == 1
    run = CliRunner().invoke(app, ["verify", str(path)])
    assert run.exit_code != 0
    assert "ComfyUI" in run.stdout
