"""One ``.safetensors`` checkpoint in the original layout ↔ a diffusers pipeline, without the network.

The models are built without storage from the published configs (``bases/``) and filled tensor by tensor.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from sd_lora.errors import BaseModelError, SdLoraError
from sd_lora.models.checkpoint.filling import Places, check_scales, few, fill, problems_with
from sd_lora.models.checkpoint.keys import PREFIXES, Place, gathered, places
from sd_lora.models.checkpoint.kind import CheckpointKind, kind_of, read_header
from sd_lora.models.checkpoint.vocabulary import OPENCLIP_PAD, PAD, clip_tokenizer
from sd_lora.models.contents import Header
from sd_lora.models.families import family_of_class, kinds
from sd_lora.models.kinds import chosen_kind
from sd_lora.storage.atomic import open_to_others

#: keys that are not weights of the model: noise schedules, averages kept for training, marks, unused parts of CLIP
_NO_WEIGHTS = re.compile(
    r"model_ema\..*|first_stage_model\.(?:loss|model_ema)\..*|(?:denoiser|sampler)\..*|alphas_.*|sqrt_.*|log_one_minus_.*"
    r"|posterior_.*|betas|logvar|lvlb_weights|scale_factor|global_step|epoch|v_pred|ztsnr"
    r"|.*\.(?:position_ids|logit_scale|attn_mask)"
    r"|(?:cond_stage_model|conditioner\.embedders\.0)\.transformer\.text_projection(?:\.weight)?"
    r"|cond_stage_model\.model\.text_projection(?:\.weight)?"
)


def load_single_file(
    path: str | Path,
    dtype: torch.dtype,
    *,
    config: str | Path = "",
    prediction_type: str = "auto",
    later: Collection[str] = (),
) -> Any:
    """The pipeline in the checkpoint at `path`, its weights in `dtype` on the CPU, without a safety checker. Components
    named in `later` are without storage until `fill_component` gives them their weights.

    `config` names a folder whose ``tokenizer`` (and ``tokenizer_2``) is used and whose ``config.json`` of a component
    and ``scheduler_config.json`` replace the published ones. Raises BaseModelError, also for an SD2 checkpoint that
    does not say what it predicts, unless `prediction_type` does.
    """
    path, folder = Path(path), Path(config).expanduser() if config else None
    if folder is not None and not folder.is_dir():
        raise BaseModelError(
            f'model.config is "{config}", which is not a folder; name one with a tokenizer folder in it'
        )
    header = read_header(path)
    kind = kind_of(path, header)
    given_scheduler = _given(folder, "scheduler/scheduler_config.json")
    predicts = _prediction_type(path, kind, given_scheduler, prediction_type)
    published = _published(kind.kind, predicts)
    scheduler = _scheduler(given_scheduler or published["scheduler"], predicts, kind.zero_snr)
    parts = {
        name: _model(name, _given(folder, f"{name}/config.json") or published[name]) for name in PREFIXES[kind.kind]
    }
    where = {name: _places(kind.kind, name, model, header) for name, model in parts.items()}
    _check(path, header, parts, where, kind.kind)
    tokenizers = {
        name.replace("text_encoder", "tokenizer"): _tokenizer(name, model, kind.kind, folder)
        for name, model in parts.items() if "text" in name
    }  # fmt: skip
    for name, model in parts.items():
        if name in later:
            nn.Module.to(model, dtype)
        else:
            fill(path, "base model", header, model, where[name], dtype)
    return _pipeline(path, kind.kind, parts | tokenizers | {"scheduler": scheduler})


def fill_component(path: Path, name: str, model: nn.Module, dtype: torch.dtype) -> None:
    """Give component `name` of a pipeline its weights from the checkpoint at `path` that `load_single_file` read."""
    header = read_header(path)
    fill(path, "base model", header, model, _places(kind_of(path, header).kind, name, model, header), dtype)


def with_prediction_type(scheduler: Any, prediction_type: str) -> Any:
    """A scheduler like the one given, for a model that predicts `prediction_type`."""
    asked = {"prediction_type": prediction_type}
    return _adjusted(type(scheduler), {**scheduler.config, **asked}, asked)


def _adjusted(kind: Any, settings: dict[str, Any], asked: Iterable[str]) -> Any:
    """A scheduler of class `kind`; BaseModelError if that has no such setting as those `asked` for."""
    unknown = [name for name in asked if name not in inspect.signature(kind.__init__).parameters]
    if unknown:
        raise BaseModelError(
            f"scheduler {kind.__name__} has no {' and no '.join(unknown)}, which this base model needs; name another"
        )
    return kind.from_config(settings)


def _prediction_type(path: Path, kind: CheckpointKind, given: Mapping[str, Any] | None, asked: str) -> str:
    """What was asked for, else what the `given` scheduler says, else what the file says or is usual."""
    if asked != "auto":
        return asked
    configured = given.get("prediction_type") if given else None
    if configured and kind.marked and configured != kind.prediction_type:
        raise BaseModelError(
            f"base model {path} says that it predicts {kind.prediction_type} and the scheduler in model.config says "
            f"{configured}; set model.prediction_type"
        )
    chosen = configured or kind.prediction_type
    if chosen is None:
        raise BaseModelError(
            f"base model {path} does not say whether it predicts epsilon or v; set model.prediction_type=epsilon (the "
            "512 px models of SD 2) or model.prediction_type=v_prediction (the 768 px ones)"
        )
    return str(chosen)


def _published(layout: str, prediction_type: str) -> dict[str, Any]:
    """The configs of the published model in this `layout`, by component."""
    name = chosen_kind([kind for kind in kinds().values() if kind.checkpoint == layout], prediction_type != "epsilon")
    return json.loads((Path(__file__).parent / "bases" / f"{name}.json").read_text("utf-8"))


def _given(folder: Path | None, name: str) -> dict[str, Any] | None:
    """The JSON file in the folder that the user gives, or None."""
    if folder is None or not (folder / name).is_file():
        return None
    try:
        values = json.loads((folder / name).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{folder / name} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise BaseModelError(f"{folder / name} is not a table of settings; restore it from the base's folder")
    return values


def _scheduler(config: Mapping[str, Any], prediction_type: str, zero_snr: bool) -> Any:
    import diffusers

    kind = getattr(diffusers, str(config.get("_class_name", "")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise BaseModelError(f'scheduler "{config.get("_class_name")}" in model.config is not in diffusers')
    asked = {"prediction_type": prediction_type} | ({"rescale_betas_zero_snr": True} if zero_snr else {})
    return _adjusted(kind, {**config, **asked}, asked)


def _model(name: str, config: Mapping[str, Any]) -> Any:
    """Component `name` without storage for its weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    try:
        with torch.device("meta"):
            if name in ("unet", "vae"):
                return (UNet2DConditionModel if name == "unet" else AutoencoderKL).from_config(dict(config))
            made = CLIPTextModelWithProjection if name == "text_encoder_2" else CLIPTextModel
            return made(CLIPTextConfig.from_dict(dict(config)))
    except Exception as error:  # the libraries check sizes in a dozen ways
        reason = str(error).strip().split("\n")[0]
        raise BaseModelError(f"the {name}/config.json in model.config is not one of a model: {reason}") from error


def _places(kind: str, name: str, model: nn.Module, header: Header) -> dict[str, Place]:
    prefix = PREFIXES[kind][name]
    flat = header.has(f"{prefix}embeddings.") and not header.has(f"{prefix}text_model.")
    return places(kind, name, model.state_dict(), flat_text=flat)


def _check(path: Path, header: Header, parts: Mapping[str, nn.Module], where: Places, kind: str) -> None:
    """Raise BaseModelError unless the file has every weight, in its shape, and no others."""
    last = getattr(parts["text_encoder"].config, "num_hidden_layers", 0)
    unused_layer = f"{PREFIXES['sd2']['text_encoder']}transformer.resblocks.{last}." if kind == "sd2" else None
    problems = problems_with(
        header,
        parts,
        where,
        lambda key: bool(_NO_WEIGHTS.fullmatch(key) or (unused_layer and key.startswith(unused_layer))),
    )
    if problems:
        raise BaseModelError(
            f"base model {path} was taken for {kind}, but {problems}; name a checkpoint of the published sizes, or a "
            "folder with its configs as model.config"
        )
    check_scales(path, "base model", header)


def _tokenizer(name: str, model: Any, kind: str, folder: Path | None) -> Any:
    """The tokenizer of text encoder `name`."""
    openclip = PREFIXES[kind][name].endswith(".model.")
    return clip_tokenizer(
        folder,
        name.replace("text_encoder", "tokenizer"),
        pad=OPENCLIP_PAD if openclip else PAD,
        size=model.config.vocab_size,
        length=model.config.max_position_embeddings,
    )


def _pipeline(path: Path, kind: str, parts: Mapping[str, Any]) -> Any:
    from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline

    if kind == "sdxl":
        pipe: Any = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        absent: dict[str, Any] = {"safety_checker": None, "feature_extractor": None}
        pipe = StableDiffusionPipeline(**parts, **absent, requires_safety_checker=False)
    pipe.register_to_config(_name_or_path=str(path))
    return pipe


def save_single_file(
    pipe: Any, path: str | Path, dtype: torch.dtype, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the pipeline's weights in `dtype` to `path` in the original layout, completely or not at all, with
    `metadata` and the marks by which other programs recognise the kind of model.

    The last layer of SD2's text encoder, which nothing reads, is absent, as it is in diffusers. Raises BaseModelError
    for weights that a checkpoint cannot hold or that do not fit `dtype`, SdLoraError if the file cannot be written.
    """
    family = family_of_class(type(pipe).__name__)
    assert family is not None
    path, facts = Path(path), family.kind(pipe)
    kind = facts.checkpoint
    tensors: dict[str, Tensor] = {}
    for name in PREFIXES[kind]:
        weights = {key: tensor.detach().to("cpu", dtype) for key, tensor in getattr(pipe, name).state_dict().items()}
        stored = gathered(weights, places(kind, name, weights))
        tensors |= {key: tensor.contiguous() for key, tensor in stored.items()}
    bad = [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if bad:
        raise BaseModelError(
            f"{path} was not written: {len(bad)} weights are NaN or infinite in {str(dtype).removeprefix('torch.')} "
            f"({few(bad)}); save as float32"
        )
    config = pipe.scheduler.config
    v = config.prediction_type == "v_prediction"
    marks = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": facts.marks["modelspec.architecture"].removesuffix("/lora"),
        "modelspec.prediction_type": "v" if v else "epsilon",
    }
    if kind == "sdxl":  # what other programs know such a model by
        traits = {"v_pred": v, "ztsnr": config.get("rescale_betas_zero_snr")}
        tensors |= {key: torch.zeros(0) for key, holds in traits.items() if holds}
    partial = path.with_name(f".{path.name[:200]}.{os.getpid()}.partial")
    try:
        save_file(tensors, partial, metadata={**(metadata or {}), **marks})
        open_to_others(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise SdLoraError(f"{path} cannot be written: {str(error).splitlines()[0]}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
