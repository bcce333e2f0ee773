"""The judge: a small classifier that recognises subject, colour and background in a picture of the world, in any style.

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

from sd_lora.tinybase.world import BACKGROUNDS, COLOURS, SUBJECTS, Scene

WEIGHTS = Path(__file__).parent / "judge.safetensors"
QUESTIONS = ("subject", "colour", "background")
ANSWERS: tuple[tuple[str, ...], ...] = (SUBJECTS, COLOURS, BACKGROUNDS)


class Judge(nn.Module):
    """(n, 3, 64, 64) in -1..1 → three tuples of logits: subject, colour, background."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 5, stride=2, padding=2, bias=False), nn.BatchNorm2d(32), nn.ReLU()]
        for into, out in ((32, 48), (48, 96), (96, 160)):
            layers += [nn.Conv2d(into, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
        self.features = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(320, len(answers)) for answers in ANSWERS)

    def forward(self, pictures: Tensor) -> list[Tensor]:
        maps = self.features(pictures)
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        return [head(pooled) for head in self.heads]


def load_judge() -> Judge:
    """The shipped judge."""
    judge = Judge()
    counters = {k: v for k, v in judge.state_dict().items() if not v.ndim}  # batch norm's: not shipped, not used
    judge.load_state_dict({key: value.float() for key, value in load_file(WEIGHTS).items()} | counters)
    return judge.eval()


def to_tensor(images: Sequence[Image.Image]) -> Tensor:
    """Images → (n, 3, 64, 64) in -1..1."""
    arrays = [np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS)) for image in images]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.inference_mode()
def recognised(judge: Judge, images: Sequence[Image.Image], scenes: Sequence[Scene]) -> dict[str, float]:
    """The share of `images` in which the judge recognises the subject, colour and background of its scene."""
    logits = judge(to_tensor(images))
    shares = {}
    for question, answers, row in zip(QUESTIONS, ANSWERS, logits, strict=True):
        truth = torch.tensor([answers.index(getattr(scene, question)) for scene in scenes])
        shares[question] = (row.argmax(dim=1) == truth).float().mean().item()
    return shares
