"""Whether a run can be resumed exactly: everything its result depends on must be what it was."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sd_lora.adapters.adapter import Adapter
from sd_lora.config.old_spellings import training_now
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError, DataError, some

if TYPE_CHECKING:
    from sd_lora.training.prepared import Encoded, Run

#: settings that say where things are, how a step is computed, or what is kept and shown; the precision that came of
#: them is compared
_FREE = frozenset({
    "model.base", "model.preview_base", "model.revision", "model.config", "model.vae", "model.device", "model.dtype",
    "data.folder", "data.regularisation", "data.cache", "lora.init", "training.micro_batch",
    "training.gradient_checkpointing", "training.save_every", "training.checkpoint_every",
    "training.keep_checkpoints", "training.validate_every", "training.trackers", "training.fast", "training.threads",
})  # fmt: skip
_FREE_SECTIONS = ("preview", "output")
#: parts of the base model by the facts that identify them
_PARTS = {
    "base": "denoiser", "vae": "VAE", "text": "text encoder or tokenizer", "prediction": "prediction type",
    "noise": "noise schedule",
}  # fmt: skip
#: how exactly noise schedules are compared: torch may sum one up in another way elsewhere
_CLOSE = 1e-4
#: what may differ, at the price of other last bits
_SURROUNDINGS = ("device", "torch", "processes", "threads")
_ELSE = "or start over with --out"


def settings_of(config: RunConfig) -> dict[str, Any]:
    """The settings that define a run's result, as JSON has them."""
    tree = json.loads(json.dumps(dataclasses.asdict(config)))
    settings = {f"{s}.{key}": value for s in tree if s not in _FREE_SECTIONS for key, value in tree[s].items()}
    return {key: value for key, value in settings.items() if key not in _FREE}


def modules_of(adapter: Adapter) -> dict[str, Any]:
    """Rank, alpha and variant of each module, as JSON has them."""
    return {name: [w.rank, w.alpha, w.variant] for name, w in adapter.weights.items()}


def encoders_of_base(run: Run) -> dict[str, Any]:
    """What identifies the parts of the base model that encode; to be called while it has its text encoders."""
    family, pipe = run.family, run.pipe
    return {"vae": family.images_key(pipe), "text": family.captions_key(pipe)}


def denoising_of_base(run: Run) -> dict[str, Any]:
    """What identifies the denoiser, which must have its weights, and what it was trained for."""
    family, pipe = run.family, run.pipe
    objective = family.objective(pipe)
    return {
        "base": family.denoiser_key(pipe), "prediction": objective.prediction_type, "noise": objective.fingerprint(),
    }  # fmt: skip


def facts_of(run: Run, encoded: Encoded, processes: int) -> dict[str, Any]:
    """What the rest of a run depends on besides its state, for a checkpoint."""
    return {
        "settings": settings_of(run.config),
        "modules": modules_of(run.adapter),
        "dtype": _name_of(run.dtype),
        **encoded.base,
        "examples": encoded.data.fingerprints(),
        "held": encoded.held.fingerprints() if encoded.held is not None else {},
        "device": run.device.type,
        "torch": torch.__version__,
        "processes": processes,
        "threads": torch.get_num_threads(),
    }


def check_unchanged(then: Mapping[str, Any], config: RunConfig, dtype: torch.dtype, folder: Path) -> None:
    """ConfigError if settings or precision have changed since: `then` is a checkpoint's `facts_of`. What an older
    checkpoint does not hold is not compared."""
    old, new, precision = _by_todays_names(then.get("settings", {})), settings_of(config), _name_of(dtype)
    changed = [key for key in new if key in old and old[key] != new[key]]
    if changed:
        listed = ", ".join(f"{key} was {_shown(old[key])} and is {_shown(new[key])}" for key in changed)
        raise ConfigError(f"{folder / 'config.toml'} has changed since the run began: {listed}; set that back, {_ELSE}")
    if then.get("dtype", precision) != precision:
        raise ConfigError(
            f"{folder} was computed in {then['dtype']} and would continue in {precision}, with another result; set "
            f"model.dtype={then['dtype']} in its config.toml, {_ELSE}"
        )


def check_modules(then: Mapping[str, Any], adapter: Adapter, folder: Path) -> None:
    """ConfigError if the modules of `adapter` are others than those of a checkpoint, whose `facts_of` is `then`."""
    now = modules_of(adapter)
    before = then.get("modules", now)
    others = [name for name in before | now if before.get(name) != now.get(name)]
    if others:
        raise ConfigError(
            f"{folder} cannot be resumed: {len(others)} modules of its adapter are new, gone or of another "
            f"rank, alpha or variant ({some(others, 3)}); put its init.safetensors and the base model back, {_ELSE}"
        )


def _by_todays_names(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings (``section.key`` → value) that a checkpoint may have by the names they had then."""
    training = {key.partition(".")[2]: value for key, value in settings.items() if key.startswith("training.")}
    others = {key: value for key, value in settings.items() if not key.startswith("training.")}
    return others | {f"training.{key}": value for key, value in training_now(training, quiet=True).items()}


def check_same(then: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> list[str]:
    """DataError if the base model or the examples have changed since; otherwise what else has, as sentences. Both are
    `facts_of` a run; what an older checkpoint does not hold is not compared."""
    parts = [name for key, name in _PARTS.items() if key in then and not _same(then[key], now[key])]
    problems = [f"the base model has another {' and another '.join(parts)}"] if parts else []
    compare = _PARTS["vae"] not in parts  # else every image is encoded otherwise
    problems += _other_images(then["examples"], now["examples"], "", compare)
    problems += _other_images(then.get("held", now["held"]), now["held"], "held-out ", compare)
    if problems:
        raise DataError(f"{folder} cannot be resumed: {', '.join(problems)}; put them back, {_ELSE}")
    return [
        f"the run continues with {key} {now[key]} instead of {then[key]}: its result may differ in the last bits"
        for key in _SURROUNDINGS
        if key in then and then[key] != now[key]
    ]


def _other_images(then: Mapping[str, str], now: Mapping[str, str], kind: str, compare: bool) -> list[str]:
    problems = []
    for what, names in (
        ("changed", [name for name in then if compare and name in now and then[name] != now[name]]),
        ("gone", [name for name in then if name not in now]),
        ("new", [name for name in now if name not in then]),
    ):
        if names:
            few = len(names) == 1
            counted = f"1 {kind}image or caption is" if few else f"{len(names)} {kind}images or captions are"
            problems.append(f"{counted} {what} ({some(sorted(names), 3)})")
    return problems


def _same(then: Any, now: Any) -> bool:
    if isinstance(then, list):
        return len(then) == len(now) and all(math.isclose(a, b, rel_tol=_CLOSE) for a, b in zip(then, now, strict=True))
    return then == now


def _shown(value: Any) -> str:
    return "absent" if value is None else json.dumps(value, ensure_ascii=False)


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
