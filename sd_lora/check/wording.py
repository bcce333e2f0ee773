"""What captions and the trigger word will teach, and which parts of them the base model never reads."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from sd_lora.data.captions import PLACEHOLDER, has_placeholder, names_trigger, shortened, trigger_phrase, triggered
from sd_lora.data.findings import Finding
from sd_lora.data.folders.caption_files import tidy
from sd_lora.data.style_words import style_words_in

#: in this share of the captions a word becomes part of the style
_BIASED = 0.8
_MOST_WORDS = 3
_FEWEST = 4
#: images and their captions, as the user wrote them; two images may be shown by one name
Captions = Sequence[tuple[str, tuple[str, ...]]]
_STOP_WORDS = """
a an the and or of on in at to by with from for near under over behind beside between into onto up down out is are was
were be being has have had its it his her their this that these those there he she they one two three some small big
large little very while as against above below next front back left right side top bottom first second third fourth
fifth last another other number line text without some only also
"""
_STOP = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class Reader:
    """A base model's tokenizers: how many tokens are read, how many captions have, ends included, and which words are a
    token by themselves."""

    limit: int
    count: Callable[[Sequence[str]], list[int]]
    is_known: Callable[[str], bool]


def wording(captions: Captions, trigger: str, reader: Reader, trained: Captions | None = None) -> list[Finding]:
    """Findings on `captions` and on the `trigger` word; if that cannot be used, only that finding. `trained`: all
    versions in which the captions are trained, with the trigger word."""
    if trained is None:
        trained = [(name, tuple(triggered(text, trigger) for text in texts)) for name, texts in captions]
    return _unusable(trigger, reader) or [
        *_too_long(captions, trigger, reader),
        *_styles(captions, trigger),
        *_alike(captions),
        *_bias(trained, trigger),
        *_trigger(captions, trained, trigger, reader),
    ]


def prior_wording(captions: Captions, trigger: str, reader: Reader) -> list[Finding]:
    """Findings on the `captions` of regularisation images, which are trained without the `trigger` word."""
    return [*_too_long(captions, "", reader)] + [
        Finding("trigger-prior", name, f'its caption names "{trigger}"')
        for name, texts in captions
        if any(names_trigger(text, trigger) and not has_placeholder(text) for text in texts)
    ]


def _too_long(captions: Captions, trigger: str, reader: Reader) -> Iterator[Finding]:
    """Captions that are cut, and the words that are lost."""
    flat = [(name, text) for name, texts in captions for text in texts]
    counts = reader.count([triggered(text, trigger) for _, text in flat])
    for (name, text), count in zip(flat, counts, strict=True):
        if count > reader.limit:
            _, lost = shortened(text, trigger, lambda caption: reader.count([caption])[0] <= reader.limit)
            shown = lost if len(lost) <= 60 else f"{lost[:60].rsplit(' ', 1)[0]} …"
            yield Finding("caption-long", name, f'{count} tokens of at most {reader.limit}; "{shown}" is cut off')


def _styles(captions: Captions, trigger: str) -> Iterator[Finding]:
    for name, texts in captions:
        words = [word for text in texts for word in style_words_in(text) if not names_trigger(word, trigger)]
        if words:
            yield Finding("caption-style", name, f'its caption says "{", ".join(dict.fromkeys(words))}"')


def _alike(captions: Captions) -> Iterator[Finding]:
    """Captions that more than half of all images have, or of those in a folder, whose name may be used as a caption."""
    folders: dict[str, list[tuple[str, ...]]] = {"": [texts for _, texts in captions]}
    for name, texts in captions:
        if folder := name.rpartition("/")[0]:
            folders.setdefault(folder, []).append(texts)
    reported = set[tuple[str, ...]]()
    for folder, captions_in_it in folders.items():
        images = len(captions_in_it)
        for texts, count in Counter(filter(any, captions_in_it)).most_common(1):
            if images >= _FEWEST and count > images / 2 and texts not in reported:
                reported.add(texts)
                what = f"{count} of {images} images{f' in {folder}/' if folder else ''}"
                yield Finding("caption-same", None, f'{what} have the caption "{texts[0][:60]}"')


def _bias(trained: Captions, trigger: str) -> Iterator[Finding]:
    """Words that are in almost all captions, as often as they are trained."""
    if len(trained) < _FEWEST:
        return
    shares: defaultdict[str, Fraction] = defaultdict(Fraction)
    for _, texts in trained:
        for text in texts:
            for word in set(_words(_untriggered(text, trigger))) - set(_words(trigger)):
                shares[word] += Fraction(1, len(texts))
    for word, share in sorted(shares.items(), key=lambda item: (-item[1], item[0]))[:_MOST_WORDS]:
        if share < _BIASED * len(trained):
            return
        count = round(share)
        yield Finding("subject-bias", None, f'"{word}" is in the captions of {count} of {len(trained)} images')


def _untriggered(text: str, trigger: str) -> str:
    """A caption as trained, without what the trigger word adds at its end."""
    phrase = trigger_phrase(trigger)
    return text.removesuffix(f", {phrase}") if text != phrase else ""


def _trigger(captions: Captions, trained: Captions, trigger: str, reader: Reader) -> Iterator[Finding]:
    if not trigger and trained:
        yield Finding("trigger-none", None, "no trigger word was given, so the style is always on")
    if not trigger:
        return
    if reader.is_known(trigger):
        yield Finding("trigger-known", None, f'"{trigger}" is a word that the base model already knows')
    named = [n for n, texts in trained if any(names_trigger(_untriggered(text, trigger), trigger) for text in texts)]
    phrase = trigger_phrase(trigger)
    added = any(
        _ends_with(versions, phrase) and not _ends_with(texts, phrase)
        for (_, texts), (_, versions) in zip(captions, trained, strict=True)
    )
    if named and added:
        some = f'[trigger] or "{trigger}" is in {len(named)} of {len(trained)} captions, such as that of {named[0]}'
        yield Finding("trigger-partly", None, f'{some}, and the others get ", {phrase}"')


def _ends_with(texts: tuple[str, ...], phrase: str) -> bool:
    return any(text.endswith(phrase) for text in texts)


def _unusable(trigger: str, reader: Reader) -> list[Finding]:
    """Why the trigger word cannot be trained as given."""
    plain, why, words = tidy(trigger), "", trigger.lower().split()
    if has_placeholder(trigger):
        why = f"{PLACEHOLDER} is the placeholder for the trigger word"
    elif plain != trigger:
        why = "the trigger word has spaces or characters that are not visible"
        why += f'; "{plain[:60]}" does not' if plain else " and nothing else"
    elif words and (words[0] == "in" or words[-1] in ("style", "of")):  # what captions put around it anyway
        why = f'captions would end ", {trigger_phrase(trigger)}", as "{trigger[:60]}" is not a word by itself'
    elif trigger and (count := reader.count([trigger_phrase(trigger)])[0]) > reader.limit:
        why = f'"{trigger[:60]}…" alone has {count} tokens of at most {reader.limit}'
    return [Finding("trigger-unusable", None, why)] if why else []


def _words(text: str) -> list[str]:
    """The content words of `text`, in small letters; plurals and counted tags (``1girl``) as they are."""
    words = re.findall(r"[^\W_]+", text.lower())
    return [word for word in words if sum(map(str.isalpha, word)) >= 3 and word not in _STOP]
