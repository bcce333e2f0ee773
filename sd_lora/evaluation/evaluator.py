"""Measures adapters: style, content, leak, diversity, drift and burn, each with how many pictures it rests on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from sd_lora.adapters.adapter import Adapter
from sd_lora.data.captions import triggered
from sd_lora.errors import ConfigError
from sd_lora.evaluation import pixels
from sd_lora.evaluation.calibration import Calibration
from sd_lora.evaluation.content import OTHERS, kept
from sd_lora.evaluation.drawing import Drawing, Illustrator
from sd_lora.evaluation.energy import LEAST_REFERENCES, StyleScores, energy_distance, style_scores
from sd_lora.evaluation.estimates import Estimate, bootstrap, share
from sd_lora.evaluation.measured import Measured
from sd_lora.evaluation.probe import Probe

#: told what is being done, and how much of it
Progress = Callable[[str, int, int], None]
#: prompts that are drawn from several seeds, the seeds, and prompts drawn without the trigger word
_REPEATED, _SEEDS, _WITHOUT = 4, 4, 8
_SEEDS_FROM = 50_000


def no_progress(what: str, done: int, total: int) -> None:
    """Shows nothing."""


@dataclass(frozen=True)
class Materials:
    """What adapters are measured against: pictures of the style that is wanted (`references`), `prompts` of content
    alone, and the pictures (`trained`) and captions that the adapter was trained on, as far as they are known.

    `bank`: pictures of other styles, by name.
    """

    references: Sequence[Image.Image]
    prompts: Sequence[str]
    trained: Sequence[Image.Image] = ()
    captions: Sequence[str] = ()
    bank: Mapping[str, Sequence[Image.Image]] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """Pictures of the prompts, their latents and features, and whether the base model reads each one's content."""

    images: list[Image.Image]
    latents: Tensor
    features: Tensor
    kept: list[bool]


class Evaluator:
    """Measures on the base model `pipe`. What does not depend on an adapter is drawn and measured once."""

    def __init__(
        self,
        illustrator: Illustrator,
        materials: Materials,
        calibration: Calibration,
        progress: Progress = no_progress,
        *,
        probe: Probe | None = None,
    ) -> None:
        """`probe` measures; by default the base model that draws does. ConfigError if there are too few references or
        prompts."""
        if len(materials.references) < LEAST_REFERENCES:
            raise ConfigError(
                f"{len(materials.references)} reference pictures are too few to measure a style: below "
                f"{LEAST_REFERENCES} a score would be chance; add pictures in the same style"
            )
        if len(set(materials.prompts)) < OTHERS + 2 or len(set(materials.prompts)) < len(materials.prompts):
            raise ConfigError(
                f"{len(set(materials.prompts))} different prompts of {len(materials.prompts)} were given; at least "
                f"{OTHERS + 2} are needed, each once, so that content can be told from style"
            )
        self.illustrator, self.materials, self.calibration = illustrator, materials, calibration
        self.probe, self._progress = probe or Probe(illustrator.pipe), progress
        self._rows: dict[tuple[str, str, float], Row] = {}

    @property
    def drawing(self) -> Drawing:
        return self.illustrator.drawing

    # ---- what adapters are compared with

    @cached_property
    def references(self) -> Tensor:
        """Features of the references, after a round trip through the VAE, as generated pictures have made it."""
        latents = self.probe.latents(self.materials.references, round_trip=True)
        return self.calibration.features(self.probe, latents, self._shown("measuring the references"))

    @cached_property
    def bank(self) -> dict[str, Tensor]:
        """Features of the pictures of other styles."""
        return {
            name: self.calibration.features(self.probe, self.probe.latents(pictures, round_trip=True))
            for name, pictures in self.materials.bank.items()
        }

    @cached_property
    def originals(self) -> Tensor:
        """What a copy would be a copy of."""
        return pixels.coarse(self.materials.trained or self.materials.references)

    def base(self, trigger: str) -> Row:
        """The base model's pictures of the prompts with a trigger word."""
        return self._row("the base model", trigger, None, 0.0)

    # ---- adapters

    def measure(self, adapters: Sequence[tuple[str, Adapter, float]]) -> tuple[list[Measured], StyleScores]:
        """Each adapter (its name, itself, and its strength), and the style scores of all, whose differences are paired.
        All are drawn with their own trigger word."""
        rows = [self.row(*each) for each in adapters]
        # The base model's own pictures are those of the first trigger word: another unknown word changes nothing that a
        # style score would notice, and pairing needs one base.
        trigger = adapters[0][1].trigger
        scores = style_scores(self.base(trigger).features, [row.features for row in rows], self.references)
        wrong = self._nearest_other(trigger)
        measured = [
            self._measured(row, each, scores.of(i) if scores.is_told_apart else None, wrong)
            for i, (row, each) in enumerate(zip(rows, adapters, strict=True))
        ]
        return measured, scores

    def row(self, name: str, adapter: Adapter, strength: float) -> Row:
        """The pictures that `adapter`, called `name`, draws of the prompts, with its trigger word."""
        return self._row(name, adapter.trigger, adapter, strength)

    def _row(self, name: str, trigger: str, adapter: Adapter | None, strength: float) -> Row:
        key = (name, trigger, strength)
        if key not in self._rows:
            prompts = [triggered(prompt, trigger) for prompt in self.materials.prompts]
            images = self._draw(f"drawing: {name}", prompts, adapter, strength)
            latents = self.probe.latents(images)
            features = self.calibration.features(self.probe, latents)
            read = kept(self.probe, latents, self.materials.prompts, self._shown(f"reading: {name}"))
            self._rows[key] = Row(images, latents, features, read)
        return self._rows[key]

    def _measured(
        self, row: Row, each: tuple[str, Adapter, float], style: Estimate | None, wrong: tuple[str, float] | None
    ) -> Measured:
        name, adapter, strength = each
        notes: list[str] = []
        if style is None:
            notes.append(
                "style: the base model's own pictures are as near to the references as chance; nothing to learn"
            )
        content = self._content(row, adapter.trigger, notes)
        best, _ = pixels.nearest_reference(pixels.coarse(row.images), self.originals)
        copies = int((best > pixels.copy_threshold(self.originals)).sum())
        return Measured(
            name,
            strength,
            style,
            wrong if style is not None else None,
            content,
            self._drift(adapter, strength, notes),
            share(copies, len(row.images)),
            copies,
            self._diversity(adapter, strength),
            self._burn(row),
            tuple(notes),
            {
                "prompts": len(row.images),
                "references": len(self.materials.references),
                "originals": len(self.originals),
                "seeds": _SEEDS,
                "without_trigger": _WITHOUT if adapter.trigger else 0,
            },
        )

    def _content(self, row: Row, trigger: str, notes: list[str]) -> Estimate | None:
        """The share of pictures whose content is kept, of the base model's share."""
        before = torch.tensor(self.base(trigger).kept, dtype=torch.float64)
        after = torch.tensor(row.kept, dtype=torch.float64)
        if before.mean() < 0.5:
            notes.append(
                f"content: the base model reads {before.mean():.0%} of its own pictures, too few to judge others"
            )
            return None
        if after.mean() < 0.9:
            notes.append("content: where a style hides what the base model reads by, some kept content counts as lost")
        return bootstrap(lambda weights: (weights @ after) / (weights @ before), len(after))

    def _drift(self, adapter: Adapter, strength: float, notes: list[str]) -> dict[str, float] | None:
        """Without the trigger word: how much of the layout stays (`layout`), and how much of the style comes through
        (`style`); None where there is no trigger word to leave out."""
        if not adapter.trigger:
            notes.append("drift: without a trigger word, every picture is drawn in the style")
            return None
        prompts = list(self.materials.prompts[:_WITHOUT])
        base = self._draw("drawing without the trigger word", prompts)
        images = self._draw("drawing without the trigger word", prompts, adapter, strength)
        layout = pixels.layout_kept(pixels.coarse(images), pixels.coarse(base)).mean()
        features = [self.calibration.features(self.probe, self.probe.latents(each)) for each in (base, images)]
        style = style_scores(features[0], [features[1]], self.references).scores[0]
        return {"layout": float(layout), "style": float(style)}

    def _diversity(self, adapter: Adapter, strength: float) -> float | None:
        """How different pictures of one prompt are over seeds, of the base model's: under captions of the training,
        where an adapter that copies repeats itself, or else under the prompts."""
        plain = dict.fromkeys(self.materials.captions or self.materials.prompts)
        texts = [triggered(text, adapter.trigger) for text in list(plain)[:_REPEATED]]
        repeated = [text for text in texts for _ in range(_SEEDS)]
        values = []
        for used in (None, adapter):
            images = self._draw("drawing prompts again", repeated, used, strength, first=_SEEDS_FROM)
            groups = pixels.coarse(images).split(_SEEDS)
            values.append(sum(pixels.diversity(group) for group in groups) / len(groups))
        return values[1] / values[0] if values[0] > 1e-6 else None

    def _burn(self, row: Row) -> dict[str, float]:
        """Ratios to the references: the deviation of latents, saturation, and energy of fine detail; far above 1 is
        burnt."""
        references, side = self.materials.references, self.probe.side
        deviation = self.probe.latents(references).std()
        return {
            "latents": float(row.latents.std() / deviation),
            "saturation": _ratio(pixels.saturation(row.images), pixels.saturation(references)),
            "detail": _ratio(pixels.detail(row.images, side), pixels.detail(references, side)),
        }

    def _nearest_other(self, trigger: str) -> tuple[str, float] | None:
        """The style of the bank that scores highest against the references, and its score."""
        if not self.bank:
            return None
        whole = energy_distance(self.base(trigger).features, self.references)
        scores = {name: 1 - energy_distance(styled, self.references) / whole for name, styled in self.bank.items()}
        best = max(scores, key=scores.__getitem__)
        return best, scores[best]

    def _draw(self, what: str, prompts: Sequence[str], *adapter: Any, first: int = 0) -> list[Image.Image]:
        return self.illustrator.draw(prompts, *adapter, first=first, watch=self._shown(what))

    def _shown(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self._progress(what, done, total)


def _ratio(first: Tensor, second: Tensor) -> float:
    return float(first.mean() / second.mean().clamp(min=1e-6)) if len(second) else math.nan
