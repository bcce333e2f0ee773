"""What an adapter file says of itself, in the fields that other programs read (docs/file-format.md)."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.fit import base_facts, base_name
from sd_lora.config.schema import RunConfig, TrainingConfig
from sd_lora.data.examples import Example
from sd_lora.lora.variants import VARIANTS
from sd_lora.models.opening import ModelFamily
from sd_lora.version import __version__


def describe(
    config: RunConfig, family: ModelFamily, pipe: Any, examples: Sequence[Example], adapter: Adapter
) -> dict[str, str]:
    """Metadata of `adapter`, which is about to be trained, without paths and captions; `at_step` adds what is known
    when it is saved."""
    weights, row = adapter.weights.values(), VARIANTS[adapter.variant]
    rank, alpha = (Counter(getattr(w, fact) for w in weights).most_common(1)[0][0] for fact in ("rank", "alpha"))
    targets = f"those of {Path(config.lora.init).name}" if config.lora.init else " ".join(config.lora.targets)
    training, rate, trigger = config.training, f"{config.optimizer.learning_rate:g}", config.data.trigger
    size, base, predicts = config.data.resolution, base_name(pipe), family.objective(pipe).prediction_type
    text_rate = config.optimizer.text_learning_rate
    images = sum(not example.prior for example in examples)
    fields = {
        "ss_sd_model_name": base,
        "ss_clip_skip": "None",
        "ss_network_module": row.network_module,
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_network_args": json.dumps({"targets": targets} | ({"algo": row.algorithm} if row.algorithm else {})),
        "ss_resolution": f"({size}, {size})",
        "ss_num_train_images": str(images),
        "ss_num_reg_images": str(len(examples) - images),
        "ss_learning_rate": rate,
        "ss_unet_lr": rate,
        "ss_text_encoder_lr": f"{text_rate:g}" if text_rate else "None",
        "ss_optimizer": config.optimizer.name,
        "ss_lr_scheduler": config.optimizer.schedule,
        **({"ss_vae_name": Path(config.model.vae).name} if config.model.vae else {}),
        **_objective_facts(training),
        "ss_seed": str(training.seed),
        "ss_training_started_at": f"{time.time():.3f}",
        "ss_training_comment": f"trained with sd_lora {__version__}",
        "ss_dataset_dirs": json.dumps({"images": {"n_repeats": 1, "img_count": images}}),
        "ss_tag_frequency": json.dumps({"images": {trigger: images} if trigger else {}}),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "https://github.com/huggingface/diffusers",
        "modelspec.description": f"A style adapter for {base}, trained on {images} images.",
        "modelspec.author": "",
        "modelspec.date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "modelspec.resolution": f"{size}x{size}",
        "modelspec.trigger_phrase": f"in {trigger} style" if trigger else "",
        "modelspec.usage_hint": f'end the prompt with ", in {trigger} style"' if trigger else "no trigger word needed",
        **({} if predicts == "flow" else {"modelspec.prediction_type": predicts.removesuffix("_prediction")}),
        "modelspec.license": "",
        "modelspec.tags": "style, lora",
        "sdlora.version": __version__,
        "sdlora.family": family.name,
        **base_facts(pipe),
        "sdlora.trigger": trigger,
        "sdlora.targets": targets,
        "sdlora.variant": adapter.variant,
    }
    if guidance := family.guidance_in_training(pipe):
        fields["sdlora.guidance"] = f"{guidance:g}"
    return {**family.kind(pipe).marks, **fields}


def _objective_facts(training: TrainingConfig) -> dict[str, str]:
    """What was trained otherwise than usual, by the names that kohya's scripts have for it."""
    facts = {
        "ss_min_snr_gamma": training.min_snr_gamma if training.weighting == "min-snr" else None,
        "ss_debiased_estimation": training.weighting == "debiased",
        "ss_zero_terminal_snr": training.zero_terminal_snr,
        "ss_noise_offset": training.noise_offset,
        "ss_multires_noise_discount": training.multires_noise,
        "ss_ip_noise_gamma": training.input_perturbation,
    }
    return {"ss_loss_type": training.loss, **{name: str(fact) for name, fact in facts.items() if fact}}


def at_step(
    metadata: dict[str, str], config: RunConfig, epoch_size: int, step: int, *, final: bool = False
) -> dict[str, str]:
    """`metadata` of an adapter saved after `step` steps, the `final` one of its run or not; an epoch has `epoch_size`
    exposures."""
    last = final or step == config.training.steps
    name = config.output.name if last else f"{config.output.name}-{step:06d}"
    return {
        **metadata,
        "ss_output_name": name,
        "modelspec.title": name,
        "ss_steps": str(step),
        "sdlora.steps": str(step),
        "ss_epoch": str(-(-step * config.training.batch_size // epoch_size)),
        "ss_training_finished_at": f"{time.time():.3f}",
    }
