"""The little world: its grammar, its held-out contents, and pictures that are pure functions of their scene."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from rows import every_row

from benchmarks.tiny_base.dev_styles import DEV_STYLES
from sd_lora.tinybase.canvas import finish, rasterise
from sd_lora.tinybase.drawing import PALETTE, shapes_of
from sd_lora.tinybase.shapes import Shape, box
from sd_lora.tinybase.styles import STYLES, render, render_mask
from sd_lora.tinybase.world import (
    BACKGROUNDS,
    BASE_STYLES,
    COLOURS,
    HELD_OUT_STYLES,
    LIGHTS,
    SIDES,
    SIZES,
    SUBJECTS,
    Scene,
    is_held_out,
    is_pair_held_out,
    sample_caption,
    sample_scene,
)  # fmt: skip

pytestmark = pytest.mark.slow

BOAT = Scene("boat", "orange", "on the sea", "big", "on the left", 3)
PAIR = Scene("house", "red", "on green hills", seed=3, second="boat", second_colour="blue")
_NOUN = rf"(?:{'|'.join(COLOURS)}) (?:{'|'.join(SUBJECTS)})"
CAPTION = re.compile(
    rf"an? (?:(?:small|big) )?{_NOUN}(?: on the (?:left|right))?(?: and an? {_NOUN})?"
    rf" (?:{'|'.join(BACKGROUNDS)})(?: at dusk)?"
)
# the words of the first edition: captions that are written elsewhere keep their meaning
FIRST_SUBJECTS, FIRST_COLOURS = SUBJECTS[:12], COLOURS
FIRST_BACKGROUNDS = (
    "on a plain background", "on green hills", "on the sea", "at night", "in the desert", "in the snow",
)  # fmt: skip
STYLE_NAMES = (*BASE_STYLES, *HELD_OUT_STYLES)


def all_scenes() -> list[Scene]:
    return [Scene(*parts) for parts in itertools.product(SUBJECTS, COLOURS, BACKGROUNDS, SIZES, SIDES)]


# ---- captions


def test_captions_of_known_scenes() -> None:
    assert BOAT.caption == "a big orange boat on the left on the sea"
    assert Scene("boat", "orange", "on the sea").caption == "an orange boat on the sea"
    assert Scene("cup", "white", "at night", "small").caption == "a small white cup at night"
    assert Scene("star", "red", "in the snow", "", "on the right").caption == "a red star on the right in the snow"
    assert Scene("boat", "orange", "on the sea", light="at dusk").caption == "an orange boat on the sea at dusk"
    assert PAIR.caption == "a red house and a blue boat on green hills"
    both = Scene("cat", "pink", "in the snow", "big", "on the right", 0, "tree", "orange", "at dusk")
    assert both.caption == "a big pink cat on the right and an orange tree in the snow at dusk"


def test_captions_of_the_first_edition_mean_what_they_meant() -> None:
    for subject, colour, background, size, side in itertools.product(
        FIRST_SUBJECTS, FIRST_COLOURS, FIRST_BACKGROUNDS, SIZES, SIDES
    ):
        words = [size, colour, subject, side, background]
        article = "an" if next(filter(None, words))[0] in "aeiou" else "a"
        assert Scene(subject, colour, background, size, side).caption == " ".join([article, *filter(None, words)])


@every_row(
    "words",
    [
        {"second": "boat", "second_colour": "red"},
        {"second": "cat"},
        {"second_colour": "red"},
        {"background": "at night", "light": "at dusk"},
    ],
)
def test_scenes_that_cannot_be_are_refused(words: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"\."):
        replace(BOAT, **words)


def test_every_caption_follows_the_grammar_and_names_one_scene() -> None:
    scenes = all_scenes()
    captions = [scene.caption for scene in scenes]
    assert len(set(captions)) == len(scenes) == 18 * 8 * 10 * 9
    for caption in captions:
        assert CAPTION.fullmatch(caption), caption
        assert caption.startswith("an ") == (caption.split()[1][0] in "aeiou")


def test_training_captions_name_the_subject_and_never_more_than_the_scene() -> None:
    for seed in range(300):
        scene, style = sample_scene(seed), list(BASE_STYLES)[seed % len(BASE_STYLES)]
        caption = sample_caption(scene, style, seed)
        assert f"{scene.colour} {scene.subject}" in caption
        assert f"{scene.second_colour} {scene.second}".strip() in caption
        assert scene.light or "dusk" not in caption
        assert len(set(re.findall(r"[a-z]+", caption)) & set(SUBJECTS)) == 1 + bool(scene.second)
        if scene.second and scene.side == "on the right":
            assert scene.side in caption  # without it the first would be on the left
        assert caption == sample_caption(scene, style, seed)
        assert "  " not in caption
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", caption), caption
        assert not any(other in caption for other in BACKGROUNDS if other != scene.background)


# ---- contents kept for measuring


def test_about_one_content_in_eight_is_held_out() -> None:
    triples = list(itertools.product(SUBJECTS, COLOURS, BACKGROUNDS))
    held_out = [triple for triple in triples if is_held_out(*triple)]
    assert 0.09 < len(held_out) / len(triples) < 0.16
    assert {subject for subject, _, _ in held_out} == set(SUBJECTS)
    assert {background for _, _, background in held_out} == set(BACKGROUNDS)


def test_about_one_pair_in_eight_is_held_out_in_either_order() -> None:
    pairs = list(itertools.combinations(SUBJECTS, 2))
    assert 0.08 < sum(is_pair_held_out(*pair) for pair in pairs) / len(pairs) < 0.17
    assert all(is_pair_held_out(one, other) == is_pair_held_out(other, one) for one, other in pairs)


def test_held_out_contents_are_never_trained_on() -> None:
    for seed in range(3000):
        scene = sample_scene(seed)
        assert not is_held_out(scene.subject, scene.colour, scene.background)
        if scene.second:
            assert not is_held_out(scene.second, scene.second_colour, scene.background)
            assert not is_pair_held_out(scene.subject, scene.second)
    for seed in range(300):
        scene = sample_scene(seed, held_out=True, pair=False)
        assert is_held_out(scene.subject, scene.colour, scene.background)
        assert sample_scene(seed, held_out=True).held_out


def test_scenes_are_drawn_from_the_seed_and_reach_everything() -> None:
    scenes = [sample_scene(seed) for seed in range(1000)]
    assert scenes == [sample_scene(seed) for seed in range(1000)]
    for key, known in (
        ("subject", SUBJECTS),
        ("colour", COLOURS),
        ("background", BACKGROUNDS),
        ("size", SIZES),
        ("side", SIDES),
        ("second", ("", *SUBJECTS)),
        ("light", LIGHTS),
    ):
        assert {getattr(scene, key) for scene in scenes} == set(known)
    assert {sample_scene(seed, held_out=None).held_out for seed in range(99)} == {True, False}
    assert all(sample_scene(seed, pair=True).second for seed in range(50))
    assert not any(sample_scene(seed, pair=False).second for seed in range(50))


# ---- pictures


def pixels(scene: Scene, style: str = "flat", size: int = 64) -> NDArray[np.int_]:
    return np.asarray(render(scene, style, size)).astype(int)


def test_there_are_twenty_one_styles() -> None:
    assert set(STYLES) == set(STYLE_NAMES)
    assert len(STYLE_NAMES) == 21
    assert not set(BASE_STYLES) & set(HELD_OUT_STYLES)
    assert not set(DEV_STYLES) & set(STYLES)


@every_row("style", STYLE_NAMES)
def test_every_style_renders_the_same_picture_again(style: str) -> None:
    picture = render(BOAT, style, 64)
    assert picture.tobytes() == render(BOAT, style, 64).tobytes()
    assert np.asarray(picture).std() > 10  # no empty sheet
    assert np.abs(pixels(BOAT, style) - pixels(Scene("cup", "red", "at night"), style)).mean() > 4


def test_pictures_are_128_pixels_wide() -> None:
    assert (render(BOAT).size, render(BOAT).mode, render_mask(BOAT).size) == ((128, 128), "RGB", (128, 128))


def test_styles_look_different() -> None:
    pictures = {style: pixels(BOAT, style) for style in STYLE_NAMES}
    pictures |= {name: np.asarray(render(BOAT, draw, 64)).astype(int) for name, draw in DEV_STYLES.items()}
    for one, other in itertools.combinations(pictures, 2):
        assert np.abs(pictures[one] - pictures[other]).mean() > 3, (one, other)


@every_row("size", (64, 128))
def test_no_style_changes_the_layers_it_draws(size: int) -> None:
    layers = rasterise(shapes_of(BOAT), size, BOAT.seed)
    before = [plane.copy() for plane in (layers.flat, layers.line, layers.mask)]
    for draw in (*STYLES.values(), *DEV_STYLES.values()):
        assert draw(layers).shape == layers.flat.shape
        for plane, kept in zip((layers.flat, layers.line, layers.mask), before, strict=True):
            assert np.array_equal(plane, kept), draw


def test_every_subject_has_an_outline_of_its_own() -> None:
    masks = {name: np.asarray(render_mask(Scene(name, "red", "at night", "big"), 64)) > 127 for name in SUBJECTS}
    for one, other in itertools.permutations(SUBJECTS, 2):
        assert (masks[one] ^ masks[other]).sum() / masks[one].sum() > 0.2, (one, other)


@every_row("subject", SUBJECTS)
def test_no_other_colour_covers_more_of_a_subject_than_its_own(subject: str) -> None:
    inside = np.asarray(render_mask(Scene(subject, "red", "at night", "big"), 64)) > 127
    for colour in COLOURS:
        seen = pixels(Scene(subject, colour, "at night", "big"))[inside]
        away = np.array([np.abs(seen - PALETTE[name]).sum(axis=1) for name in COLOURS])
        votes = np.bincount(away.argmin(axis=0)[away.min(axis=0) < 120], minlength=len(COLOURS))
        assert votes.argmax() == COLOURS.index(colour), colour
        assert votes.max() > 0.3 * inside.sum(), colour


@every_row("light", LIGHTS)
def test_backgrounds_are_told_apart_by_their_colours(light: str) -> None:
    means = {}
    for background in BACKGROUNDS:
        if not (light and background == "at night"):
            scenes = [Scene("star", "red", background, "small", seed=seed, light=light) for seed in range(3)]
            picture = np.mean([pixels(scene) for scene in scenes], axis=0)
            means[background] = picture.reshape(4, 16, 64, 3).mean(axis=(1, 2))
    for one, other in itertools.combinations(means, 2):
        assert np.abs(means[one] - means[other]).mean() > 8, (one, other)


@every_row("background", [name for name in BACKGROUNDS if name != "at night"])
def test_dusk_darkens_a_place_and_moves_nothing(background: str) -> None:
    day = Scene("cat", "blue", background, seed=5)
    dusk = replace(day, light="at dusk")
    assert pixels(dusk).mean() < pixels(day).mean() - 10
    assert render_mask(dusk).tobytes() == render_mask(day).tobytes()


@every_row("seed", range(0, 40, 4))
def test_the_subject_fills_a_fair_share_of_the_picture(seed: int) -> None:
    for scene in (sample_scene(seed), sample_scene(seed, held_out=True)):
        for subject in (1, 2) if scene.second else (1,):
            share = (np.asarray(render_mask(scene, subject=subject)) > 127).mean()
            assert 0.02 < share < 0.60, scene


@every_row("seed", range(40))
def test_the_two_of_a_pair_stand_apart_and_whole_on_their_sides(seed: int) -> None:
    scene = sample_scene(seed, pair=True)
    masks = [np.asarray(render_mask(scene, 64, number)) > 127 for number in (1, 2)]
    left, right = masks[::-1] if scene.side == "on the right" else masks
    assert np.nonzero(left)[1].max() < np.nonzero(right)[1].min()
    for mask in masks:
        assert not mask[:, [0, -1]].any()
        assert mask.sum() > 90  # of 4,096 pixels
    assert abs((np.asarray(render_mask(scene, 64)) > 127).sum() - left.sum() - right.sum()) < 4


def test_the_subject_is_where_and_as_large_as_the_caption_says() -> None:
    def columns(side: str) -> float:
        mask = np.asarray(render_mask(Scene("cup", "red", "at night", "small", side), 64))
        return float(np.nonzero(mask > 127)[1].mean())

    def area(size: str) -> float:
        return float((np.asarray(render_mask(Scene("cup", "red", "at night", size))) > 127).mean())

    assert columns("on the left") < 28 < columns("") < 36 < columns("on the right")
    assert 2 * area("small") < 1.5 * area("") < area("big") * 1.2


def test_the_seed_moves_what_no_caption_names() -> None:
    other = replace(BOAT, seed=4)
    assert other.caption == BOAT.caption
    assert render(other).tobytes() != render(BOAT).tobytes()


@every_row("style", STYLE_NAMES)
def test_pictures_of_any_size_show_the_same(style: str) -> None:
    """Apart from marks, which are as wide at every size, and from the rim, where one style puts a frame."""
    images = [render(BOAT, style, size).resize((16, 16), Image.Resampling.BOX) for size in (64, 128)]
    small, large = (np.asarray(image).astype(int)[2:-2, 2:-2] for image in images)
    assert np.abs(small - large).mean() < 9


@every_row("style, size", itertools.product(("hatching", "mosaic", "halftone", "impasto", "cross-stitch"), (64, 128)))
def test_marks_repeat_every_8_pixels_of_the_finished_picture(style: str, size: int) -> None:
    layers = rasterise([Shape(box(0, 0, 1, 1), (150, 110, 70), contour=0)], size, 0)
    tone = np.asarray(finish(STYLES[style](layers)).convert("L")).astype(float)
    mean = tone.reshape(size // 8, 8, size // 8, 8).mean(axis=(0, 2))
    assert mean.std() > 4  # there are marks
    assert np.abs(tone - np.tile(mean, (size // 8, size // 8))).mean() < 9  # and they are in phase
