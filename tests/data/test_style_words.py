"""Style words: what is found in captions and taken out of drafts, and what only looks like one."""

from __future__ import annotations

import random

import pytest
from rows import every_row

from sd_lora.data.style_words import style_words_in, without_style_words

#: caption → what is left of it, and the words that were found
STYLED = [
    # at the head of a phrase
    ("a watercolor painting of a cat", "a cat", ["watercolor painting"]),
    ("an illustration of an owl", "an owl", ["illustration"]),
    ("a black and white photo of a dog on grass", "a dog on grass", ["black and white photo"]),
    ("a black-and-white photograph of an hour glass", "an hour glass", ["black-and-white photograph"]),
    ("pencil sketch of an old man with a beard", "an old man with a beard", ["pencil sketch"]),
    ("a beautiful, detailed oil painting of a lighthouse", "a lighthouse", ["oil painting"]),
    ("two photographs of an apple", "an apple", ["photographs"]),
    ("a photograph showing two men", "two men", ["photograph"]),
    ("a woodcut of a ship", "a ship", ["woodcut"]),
    ("an engraving of a whale", "a whale", ["engraving"]),
    ("3d render of a robot", "a robot", ["3d render"]),
    ("a 3D rendering of a robot", "a robot", ["3D rendering"]),
    ("an etching of an elephant by Rembrandt", "an elephant", ["etching", "by Rembrandt"]),
    ("a painting by Claude Monet of a pond", "a pond", ["painting"]),
    ("a detailed pen and ink drawing of a leaf", "a leaf", ["pen and ink drawing"]),
    ("a line drawing of a face, black and white", "a face", ["line drawing", "black and white"]),
    ("a vintage photograph of a steam train", "a steam train", ["photograph"]),
    ("sepia photo of a family", "a family", ["sepia photo"]),
    ("a grayscale image of a tree", "a tree", ["grayscale image"]),
    ("This is a painting of a red house.", "A red house.", ["painting"]),
    ("A PHOTO OF A DOG", "A DOG", ["PHOTO"]),
    ("the drawing shows a mill; watercolour", "a mill", ["drawing", "watercolour"]),
    # a phrase of its own
    ("a cat, watercolor, in the style of monet", "a cat", ["watercolor", "in the style of monet"]),
    ("a cat, oil painting", "a cat", ["oil painting"]),
    ("a cat, an oil painting on canvas by Jane Doe", "a cat", ["an oil painting on canvas by Jane Doe"]),
    ("a cat, digital art, at night", "a cat, at night", ["digital art"]),
    ("anime girl, blue hair, manga", "girl, blue hair", ["anime", "manga"]),
    ("1girl,anime,cat", "1girl, cat", ["anime"]),
    ("Watercolor, a cat", "A cat", ["Watercolor"]),
    ("a cat. Watercolor.", "a cat.", ["Watercolor"]),
    ("A cat, watercolour. A dog.", "A cat. A dog.", ["watercolour"]),
    ("a house, by Greg Rutkowski", "a house", ["by Greg Rutkowski"]),
    ("a meadow, studio ghibli", "a meadow", ["studio ghibli"]),
    ("hand drawn sketch, a bird", "a bird", ["hand drawn sketch"]),
    ("art by Jane Doe, a tree", "a tree", ["art by Jane Doe"]),
    # with "style", after "in"
    ("a house in watercolour style", "a house", ["in watercolour style"]),
    ("a cartoon-style fox", "a fox", ["cartoon-style"]),
    ("a comic book style city", "a city", ["comic book style"]),
    ("an anime style house", "a house", ["anime style"]),
    ("a studio ghibli style meadow", "a meadow", ["studio ghibli style"]),
    ("a house in the style of van gogh, at night", "a house, at night", ["in the style of van gogh"]),
    ("a dog in the style of keith haring sitting on a chair", "a dog sitting on a chair", None),
    ("a house in watercolour", "a house", ["in watercolour"]),
    ("a cat in black and white", "a cat", ["in black and white"]),
    ("a city drawn in pencil", "a city", ["drawn in pencil"]),
    ("a cat and a dog, painted in oils", "a cat and a dog", ["painted in oils"]),
    ("a mill, as a woodcut", "a mill", ["as a woodcut"]),
    ("a lake by monet", "a lake", ["by monet"]),
    ("a cat with cel shading", "a cat", ["cel shading"]),
    ("a crowd of 1,000 people, watercolor", "a crowd of 1,000 people", ["watercolor"]),
    # before a noun
    ("a cartoon cat", "a cat", ["cartoon"]),
    ("a pixel art sword", "a sword", ["pixel art"]),
    ("an impressionist garden", "a garden", ["impressionist"]),
    ("a monochrome anime owl", "an owl", ["monochrome", "anime"]),
    ("an anime universe", "a universe", ["anime"]),
    ("A linocut owl", "An owl", ["linocut"]),
    ("a cubist violin", "a violin", ["cubist"]),
    ("an art nouveau poster of a woman", "a poster of a woman", ["art nouveau"]),
    ("a charcoal portrait of an old man", "a portrait of an old man", ["charcoal"]),
    ("photorealistic portrait of a man", "portrait of a man", ["photorealistic"]),
    # nothing else
    ("Watercolor", "", ["Watercolor"]),
    ("oil on canvas", "", ["oil on canvas"]),
    ("an abstract painting.", "", ["an abstract painting"]),
    # as Florence-2 writes
    (
        "The image shows a watercolor painting of a cat on a table. The painting is done in soft colors.",
        "A cat on a table.",
        ["watercolor painting", "The painting is done in soft colors"],
    ),
]
CONTENT = [
    "a painting on the wall", "a woman painting", "a man painting a fence", "a girl drawing a picture",
    "a man taking a photo of a dog", "a man holding a painting of a horse", "a photo frame on a desk", "a photo album",
    "a sketchbook on a table", "a man sketching in a park", "a black and white cat", "a man dressed in black and white",
    "a castle by the sea", "a cat by a window", "a boy reading manga", "a comic book on a shelf",
    "a kid watching cartoons on tv", "a gothic cathedral", "a box of watercolors on a table",
    "watercolor paints on a desk", "a sign that says painting", "a street sign", "a notebook, a pencil and a lamp",
    "a note written in pencil", "fish fried in oil", "a house in zwq style", "a victorian style house",
    "a red house, in zwq style", "a price of 1,000 dollars", "The painting is in a museum.",
    "a man selling paintings of cats", "a table with books, photos, a lamp", "a cat, , a dog", "",
]  # fmt: skip
_MIXED = (
    "a an the of on in by with and , . ; cat owl dog house woman holding book black white photo painting watercolor "
    "cartoon anime manga style sketch drawing pencil oil monet picture image beautiful pixel art render Greg Rutkowski"
)
FRAMES = [
    ("a picture of a horse", "a horse"),
    ("An image of an owl.", "An owl."),
    ("In this image we can see a boat on the water.", "A boat on the water."),
    ("in this picture, there is a dog", "there is a dog"),
]


@every_row("text, left, words", STYLED)
def test_style_words_are_found_and_taken_out(text: str, left: str, words: list[str] | None) -> None:
    assert without_style_words(text) == left
    found = style_words_in(text)
    assert found == words if words else found
    assert style_words_in(left) == []


@every_row("text", CONTENT)
def test_content_stays_as_it_is(text: str) -> None:
    assert style_words_in(text) == []
    assert without_style_words(text) == text


@pytest.mark.parametrize(("text", "left"), FRAMES)
def test_what_only_begins_a_draft_is_no_style_word(text: str, left: str) -> None:
    assert style_words_in(text) == []
    assert without_style_words(text) == left


def test_nothing_is_left_to_find_in_any_mixture_of_words() -> None:
    rng = random.Random(0)
    for _ in range(3000):
        text = " ".join(rng.choices(_MIXED.split(), k=rng.randint(1, 12)))
        left = without_style_words(text)
        assert style_words_in(left) == [], text
        assert without_style_words(left) == left, text


def test_a_word_is_told_once() -> None:
    assert style_words_in("anime girl, anime cat") == ["anime"]


def test_a_caption_stays_on_one_line() -> None:
    assert without_style_words("a  cat,\nwatercolor\n") == "a cat"


@pytest.mark.slow
@every_row(
    "piece",
    ["a", " ", ",", ".", "-", "a ", "a'", "\0 ", "pen and ink ", "in the style of ", "a painting of ", "very soft, ",
     "by A", "watercolor ", "a painting by x "],
)  # fmt: skip
def test_long_texts_are_searched(piece: str) -> None:
    """In linear time: were it the square of the length, this would take hours."""
    style_words_in(piece * (100_000 // len(piece)))
