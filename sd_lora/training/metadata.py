"""What an adapter file says of itself, in the fields that other programs read (docs/file-format.md)."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from sd_lora.config import RunConfig
from sd_lora.data import Example
from sd_lora.families import ModelFamily
from sd_lora.version import __version__


def describe(
    config: RunConfig, family: ModelFamily, base: str, prediction_type: str, examples: Sequence[Example]
) -> dict[str, str]:
    """Metadata of an adapter about to be trained; `finish` adds what is known at the end. Holds no path, no caption."""
    training, rate, trigger = config.training, f"{config.optimizer.learning_rate:g}", config.data.trigger
    size, name = config.data.resolution, config.output.name
    exposures = (training.steps or 0) * training.batch_size
    fields = {
        "ss_output_name": name,
        "ss_sd_model_name": base,
        "ss_clip_skip": "None",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(config.lora.rank),
        "ss_network_alpha": f"{config.lora.alpha:g}",
        "ss_network_args": json.dumps({"targets": ",".join(config.lora.targets)}),
        "ss_resolution": f"({size}, {size})",
        "ss_num_train_images": str(len(examples)),
        "ss_steps": str(training.steps),
        "ss_epoch": str(-(-exposures // len(examples))),
        "ss_learning_rate": rate,
        "ss_unet_lr": rate,
        "ss_text_encoder_lr": "None",
        "ss_optimizer": "torch.optim.adamw.AdamW",
        "ss_seed": str(training.seed),
        "ss_training_started_at": f"{time.time():.3f}",
        "ss_training_comment": f"trained with sd_lora {__version__}",
        "ss_dataset_dirs": json.dumps({"images": {"n_repeats": 1, "img_count": len(examples)}}),
        "ss_tag_frequency": json.dumps({"images": {trigger: len(examples)} if trigger else {}}),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.title": name,
        "modelspec.description": f"A style adapter for {base}, trained on {len(examples)} images.",
        "modelspec.author": "",
        "modelspec.date": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "modelspec.resolution": f"{size}x{size}",
        "modelspec.trigger_phrase": f"in {trigger} style" if trigger else "",
        "modelspec.usage_hint": f'end the prompt with ", in {trigger} style"' if trigger else "no trigger word needed",
        "modelspec.prediction_type": "v" if prediction_type == "v_prediction" else "epsilon",
        "modelspec.license": "",
        "modelspec.tags": "style, lora",
        "sdlora.version": __version__,
        "sdlora.family": family.name,
        "sdlora.base": base,
        "sdlora.trigger": trigger,
        "sdlora.targets": " ".join(config.lora.targets),
        "sdlora.steps": str(training.steps),
    }
    return {**family.file_marks, **fields}


def finish(metadata: dict[str, str]) -> dict[str, str]:
    """Add when training ended."""
    return {**metadata, "ss_training_finished_at": f"{time.time():.3f}"}
