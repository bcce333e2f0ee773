# ruff: noqa: F401 (laws and fixtures that pytest finds by name)
"""A family that no file of the package knows passes the contract of families, once it has a row in the table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import pytest
import torch
from diffusers import AutoencoderKL, DiffusionPipeline, FlowMatchEulerDiscreteScheduler, UNet2DConditionModel
from diffusers.image_processor import VaeImageProcessor
from safetensors.torch import load_file
from small_bases import UNETS, VAE, text_config
from small_runs import Crash
from test_families import (
    pictures,
    test_a_folder_is_recognised_and_loaded_frozen,
    test_captions_and_timesteps_steer_the_denoiser,
    test_encode_and_denoise_keep_the_shapes,
    test_encoded_prompts_draw_what_the_prompts_draw,
    test_every_module_has_a_key_that_leads_back,
    test_every_target_group_matches_modules_of_its_own,
    test_latents_are_scaled_and_deterministic,
    test_text_encoders_can_be_trained_through,
    test_the_loss_falls_on_one_image,
    test_the_same_seed_gives_the_same_loss,
)
from transformers import CLIPTextModel, CLIPTokenizer

import sd_lora
from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.summary import read_summary
from sd_lora.config.schema import PreviewConfig
from sd_lora.errors import AdapterError
from sd_lora.lora.targets import plan_targets
from sd_lora.models.families import FAMILIES
from sd_lora.models.families.base import Component, Kind, ModelFamily, Place
from sd_lora.models.families.sd import SdFamily
from sd_lora.models.kinds import kind_of
from sd_lora.models.objectives import Denoising, FlowMatching


class MadeUpPipeline(DiffusionPipeline):
    """Draws with a flow; its denoiser is called ``core``."""

    def __init__(self, vae: Any, text_encoder: Any, tokenizer: Any, core: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, core=core, scheduler=scheduler)
        self.vae_scale_factor = 8
        self.image_processor = VaeImageProcessor(vae_scale_factor=8)

    @torch.no_grad()
    def __call__(
        self, prompt: Any = None, *, prompt_embeds: Any = None, latents: Any = None, generator: Any = None,
        num_inference_steps: int = 2, output_type: str = "pil", **_: Any,
    ) -> Any:  # fmt: skip
        if prompt_embeds is None:
            prompt_embeds = FAMILIES["made-up"].encode_captions(self, prompt)["states"]
        if latents is None:
            latents = torch.randn(1, 4, 8, 8, generator=generator)
        self.scheduler.set_timesteps(num_inference_steps)
        for timestep in self.scheduler.timesteps:
            velocity = self.core(latents, timestep, prompt_embeds, return_dict=False)[0]
            latents = self.scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        decoded = FAMILIES["made-up"].decode(self, latents)
        return diffusers.ImagePipelineOutput(self.image_processor.postprocess(decoded, output_type=output_type))


class MadeUpFamily(SdFamily):
    name = "made-up"
    title = "Made Up"
    pipeline_classes = ("MadeUpPipeline",)
    denoiser = "core"
    components = (Component("core", "lora_core_", "core"), Component("text_encoder", "lora_text_", "text encoder"))
    kinds = (Kind("made-up", {"modelspec.architecture": "made-up/lora"}, ("made-up/*",), "Made Up", 48),)
    target_groups: ClassVar = {
        group: tuple(pattern.replace("unet.", "core.") for pattern in patterns)
        for group, patterns in SdFamily.target_groups.items()
    }

    def _check(self, pipe: Any, label: str) -> None:
        pass

    def part_of(self, name: str) -> Place:
        part, layer = super().part_of(name)
        return ((part[0], "layers", *part[1:]) if len(part) > 1 else part), layer

    def kind(self, pipe: Any) -> Kind:  # noqa: ARG002
        return self.kinds[0]

    def objective(self, pipe: Any, *, zero_terminal_snr: bool = False) -> Denoising:  # noqa: ARG002
        return FlowMatching()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = CLIPTokenizer.from_pretrained(sd_lora.tiny_base_path() / "tokenizer")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = MadeUpPipeline(
            AutoencoderKL(**VAE, force_upcast=False), CLIPTextModel(text_config(tokenizer, 48)), tokenizer,
            UNet2DConditionModel(**{**UNETS["sd1"], "cross_attention_dim": 48}), FlowMatchEulerDiscreteScheduler(),
        )  # fmt: skip
    path = tmp_path_factory.mktemp("made-up") / "base"
    pipe.save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def family(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelFamily]:
    monkeypatch.setattr(diffusers, "MadeUpPipeline", MadeUpPipeline, raising=False)
    sd_lora.register_family(MadeUpFamily())
    yield FAMILIES["made-up"]
    del FAMILIES["made-up"]


@pytest.fixture
def pipe(family: ModelFamily, folder: Path) -> Any:
    return family.load(folder, torch.float32)


@pytest.fixture
def adapter(family: ModelFamily, pipe: Any) -> Adapter:
    parts = {component.name: getattr(pipe, component.name) for component in family.components}
    plan = plan_targets(parts, family.target_groups, ["attn", "text"], (2, 2.0))
    metadata = {**family.kind(pipe).marks, "sdlora.family": family.name}
    adapter = Adapter.create(plan, metadata)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(0, 0.1, generator=generator)
    return adapter


def test_a_family_is_registered_once_and_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match='there is a family "made-up" already'):
        sd_lora.register_family(MadeUpFamily())
    monkeypatch.setattr(MadeUpFamily, "name", "other")
    monkeypatch.setattr(MadeUpFamily, "kinds", ())
    with pytest.raises(ValueError, match='"other" needs kinds'):
        sd_lora.register_family(MadeUpFamily())
    assert "other" not in FAMILIES


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_its_adapters_are_written_and_read(adapter: Adapter, layout: str, tmp_path: Path) -> None:
    path = adapter.save(tmp_path / "a.safetensors", dtype="float32", layout=layout)
    read = Adapter.load(path)
    assert read.weights.keys() == adapter.weights.keys()
    assert read.family.name == "made-up"
    starts = ("lora_core_", "lora_text_") if layout == "kohya" else ("core.", "text_encoder.")
    assert all(key.startswith(starts) for key in load_file(path))


def test_its_files_show_its_kind_and_parts(adapter: Adapter, tmp_path: Path) -> None:
    path = adapter.save(tmp_path / "a.safetensors")
    summary = read_summary(path)
    assert (summary.kind, summary.family) == ("made-up", "made-up")
    assert summary.parts[:2] == ("text_encoder", "core.layers.down.block_0")
    report = sd_lora.inspect_adapter(path)
    assert {target.split()[0] for target in report.targets} == {"core", "text_encoder"}
    assert set(report.norms) == set(summary.parts)
    assert kind_of({"core.x.attn2.to_k": (4, 48)}, {}) == "made-up"


def test_strengths_reach_its_parts_by_their_names(adapter: Adapter, pipe: Any) -> None:
    with adapter.injected(pipe, {"core": {"layers": {"mid": 0.5}}, "text_encoder": 0.0}):
        strengths = {name: layer.strength for name, layer in adapter.layers.items()}
    assert {s for name, s in strengths.items() if name.startswith("core.mid_block")} == {0.5}
    assert {s for name, s in strengths.items() if name.startswith("core.down_blocks")} == {1.0}
    assert {s for name, s in strengths.items() if name.startswith("text_encoder")} == {0.0}


def test_its_adapters_do_not_go_on_other_families(adapter: Adapter, random_sd: Any) -> None:
    with pytest.raises(AdapterError, match='trained for the family "made-up", and this base is of "sd"'):
        adapter.inject(random_sd)


def test_previews_are_drawn_from_its_noise(adapter: Adapter, pipe: Any) -> None:
    settings = PreviewConfig(inference_steps=2)
    grid = sd_lora.Previewer(pipe, adapter, settings).grid(["a house"], [0.0, 1.0])
    base, styled = grid.images[0]
    assert base.size == (64, 64)
    assert base.tobytes() != styled.tobytes()


@pytest.mark.slow
def test_it_is_trained_validated_and_resumed(folder: Path, captioned: Any, tmp_path: Path) -> None:
    config = sd_lora.load_config(
        "style", f"model.base={folder}", "model.device=cpu", f"data.folder={captioned('held', count=6)}",
        f"output.folder={tmp_path / 'run'}", "training.steps=4", "training.batch_size=2", "data.resolution=64",
        "training.hold_out=0.3", "training.validate_every=2", "training.checkpoint_every=2", "preview.every=0",
        "preview.inference_steps=1", "preview.strengths=1",
    )  # fmt: skip

    def crash(report: sd_lora.StepReport) -> None:
        if report.step == 3:
            raise Crash

    with pytest.raises(Crash):
        sd_lora.train(config, watch=crash)
    adapter = sd_lora.resume(tmp_path / "run")
    assert adapter.metadata["sdlora.family"] == "made-up"
    assert Adapter.load(tmp_path / "run" / "adapter.safetensors").weights.keys() == adapter.weights.keys()
