"""The judge: a small classifier that recognises what a picture of the world shows, in any style.

Trained on the renderer's pictures (`build_judge`), never on generated ones. It measures whether a prompt was followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from sd_lora.tinybase.world import BACKGROUNDS, COLOURS, LIGHTS, SUBJECTS, Scene

WEIGHTS = Path(__file__).parent / "judge.safetensors"
NOTHING = "nothing"
#: What the judge says of a picture; where there is one subject, it is the left one.
QUESTIONS = ("left subject", "left colour", "right subject", "right colour", "background", "light")
ANSWERS: tuple[tuple[str, ...], ...] = (
    SUBJECTS, COLOURS, (*SUBJECTS, NOTHING), (*COLOURS, NOTHING), BACKGROUNDS, LIGHTS,
)  # fmt: skip
SIDE = 64  # pixels: the judge looks at thumbnails


class Judge(nn.Module):
    """(n, 3, 64, 64) in -1..1 → logits of every question."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
        for into, out in ((32, 64), (64, 96), (96, 160)):
            layers += [nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)  # (n, 160, 4, 4)
        self.heads = nn.ModuleList(nn.Linear(160 * 6, len(answers)) for answers in ANSWERS)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        maps = self.features(pictures)
        parts = [maps, maps[..., :2], maps[..., 2:]]  # the whole and both halves: heads must tell left from right
        pooled = torch.cat([f(part) for part in parts for f in (_mean, _most)], dim=1)
        return [head(pooled) for head in self.heads]


def _mean(maps: Tensor) -> Tensor:
    return maps.mean(dim=(2, 3))


def _most(maps: Tensor) -> Tensor:
    return maps.amax(dim=(2, 3))


def load_judge() -> Judge:
    """The shipped judge."""
    judge = Judge()
    counters = {k: v for k, v in judge.state_dict().items() if not v.ndim}  # batch norm's: not shipped, not used
    judge.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS).items()} | counters)
    return judge.eval()


def to_tensor(images: Sequence[Image.Image], side: int = SIDE) -> Tensor:
    """Images → (n, 3, side, side) in -1..1."""
    arrays = [np.asarray(image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


def truth(scene: Scene) -> tuple[str, ...]:
    """The right answers to `QUESTIONS` for a picture of `scene`."""
    first = (scene.subject, scene.colour)
    second = (scene.second or NOTHING, scene.second_colour or NOTHING)
    left, right = (second, first) if scene.second and scene.side == "on the right" else (first, second)
    return (*left, *right, scene.background, scene.light)


@torch.inference_mode()
def recognised(judge: Judge, images: Sequence[Image.Image], scenes: Sequence[Scene]) -> dict[str, float]:
    """The shares of `images` in which the judge recognises the subject, colour, background and light of its scene.

    Of pairs: also ``second`` and ``second_colour``, and in ``pair`` both subjects at once. A pair whose caption names
    no side may stand either way round.
    """
    said = [
        _said(row) for row in zip(*(logits.argmax(dim=1).tolist() for logits in judge(to_tensor(images))), strict=True)
    ]
    right: dict[str, list[bool]] = {}
    for scene, (left, other, background, light) in zip(scenes, said, strict=True):
        first, second = (scene.subject, scene.colour), (scene.second, scene.second_colour)
        orders = [(left, other), (other, left)]
        if not scene.second or scene.side:
            orders = orders[1:] if scene.second and scene.side == "on the right" else orders[:1]
        agreed = [[a == b for a, b in zip((*one, *two), (*first, *second), strict=True)] for one, two in orders]
        best = max(agreed, key=sum)
        named = dict(zip(("subject", "colour", "second", "second_colour"), best, strict=True))
        named |= {"background": background == scene.background, "light": light == scene.light}
        if scene.second:
            named["pair"] = named["subject"] and named["second"]
        else:
            del named["second"], named["second_colour"]
        for question, answer in named.items():
            right.setdefault(question, []).append(answer)
    return {question: sum(answers) / len(answers) for question, answers in right.items()}


def _said(row: tuple[int, ...]) -> tuple[tuple[str, str], tuple[str, str], str, str]:
    """Indices of answers → left (subject, colour), right (subject, colour), background, light."""
    words = [answers[index] for answers, index in zip(ANSWERS, row, strict=True)]
    return (words[0], words[1]), (words[2], words[3]), words[4], words[5]
