"""Every kind of base, the whole way: train, save, and plain diffusers + PEFT draws the same from both files."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image
from small_bases import KINDS, SD3S, UNET_KINDS

import sd_lora
from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import base_name
from sd_lora.adapters.keys import LAYOUTS
from sd_lora.config.schema import ModelConfig
from sd_lora.errors import AdapterError
from sd_lora.lora.targets import plan_targets
from sd_lora.models.families import components, kinds
from sd_lora.models.opening import family_of_pipe
from sd_lora.tools.verify import verify_adapter
from sd_lora.training.metadata import describe

pytestmark = pytest.mark.slow

tuners = pytest.importorskip("peft.tuners.tuners_utils")

PROMPT = "a small blue boat on the sea, in xyz style"
TARGETS = {
    "sd1": "attn,ff,proj,text",
    "sd2": "attn,ff,conv,proj",
    "sd2v": "attn,text,text_ff",
    "sdxl": "attn,ff,proj,conv,text",
    "sd3-medium": "attn,ff,text",
    "sd3.5-medium": "attn,ff",
    "sd3.5-large": "attn,text,text_ff",
    "flux-dev": "attn,ff",
    "flux-schnell": "attn,text",
    "z-image": "attn,ff",
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def run(kind: str, bases: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of twenty steps, at a rate that shows."""
    home = tmp_path_factory.mktemp(f"run-{kind}")
    (home / "images").mkdir()
    for i, colour in enumerate(("red", "navy", "gold")):
        Image.new("RGB", (64 + 16 * i, 64), colour).save(home / f"images/{i}.png")
        (home / f"images/{i}.txt").write_text(f"a {colour} wall")
    sd_lora.train(
        sd_lora.load_config(
            "style", f"model.base={bases[kind]}", f"data.folder={home / 'images'}", "data.trigger=xyz",
            f"lora.targets={TARGETS[kind]}", "lora.rank=4", "optimizer.learning_rate=5e-3", "training.steps=20",
            "training.batch_size=2", "preview.inference_steps=2", f"output.folder={home / 'run'}",
            "output.dtype=float32",
        )
    )  # fmt: skip
    return home / "run"


def draw(pipe: Any) -> np.ndarray:
    family = family_of_pipe(pipe)
    latents = family.packed(family.noise(pipe, (64, 64), 0))
    return pipe(
        PROMPT, latents=latents, height=64, width=64, num_inference_steps=4, guidance_scale=4.0, output_type="np"
    ).images  # fmt: skip


def denoiser_of(pipe: Any) -> torch.nn.Module:
    return getattr(pipe, family_of_pipe(pipe).denoiser)


def layers_in(pipe: Any) -> int:
    parts = [getattr(pipe, name, None) for name in components()]
    return sum(isinstance(m, tuners.BaseTunerLayer) for part in parts if part is not None for m in part.modules())


@pytest.fixture
def plain(kind: str, bases: dict[str, Path]) -> Any:
    pipe = DiffusionPipeline.from_pretrained(bases[kind])
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture
def expected(kind: str, bases: dict[str, Path], run: Path) -> np.ndarray:
    pipe, _ = sd_lora.load_base(bases[kind])
    base = draw(pipe)
    with Adapter.load(run / "adapter.safetensors").injected(pipe):
        pictures = draw(pipe)
    assert np.abs(pictures - base).max() > 0.01
    return pictures


@pytest.mark.parametrize("file", ["adapter.safetensors", "diffusers/pytorch_lora_weights.safetensors"])
def test_plain_diffusers_draws_what_we_draw(plain: Any, expected: np.ndarray, run: Path, file: str) -> None:
    plain.load_lora_weights((run / file).parent, weight_name=Path(file).name)
    assert layers_in(plain) == len(Adapter.load(run / file).weights)
    np.testing.assert_allclose(draw(plain), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_float16_file_draws_the_same_within_its_rounding(
    plain: Any, expected: np.ndarray, run: Path, tmp_path: Path, layout: str
) -> None:
    adapter = Adapter.load(run / "adapter.safetensors")
    if layout not in adapter.family.layouts:
        pytest.skip(f"{adapter.family.title} is not written in it")
    adapter.save(tmp_path / "half.safetensors", dtype="float16", layout=layout)
    plain.load_lora_weights(tmp_path, weight_name="half.safetensors")
    np.testing.assert_allclose(draw(plain), expected, rtol=0, atol=5e-3)


def test_the_export_is_found_by_its_folder_alone_and_has_a_card(plain: Any, expected: np.ndarray, run: Path) -> None:
    plain.load_lora_weights(run / "diffusers")
    np.testing.assert_allclose(draw(plain), expected, rtol=0, atol=1e-4)
    card = (run / "diffusers/README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: diffusers") or "\nlibrary_name: diffusers\n" in card.split("---")[1]
    assert "instance_prompt: in xyz style" in card
    assert "preview.png" in card
    assert (run / "diffusers/preview.png").is_file()


def test_the_sidecars_say_what_other_programs_ask(kind: str, run: Path) -> None:
    facts = json.loads((run / "adapter.json").read_text("utf-8"))
    assert facts["sd version"] == kinds()[{"sd2v": "sd2-v"}.get(kind, kind)].version
    assert facts["activation text"] == "in xyz style"
    assert "preferred weight" not in facts  # none was measured
    assert Image.open(run / "adapter.png").size == (64, 64)


def test_no_program_would_lose_a_module_or_take_it_for_another_kind(
    kind: str, bases: dict[str, Path], run: Path
) -> None:
    found = verify_adapter(run / "adapter.safetensors", ModelConfig(base=str(bases[kind])))
    assert found.is_whole
    assert found.kind == {"sd2v": "sd2-v"}.get(kind, kind)
    reading = Adapter.load(run / "adapter.safetensors").family.read_by
    for answer in found.clients:
        if reading and answer.client not in reading["diffusers"]:
            assert (answer.loaded, answer.notes) == (0, ()), answer
            continue
        assert (answer.loaded, answer.reasons, answer.notes) == (found.modules, (), ()), answer


def test_the_metadata_says_what_other_programs_read(kind: str, run: Path) -> None:
    metadata = Adapter.load(run / "adapter.safetensors").metadata
    content = (run / "adapter.safetensors").read_bytes()
    body = content[8 + int.from_bytes(content[:8], "little") :]
    assert metadata["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    assert metadata["ss_base_model_version"].startswith("sdxl_") == (kind == "sdxl")
    assert metadata["ss_v2"] == str(kind.startswith("sd2"))
    predicts = None if kind not in UNET_KINDS else "v" if kind == "sd2v" else "epsilon"
    assert metadata.get("modelspec.prediction_type") == predicts
    assert metadata["ss_output_name"] == "xyz"
    assert json.loads(metadata["ss_tag_frequency"]) == {"images": {"xyz": 3}}
    assert json.loads(metadata["ss_dataset_dirs"])["images"]["img_count"] == 3
    assert metadata["ss_text_encoder_lr"] == ("0.0025" if "text" in TARGETS[kind] else "None")
    assert "lora_adapter_metadata" not in metadata
    assert str(run.parent) not in json.dumps(metadata)  # no path of this machine


def test_the_projections_of_sd1_are_convs_and_the_others_linear(kind: str, run: Path) -> None:
    weights = Adapter.load(run / "adapter.safetensors").weights
    shapes = {name: len(w.shape) for name, w in weights.items() if "proj_in" in name}
    assert set(shapes.values()) <= {4 if kind == "sd1" else 2}
    assert bool(shapes) == ("proj" in TARGETS[kind])


def test_both_parts_were_trained(kind: str, run: Path) -> None:
    changed: dict[str, float] = {}
    for name, w in Adapter.load(run / "adapter.safetensors").weights.items():
        component = name.split(".")[0]
        changed[component] = max(changed.get(component, 0.0), w.tensors["up"].abs().max().item())
    components = [each.name for each in Adapter.load(run / "adapter.safetensors").family.components]
    assert set(changed) == set(components if "text" in TARGETS[kind] else components[:1])
    assert min(changed.values()) > 1e-4


# ---- an adapter fits its own base and no other

ALL = (
    "embedded",
    "small",
    "sd1",
    "sd1v",
    "sd2",
    "sd2v",
    "sdxl",
    "sdxlv",
    *SD3S,
    "flux-dev",
    "z-image",
)  # an adapter for it is for schnell too


@pytest.fixture(scope="module")
def all_bases(bases: dict[str, Path], random_sd_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The embedded base, one of another depth, SD1, SD2 and SDXL with either prediction type, and the other kinds."""
    folders = {"embedded": sd_lora.tiny_base_path(), "small": random_sd_folder, **{k: bases[k] for k in KINDS}}
    for kind in ("sd1", "sdxl"):
        folders[f"{kind}v"] = folder = tmp_path_factory.mktemp("v") / f"random-{kind}v"
        shutil.copytree(bases[kind], folder)
        file = folder / "scheduler/scheduler_config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction"}))
    return {kind: sd_lora.load_base(folders[kind])[0] for kind in ALL}


@pytest.fixture(scope="module")
def all_adapters(all_bases: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A file for each, described as training describes it."""
    home, files = tmp_path_factory.mktemp("adapters"), {}
    for kind, pipe in all_bases.items():
        family = family_of_pipe(pipe)
        parts = {family.denoiser: getattr(pipe, family.denoiser)}
        adapter = Adapter.create(plan_targets(parts, family.target_groups, ["attn"], (1, 1.0)))
        adapter.metadata = describe(sd_lora.load_config("tiny-style"), family, pipe, [], adapter)
        files[kind] = adapter.save(home / f"{kind}.safetensors")
    return files


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("theirs", ALL)
def test_of_all_bases_an_adapter_fits_its_own(
    all_bases: dict[str, Any], all_adapters: dict[str, Path], tmp_path: Path, theirs: str, layout: str
) -> None:
    adapter = Adapter.load(all_adapters[theirs])
    if layout not in adapter.family.layouts:
        pytest.skip(f"{adapter.family.title} is not written in it")
    adapter = Adapter.load(adapter.save(tmp_path / f"{theirs}.safetensors", layout=layout))
    for kind, pipe in all_bases.items():
        if kind == theirs:
            with adapter.injected(pipe):
                assert sum(hasattr(module, "loras") for module in denoiser_of(pipe).modules()) == len(adapter.weights)
        else:
            with pytest.raises(AdapterError) as refused:
                adapter.inject(pipe)
            assert f"{theirs}.safetensors (trained on {base_name(all_bases[theirs])})" in str(refused.value)
            assert f"base model {base_name(pipe)}" in str(refused.value)
        assert not any(hasattr(module, "loras") or module._forward_hooks for module in denoiser_of(pipe).modules())
