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
    "dog", "bird", "butterfly", "lighthouse", "kite", "castle",
)  # fmt: skip
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
BACKGROUNDS = (
    "on a plain background", "on green hills", "on the sea", "at night", "in the desert", "in the snow",
    "in a forest", "in the city", "on a beach", "in the mountains",
)  # fmt: skip
SIZES = ("", "small", "big")
SIDES = ("", "on the left", "on the right")
#: Daylight is not named. There is no dusk at night.
LIGHTS = ("", "at dusk")

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
    "sepia", "cross-stitch", "papercut", "poster", "pencil", "miniature",
)  # fmt: skip

#: Styles that do not show the colour a caption names, because they draw with fixed inks.
COLOURLESS_STYLES = frozenset(
    {"line", "grey", "hatching", "woodcut", "blueprint", "chalkboard", "sepia", "poster", "pencil"}
)

_FILLERS = (
    "", "", "", "a picture of", "an image of", "a drawing of", "an illustration of", "there is", "look at",
)  # fmt: skip
_ADJECTIVES = ("", "", "", "", "lovely", "nice", "little-known", "simple", "beautiful")
_JOINTS = ("and", "and", "and", "with", "next to", "beside")
_PAIRS = 0.3  # of the scenes that `sample_scene` draws
_DUSKS = 0.25  # of those that are not at night


@dataclass(frozen=True)
class Scene:
    """One scene of the world. `seed` moves the small things (exact place, proportions, waves, stars) no caption names.

    `second` and `second_colour` make a pair: the second subject stands on the other side, the first on the left
    unless `side` says otherwise; `size` is the first one's. Raises `ValueError` for a pair of equal subjects, for half
    a pair, and for dusk at night.
    """

    subject: str
    colour: str
    background: str
    size: str = ""
    side: str = ""
    seed: int = 0
    second: str = ""
    second_colour: str = ""
    light: str = ""

    def __post_init__(self) -> None:
        if self.second == self.subject:
            raise ValueError(f"A pair needs two different subjects, not {self.second!r} twice.")
        if bool(self.second) != bool(self.second_colour):
            raise ValueError(
                f"A second subject and its colour belong together: {self.second_colour!r} {self.second!r}."
            )
        if self.light and self.background == "at night":
            raise ValueError("There is no dusk at night: leave out the light or take another background.")

    @property
    def caption(self) -> str:
        """The full caption, e.g. ``a big orange boat on the left and a red house on the sea at dusk``."""
        second = _noun("", self.second_colour, self.second) if self.second else ""
        first = _join(_noun(self.size, self.colour, self.subject), self.side)
        return _join(first, second and f"and {second}", self.background, self.light)

    @property
    def held_out(self) -> bool:
        """True if a triple of this scene, or its pair of subjects, is kept from the base's training."""
        if is_held_out(self.subject, self.colour, self.background):
            return True
        return bool(self.second) and (
            is_held_out(self.second, self.second_colour, self.background) or is_pair_held_out(self.subject, self.second)
        )


def is_held_out(subject: str, colour: str, background: str) -> bool:
    """True for the one content triple in eight that no training caption of the base ever names."""
    return _one_in_eight(f"{subject}|{colour}|{background}")


def is_pair_held_out(subject: str, second: str) -> bool:
    """True for the one pair of subjects in eight (in either order) that the base is never trained on."""
    return _one_in_eight("&".join(sorted((subject, second))))


def sample_scene(seed: int, *, held_out: bool | None = False, pair: bool | None = None) -> Scene:
    """Draw a scene from `seed`: among the training contents, the held-out ones (``True``) or all (``None``); with two
    subjects (``True``), with one (``False``) or either (``None``)."""
    rng = random.Random(f"scene {seed}")
    paired = rng.random() < _PAIRS if pair is None else pair
    while True:
        subject, colour, background = rng.choice(SUBJECTS), rng.choice(COLOURS), rng.choice(BACKGROUNDS)
        size, side = rng.choices(SIZES, (2, 1, 1))[0], rng.choices(SIDES, (2, 1, 1))[0]
        other, other_colour = rng.choice(SUBJECTS), rng.choice(COLOURS)
        light = "at dusk" if rng.random() < _DUSKS and background != "at night" else ""
        if paired and (other == subject or other_colour == colour):
            continue
        second = (other, other_colour) if paired else ("", "")
        scene = Scene(subject, colour, background, size, side, seed, *second, light)
        if held_out is None or scene.held_out == held_out:
            return scene


def sample_caption(scene: Scene, style: str, seed: int) -> str:
    """A training caption for `scene` drawn in `style`: words dropped, filler added, style named, sometimes an
    unknown trigger word, so that the base learns to accept any wording and to ignore what it does not know.

    Never dropped: subjects, their colours, and the side of a pair that is not the usual one.
    """
    rng = random.Random(f"caption {seed}")
    keep = rng.random()
    size, side, background, light = scene.size, scene.side, scene.background, scene.light
    if keep < 0.12:
        size = ""
    elif keep < 0.24 and not (scene.second and side == "on the right"):
        side = ""
    elif keep < 0.32:
        background = ""
    elif keep < 0.37:
        light = ""
    filler, adjective = rng.choice(_FILLERS), rng.choice(_ADJECTIVES)
    joint = rng.choice(_JOINTS)
    second = f"{joint} {_noun('', scene.second_colour, scene.second)}" if scene.second else ""
    text = _join(filler, _noun(adjective, size, scene.colour, scene.subject), side, second, background, light)
    named = rng.choice(BASE_STYLES[style]) if rng.random() < 0.9 else ""
    if named:
        text = f"{named}, {text}" if rng.random() < 0.25 else f"{text}, {named}"
    if rng.random() < 0.06:
        word = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(3, 7)))
        text = f"{text}, in {word} style"
    return text


def _one_in_eight(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] % 8 == 0


def _noun(*words: str) -> str:
    """The words that are there, behind their article."""
    phrase = _join(*words)
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _join(*words: str) -> str:
    return " ".join(word for word in words if word)
