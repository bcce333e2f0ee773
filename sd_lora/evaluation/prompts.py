"""Prompts for measuring: subjects × places, so that each shares words with others and content tells them apart."""

from __future__ import annotations

import random
from itertools import product

_SUBJECTS = (
    "a red fox", "a fishing boat", "a stone cottage", "an old bicycle", "a white horse", "a bowl of fruit",
    "a girl reading a book", "a black cat", "a steam train", "an oak tree", "a windmill", "a grey owl",
)  # fmt: skip
_PLACES = (
    "in a forest", "on a beach", "in the snow", "in a city street", "on a green hill", "in a desert", "by a lake",
    "in front of mountains",
)  # fmt: skip


def crossed_prompts(count: int, base: str = "", seed: int = 0) -> list[str]:
    """`count` different prompts of content alone, from the world of the embedded base if `base` is "tiny": content that
    no adapter has been trained on. ValueError if there are not as many."""
    if base == "tiny":
        from sd_lora.evaluation.tiny_measures import unseen_scenes

        return [scene.caption for scene in unseen_scenes(count, first=6_000_000 + 10_000 * seed)]
    everything = [f"{subject} {place}" for subject, place in product(_SUBJECTS, _PLACES)]
    if count > len(everything):
        raise ValueError(f"there are {len(everything)} prompts, not {count}")
    return random.Random(seed).sample(everything, count)
