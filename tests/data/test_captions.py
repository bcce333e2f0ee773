"""Captions as they are trained: the trigger word, shuffled tags, and what a text encoder reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from sd_lora.config import DataConfig
from sd_lora.data.captions import is_sided, names_trigger, shortened, triggered, versions
from sd_lora.data.entries import Entry, TagRules
from sd_lora.data.examples import example_of, with_captions


@pytest.mark.parametrize(
    ("caption", "trigger", "expected"),
    [
        ("a red house", "W", "a red house, in W style"),
        ("a red house", "", "a red house"),
        ("", "W", "in W style"),
        ("", "", ""),
        ("a house, in W style", "W", "a house, in W style"),
        ("W, a house", "W", "W, a house"),
        ("w, a house", "W", "w, a house"),
        ("Wood, a house", "W", "Wood, a house, in W style"),
        ("[trigger] of a house", "W", "W of a house"),
        ("[trigger] of a house", "", "[trigger] of a house"),
        ("a house", "c++", "a house, in c++ style"),
        ("a c++ house", "c++", "a c++ house"),
    ],
)
def test_the_trigger_word_is_there_once(caption: str, trigger: str, expected: str) -> None:
    assert triggered(caption, trigger) == expected


def test_what_names_a_trigger() -> None:
    assert names_trigger("[trigger] house", "")
    assert not names_trigger("a house", "")
    assert not names_trigger("inkwashed", "inkwash")


@pytest.mark.parametrize(
    ("caption", "sided"), [("a boat on the LEFT", True), ("a sign", True), ("signs of a cat", False)]
)
def test_sides_and_writing(caption: str, sided: bool) -> None:
    assert is_sided(caption) is sided


def test_a_trigger_word_may_be_a_side() -> None:
    assert not is_sided("a boat, in left style", "left")
    assert is_sided("a boat on the left, in left style", "left")


def test_a_caption_without_rules_has_one_version() -> None:
    assert versions("b, a,  c", TagRules(), 8, (0,)) == ["b, a,  c"]
    assert versions("fixed, one ||| two, three", TagRules(separator="|||"), 8, (0,)) == ["fixed, one, two, three"]


def test_shuffled_versions_keep_the_first_tags_and_all_others() -> None:
    found = versions("a, b, c, d, e", TagRules(shuffle=True, keep=2), 8, (0, 1))
    assert found[0] == "a, b, c, d, e"
    assert len(set(found)) == len(found) > 3
    assert all(text.startswith("a, b, ") and sorted(text.split(", ")) == list("abcde") for text in found)
    assert found == versions("a, b, c, d, e", TagRules(shuffle=True, keep=2), 8, (0, 1))
    assert found != versions("a, b, c, d, e", TagRules(shuffle=True, keep=2), 8, (0, 2))


def test_the_separator_ends_the_fixed_part() -> None:
    found = versions("a, b ||| c, d, e", TagRules(shuffle=True, separator="|||"), 8, (0,))
    assert all(text.startswith("a, b, ") for text in found)
    assert len(found) > 2


def test_tags_are_left_out_as_often_as_asked() -> None:
    tags = ", ".join(f"t{i}" for i in range(40))
    found = versions(tags, TagRules(dropout=0.3, keep=1), 60, (0,))
    shares = [text.count("t") / 40 for text in found[1:]]
    assert sum(shares) / len(shares) == pytest.approx(0.7, abs=0.04)
    assert all(text.startswith("t0") for text in found)
    order = [int(tag[1:]) for tag in found[1].split(", ")]
    assert order == sorted(order)


@pytest.mark.parametrize(("words", "left"), [(4, 4), (12, 5), (100, 5)])
def test_a_long_caption_loses_its_last_words_but_not_its_trigger(words: int, left: int) -> None:
    caption = " ".join(f"w{i}" for i in range(words))
    whole, lost = shortened(caption, "W", lambda text: len(text.split()) <= 8)
    assert whole == " ".join(f"w{i}" for i in range(left)) + ", in W style"
    assert lost.split() == [f"w{i}" for i in range(left, words)]


def test_examples_get_every_version_cut_to_what_fits() -> None:
    entry = Entry(Path("a.png"), "a.png", ("one, two, three, four", "short"), rules=TagRules(shuffle=True))
    config = DataConfig(trigger="W", caption_variants=5)
    plain = example_of(entry, (8, 8), config)
    assert plain.captions == ("one, two, three, four, in W style", "short, in W style")
    assert plain.written == entry.captions

    def overlong(texts: object) -> list[int]:
        return [i for i, text in enumerate(texts) if len(text.split()) > 6]  # type: ignore[arg-type, var-annotated]

    (example,) = with_captions([plain], [entry], config, 0, overlong)
    assert len(example.captions) > 3
    assert all(len(text.split()) <= 6 and text.endswith(", in W style") for text in example.captions)


def test_regularisation_images_have_no_trigger_and_transparent_ones_a_background() -> None:
    entry = Entry(Path("a.png"), "a.png", ("a cat",), prior=True)
    example = example_of(entry, (8, 8), DataConfig(trigger="W", background="red"), transparent=True)
    assert (example.captions, example.background) == (("a cat",), "red")
    assert example_of(entry, (8, 8), DataConfig(background="red")).background == ""


def test_a_side_in_any_caption_forbids_mirror_images() -> None:
    entry = Entry(Path("a.png"), "a.png", ("a cat", "a cat on the left"))
    assert not example_of(entry, (8, 8), DataConfig()).may_flip
    assert example_of(Entry(Path("a.png"), "a.png", ("a cat",)), (8, 8), DataConfig(trigger="left")).may_flip
