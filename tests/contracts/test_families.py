"""The laws of architecture.md §5 for every model family, each on a tiny random base of its own layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_bases import KINDS

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import modules_of
from sd_lora.adapters.keys import kohya_stem, name_of_module, split_key
from sd_lora.config.schema import TrainingConfig
from sd_lora.data.pictures.views import Framing
from sd_lora.errors import BaseModelError
from sd_lora.lora.targets import plan_targets
from sd_lora.models.families import kinds
from sd_lora.models.families.base import Conditioning
from sd_lora.models.kinds import family_of_adapter
from sd_lora.models.objectives import Objective
from sd_lora.models.opening import ModelFamily, family_of, find_base, load_base

#: kind of base → its family, ss_base_model_version, ss_v2 and modelspec.architecture
MARKS = {
    "sd1": ("sd", "sd_v1", "False", "stable-diffusion-v1/lora"),
    "sd2": ("sd", "sd_v2", "True", "stable-diffusion-v2-512/lora"),
    "sd2v": ("sd", "sd_v2_v", "True", "stable-diffusion-v2-768-v/lora"),
    "sdxl": ("sdxl", "sdxl_base_v1-0", "False", "stable-diffusion-xl-v1-base/lora"),
    "sd3-medium": ("sd3", "sd3_m", "False", "stable-diffusion-3-m/lora"),
    "sd3.5-medium": ("sd3", "sd3_5-medium", "False", "stable-diffusion-3-5-medium/lora"),
    "flux-dev": ("flux", "flux1", "False", "flux-1-dev/lora"),
    "z-image": ("z-image", "z-image", "False", "z-image/lora"),
    "flux-schnell": ("flux", "flux1", "False", "flux-1-schnell/lora"),
    "sd3.5-large": ("sd3", "sd3_5-large", "False", "stable-diffusion-3-5-large/lora"),
}
CAPTIONS = ["a red house at night", "a small blue boat on the sea", ""]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def folder(kind: str, bases: dict[str, Path]) -> Path:
    return bases[kind]


@pytest.fixture
def family(folder: Path) -> ModelFamily:
    return family_of(folder)


@pytest.fixture
def pipe(kind: str, opened: Callable[[str], Any]) -> Any:
    return opened(kind)[0]


@pytest.fixture
def pictures(family: ModelFamily, pipe: Any) -> torch.Tensor:
    size = family.native_size(pipe)
    return torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def conditioning_for(family: ModelFamily, pipe: Any, captions: list[str]) -> Conditioning:
    """Captions and the framing of uncropped pictures."""
    size = (family.native_size(pipe),) * 2
    with torch.no_grad():
        captioned = family.encode_captions(pipe, captions)
    return captioned | family.encode_framing([Framing(size, (0, 0), size)] * len(captions))


def loss_of(family: ModelFamily, pipe: Any, pictures: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """The loss of one batch, noise and timesteps drawn from `seed`."""
    generator, objective = torch.Generator().manual_seed(seed), family.objective(pipe)
    latents = family.encode_images(pipe, pictures)
    noise = torch.randn(latents.shape, generator=generator)
    places = torch.full((len(latents),), latents[0, 0].numel())
    timesteps = objective.sample_timesteps(len(latents), TrainingConfig(), generator, places)
    noised = objective.noised(latents, noise, timesteps, TrainingConfig(weighting="min-snr"))
    conditioning = conditioning_for(family, pipe, CAPTIONS[: len(latents)])
    denoiser = getattr(pipe, family.denoiser)
    prediction = family.denoise(denoiser, noised.latents, timesteps, conditioning)
    return objective.loss(prediction, noised, TrainingConfig())


def adapter_for(family: ModelFamily, pipe: Any, targets: list[str]) -> Adapter:
    plan = plan_targets({family.denoiser: getattr(pipe, family.denoiser)}, family.target_groups, targets, (4, 4.0))
    return Adapter.create(plan, dict(family.kind(pipe).marks))


def test_every_kind_in_the_table_has_a_base_to_test_it_with() -> None:
    without = set(kinds()) - {"sd2-v" if kind == "sd2v" else kind for kind in KINDS}
    assert not without, f"write tiny random bases of {', '.join(without)} in tests/small_bases.py"


def test_a_folder_is_recognised_and_loaded_frozen(family: ModelFamily, folder: Path) -> None:
    pipe, found = load_base(folder)
    assert found is family is family_of(folder)
    assert type(pipe).__name__ in family.pipeline_classes
    components = [pipe.vae, getattr(pipe, family.denoiser), *(getattr(pipe, name) for name in family.text_encoders)]
    for component in components:
        assert not component.training
        assert not any(p.requires_grad for p in component.parameters())
        assert {p.dtype for p in component.parameters()} == {torch.float32}


def test_encode_and_denoise_keep_the_shapes(family: ModelFamily, pipe: Any, pictures: torch.Tensor) -> None:
    latents = family.encode_images(pipe, pictures)
    denoiser, conditioning = getattr(pipe, family.denoiser), conditioning_for(family, pipe, CAPTIONS)
    side = pictures.shape[-1] // pipe.vae_scale_factor
    assert latents.shape == (3, pipe.vae.config.latent_channels, side, side)
    assert latents.dtype == torch.float32
    assert {len(tensor) for tensor in conditioning.values()} == {3}
    prediction = family.denoise(denoiser, latents, torch.tensor([1, 500, 999]), conditioning)
    assert prediction.shape == latents.shape
    assert torch.isfinite(prediction).all()


def test_captions_and_timesteps_steer_the_denoiser(family: ModelFamily, pipe: Any, pictures: torch.Tensor) -> None:
    latents, denoiser = family.encode_images(pipe, pictures[:1]), getattr(pipe, family.denoiser)
    outputs = [
        family.denoise(denoiser, latents, torch.tensor([timestep]), conditioning_for(family, pipe, [caption]))
        for caption, timestep in ((CAPTIONS[0], 500), (CAPTIONS[1], 500), (CAPTIONS[0], 20))
    ]
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-6)
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-6)


def test_latents_are_scaled_and_deterministic(family: ModelFamily, pipe: Any, pictures: torch.Tensor) -> None:
    latents = family.encode_images(pipe, pictures)
    assert torch.equal(family.encode_images(pipe, pictures), latents)
    unscaled, config = pipe.vae.encode(pictures).latent_dist.mean, pipe.vae.config
    torch.testing.assert_close(latents, (unscaled - (config.shift_factor or 0)) * config.scaling_factor)
    torch.testing.assert_close(family.decode(pipe, latents), pipe.vae.decode(unscaled).sample, rtol=1e-4, atol=1e-4)


def test_encoded_prompts_draw_what_the_prompts_draw(family: ModelFamily, pipe: Any) -> None:
    arguments = family.pipeline_arguments(
        family.encode_captions(pipe, CAPTIONS[:1]), family.encode_captions(pipe, [""])
    )
    side = family.native_size(pipe)
    drawn = [
        pipe(
            **given,
            height=side,
            width=side,
            num_inference_steps=2,
            output_type="np",
            generator=torch.Generator().manual_seed(0),
        ).images
        for given in (arguments, {"prompt": CAPTIONS[:1]})
    ]
    assert abs(drawn[0] - drawn[1]).max() < 1e-5


def test_captions_beyond_the_text_encoder_are_found(family: ModelFamily, pipe: Any) -> None:
    assert family.overlong(pipe, ["a house", "red " * 500, "", "blue " * 500]) == [1, 3]


def test_every_target_group_matches_modules_of_its_own(family: ModelFamily, pipe: Any) -> None:
    groups = [group for group in family.target_groups if group != "style-block"]  # a part of attn
    chosen = [name for group in groups for name in names_of(pipe, family, group)]
    assert len(set(chosen)) == len(chosen)
    assert set(map(in_memory, chosen)) <= set(modules_of(pipe))
    for group in groups:
        assert names_of(pipe, family, group)


def test_the_style_block_of_sdxl_is_one_block_of_attention(opened: Callable[[str], Any]) -> None:
    pipe, family = opened("sdxl")
    chosen = names_of(pipe, family, "style-block")
    assert set(chosen) < set(names_of(pipe, family, "attn"))
    assert {name.split(".attn")[0].rpartition(".transformer_blocks")[0] for name in chosen} == {
        "unet.up_blocks.0.attentions.1"
    }


def in_memory(name: str) -> str:
    return name_of_module(*name.split(".", 1))


def names_of(pipe: Any, family: ModelFamily, group: str) -> list[str]:
    components = {each.name: getattr(pipe, each.name) for each in family.components}
    return [target.name for target in plan_targets(components, family.target_groups, [group])]


def test_every_module_has_a_key_that_leads_back(family: ModelFamily, pipe: Any) -> None:
    names = [name for name in modules_of(pipe) if not name.endswith("text_projection")]
    assert [split_key(f"{kohya_stem(name, family.name)}.alpha").name for name in names] == names


@pytest.mark.parametrize("groups", [["attn"], ["attn", "text"]])
def test_modules_alone_show_the_family(family: ModelFamily, pipe: Any, groups: list[str]) -> None:
    if not set(groups) <= set(family.target_groups):
        pytest.skip("its text encoder carries no layers")
    modules = modules_of(pipe)
    names = [in_memory(name) for group in groups for name in names_of(pipe, family, group)]
    assert family_of_adapter({name: tuple(modules[name].weight.shape) for name in names}, {}) is family  # type: ignore[union-attr]


def test_marks_are_those_other_programs_tell_a_base_by(kind: str, family: ModelFamily, pipe: Any) -> None:
    marks = family.kind(pipe).marks
    fields = ("ss_base_model_version", "ss_v2", "modelspec.architecture")
    assert (family.name, *(marks[field] for field in fields)) == MARKS[kind]


def test_text_encoders_can_be_trained_through(family: ModelFamily, pipe: Any) -> None:
    components = {each.name: getattr(pipe, each.name) for each in family.components[1:]}
    if not components:
        pytest.skip("only its denoiser can carry layers")
    adapter = Adapter.create(plan_targets(components, family.target_groups, ["text"], (2, 2.0)))
    with adapter.injected(pipe):
        encoded = family.encode_captions(pipe, CAPTIONS[:1]).values()
        # weighted: the sum of what a norm puts out is the same whatever goes in
        sum((states * torch.linspace(0, 1, states.shape[-1])).sum() for states in encoded).backward()  # type: ignore[union-attr]
    gradients = {name: layer.up.weight.grad for name, layer in adapter._layers.items()}
    reached = [name for name, gradient in gradients.items() if gradient is not None and gradient.abs().max() > 0]
    assert {name.split(".")[0] for name in reached} == set(components)


def test_the_same_seed_gives_the_same_loss(family: ModelFamily, pipe: Any, pictures: torch.Tensor) -> None:
    first = loss_of(family, pipe, pictures, 7)
    assert torch.equal(loss_of(family, pipe, pictures, 7), first)
    assert not torch.equal(loss_of(family, pipe, pictures, 8), first)


def test_the_loss_falls_on_one_image(family: ModelFamily, pipe: Any, pictures: torch.Tensor) -> None:
    adapter = adapter_for(family, pipe, [group for group in family.target_groups if not group.startswith("text")])
    steps, rate = (12, 1e-2) if family.denoiser == "unet" else (40, 3e-2)
    optimizer, losses = torch.optim.AdamW(adapter.parameters(), lr=rate), []
    with adapter.injected(pipe):
        for _ in range(steps):
            loss = loss_of(family, pipe, pictures[:1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert loss_of(family, pipe, pictures[:1]).item() == losses[0]  # the base is what it was


def test_the_objective_is_that_of_the_scheduler(family: ModelFamily, pipe: Any) -> None:
    objective, scheduler = family.objective(pipe), pipe.scheduler
    latents, noise = torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)
    if isinstance(objective, Objective):
        assert objective.prediction_type == scheduler.config.prediction_type
        timestep, theirs = torch.tensor([300]), scheduler.add_noise(latents, noise, torch.tensor([300]))
    else:
        assert objective.prediction_type == "flow"
        timestep = scheduler.timesteps[300:301]
        theirs = scheduler.scale_noise(latents, timestep, noise)
    torch.testing.assert_close(objective.noised(latents, noise, timestep, TrainingConfig()).latents, theirs)


# ---- folders that are no base model


def set_in(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), "utf-8")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "another class": (lambda f: set_in(f / "model_index.json", _class_name="SanaPipeline"), "is a SanaPipeline"),
    "no class": (lambda f: (f / "model_index.json").write_text("{}"), "nameless"),
    "index is a list": (lambda f: (f / "model_index.json").write_text("[]"), "unreadable"),
    "index is broken": (lambda f: (f / "model_index.json").write_text("{"), "unreadable"),
    "no index": (lambda f: (f / "model_index.json").unlink(), "has no model_index.json"),
    "no unet weights": (lambda f: (f / "unet/diffusion_pytorch_model.safetensors").unlink(), "cannot be loaded"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "cannot be loaded|tokenizer"),
    "tokenizer of two words": (
        lambda f: [p.unlink() for p in (f / "tokenizer").iterdir()],
        "tokenizer|cannot be loaded",
    ),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_folder_that_is_not_whole_is_refused(
    random_sd_folder: Path, tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    folder = Path(shutil.copytree(random_sd_folder, tmp_path / "copy"))
    damage(folder)
    with pytest.raises(BaseModelError, match=words) as caught:
        load_base(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("missing", "does not exist"), ("file", "is text, not a .safetensors checkpoint"), ("empty", "has no")],
)
def test_what_is_no_folder_of_a_pipeline_is_refused(tmp_path: Path, kind: str, words: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError, match=f'{kind}" {words}.* "tiny" for the embedded base'):
        find_base(tmp_path / kind)


def test_an_inpainting_base_is_refused(random_sd_folder: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    folder = Path(shutil.copytree(random_sd_folder, tmp_path / "inpainting"))
    config = dict(UNet2DConditionModel.load_config(folder / "unet")) | {"in_channels": 9}
    UNet2DConditionModel.from_config(config).save_pretrained(folder / "unet")
    with pytest.raises(BaseModelError, match="9 input channels"):
        load_base(folder)


def test_tiny_is_the_embedded_base() -> None:
    pipe, family = load_base("tiny")
    assert family.name == "sd"
    assert family.native_size(pipe) == 64
    assert set(names_of(pipe, family, "attn")) <= set(modules_of(pipe))


# ---- what SDXL's denoiser is told besides the caption


def test_sdxl_is_told_the_size_and_crop_as_the_pipeline_does(opened: Callable[[str], Any]) -> None:
    pipe, family = opened("sdxl")
    told = family.encode_framing([Framing((480, 640), (0, 80), (480, 480))])["time_ids"]
    theirs = pipe._get_add_time_ids(
        (480, 640), (0, 80), (480, 480), torch.float32, pipe.text_encoder_2.config.projection_dim
    )
    assert torch.equal(told, theirs)


def test_sdxl_learns_from_the_framing(opened: Callable[[str], Any]) -> None:
    pipe, family = opened("sdxl")
    captioned = family.encode_captions(pipe, CAPTIONS[:1])
    noisy, timesteps = torch.randn(1, 4, 8, 8), torch.tensor([500])
    outputs = [
        family.denoise(pipe.unet, noisy, timesteps, captioned | family.encode_framing([Framing(size, crop, (64, 64))]))
        for size, crop in (((64, 64), (0, 0)), ((640, 64), (0, 0)), ((64, 64), (16, 0)))
    ]
    assert not torch.allclose(outputs[0], outputs[1], atol=1e-6)
    assert not torch.allclose(outputs[0], outputs[2], atol=1e-6)


@pytest.mark.parametrize("zeros", [True, False])
def test_sdxl_takes_zeros_for_no_caption_if_the_base_was_made_so(opened: Callable[[str], Any], zeros: bool) -> None:
    pipe, family = opened("sdxl")
    pipe.register_to_config(force_zeros_for_empty_prompt=zeros)
    encoded = family.encode_captions(pipe, ["", "a house"])
    for states in encoded.values():
        assert (states[0].abs().max() == 0) == zeros
        assert states[1].abs().max() > 0


def test_the_refiner_is_refused_by_name(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bases["sdxl"], tmp_path / "refiner"))
    set_in(folder / "model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline")
    with pytest.raises(BaseModelError, match="StableDiffusionXLImg2ImgPipeline; supported are"):
        load_base(folder)
    set_in(
        folder / "model_index.json", _class_name="StableDiffusionXLPipeline", text_encoder=[None, None],
        tokenizer=[None, None],
    )  # fmt: skip
    with pytest.raises(BaseModelError, match="the SDXL refiner cannot be trained"):
        load_base(folder)
