"""The little world of the embedded base: its words, its scenes and the captions that describe them.

First step of the renderer: a `Scene` describes a picture completely; `drawing` turns it into shapes and `styles`
into pixels. Everything here is a pure function of its arguments (without global random state).
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

SUBJECTS = (
    "house", "tree", "boat", "fish", "cat", "flower", "mushroom", "car", "star", "cup", "rocket", "balloon",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
BACKGROUNDS = (
    "on a plain background", "on green hills", "on the sea", "at night", "in the desert", "in the snow",
)  # fmt: skip
SIZES = ("", "small", "big")
SIDES = ("", "on the left", "on the right")

#: The styles the base is trained on, each with the ways a caption may name it ("" = the default, unnamed).
BASE_STYLES: dict[str, tuple[str, ...]] = {
    "flat": ("", "", "", "flat colours", "a flat illustration"),
    "soft": ("soft shading", "with soft shading", "softly shaded"),
    "ink": ("ink outline", "with ink outlines", "a bold ink drawing"),
    "pastel": ("pastel", "pastel colours", "a pastel drawing"),
    "line": ("line art", "a line drawing", "black and white line art"),
    "grey": ("greyscale", "in grey", "black and white"),
}

#: Styles that neither the UNet nor the text encoder of the base has ever seen.
HELD_OUT_STYLES = (
    "hatching", "mosaic", "neon", "watercolour", "halftone", "woodcut", "blueprint", "impasto", "chalkboard",
    "sepia", "cross-stitch",
)  # fmt: skip

#: Styles that do not show the colour a caption names, because they draw with fixed inks.
COLOURLESS_STYLES = frozenset({"line", "grey", "hatching", "woodcut", "blueprint", "chalkboard", "sepia"})

_FILLERS = (
    "", "", "", "a picture of", "an image of", "a drawing of", "an illustration of", "there is", "look at",
)  # fmt: skip
_ADJECTIVES = ("", "", "", "", "lovely", "nice", "little-known", "simple", "beautiful")


@dataclass(frozen=True)
class Scene:
    """One scene of the world. `seed` moves the small things (exact place, waves, stars) that no caption names."""

    subject: str
    colour: str
    background: str
    size: str = ""
    side: str = ""
    seed: int = 0

    @property
    def caption(self) -> str:
        """The full caption, e.g. ``a big orange boat on the left on the sea``."""
        words = [self.size, self.colour, self.subject]
        return _join(_article(words), *words, self.side, self.background)


def is_held_out(subject: str, colour: str, background: str) -> bool:
    """True for the one content triple in eight that no training caption of the base ever names."""
    digest = hashlib.sha256(f"{subject}|{colour}|{background}".encode()).digest()
    return digest[0] % 8 == 0


def sample_scene(seed: int, *, held_out: bool | None = False) -> Scene:
    """Draw a scene from `seed`: among the training triples, the held-out ones (``True``) or all (``None``)."""
    rng = random.Random(f"scene {seed}")
    while True:
        subject, colour, background = rng.choice(SUBJECTS), rng.choice(COLOURS), rng.choice(BACKGROUNDS)
        if held_out is None or is_held_out(subject, colour, background) == held_out:
            size = rng.choices(SIZES, (2, 1, 1))[0]
            side = rng.choices(SIDES, (2, 1, 1))[0]
            return Scene(subject, colour, background, size, side, seed)


def sample_caption(scene: Scene, style: str, seed: int) -> str:
    """A training caption for `scene` drawn in `style`: words dropped, filler added, style named, sometimes an
    unknown trigger word, so that the base learns to accept any wording and to ignore what it does not know."""
    rng = random.Random(f"caption {seed}")
    keep = rng.random()
    size, side, background = scene.size, scene.side, scene.background
    if keep < 0.12:
        size = ""
    elif keep < 0.24:
        side = ""
    elif keep < 0.32:
        background = ""
    filler, adjective = rng.choice(_FILLERS), rng.choice(_ADJECTIVES)
    words = [adjective, size, scene.colour, scene.subject]
    text = _join(filler, _article(words), *words, side, background)
    named = rng.choice(BASE_STYLES[style]) if rng.random() < 0.9 else ""
    if named:
        text = f"{named}, {text}" if rng.random() < 0.25 else f"{text}, {named}"
    if rng.random() < 0.06:
        word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 7)))
        text = f"{text}, in {word} style"
    return text


def _article(words: list[str]) -> str:
    first = next(word for word in words if word)
    return "an" if first[0] in "aeiou" else "a"


def _join(*words: str) -> str:
    return " ".join(word for word in words if word)
