"""Captions as they are trained: the trigger word, shuffled tags, and what a text encoder reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from rows import every_row

from sd_lora.config.schema import DataConfig
from sd_lora.data.captions import is_sided, names_trigger, shortened, triggered, versions
from sd_lora.data.examples import example_of, with_captions
from sd_lora.data.folders.entries import Entry, TagRules


@every_row(
    "caption, trigger, expected",
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
        ("[Trigger] of a house", "W", "W of a house"),
        ("[ TRIGGER ] of a house", r"\W", r"\W of a house"),
        ("a house, in cafe\u0301 style", "caf\xe9", "a house, in caf\xe9 style"),
        ("a house, in caf\xe9 style", "cafe\u0301", "a house, in caf\xe9 style"),
        ("a house", "cafe\u0301", "a house, in caf\xe9 style"),
    ],
)
def test_the_trigger_word_is_there_once(caption: str, trigger: str, expected: str) -> None:
    assert triggered(caption, trigger) == expected


def test_what_names_a_trigger() -> None:
    assert names_trigger("[trigger] house", "")
    assert names_trigger("[ Trigger ] house", "")
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


def test_tags_may_have_another_separator() -> None:
    rules = TagRules(shuffle=True, keep=1, comma=";")
    found = versions("a, b; c d; e;f", rules, 8, (0,))
    assert found[0] == "a, b, c d, e, f"
    assert {tuple(text.removeprefix("a, b, ").split(", ")) for text in found} > {("c d", "e", "f")}
    assert all(text.startswith("a, b, ") for text in found)
    assert versions("a, b, c", rules, 8, (0,)) == ["a, b, c"]  # one tag
    assert versions("a; b", TagRules(comma=";"), 8, (0,)) == ["a; b"]  # nothing varies


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
    tags = ", ".join(f"t{i}" for i in range(41))
    found = versions(tags, TagRules(dropout=0.3, keep=1), 60, (0,))
    assert len(found) == 60
    shares = [(text.count("t") - 1) / 40 for text in found]
    assert sum(shares) / len(shares) == pytest.approx(0.7, abs=0.02)
    assert shares[0] == max(shares)
    assert all(text.startswith("t0") for text in found)
    order = [int(tag[1:]) for tag in found[1].split(", ")]
    assert order == sorted(order)


@pytest.mark.parametrize("dropout", [0.05, 0.5])
def test_few_tags_are_left_out_as_often_as_many(dropout: float) -> None:
    """Most versions of two tags are the same; each counts."""
    entries = [Entry(Path(), f"{i}.png", ("cat, red",), rules=TagRules(dropout=dropout)) for i in range(300)]
    plain = [example_of(entry, (8, 8), DataConfig()) for entry in entries]
    found = with_captions(plain, entries, DataConfig(caption_variants=8), 0, lambda _: [])
    drawn = [caption for example in found for caption in example.captions]
    assert len(drawn) == 8 * len(found)
    for tag in ("cat", "red"):
        assert sum(tag not in text for text in drawn) / len(drawn) == pytest.approx(dropout, abs=0.03)


def test_versions_of_an_image_do_not_depend_on_the_others() -> None:
    def captions(*names: str) -> dict[str, tuple[str, ...]]:
        entries = [Entry(Path(), name, ("a, b, c, d, e",), rules=TagRules(shuffle=True)) for name in names]
        plain = [example_of(entry, (8, 8), DataConfig()) for entry in entries]
        return {e.name: e.captions for e in with_captions(plain, entries, DataConfig(), 0, lambda _: [])}

    few, more = captions("b.png", "c.png"), captions("a.png", "b.png", "c.png")
    assert few == {name: more[name] for name in few}
    assert len(set(more.values())) == 3


@pytest.mark.parametrize(
    ("caption", "fitting", "kept"),
    [
        ("红" * 95, 50, "红" * 50), ("a house " + "家" * 95, 50, "a house " + "家" * 42),
        ("ก\u0e49" * 60, 51, "ก\u0e49" * 25), ("one two " * 9, 50, "one two " * 5 + "one two"),
        ("tag one, tag two,, tag three", 17, "tag one, tag two"), ("tag one, tag two", 13, "tag one, tag"),
        ("one,two,three,four,five,six,seven", 20, "one,two,three,four"), ("x" * 60_000, 300, "x" * 300),
    ],
)  # fmt: skip
@pytest.mark.parametrize("trigger", ["", "W"])
def test_a_caption_is_cut_at_words_or_where_there_are_none_at_characters(
    caption: str, fitting: int, kept: str, trigger: str
) -> None:
    phrase = ", in W style" if trigger else ""
    whole, lost = shortened(caption, trigger, lambda text: len(text.removesuffix(phrase)) <= fitting)
    assert whole == kept.strip() + phrase
    assert lost
    assert caption.startswith(kept.strip())
    assert caption.endswith(lost)


def test_a_very_long_caption_may_fit_wholly() -> None:
    caption = "word " * 600 + "end"
    assert shortened(caption, "W", lambda _: True) == (f"{caption}, in W style", "")
    entry = Entry(Path("a.png"), "a.png", (caption, "short"))
    (example,) = with_captions([example_of(entry, (8, 8), DataConfig())], [entry], DataConfig(), 0, lambda _: [])
    assert example.captions == (caption, "short")


def test_what_is_far_longer_than_read_is_hardly_looked_at() -> None:
    seen = []

    def fits(text: str) -> bool:
        seen.append(len(text))
        return len(text) <= 300

    shortened("word " * 12_000, "W", fits)
    assert sum(seen) < 10_000
    entry = Entry(Path("a.png"), "a.png", ("word, " * 10_000,), rules=TagRules(shuffle=True))
    plain = example_of(entry, (8, 8), DataConfig())
    seen.clear()
    with_captions([plain], [entry], DataConfig(), 0, lambda texts: [i for i, t in enumerate(texts) if not fits(t)])
    assert sum(seen) < 10_000


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


@pytest.mark.parametrize(
    ("caption", "trigger", "fixed"),
    [
        ("a, zwq, b, c", "zwq", "zwq"), ("a, in zwq style, b, c", "zwq", "in zwq style"),
        ("a, [trigger], b, c", "zwq", "[trigger]"), ("a, ZWQ cat, b, c", "zwq", "ZWQ cat"),
    ],
)  # fmt: skip
def test_the_tag_of_the_trigger_word_is_neither_moved_nor_left_out(caption: str, trigger: str, fixed: str) -> None:
    shuffled = versions(caption, TagRules(shuffle=True), 8, (0,), trigger)
    assert len(shuffled) > 2
    assert {text.split(", ")[1] for text in shuffled} == {fixed}
    thinned = versions(caption, TagRules(dropout=0.9), 50, (0,), trigger)
    assert all(fixed in text.split(", ") for text in thinned)
    assert fixed in thinned  # all others left out
    free = versions(caption.replace(fixed, "d"), TagRules(shuffle=True), 8, (0,), trigger)
    assert len({text.split(", ")[1] for text in free}) > 1


def test_kohyas_mark_is_never_trained_and_begins_an_end_that_stays() -> None:
    assert versions("a, b ||| c, d", TagRules(), 8, (0,)) == ["a, b, c, d"]
    found = versions("a, b ||| c, d, e ||| f", TagRules(shuffle=True), 8, (0,))
    assert len(found) > 2
    assert all(text.startswith("a, b, ") and text.endswith(", f") for text in found)


def test_tags_without_the_trigger_word_vary_as_without_one() -> None:
    for rules in (TagRules(shuffle=True), TagRules(shuffle=True, dropout=0.3, keep=1), TagRules(dropout=0.3)):
        assert versions("a, b, c, d", rules, 8, (3, 4), "zwq") == versions("a, b, c, d", rules, 8, (3, 4))


def test_regularisation_images_have_no_trigger_word_to_protect() -> None:
    entry = Entry(Path(), "a.png", ("a, zwq, b, c",), prior=True, rules=TagRules(shuffle=True))
    plain = [example_of(entry, (8, 8), DataConfig(trigger="zwq"))]
    (example,) = with_captions(plain, [entry], DataConfig(trigger="zwq"), 0, lambda _: [])
    assert len({text.split(", ")[1] for text in example.captions}) > 1
