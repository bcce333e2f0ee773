"""One checkpoint file ↔ the folder it is of: exact both ways, and diffusers' own reader finds the same in ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rows import every_row
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_bases import UNET_KINDS as KINDS

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import base_name
from sd_lora.errors import BaseModelError, SdLoraError
from sd_lora.lora.targets import plan_targets
from sd_lora.models.checkpoint.file import load_single_file, save_single_file
from sd_lora.models.checkpoint.kind import detect, kind_of
from sd_lora.models.contents import Header
from sd_lora.models.opening import family_of_source, find_base, load_base
from sd_lora.storage.safetensors_header import TensorInfo

UNET = "model.diffusion_model."
FIRST = f"{UNET}input_blocks.0.0.weight"
Change = Callable[[dict[str, torch.Tensor]], object]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """A factory: a copy of a checkpoint after `change` was made to its tensors, with other metadata if given."""

    def make(file: Path, change: Change = len, metadata: dict[str, str] | None = None) -> Path:
        tensors = load_file(file)
        change(tensors)
        with safe_open(file, "pt") as old:
            save_file(tensors, tmp_path / "changed.safetensors", old.metadata() if metadata is None else metadata)
        return tmp_path / "changed.safetensors"

    return make


def weights(pipe: Any) -> dict[str, torch.Tensor]:
    parts = [name for name in ("unet", "vae", "text_encoder", "text_encoder_2") if hasattr(pipe, name)]
    return {f"{part}.{name}": t for part in parts for name, t in getattr(pipe, part).state_dict().items()}


def same(pipe: Any, other: Any, dtype: torch.dtype = torch.float32) -> bool:
    ours, theirs = weights(pipe), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[n].to(dtype), theirs[n]) for n in ours)


def draw(pipe: Any) -> np.ndarray:
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    pipe.set_progress_bar_config(disable=True)
    return pipe("a house", latents=latents, height=64, width=64, num_inference_steps=2, output_type="np").images


# ---- exact both ways


def test_a_file_is_the_folder_it_was_made_of(
    kind: str, whole_bases: dict[str, Path], checkpoints: dict[str, Path], no_vocabulary: Path
) -> None:
    folder, (pipe, family) = load_base(whole_bases[kind])[0], load_base(checkpoints[kind], config=whole_bases[kind])
    assert same(folder, pipe)
    assert type(pipe) is type(folder)
    assert family is family_of_source(find_base(checkpoints[kind]))
    assert pipe.name_or_path == str(checkpoints[kind])
    assert base_name(pipe) == f"{kind}-file"
    assert pipe.scheduler.config.prediction_type == folder.scheduler.config.prediction_type
    for part in (pipe.unet, pipe.vae, *(encoder for encoder, _ in family.text_parts(pipe))):
        assert not part.training
        assert not any(p.requires_grad or p.is_meta for p in part.parameters())
    assert len(pipe.tokenizer) == 49_408
    for name in ("tokenizer", "tokenizer_2"):  # the file's kind decides what pads, as in the published models
        if getattr(folder, name, None) is not None:
            getattr(folder, name).pad_token = getattr(pipe, name).pad_token
    np.testing.assert_allclose(draw(folder), draw(pipe), rtol=0, atol=1e-4)


def test_the_padding_is_that_of_the_kind(whole_bases: dict[str, Path], checkpoints: dict[str, Path]) -> None:
    pads = {}
    for kind in ("sd1", "sd2", "sdxl"):
        pipe, _ = load_base(checkpoints[kind], config=whole_bases[kind])
        pads[kind] = [getattr(pipe, name).pad_token for name in ("tokenizer", "tokenizer_2") if hasattr(pipe, name)]
    assert pads == {"sd1": ["<|endoftext|>"], "sd2": ["!"], "sdxl": ["<|endoftext|>", "!"]}


@pytest.mark.slow
def test_diffusers_reads_our_file_to_the_same_weights(
    kind: str, whole_bases: dict[str, Path], checkpoints: dict[str, Path]
) -> None:
    folder = load_base(whole_bases[kind])[0]
    theirs = type(folder).from_single_file(str(checkpoints[kind]), config=str(whole_bases[kind]), local_files_only=True)
    assert same(folder, theirs)


@pytest.mark.slow
def test_saving_what_was_loaded_gives_the_same_file(
    kind: str, whole_bases: dict[str, Path], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    pipe, _ = load_base(checkpoints[kind], config=whole_bases[kind])
    save_single_file(pipe, tmp_path / "again.safetensors", torch.float32)
    with safe_open(tmp_path / "again.safetensors", "pt") as new, safe_open(checkpoints[kind], "pt") as old:
        assert new.metadata() == old.metadata()
        assert set(new.keys()) == set(old.keys())
        assert all(torch.equal(new.get_tensor(key), old.get_tensor(key)) for key in old.keys())  # noqa: SIM118


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_cast_to_the_dtype_asked_for(
    whole_bases: dict[str, Path], checkpoints: dict[str, Path], tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = load_base(whole_bases["sdxl"])[0]
    assert same(folder, load_base(checkpoints["sdxl"], dtype, config=whole_bases["sdxl"])[0], dtype)
    save_single_file(folder, tmp_path / "half.safetensors", dtype)
    half = load_base(tmp_path / "half.safetensors", config=whole_bases["sdxl"])[0]
    assert all(torch.equal(t.to(dtype).float(), weights(half)[name]) for name, t in weights(folder).items())


def test_the_weights_are_no_part_of_the_file(
    whole_bases: dict[str, Path], checkpoints: dict[str, Path], changed: Callable[..., Path]
) -> None:
    file = changed(checkpoints["sd1"])
    pipe, _ = load_base(file, config=whole_bases["sd1"])
    before = {name: tensor.clone() for name, tensor in weights(pipe).items()}
    with file.open("r+b") as stream:
        stream.seek(file.stat().st_size // 4)
        stream.write(bytes(file.stat().st_size // 2))
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(pipe).items())


def test_the_embedded_base_and_its_own_vocabulary_go_through_a_file(tmp_path: Path) -> None:
    from sd_lora.tinybase import tiny_base_path

    tiny, _ = load_base("tiny")
    save_single_file(tiny, tmp_path / "small.safetensors", torch.float32)
    pipe, _ = load_base(tmp_path / "small.safetensors", config=tiny_base_path())
    assert same(tiny, pipe)
    assert pipe.tokenizer("a house").input_ids == tiny.tokenizer("a house").input_ids


# ---- files as other programs write them


def without_text_model(tensors: dict[str, torch.Tensor]) -> None:
    for key in [key for key in tensors if ".transformer.text_model." in key]:
        tensors[key.replace(".text_model.", ".")] = tensors.pop(key)


LEFT_OVER = (
    "alphas_cumprod", "betas", "sqrt_one_minus_alphas_cumprod", "log_one_minus_alphas_cumprod", "posterior_variance",
    "logvar", "model_ema.decay", "model_ema.diffusion_modelinput_blocks00weight", "global_step",
    "first_stage_model.loss.logvar",
)  # fmt: skip
LEFT_OVER_OF = {
    "sd1": ("cond_stage_model.transformer.text_model.embeddings.position_ids", "cond_stage_model.logit_scale"),
    "sd2": ("cond_stage_model.model.attn_mask", "cond_stage_model.model.logit_scale"),
    "sdxl": (
        "denoiser.sigmas", "conditioner.embedders.0.transformer.text_model.embeddings.position_ids",
        "conditioner.embedders.0.transformer.text_projection.weight", "conditioner.embedders.1.model.logit_scale",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("base", ["sd1", "sdxl"])
def test_a_text_encoder_without_the_level_text_model_is_read(
    base: str, whole_bases: dict[str, Path], checkpoints: dict[str, Path], changed: Callable[..., Path]
) -> None:
    file = changed(checkpoints[base], without_text_model)
    assert same(load_base(whole_bases[base])[0], load_base(file, config=whole_bases[base])[0])


@pytest.mark.slow
def test_what_is_no_weight_of_the_model_is_passed_over(
    kind: str, whole_bases: dict[str, Path], checkpoints: dict[str, Path], changed: Callable[..., Path]
) -> None:
    names = LEFT_OVER + LEFT_OVER_OF[kind.removesuffix("v")]
    file = changed(checkpoints[kind], lambda tensors: tensors.update({name: torch.zeros(1) for name in names}))
    assert same(load_base(whole_bases[kind])[0], load_base(file, config=whole_bases[kind])[0])


@pytest.mark.slow
def test_the_last_layer_of_openclip_in_an_sd2_file_is_passed_over(
    whole_bases: dict[str, Path], checkpoints: dict[str, Path], changed: Callable[..., Path]
) -> None:
    def deeper(tensors: dict[str, torch.Tensor], layer: int = 3) -> None:
        last = {key: t for key, t in tensors.items() if ".resblocks.2." in key}
        tensors |= {key.replace(".resblocks.2.", f".resblocks.{layer}."): t.clone() for key, t in last.items()}
        tensors["cond_stage_model.model.text_projection"] = torch.zeros(40, 40)

    file = changed(checkpoints["sd2"], deeper)
    assert same(load_base(whole_bases["sd2"])[0], load_base(file, config=whole_bases["sd2"])[0])
    file = changed(checkpoints["sd2"], lambda tensors: deeper(tensors, 4))
    with pytest.raises(BaseModelError, match=r"12 are unknown \(cond_stage_model.model.transformer.resblocks.4"):
        load_base(file, config=whole_bases["sd2"])


# ---- what it predicts


@pytest.mark.slow
def test_an_sd2_file_that_does_not_tell_what_it_predicts_asks(
    whole_bases: dict[str, Path], checkpoints: dict[str, Path], changed: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole_bases["sd2v"], tmp_path / "config"))
    shutil.rmtree(folder / "scheduler")
    file = changed(checkpoints["sd2v"], metadata={})
    assert detect(file).prediction_type is None
    with pytest.raises(BaseModelError, match=r"model\.prediction_type=epsilon .* model\.prediction_type=v_prediction"):
        load_base(file, config=folder)
    for asked in ("epsilon", "v_prediction"):
        pipe, _ = load_base(file, config=folder, prediction_type=asked)
        assert pipe.scheduler.config.prediction_type == asked
    assert load_base(file, config=whole_bases["sd2v"])[0].scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({"modelspec.architecture": "stable-diffusion-v2-512"}, "epsilon"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v"}, "v_prediction"),
        ({"modelspec.prediction_type": "v"}, "v_prediction"),
        ({"modelspec.architecture": "stable-diffusion-v2-768-v", "modelspec.prediction_type": "epsilon"}, None),
        ({"modelspec.architecture": "something"}, None),
    ],
)
def test_an_sd2_file_tells_in_its_metadata(
    checkpoints: dict[str, Path], changed: Callable[..., Path], metadata: dict[str, str], told: str | None
) -> None:
    assert detect(changed(checkpoints["sd2"], metadata=metadata)).prediction_type == told


def test_a_file_and_a_config_that_disagree_are_refused(
    whole_bases: dict[str, Path], checkpoints: dict[str, Path]
) -> None:
    with pytest.raises(
        BaseModelError, match=r"says that it predicts v_prediction and .* says epsilon; set model\.pred"
    ):
        load_base(checkpoints["sd2v"], config=whole_bases["sd2"])
    pipe, _ = load_base(checkpoints["sd2v"], config=whole_bases["sd2"], prediction_type="v_prediction")
    assert pipe.scheduler.config.prediction_type == "v_prediction"


@pytest.mark.slow
def test_sdxl_files_are_marked_by_empty_tensors(
    whole_bases: dict[str, Path], checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole_bases["sdxl"], tmp_path / "config"))
    shutil.rmtree(folder / "scheduler")
    plain, _ = load_base(checkpoints["sdxl"], config=folder)
    assert type(plain.scheduler).__name__ == "EulerDiscreteScheduler"
    assert plain.scheduler.config.prediction_type == "epsilon"
    plain.scheduler = type(plain.scheduler).from_config(
        plain.scheduler.config, prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    save_single_file(plain, tmp_path / "v.safetensors", torch.float32)
    found = detect(tmp_path / "v.safetensors")
    assert (found.kind, found.prediction_type, found.zero_snr) == ("sdxl", "v_prediction", True)
    marked, _ = load_base(tmp_path / "v.safetensors", config=folder)
    assert marked.scheduler.config.prediction_type == "v_prediction"
    assert marked.scheduler.alphas_cumprod[-1] < 1e-6 < plain.vae.config.scaling_factor
    assert same(plain, marked)


def test_a_scheduler_that_cannot_follow_is_refused(
    whole_bases: dict[str, Path], checkpoints: dict[str, Path], changed: Callable[..., Path], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(whole_bases["sdxl"], tmp_path / "config"))
    file = changed(checkpoints["sdxl"], lambda tensors: tensors.update(ztsnr=torch.zeros(0)))
    for name, words in (
        ("PNDMScheduler", "PNDMScheduler has no rescale_betas_zero_snr"),
        ("UNet2DConditionModel", "is not in diffusers"),
        ("os", "is not in diffusers"),
    ):
        (folder / "scheduler/scheduler_config.json").write_text(json.dumps({"_class_name": name}))
        with pytest.raises(BaseModelError, match=words):
            load_base(file, config=folder)


# ---- refusals


def no_vae(tensors: dict[str, torch.Tensor]) -> None:
    for key in [key for key in tensors if key.startswith(("first_stage_model.", "cond_stage_model."))]:
        del tensors[key]


def misshapen(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["first_stage_model.quant_conv.bias"]
    tensors[FIRST] = torch.zeros(16, 4, 1, 1)
    tensors[f"{UNET}out.2.bias"] = torch.zeros(4, dtype=torch.int64)
    tensors["lora_te_something"] = torch.zeros(1)


def not_finite(tensors: dict[str, torch.Tensor]) -> None:
    tensors[FIRST][0, 0, 0, 0] = float("nan")


CHANGES: dict[str, tuple[Change, str]] = {
    "pruned": (no_vae, "a pruned checkpoint without VAE and text encoder; name a full checkpoint"),
    "misshapen": (
        misshapen,
        r"taken for sd15, but 1 weights are missing \(first_stage_model.quant_conv.bias\), 2 do not fit \(.*input_"
        r"blocks.0.0.weight is \[16, 4, 1, 1\] where unet takes \[16, 4, 3, 3\], .*out.2.bias is of type I64\), "
        r"1 are unknown \(lora_te_something\); name a checkpoint of the published sizes",
    ),
    "not finite": (not_finite, rf"1 weights that are NaN or infinite in float32 \({FIRST}\)"),
}


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_a_file_that_is_not_whole_is_refused_in_one_sentence(
    whole_bases: dict[str, Path], checkpoints: dict[str, Path], changed: Callable[..., Path], change: Change, words: str
) -> None:
    with pytest.raises(BaseModelError, match=words) as caught:
        load_base(changed(checkpoints["sd1"], change), config=whole_bases["sd1"])
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_weights_beyond_float16_are_refused_both_ways(
    whole_bases: dict[str, Path], checkpoints: dict[str, Path], changed: Callable[..., Path], tmp_path: Path
) -> None:
    file = changed(checkpoints["sd1"], lambda tensors: tensors[FIRST].fill_(1e5))
    with pytest.raises(BaseModelError, match=r"NaN or infinite in float16 .* use another model.dtype"):
        load_base(file, torch.float16, config=whole_bases["sd1"])
    pipe, _ = load_base(file, config=whole_bases["sd1"])
    with pytest.raises(BaseModelError, match=r"was not written: 1 weights .* save as float32"):
        save_single_file(pipe, tmp_path / "half.safetensors", torch.float16)
    assert not list(tmp_path.glob("*half*"))


def flat(*keys: str, shape: tuple[int, ...] = (4, 4, 3, 3), **others: tuple[int, ...]) -> Header:
    return Header(
        dict.fromkeys(keys, TensorInfo("F16", shape)) | {key: TensorInfo("F16", s) for key, s in others.items()}, {}
    )


def unet(inputs: int = 4, channels: int = 320, *keys: str) -> Header:
    tensors = dict.fromkeys(keys, TensorInfo("F16", (4, 4)))
    return Header(tensors | {FIRST: TensorInfo("F16", (channels, inputs, 3, 3))}, {})


LABELS = f"{UNET}label_emb.0.0.weight"
OTHERS: dict[str, tuple[Header, str]] = {
    "lora": (flat("lora_unet_x.lora_down.weight", "lora_unet_x.lora_up.weight"), r"a LoRA adapter.*lora\.init"),
    "peft": (flat("unet.x.lora_A.weight", "unet.x.lora_B.weight"), "a LoRA adapter"),
    "embedding": (flat("emb_params", shape=(4, 768)), "a textual-inversion embedding"),
    "sdxl embedding": (flat("clip_l", "clip_g", shape=(4, 768)), "a textual-inversion embedding"),
    "sd3": (flat(f"{UNET}joint_blocks.0.context_block.adaLN_modulation.1.bias"), "Stable Diffusion 3"),
    "flux": (flat("double_blocks.0.img_attn.norm.key_norm.scale"), "Flux"),
    "cascade": (flat("clip_txt_mapper.weight"), "Stable Cascade"),
    "controlnet": (flat("control_model.time_embed.0.weight"), "a ControlNet"),
    "playground": (unet(4, 320, LABELS, "edm_mean"), "Playground"),
    "refiner": (unet(4, 384, LABELS), "the SDXL refiner, which cannot be trained; name the SDXL base"),
    "small refiner": (unet(4, 16, LABELS, "conditioner.embedders.0.model.ln_final.bias"), "the SDXL refiner"),
    "unclip": (unet(4, 320, LABELS, "cond_stage_model.model.ln_final.bias"), "an unCLIP model"),
    "inpainting": (unet(9), "an inpainting model"),
    "sdxl inpainting": (unet(9, 320, LABELS), "an inpainting model"),
    "pix2pix": (unet(8), "an InstructPix2Pix model"),
    "depth": (unet(5), "a depth-to-image model"),
    "upscaler": (unet(7), "an upscaler"),
    "component": (
        flat("down_blocks.0.resnets.0.conv1.weight", "mid_block.x", "conv_in.weight"),
        "a UNet alone, in diffusers' layout",
    ),
    "vae": (flat("first_stage_model.encoder.conv_in.weight"), "a VAE alone"),
    "bare vae": (flat("encoder.conv_in.weight", "decoder.conv_in.weight", "quant_conv.weight"), "a VAE alone"),
    "text encoder": (flat("text_model.a.weight", "text_model.b.weight", "text_model.c.weight"), "a text encoder alone"),
    "other": (flat("blocks.0.weight"), "of no known kind"),
    "pruned sdxl": (unet(4, 320, LABELS), "without VAE and text encoder and second text encoder"),
    "pruned sd1": (unet(4, 320, "first_stage_model.encoder.conv_in.weight"), "without text encoder;"),
}


@every_row("header, words", OTHERS.values(), ids=OTHERS)
def test_other_files_are_refused_by_name(header: Header, words: str) -> None:
    with pytest.raises(BaseModelError, match=f"base model x.safetensors is .*{words}") as caught:
        kind_of(Path("x.safetensors"), header)
    assert "\n" not in str(caught.value)


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "pickle": (lambda _: b"\x80\x02}q\x00.", "is not a safetensors file: it is a pickle .*never loaded"),
    "empty": (lambda _: b"", "it is empty; download it again"),
    "cut": (lambda whole: whole[:-10], r"is cut short: it announces [\d,]+ bytes and has [\d,]+; download it again"),
    "cut in the header": (
        lambda whole: whole[:1000],
        r"is cut short: its header alone announces [\d,]+ bytes, and the file has 1,000",
    ),
    "longer": (lambda whole: whole + b"x", "has bytes after its last tensor"),
    "no JSON": (lambda whole: whole[:9] + b"\xff" * 20 + whole[29:], "damaged safetensors header"),
    "a list": (lambda _: (8).to_bytes(8, "little") + b'{"a":[]}', "damaged safetensors header"),
    "nothing": (lambda _: (2).to_bytes(8, "little") + b"{}", "holds no tensors"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused(
    checkpoints: dict[str, Path], tmp_path: Path, damage: Callable[[bytes], bytes], words: str
) -> None:
    file = tmp_path / "damaged.safetensors"
    file.write_bytes(damage(checkpoints["sd1"].read_bytes()))
    with pytest.raises(BaseModelError, match=rf"base model {file} .*{words}"):
        load_base(file)


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("unet/config.json", "{", r"unet/config\.json cannot be read"),
        ("unet/config.json", "[]", "is not a table of settings"),
        ("unet/config.json", '{"down_block_types": ["X"]}', "is not one of a model"),
        ("text_encoder/config.json", '{"hidden_size": 7}', "is not one of a model"),
    ],
)
def test_a_broken_config_is_refused(
    whole_bases: dict[str, Path], checkpoints: dict[str, Path], tmp_path: Path, file: str, content: str, words: str
) -> None:
    folder = Path(shutil.copytree(whole_bases["sd1"], tmp_path / "config"))
    (folder / file).write_text(content)
    with pytest.raises(BaseModelError, match=words) as caught:
        load_base(checkpoints["sd1"], config=folder)
    assert "\n" not in str(caught.value)


def test_a_config_that_is_no_folder_or_of_another_model_is_refused(
    whole_bases: dict[str, Path], checkpoints: dict[str, Path]
) -> None:
    with pytest.raises(BaseModelError, match=r"which is not a folder; name one with a tokenizer"):
        load_single_file(checkpoints["sd1"], torch.float32, config=checkpoints["sd1"])
    with pytest.raises(BaseModelError, match=r"taken for sd15, but .* weights are missing .* do not fit .*are unknown"):
        load_single_file(checkpoints["sd1"], torch.float32, config=whole_bases["sdxl"])


def test_without_a_config_the_published_sizes_count(checkpoints: dict[str, Path]) -> None:
    with pytest.raises(BaseModelError, match=r"do not fit .* where .* takes .*published sizes"):
        load_base(checkpoints["sd1"])


# ---- writing


def test_an_injected_pipeline_is_not_written(whole_bases: dict[str, Path], tmp_path: Path) -> None:
    pipe, family = load_base(whole_bases["sd1"])
    adapter = Adapter.create(plan_targets({"unet": pipe.unet}, family.target_groups, ["attn"], (2, 2.0)))
    with adapter.injected(pipe), pytest.raises(BaseModelError, match="fuse or eject adapters"):
        save_single_file(pipe, tmp_path / "x.safetensors", torch.float32)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_written_leaves_nothing(whole_bases: dict[str, Path], tmp_path: Path) -> None:
    pipe, _ = load_base(whole_bases["sd1"])
    with pytest.raises(SdLoraError, match=r"nowhere/x.safetensors cannot be written"):
        save_single_file(pipe, tmp_path / "nowhere/x.safetensors", torch.float32)
    (tmp_path / "x.safetensors").mkdir()
    with pytest.raises(SdLoraError, match=r"x.safetensors cannot be written"):
        save_single_file(pipe, tmp_path / "x.safetensors", torch.float32)
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_the_file_says_what_it_is(checkpoints: dict[str, Path]) -> None:
    said = {}
    for kind, file in checkpoints.items():
        with safe_open(file, "pt") as opened:
            said[kind] = [opened.metadata()[f"modelspec.{field}"] for field in ("architecture", "prediction_type")]
    assert said == {
        "sd1": ["stable-diffusion-v1", "epsilon"], "sd2": ["stable-diffusion-v2-512", "epsilon"],
        "sd2v": ["stable-diffusion-v2-768-v", "v"], "sdxl": ["stable-diffusion-xl-v1-base", "epsilon"],
    }  # fmt: skip
    assert {kind: detect(file).kind for kind, file in checkpoints.items()} == {
        "sd1": "sd15", "sd2": "sd2", "sd2v": "sd2", "sdxl": "sdxl",
    }  # fmt: skip
