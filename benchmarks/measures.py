"""Do the measures mean what they say? Asked on the embedded world, where style and content of every picture are known.

    python benchmarks/measures.py OUT [--scenes 24] [--prompts 32] [--adapters RUN/adapter.safetensors …]

Retrieval of style, scene and subject; scores of references that were not used, of mixtures and of wrong styles; content
where a known share of pictures shows something else; planted copies. With adapters, content against the judge. Writes
OUT/measures.json; exit code 1 if a measure stops meaning what it says. Takes some minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from scipy.stats import spearmanr
from torch import Tensor

from sd_lora import Adapter, load_base
from sd_lora.evaluation import pixels
from sd_lora.evaluation.calibration import calibration_of
from sd_lora.evaluation.content import kept
from sd_lora.evaluation.drawing import Illustrator, kept_pictures
from sd_lora.evaluation.energy import energy_distance, style_scores
from sd_lora.evaluation.probe import Probe
from sd_lora.evaluation.tiny_measures import unseen_scenes
from sd_lora.tinybase.judge import load_judge, recognised
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import HELD_OUT_STYLES

REFERENCES = 8
_SHIFT = ((0, 0), (3, 0), (0, 0))
ALTERED: dict[str, Callable[[Image.Image], Image.Image]] = {
    "round trip": lambda image: image,
    "mirrored": ImageOps.mirror,
    "shifted": lambda image: Image.fromarray(np.pad(np.asarray(image), _SHIFT, mode="edge")[:, : image.width]),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(image.width / 64)),
    "pale": lambda image: Image.blend(image, Image.new("RGB", image.size, "white"), 0.4),
}
#: figure → (least, most) that it may have
LIMITS: dict[str, tuple[float, float]] = {
    "same style nearest": (0.95, 1), "same scene nearest, above chance": (-1, 0.05), "style mAP": (0.70, 1),
    "unused references, lowest": (0.90, 2), "unused references, highest": (0, 1.10), "mixtures in order": (1, 1),
    "own minus best wrong, lowest": (0.3, 2), "content of mixtures, largest error": (0, 0.13),
    "copies found, lowest": (0.9, 1), "others taken for copies": (0, 0.1),
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--adapters", type=Path, nargs="*", default=[])
    options = parser.parse_args()
    pipe, _ = load_base("tiny")
    report = Report(pipe, options.scenes, options.prompts)
    figures = {**report.retrieval(), **report.scores(), **report.content(), **report.copies()}
    details = {"adapters": [report.adapter(path) for path in options.adapters], **report.details}
    if len(details["adapters"]) > 2:
        read, judged = zip(*((row["content"], row["judge"]) for row in details["adapters"]), strict=True)
        figures["content against the judge, Spearman"] = float(spearmanr(read, judged).statistic)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "measures.json").write_text(json.dumps({"figures": figures, **details}, indent=2) + "\n", "utf-8")
    bad = [name for name, (low, high) in LIMITS.items() if not low <= figures[name] <= high]
    for name, value in figures.items():
        low, high = LIMITS.get(name, (float("nan"),) * 2)
        limits = f"   {low:g} to {high:g}" + ("   FAILS" if name in bad else "") if name in LIMITS else ""
        print(f"{name:<40} {value:7.3f}{limits}")
    return 1 if bad else 0


class Report:
    """The pictures that are measured, and the figures."""

    def __init__(self, pipe: Any, scenes: int, prompts: int) -> None:
        self.probe, self.calibration = Probe(pipe), calibration_of(pipe, "tiny")
        self.illustrator = Illustrator(pipe, folder=kept_pictures())
        self.scenes, self.asked = unseen_scenes(scenes), unseen_scenes(prompts, first=6_500_000)
        self.styles = HELD_OUT_STYLES
        self.pictures = {
            style: [render(scene, style, self.probe.side) for scene in self.scenes] for style in self.styles
        }
        self.features = {style: self._features(images, round_trip=True) for style, images in self.pictures.items()}
        self.prompts = [scene.caption for scene in self.asked]
        self.base = self.illustrator.draw(self.prompts)
        self.base_features = self._features(self.base)
        self.details: dict[str, Any] = {}

    def _features(self, images: list[Image.Image], *, round_trip: bool = False) -> Tensor:
        return self.calibration.features(self.probe, self.probe.latents(images, round_trip=round_trip))

    def retrieval(self) -> dict[str, float]:
        """The nearest other picture of each: of which style, scene and subject; and the mean average precision."""
        count = len(self.scenes)
        features = torch.cat(list(self.features.values()))
        style = torch.arange(len(self.styles)).repeat_interleave(count)
        scene = torch.arange(count).repeat(len(self.styles))
        subjects = [each.subject for each in self.scenes]
        subject = torch.tensor([subjects.index(name) for name in subjects]).repeat(len(self.styles))
        distances = torch.cdist(features, features).fill_diagonal_(torch.inf)
        nearest = distances.argmin(dim=1)
        others = ~torch.eye(len(features), dtype=torch.bool)

        def beyond_chance(labels: Tensor) -> float:
            chance = (labels[None] == labels[:, None])[others].float().mean()
            return float((labels[nearest] == labels).float().mean() - chance)

        return {
            "same style nearest": float((style[nearest] == style).float().mean()),
            "same scene nearest, above chance": beyond_chance(scene),
            "same subject nearest, above chance": beyond_chance(subject),
            "style mAP": _average_precision(distances, style),
        }

    def scores(self) -> dict[str, float]:
        """Of each style: references that were not used, mixtures with the base's pictures, and the other styles."""
        rows, ordered = {}, True
        for style, features in self.features.items():
            references, rest = features[:REFERENCES], features[REFERENCES:]
            base = self.base_features[: len(rest)]
            shares = (0.25, 0.5, 0.75, 1.0)
            mixed = [torch.cat([rest[: round(s * len(rest))], base[round(s * len(rest)) :]]) for s in shares]
            scores = style_scores(base, mixed, references)
            whole = energy_distance(base, references)
            wrong = {name: 1 - energy_distance(other, references) / whole for name, other in self.features.items()
                     if name != style}  # fmt: skip
            nearest = max(wrong, key=wrong.__getitem__)
            values = scores.scores.tolist()
            ordered &= values[:3] == sorted(values[:3])
            rows[style] = {"unused": values[-1], "interval": scores.of(3).interval, "mixtures": values[:3],
                           "nearest other": nearest, "its score": wrong[nearest]}  # fmt: skip
        self.details["styles"] = rows
        return {
            "unused references, lowest": min(row["unused"] for row in rows.values()),
            "unused references, highest": max(row["unused"] for row in rows.values()),
            "mixtures in order": float(ordered),
            "own minus best wrong, lowest": min(row["unused"] - row["its score"] for row in rows.values()),
        }

    def content(self) -> dict[str, float]:
        """The base's own pictures, of which a known share was drawn from other prompts."""
        latents = self.probe.latents(self.base)
        errors = {}
        for share in (0.0, 0.25, 0.5, 0.75):
            moved = round(share * len(latents))
            order = [*range(1, moved), 0, *range(moved, len(latents))] if moved > 1 else list(range(len(latents)))
            read = sum(kept(self.probe, latents[order], self.prompts)) / len(latents)
            errors[share] = abs(read - (1 - moved / len(latents)))
        self.details["content of mixtures"] = errors
        return {"content of mixtures, largest error": max(errors.values())}

    def copies(self) -> dict[str, float]:
        """Copies of references, altered, and other pictures in the style."""
        found, others = {}, []
        for style in self.styles:
            originals = pixels.coarse(self.pictures[style][:12])
            threshold = pixels.copy_threshold(originals)
            for how, alter in ALTERED.items():
                copies = pixels.coarse([alter(image) for image in self.pictures[style][:12]])
                hits = (pixels.nearest_reference(copies, originals)[0] > threshold).float().mean()
                found.setdefault(how, []).append(float(hits))
            rest = pixels.coarse(self.pictures[style][12:])
            others.append(float((pixels.nearest_reference(rest, originals)[0] > threshold).float().mean()))
        shares = {how: sum(each) / len(each) for how, each in found.items()}
        self.details["copies found"] = shares
        return {"copies found, lowest": min(shares.values()), "others taken for copies": sum(others) / len(others)}

    def adapter(self, path: Path) -> dict[str, Any]:
        """The share of content kept, by the base model and by the judge."""
        adapter = Adapter.load(path)
        images = self.illustrator.draw([f"{prompt}, in {adapter.trigger} style" for prompt in self.prompts], adapter)
        read = kept(self.probe, self.probe.latents(images), self.prompts)
        judged = recognised(load_judge(), images, self.asked)
        judge = (judged["subject"] + judged["background"]) / 2
        return {"adapter": str(path), "content": sum(read) / len(read), "judge": judge}


def _average_precision(distances: Tensor, labels: Tensor) -> float:
    """The mean over pictures of the average precision with which their neighbours have their label."""
    order = distances.argsort(dim=1)[:, :-1]  # the last is the picture itself
    hits = (labels[order] == labels[:, None]).double()
    ranks = torch.arange(1, hits.shape[1] + 1, dtype=torch.float64)
    precision = hits.cumsum(dim=1) / ranks
    return float(((precision * hits).sum(dim=1) / hits.sum(dim=1)).mean())


if __name__ == "__main__":
    sys.exit(main())
