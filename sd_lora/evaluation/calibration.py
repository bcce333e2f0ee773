"""What a base model's own pictures look like to its style block: the zero point and the unit of every style score.

Features are z-scored by pictures of many contents that the base drew itself: that takes the content out of them.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from platformdirs import user_data_path
from torch import Tensor

from sd_lora.errors import BaseModelError, ConfigError, shown
from sd_lora.evaluation.probe import Probe, Watch, no_watch
from sd_lora.models.opening import family_of_pipe
from sd_lora.storage.atomic import write_atomically

#: fewer of the base's own pictures do not give the deviation of its features
LEAST_PICTURES = 48


@dataclass(frozen=True)
class Calibration:
    """The `mean` and `deviation` of each feature over `pictures` of the base model itself, drawn as `drawn` says; `key`
    is a hash of the denoiser, and `level` the noise level in thousandths of the schedule."""

    base: str
    key: str
    level: int
    draws: int
    pictures: int
    drawn: dict[str, Any]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def features(self, probe: Probe, latents: Tensor, watch: Watch = no_watch) -> Tensor:
        """The z-scored features (n, d) of pictures, from their latents (n, c, h, w)."""
        statistics = probe.statistics(latents, level=self.level, draws=self.draws, watch=watch)
        return (statistics - torch.tensor(self.mean)) / torch.tensor(self.deviation)

    def to_json(self) -> str:
        rounded = {name: [float(f"{v:.6g}") for v in getattr(self, name)] for name in ("mean", "deviation")}
        return json.dumps({**asdict(self), **rounded}, indent=1) + "\n"


def calibrate(
    pipe: Any, images: Sequence[Image.Image], base: str, drawn: dict[str, Any], watch: Watch = no_watch
) -> Calibration:
    """The calibration of `pipe` by `images` that it drew, each of another prompt. ConfigError for too few."""
    if len(images) < LEAST_PICTURES:
        raise ConfigError(
            f"{len(images)} pictures are too few to calibrate {base}; at least {LEAST_PICTURES} are needed"
        )
    probe, level, draws = Probe(pipe), 1, 2
    statistics = probe.statistics(probe.latents(images), level=level, draws=draws, watch=watch)
    mean, deviation = statistics.mean(dim=0), statistics.std(dim=0).clamp(min=1e-4)
    key = family_of_pipe(pipe).denoiser_key(pipe)
    return Calibration(base, key, level, draws, len(images), drawn, tuple(mean.tolist()), tuple(deviation.tolist()))


def calibration_of(pipe: Any, base: str) -> Calibration:
    """The calibration of the base model `pipe`, that ships with the package or was made on this machine.

    BaseModelError if there is none.
    """
    key = family_of_pipe(pipe).denoiser_key(pipe)
    for text in _known(key):
        facts = json.loads(text)
        if facts.get("key") == key:
            lists = {name: tuple(facts[name]) for name in ("mean", "deviation")}
            return Calibration(**{**facts, **lists})
    raise BaseModelError(
        f"base model {shown(base)} has not been calibrated, so that no style can be measured on it; do it once, with "
        f"{shlex.join(['sd-lora', 'calibrate', '--base', base])}"
    )


def keep_calibration(calibration: Calibration) -> Path:
    """Keep it for later calls on this machine; returns the file."""
    path = _folder() / f"{calibration.key}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, calibration.to_json().encode())
    return path


def _known(key: str) -> Iterator[str]:
    shipped = files("sd_lora.evaluation") / "calibrations"
    yield from (each.read_text("utf-8") for each in shipped.iterdir() if each.name.endswith(".json"))
    if (own := _folder() / f"{key}.json").is_file():
        yield own.read_text("utf-8")


def _folder() -> Path:
    return user_data_path("sd-lora") / "calibrations"
