"""The subjects of the world: functions from a colour and the scene's randomness to shapes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from sd_lora.tinybase.shapes import RGB, Shape
from sd_lora.tinybase.subjects import living, made

Subject = Callable[[RGB, Random], list[Shape]]

DRAWN: dict[str, Subject] = {
    "house": made.house, "tree": living.tree, "boat": made.boat, "fish": living.fish, "cat": living.cat,
    "flower": living.flower, "mushroom": living.mushroom, "car": made.car, "star": made.star, "cup": made.cup,
    "rocket": made.rocket, "balloon": made.balloon, "dog": living.dog, "bird": living.bird,
    "butterfly": living.butterfly, "lighthouse": made.lighthouse, "kite": made.kite, "castle": made.castle,
}  # fmt: skip
#: Subjects in the air, and by how many degrees at most each subject is tilted.
FLOATING = frozenset({"star", "rocket", "balloon", "butterfly", "kite"})
TILT = {"star": 14, "rocket": 14, "balloon": 7, "butterfly": 16, "kite": 18, "fish": 7, "boat": 5, "flower": 4}
#: Subjects that may face the other way.
MIRRORED = frozenset({"house", "boat", "fish", "cat", "car", "cup", "dog", "bird", "tree", "castle", "kite"})
