"""A VAE from another file or folder on this machine, in place of the base model's own (``model.vae``)."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import torch

from sd_lora.errors import BaseModelError, shown
from sd_lora.models.checkpoint.filling import check_scales, fill, problems_with
from sd_lora.models.checkpoint.keys import PREFIXES, Place, places
from sd_lora.models.contents import Header, contents_of_keys
from sd_lora.storage.safetensors_header import VAE as LIMITS
from sd_lora.storage.safetensors_header import read_header

_WANTED = "name the vae folder of a diffusers model, or a .safetensors file"
#: keys of a file that are not weights of the VAE: those of its training
_NO_WEIGHTS = re.compile(r"(?:loss|model_ema)\..*|global_step|epoch")
#: what a file's keys may begin with: nothing, or a checkpoint's prefix
_PREFIXES = (PREFIXES["sd15"]["vae"], "vae.", "")
#: diffusers' names of the attention's layers before version 0.17
_OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def check_vae(vae: str | Path) -> None:
    """BaseModelError if ``model.vae`` names no VAE on this machine; its weights are not read."""
    path = Path(os.path.expanduser(vae))
    if path.is_dir():
        _config(path)
    elif not path.is_file():
        hint = "; only files and folders on this machine are read" if not path.is_absolute() else ""
        raise BaseModelError(f'model.vae is "{shown(str(vae))}", which does not exist; {_WANTED}{hint}')
    else:
        _layout(path, _header(path))


def load_vae(vae: str | Path, own: Any, dtype: torch.dtype) -> Any:
    """The VAE that ``model.vae`` names, in `dtype`, frozen; `own` is the base model's, whose latents it must have.

    BaseModelError for anything but a complete VAE of the same latents."""
    path = Path(os.path.expanduser(vae))
    check_vae(path)
    model = _from_folder(path, own, dtype) if path.is_dir() else _from_file(path, own, dtype)
    return model.requires_grad_(False).eval()


def _config(folder: Path) -> dict[str, Any]:
    """The config of a VAE in `folder`."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        kind = config.get("_class_name", "") if isinstance(config, dict) else ""
    except FileNotFoundError:
        hint = f", here {folder / 'vae'}" if (folder / "vae" / "config.json").is_file() else ""
        raise BaseModelError(f"model.vae {folder} has no config.json; {_WANTED}{hint}") from None
    except (OSError, ValueError) as error:
        raise BaseModelError(f"model.vae {folder} has a config.json that cannot be read: {error}") from error
    if kind != "AutoencoderKL":
        raise BaseModelError(f"model.vae {folder} is a {kind or 'nameless model'}, not an AutoencoderKL; {_WANTED}")
    return config


def _from_folder(folder: Path, own: Any, dtype: torch.dtype) -> Any:
    from diffusers import AutoencoderKL

    config = _config(folder)
    for name, default in (("latent_channels", 4), ("scaling_factor", 0.18215)):
        given, wanted = config.get(name, default), own.config[name]
        if given != wanted:
            raise BaseModelError(
                f"model.vae {folder} has a {name} of {given}, and the base model's own VAE {wanted}: it is for another "
                "family of models; name one for this base model"
            )
    fp16 = (folder / "diffusion_pytorch_model.fp16.safetensors").is_file()
    plain = (folder / "diffusion_pytorch_model.safetensors").is_file()
    try:
        model = AutoencoderKL.from_pretrained(
            folder, torch_dtype=dtype, use_safetensors=True, local_files_only=True,
            variant="fp16" if fp16 and not plain else None,
        )  # fmt: skip
    except Exception as error:  # diffusers raises a dozen kinds for an incomplete folder
        raise BaseModelError(f"model.vae {folder} cannot be loaded: {str(error).strip().splitlines()[0]}") from error
    if len(model.config["block_out_channels"]) != len(own.config["block_out_channels"]):
        raise BaseModelError(f"model.vae {folder} has latents of another size than the base model's own VAE; {_WANTED}")
    return model


def _from_file(path: Path, own: Any, dtype: torch.dtype) -> Any:
    """The VAE in a file, of the config that the base model's own has."""
    from diffusers import AutoencoderKL

    header = _header(path)
    prefix, is_original = _layout(path, header)
    with torch.device("meta"):
        model: Any = AutoencoderKL.from_config(dict(own.config))
    names = list(model.state_dict())
    if is_original:
        first = PREFIXES["sd15"]["vae"]
        where = places("sd15", "vae", names)
        where = {name: Place(prefix + at.key.removeprefix(first), at.third, at.transposed, at.pixel)
                 for name, at in where.items()}  # fmt: skip
    else:
        where = {name: Place(_native_key(prefix + name, header)) for name in names}
    keys = [key for key in header.tensors if key.startswith(prefix)]
    problems = problems_with(
        header, {"vae": model}, {"vae": where}, lambda key: bool(_NO_WEIGHTS.fullmatch(key.removeprefix(prefix))), keys
    )
    if problems:
        raise BaseModelError(
            f"model.vae {path} does not fit the base model: {problems}; name a VAE for this base model"
        )
    check_scales(path, "model.vae", header)
    fill(path, "model.vae", header, model, where, dtype)
    return model


def _header(path: Path) -> Header:
    return Header(*read_header(path, LIMITS))


def _layout(path: Path, header: Header) -> tuple[str, bool]:
    """What the keys begin with, and whether they are in the original layout, not in diffusers'."""
    for prefix in _PREFIXES:
        for inside, is_original in (("encoder.down.", True), ("encoder.down_blocks.", False)):
            if header.has(f"{prefix}{inside}") and header.has(f"{prefix}decoder."):
                return prefix, is_original
    row = contents_of_keys(header.tensors)
    raise BaseModelError(f"model.vae {path} is {row.what if row else 'not a VAE'}; {_WANTED}")


def _native_key(key: str, header: Header) -> str:
    """`key`, or what older versions of diffusers called it, if the file has that."""
    for new, old in _OLD_NAMES.items():
        if f".{new}." in key and (older := key.replace(f".{new}.", f".{old}.")) in header.tensors:
            return older
    return key
