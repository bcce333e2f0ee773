"""Captions and trigger words: what is cut, what names a style, what becomes part of it."""

from __future__ import annotations

import pytest
from rows import every_row

from sd_lora.check.wording import Reader, prior_wording, wording
from sd_lora.data.findings import Finding

#: a token per word and one at each end
WORDS = Reader(10, lambda captions: [len(caption.split()) + 2 for caption in captions], {"boat", "sketch"}.__contains__)


def found(*captions: str | tuple[str, ...], trigger: str = "zwq") -> list[Finding]:
    texts = [(caption,) if isinstance(caption, str) else caption for caption in captions]
    return wording([(f"{i}.png", own) for i, own in enumerate(texts)], trigger, WORDS)


def codes(findings: list[Finding]) -> list[str]:
    return [finding.code for finding in findings]


DIFFERENT = ("a red house", "two cats asleep", "an old harbour", "the moon over hills", "a cup of tea")


def test_good_captions_have_no_findings() -> None:
    assert found(*DIFFERENT) == []
    assert found() == []
    assert found((), ()) == []


def test_long_captions_name_the_words_that_are_lost() -> None:
    """Eight words fit; the trigger's phrase has three."""
    (finding,) = found("one two three four five six seven", "one two three four five")
    assert (finding.code, finding.file) == ("caption-long", "0.png")
    assert finding.detail == '12 tokens of at most 10; "six seven" is cut off'
    (finding,) = found(("short", "one two three four five six seven eight nine"), trigger="")[:1]
    assert '"nine" is cut off' in finding.detail
    assert found("one two three four five six seven eight", trigger="")[0].code == "trigger-none"


def test_much_lost_text_is_shown_in_part() -> None:
    (finding,) = found("a " * 8 + "word " * 100)
    assert ' …" is cut off' in finding.detail
    assert len(finding.detail) < 120


def test_words_of_style_are_named() -> None:
    (finding,) = found("watercolor painting of ships", "a ship")
    assert (finding.code, finding.file) == ("caption-style", "0.png")
    assert "watercolor" in finding.detail
    assert found("a woodcut of a cat", "a dog, woodcut", trigger="woodcut") == []


def test_captions_that_are_all_the_same() -> None:
    assert codes(found(*["a photo taken"] * 3, "another", "third"))[:1] == ["caption-same"]
    assert "caption-same" not in codes(found(*["a boat out"] * 2, "another", "third"))
    assert "caption-same" not in codes(found("same", "same", "same"))


def test_captions_that_are_all_the_same_in_a_folder() -> None:
    """As where the word of kohya's folder stands in for each."""
    captions = [(f"3_a/{i}.png", (text,)) for i, text in enumerate((*DIFFERENT, "a boat out"))]
    captions += [(f"5_other/{i}.png", ("other woodcut",)) for i in range(4)]
    (finding,) = wording(captions, "zwq", WORDS)
    assert (finding.code, finding.detail) == (
        "caption-same", '4 of 4 images in 5_other/ have the caption "other woodcut"'
    )  # fmt: skip


@pytest.mark.parametrize(("count", "biased"), [(5, True), (4, True), (3, False)])
def test_a_word_in_almost_every_caption(count: int, biased: bool) -> None:
    captions = [
        f"a lighthouse {word}" if i < count else f"a {word}" for i, word in enumerate(["ab", "cd", "ef", "gh", "ij"])
    ]
    findings = found(*captions)
    assert ("subject-bias" in codes(findings)) is biased
    assert all('"lighthouse"' in finding.detail for finding in findings)


def test_counted_tags_are_named_as_they_are_written() -> None:
    (finding,) = found(*(f"1girl, {thing}, 2" for thing in ("sea", "hill", "roof", "moon")))
    assert (finding.code, finding.detail) == ("subject-bias", '"1girl" is in the captions of 4 of 4 images')
    assert found(*(f"second line number {thing}" for thing in ("sea", "hill", "roof", "moon"))) == []


def test_small_words_and_the_trigger_are_no_subject() -> None:
    assert found(*(f"zwq on the {thing}" for thing in ("sea", "hill", "roof", "moon"))) == []


def test_trigger_words() -> None:
    assert codes(found(*DIFFERENT, trigger="")) == ["trigger-none"]
    assert codes(found(*DIFFERENT, trigger="boat")) == ["trigger-known"]
    (finding,) = found("zwq, a cat", *DIFFERENT)
    assert finding.code == "trigger-partly"
    assert "1 of 6 captions" in finding.detail
    assert found("[trigger] of a cat", "a dog asleep, in zwq style") == []
    (finding,) = found("[trigger] of a cat", "a dog, zwq", *DIFFERENT)
    assert '[trigger] or "zwq" is in 2 of 7 captions' in finding.message
    assert 'the others get ", in zwq style"' in finding.message


@every_row(
    "trigger, told",
    [
        (" zwq", '"zwq" does not'), ("zwq ", '"zwq" does not'), ("z\0wq", '"z wq" does not'), ("z  wq", '"z wq" does'),
        ("\u200b", "not visible and nothing else"), ("[trigger]", "placeholder"), ("[ Trigger ]", "placeholder"),
        ("in the style of", ", in in the style of style"), ("zwq style", ", in zwq style style"),
        ("zwq " * 6 + "zwq", "11 tokens of at most 10"), ("zwq " * 89 + "zwq", "94 tokens of at most 10"),
    ],
)  # fmt: skip
def test_trigger_words_that_would_not_be_trained(trigger: str, told: str) -> None:
    (finding,) = found(*DIFFERENT, trigger=trigger)
    assert (finding.code, finding.severity) == ("trigger-unusable", "error")
    assert told in finding.message
    assert finding.message.isprintable()


def test_a_trigger_word_may_be_as_long_as_what_is_read() -> None:
    assert "trigger-unusable" not in codes(found(*DIFFERENT, trigger="zwq " * 5 + "zwq"))


def test_captions_of_regularisation_images() -> None:
    captions = [
        ("0.png", ("a house",)), ("1.png", ("a zwq house",)), ("2.png", ("a very very very very very very old house",)),
        ("3.png", ("[trigger] house",)),
    ]  # fmt: skip
    assert [(f.code, f.file) for f in prior_wording(captions, "zwq", WORDS)] == [
        ("caption-long", "2.png"), ("trigger-prior", "1.png"),
    ]  # fmt: skip
    assert codes(prior_wording(captions, "", WORDS)) == ["caption-long"]


def test_two_images_of_one_name_are_both_looked_at() -> None:
    captions = [("a.png", ("one two three four five six seven",)), ("a.png", ("a cat",))]
    assert "caption-long" in codes(wording(captions, "zwq", WORDS))


def test_the_trigger_word_is_looked_for_where_training_sees_it() -> None:
    """Written at the end as it is added anyway, it is trained as in all others."""
    assert found("a cat, in zwq style", *DIFFERENT) == []
    assert codes(found("a zwq cat, in zwq style", *DIFFERENT)) == ["trigger-partly"]


def test_a_word_is_counted_as_often_as_it_is_trained() -> None:
    written = [(f"{i}.png", (f"boat, {text}",)) for i, text in enumerate(DIFFERENT)]
    kept = [(name, (f"{texts[0]}, in zwq style",)) for name, texts in written]
    halved = [(name, (texts[0], texts[0].removeprefix("boat, "))) for name, texts in written]
    assert codes(wording(written, "zwq", WORDS, kept)) == ["subject-bias"]
    assert wording(written, "zwq", WORDS, halved) == []
