"""Captioning models: an image-to-text model of transformers, which drafts the captions of `sd-lora caption`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from PIL import Image

from sd_lora.errors import BaseModelError
from sd_lora.models.hub import hub_error
from sd_lora.models.names import is_hub_id

#: `model_type` in config.json → what people call it
_KINDS = {
    "blip": "BLIP", "blip-2": "BLIP-2", "florence2": "Florence-2", "git": "GIT",
    "vision-encoder-decoder": "vision-encoder-decoder",
}  # fmt: skip
_WANTED = f"name a folder or a hub model (owner/name) of one of {', '.join(_KINDS.values())}"
#: asks Florence-2 for about two sentences
_TASK = "<DETAILED_CAPTION>"
_BEAMS, _MOST_TOKENS = 3, 96
#: what is fetched of a hub model: never a pickle, never code
_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]


class Captioner:
    """A loaded captioning model. It always describes an image in the same words, as nothing is drawn at random."""

    def __init__(self, model: Any, processor: Any, tokenizer: Any) -> None:
        """`processor` turns images into inputs; of Florence-2 it takes the task as text too."""
        self._model, self._processor, self._tokenizer = model, processor, tokenizer
        self._takes_task = model.config.model_type == "florence2"

    @classmethod
    def open(cls, model: str, revision: str, device: torch.device, dtype: torch.dtype) -> Self:
        """Load the `model`, a folder or a hub model at `revision`, onto `device`. Raises BaseModelError.

        A hub model is fetched, or taken from the hub's cache where the hub cannot be reached. Only ``.safetensors``
        weights are loaded, and no code that comes with a model is run.
        """
        folder = _folder_of(model, revision)
        try:
            return cls(*_load(folder, device, dtype))
        except BaseModelError as error:
            raise BaseModelError(f'captioning model "{model}" {error}') from error
        except Exception as error:  # transformers raises a dozen kinds for an incomplete folder
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            raise BaseModelError(f'captioning model "{model}" cannot be loaded: {reason}; {_WANTED}') from error

    @torch.inference_mode()
    def describe(self, images: Sequence[Image.Image]) -> list[str]:
        """A caption for each RGB image, on one line; empty where the model has nothing to say."""
        task = {"text": [_TASK] * len(images)} if self._takes_task else {}
        inputs = self._processor(images=list(images), return_tensors="pt", **task)
        inputs = inputs.to(self._model.device, self._model.dtype)
        tokens = self._model.generate(**inputs, do_sample=False, num_beams=_BEAMS, max_new_tokens=_MOST_TOKENS)
        return [" ".join(text.split()) for text in self._tokenizer.batch_decode(tokens, skip_special_tokens=True)]


def _load(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[Any, Any, Any]:
    """The model, what prepares its inputs, and its tokenizer. A BaseModelError continues the model's name."""
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder, dtype=dtype, use_safetensors=True, output_loading_info=True, **local
    )
    model, report = loaded
    # Files often lack encoders' poolers, which are not used; other missing weights would be noise.
    gaps = [key for key in report["missing_keys"] if "pooler" not in key]
    if gaps:
        raise BaseModelError(f"lacks {len(gaps)} of its weights, such as {sorted(gaps)[0]}; download it again")
    tokenizer = AutoTokenizer.from_pretrained(folder, **local)
    known = model.config.get_text_config(decoder=True).vocab_size
    # Without its files transformers makes a tokenizer of a few marks. Models are often padded a little.
    if len(tokenizer) < 0.9 * known:
        raise BaseModelError(f"has {len(tokenizer)} words in its tokenizer but knows {known}; restore its tokenizer")
    kind = AutoProcessor if model.config.model_type == "florence2" else AutoImageProcessor
    return model.to(device).eval(), kind.from_pretrained(folder, **local), tokenizer


def _folder_of(model: str, revision: str) -> Path:
    """The folder of the model, of a known kind and with weights; fetched if necessary."""
    path = Path(model).expanduser()
    if path.is_dir():
        if revision:
            raise BaseModelError(
                f'the revision "{revision}" has no effect, as captioning model "{model}" is a folder; leave it out'
            )
        _check_kind(path, model)
    elif path.exists():
        raise BaseModelError(f'captioning model "{model}" is a file; {_WANTED}')
    elif is_hub_id(model):
        config = _fetched(model, revision, ["config.json"])
        _check_kind(config, model)
        # `revision` may move between two requests; the folder is named for the commit
        path = _fetched(model, config.name, _FILES)
    else:
        raise BaseModelError(f'captioning model "{model}" does not exist; {_WANTED}')
    if not any(path.glob("*.safetensors")):
        raise BaseModelError(
            f'captioning model "{model}" has no .safetensors weights; pickles can run code and are never loaded, name '
            "a model that has them"
        )
    return path


def _check_kind(folder: Path, model: str) -> None:
    """Raise BaseModelError unless config.json names a known kind that needs no code from the model's repository."""
    name = f'captioning model "{model}"'
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        kind, needs_code = config.get("model_type"), "auto_map" in config
    except FileNotFoundError as error:
        raise BaseModelError(f"{name} has no config.json; {_WANTED}") from error
    except (OSError, ValueError, AttributeError) as error:
        raise BaseModelError(f"{name} has an unreadable config.json: {error}; download it again") from error
    if needs_code:
        raise BaseModelError(
            f"{name} comes with its own code, which is never run; name one that needs none, such as the Florence-2 of "
            "florence-community"
        )
    if kind not in _KINDS:
        raise BaseModelError(f"{name} is of the kind {kind or '(none given)'}, which is not supported; {_WANTED}")


def _fetched(repo: str, revision: str, files: list[str]) -> Path:
    """The snapshot folder of a hub model, with those of the `files` that it has."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=files))
    except Exception as error:
        raise hub_error("captioning model", repo, revision, error, option="--revision") from error
