"""The little world: its grammar, its held-out contents, and pictures that are pure functions of their scene."""

from __future__ import annotations

import itertools
import re

import numpy as np
from PIL import Image
from rows import every_row

from sd_lora.tinybase.canvas import rasterise
from sd_lora.tinybase.drawing import shapes_of
from sd_lora.tinybase.styles import STYLES, render, render_mask
from sd_lora.tinybase.world import (
    BACKGROUNDS,
    BASE_STYLES,
    COLOURS,
    HELD_OUT_STYLES,
    SIDES,
    SIZES,
    SUBJECTS,
    Scene,
    is_held_out,
    sample_caption,
    sample_scene,
)  # fmt: skip

BOAT = Scene("boat", "orange", "on the sea", "big", "on the left", 3)
CAPTION = re.compile(
    rf"an? (?:(?:small|big) )?(?:{'|'.join(COLOURS)}) (?:{'|'.join(SUBJECTS)})(?: on the (?:left|right))?"
    rf" (?:{'|'.join(BACKGROUNDS)})"
)
STYLE_NAMES = (*BASE_STYLES, *HELD_OUT_STYLES)


def all_scenes() -> list[Scene]:
    return [Scene(*parts) for parts in itertools.product(SUBJECTS, COLOURS, BACKGROUNDS, SIZES, SIDES)]


# ---- captions


def test_captions_of_known_scenes() -> None:
    assert BOAT.caption == "a big orange boat on the left on the sea"
    assert Scene("boat", "orange", "on the sea").caption == "an orange boat on the sea"
    assert Scene("cup", "white", "at night", "small").caption == "a small white cup at night"
    assert Scene("star", "red", "in the snow", "", "on the right").caption == "a red star on the right in the snow"


def test_every_caption_follows_the_grammar_and_names_one_scene() -> None:
    scenes = all_scenes()
    captions = [scene.caption for scene in scenes]
    assert len(set(captions)) == len(scenes) == 12 * 8 * 6 * 9
    for caption in captions:
        assert CAPTION.fullmatch(caption), caption
        assert caption.startswith("an ") == (caption.split()[1][0] in "aeiou")


def test_training_captions_name_the_subject_and_never_more_than_the_scene() -> None:
    for seed in range(300):
        scene, style = sample_scene(seed), list(BASE_STYLES)[seed % len(BASE_STYLES)]
        caption = sample_caption(scene, style, seed)
        assert f"{scene.colour} {scene.subject}" in caption
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


def test_held_out_contents_are_never_trained_on() -> None:
    for seed in range(3000):
        scene = sample_scene(seed)
        assert not is_held_out(scene.subject, scene.colour, scene.background)
    for seed in range(300):
        scene = sample_scene(seed, held_out=True)
        assert is_held_out(scene.subject, scene.colour, scene.background)


def test_scenes_are_drawn_from_the_seed_and_reach_everything() -> None:
    scenes = [sample_scene(seed) for seed in range(1000)]
    assert scenes == [sample_scene(seed) for seed in range(1000)]
    for key, known in (
        ("subject", SUBJECTS),
        ("colour", COLOURS),
        ("background", BACKGROUNDS),
        ("size", SIZES),
        ("side", SIDES),
    ):
        assert {getattr(scene, key) for scene in scenes} == set(known)
    drawn = {
        is_held_out(s.subject, s.colour, s.background) for s in (sample_scene(i, held_out=None) for i in range(99))
    }
    assert drawn == {True, False}


# ---- pictures


def test_there_are_seventeen_styles() -> None:
    assert set(STYLES) == set(STYLE_NAMES)
    assert len(STYLE_NAMES) == 17
    assert not set(BASE_STYLES) & set(HELD_OUT_STYLES)


@every_row("style", STYLE_NAMES)
def test_every_style_renders_the_same_picture_again(style: str) -> None:
    picture = render(BOAT, style)
    assert (picture.size, picture.mode) == ((64, 64), "RGB")
    assert picture.tobytes() == render(BOAT, style).tobytes()
    assert np.asarray(picture).std() > 10  # no empty sheet
    assert (
        np.abs(np.asarray(picture).astype(int) - np.asarray(render(Scene("cup", "red", "at night"), style))).mean() > 4
    )


def test_styles_look_different() -> None:
    pictures = {style: np.asarray(render(BOAT, style)).astype(int) for style in STYLE_NAMES}
    for one, other in itertools.combinations(STYLE_NAMES, 2):
        assert np.abs(pictures[one] - pictures[other]).mean() > 3, (one, other)


def test_no_style_changes_the_layers_it_draws() -> None:
    layers = rasterise(shapes_of(BOAT), 64, BOAT.seed)
    before = [plane.copy() for plane in (layers.flat, layers.line, layers.mask)]
    for style in STYLE_NAMES:
        STYLES[style](layers)
        for plane, kept in zip((layers.flat, layers.line, layers.mask), before, strict=True):
            assert np.array_equal(plane, kept), style


@every_row("seed", range(0, 40, 4))
def test_the_subject_fills_a_fair_share_of_the_picture(seed: int) -> None:
    for scene in (sample_scene(seed), sample_scene(seed, held_out=True)):
        share = (np.asarray(render_mask(scene)) > 127).mean()
        assert 0.03 < share < 0.60, scene


def test_the_subject_is_where_and_as_large_as_the_caption_says() -> None:
    def columns(side: str) -> float:
        mask = np.asarray(render_mask(Scene("cup", "red", "at night", "small", side)))
        return float(np.nonzero(mask > 127)[1].mean())

    def area(size: str) -> float:
        return float((np.asarray(render_mask(Scene("cup", "red", "at night", size))) > 127).mean())

    assert columns("on the left") < 28 < columns("") < 36 < columns("on the right")
    assert 2 * area("small") < 1.5 * area("") < area("big") * 1.2


def test_the_seed_moves_what_no_caption_names() -> None:
    other = Scene(**{**vars(BOAT), "seed": 4})
    assert other.caption == BOAT.caption
    assert render(other).tobytes() != render(BOAT).tobytes()


@every_row("style", STYLE_NAMES)
def test_larger_pictures_show_the_same(style: str) -> None:
    large = render(BOAT, style, size=128)
    assert large.size == (128, 128)
    small = np.asarray(render(BOAT, style)).astype(int)
    assert np.abs(np.asarray(large.resize((64, 64), Image.Resampling.BOX)).astype(int) - small).mean() < 8
