"""Tags with how sure a tagger is of each, in every way in which taggers write that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_SCORE = r"(?:0?[.,]\d+|1[.,]0+|[01]|\d{1,3}(?:\.\d+)?\s?%)"
_QUOTE = "[\"'“”]?"
_AFTER = re.compile(
    rf"(?P<open>[(\[]?)\s*{_QUOTE}(?P<tag>[^\t]*?\S){_QUOTE}\s*(?P<mark>:+|=>?|\||\t|,|;|~|->|\s[-–—]+(?=\s)"
    rf"|\(\s*(?:conf(?:idence)?|score|prob(?:ability)?)\s*[:=]|[(\[]|\s)\s*"
    rf"{_QUOTE}(?P<score>{_SCORE}){_QUOTE}\s*[)\]]*"
)
_BEFORE = re.compile(
    rf"(?P<open>[(\[]?)(?P<score>{_SCORE})[)\]]?\s*(?P<mark>[:|=\t]|(?<=[)\]])|\s[-–]+\s|\s)\s*{_QUOTE}(?P<tag>\S.*?){_QUOTE}"
)
_TABLE_ROW = re.compile(rf"(?P<tag>[^\t]+)\t(?:[^\t]*\t)*(?P<score>{_SCORE})\s*")
_HEADER = re.compile(
    r"\W*(?:tags?|names?|labels?|class)\W+(?:\w+\W+)*(?:scores?|prob\w*|conf\w*|values?|weights?)\W*", re.IGNORECASE
)
_NUMBER = re.compile(rf"\s*{_SCORE}\s*")
#: a decimal comma, which does not part tags
_COMMA = re.compile(r"(?<=[:(=|\t])(\s*[01]),(\d{1,6})(?=\s*(?:[),;|\n]|$))")
_TUPLE = re.compile(rf"\s*[(\[]\s*['\"](?P<tag>[^'\"]+)['\"]\s*,\s*(?P<score>{_SCORE})\s*[)\]]\s*,?")
_TUPLES = re.compile(rf"\s*(?:{_TUPLE.pattern.replace('?P<tag>', '?:').replace('?P<score>', '?:')})+\s*")
#: a tagger's ratings, which it lists among its tags
RATINGS = frozenset({"general", "sensitive", "questionable", "explicit", "safe"})
_SENTENCE = frozenset({"a", "an", "and", "are", "at", "by", "from", "in", "is", "of", "on", "the", "to", "with", "for"})
#: a score inside of a tag, which then is several
_INNER = re.compile(rf"[:=|]\s*{_SCORE}(?=\s)")
#: what only a tag has, where words do not
_TAG = re.compile(r"\w_\w|^\d+\+?(?:girl|boy|other)s?\b", re.IGNORECASE)
#: words that no tag has
_ARTICLES = frozenset({"a", "an", "the", "is", "are"})
_BULLET = re.compile(r"^(?:[-*•]|\d{1,3}[.)])\s+(?=\S)")
_LONGEST, _MOST, _SHARE = 120, 5_000, 0.6
_NAMES = ("tag", "name", "label", "text", "class")
_VALUES = ("score", "confidence", "conf", "prob", "probability", "value", "weight", "p")

Scored = tuple[str, str, str]


def scored_tags(text: str) -> list[str] | None:
    """The tags of a text in which (nearly) each has a score, without the scores and the tagger's ratings; None for any
    other text."""
    if not re.search(r"\d", text) or not re.search(r"[.,]\d|%", text):
        return None
    inner = re.sub(r"[ \u00a0]+", " ", re.sub(r"\t+", "\t", "\n".join(text.split("\n")))).strip()
    if inner[:1] + inner[-1:] in ("{}", "[]"):
        inner = inner[1:-1].strip().strip(",")
    if _TUPLES.fullmatch(inner[: _LONGEST * 100]):
        return shown(match["tag"] for match in _TUPLE.finditer(inner))
    if (alternating := _alternating(inner)) is not None:
        return alternating
    for items in _splits(_COMMA.sub(r"\1.\2", inner)):
        tags = _tags_of(items)
        if tags is not None:
            return shown(tags)
    return None


def are_scored(lines: Sequence[str]) -> bool:
    """Whether each of several lines is a tag and its score."""
    return scored_tags("\n".join(lines)) is not None and not any(re.search(r",\s+(?=[^\d\s.])", line) for line in lines)


def scores_in(value: object) -> list[str] | None:
    """The tags that JSON gives scores: ``{"1girl": 0.98}``, pairs, or objects with a name and a score; None for any
    other value."""
    pairs = list(_pairs(value))
    if not pairs or not (all(_is_score(score) for _, score in pairs) or _are_percents([score for _, score in pairs])):
        return None
    return [str(tag) for tag, _ in pairs if str(tag).strip().lower() not in RATINGS]


def shown(tags: Iterable[str]) -> list[str]:
    """`tags` without a tagger's ratings."""
    return [clean for tag in tags if (clean := tag.strip(" \t\"'")).lower() not in RATINGS]


def _pairs(value: object) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, list) and len(item) == 2 and isinstance(item[0], str):
                yield item[0], item[1]
            elif isinstance(item, Mapping):
                tag, score = (next((item[k] for k in keys if k in item), None) for keys in (_NAMES, _VALUES))
                yield tag, score if isinstance(tag, str) else None
            else:
                yield item, None


def _is_score(score: object) -> bool:
    if isinstance(score, str):
        return _NUMBER.fullmatch(score) is not None and not score.strip().isdigit()
    return isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1


def _are_percents(scores: Sequence[object]) -> bool:
    numbers = [score for score in scores if isinstance(score, int | float) and not isinstance(score, bool)]
    fits = len(numbers) == len(scores) > 1 and all(0 <= score <= 100 for score in numbers)
    return fits and any(score > 1 and score % 1 for score in numbers)


def _splits(text: str) -> Iterator[list[str]]:
    """The ways in which `text` may be split into tags with their scores."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) > 1:
        rows = _columns(lines) if _HEADER.fullmatch(lines[0]) else lines
        yield [_BULLET.sub("", row.strip(" ,;")) for row in rows]
    for between in (r"[,\n]", r"[;\n]", r"\s\|\s|\n", r"\t\s*(?=[^\d\s])", r"(?<=[\d%)\]])\s+(?!AND\b|BREAK\b)"):
        items = [item.strip() for item in re.split(between, text) if item.strip()]
        yield items


def _columns(lines: Sequence[str]) -> list[str]:
    """The first and the last column of a table of scores."""
    between = "\t" if "\t" in lines[0] else next((mark for mark in ";|," if mark in lines[0]), ",")
    cells = [line.split(between) for line in lines[1:]]
    return [f"{row[0]}\t{row[-1].strip()}" for row in cells]


def _tags_of(items: Sequence[str]) -> list[str] | None:
    """The tags of `items`, if nearly all have scores, as no other text has them."""
    if not items or len(items) > _MOST:
        return None
    scored = [_scored(item) for item in items]
    good = [found for found in scored if found is not None]
    if len(good) < max(1, _SHARE * len(items)) or not any(re.search(r"[.,%]", score) for _, score, _ in good):
        return None
    if len(items) == 1 and not _is_sure(good[0], items[0]):
        return None
    if len(good) > 1 and _are_shares(good, [item for item, found in zip(items, scored, strict=True) if found]):
        return None
    return [found[0] if found else item for found, item in zip(scored, items, strict=True)]


def _are_shares(found: Sequence[Scored], items: Sequence[str]) -> bool:
    """Whether percents are of what the words name, as in ``milk: 1.5%, butter: 80%``: a tagger's add up to more, are
    sorted, and two round numbers alone prove nothing."""
    percents = [float(score.rstrip("% ")) for _, score, _ in found if score.endswith("%")]
    if len(percents) < len(found):
        return False
    if abs(sum(percents) - 100) < 0.1:
        return True
    tags = [tag for tag, *_ in found]
    is_prose = all(": " in item or mark == " " for item, (*_, mark) in zip(items, found, strict=True))
    if not is_prose or any(_TAG.search(tag) for tag in tags):
        return False
    is_sorted = percents == sorted(percents, reverse=True) or tags == sorted(tags)
    is_exact = len(found) > 2 or any("." in score for _, score, _ in found)
    return sum(percents) <= 100 or not (is_sorted and is_exact)


def _scored(item: str) -> Scored | None:
    """A tag, its score and the mark between them; None if `item` is something else."""
    if len(item) > _LONGEST:
        return None
    match = _TABLE_ROW.fullmatch(item) or _AFTER.fullmatch(item) or _BEFORE.fullmatch(item)
    if match is None:
        return None
    tag, score = match["tag"].strip(), match["score"].strip()
    mark = "\t" if match.re is _TABLE_ROW else match["mark"]
    if not re.search(r"[^\W\d]", tag) or (score.endswith("%") and float(score.rstrip("% ")) > 100):
        return None
    words = set(tag.lower().split())
    exact = re.search(r"[.,]\d{2,}|1[.,]0|%", score) is not None
    weighed = match.re is _AFTER and match["open"] == "(" and mark == ":"
    loose = not mark.strip() and mark != "\t"
    is_text = _ARTICLES & words or (loose and _SENTENCE & words) or _INNER.search(tag)
    is_share = match.re is _BEFORE and score.endswith("%") and loose  # 50% wool
    return None if is_text or is_share or ((weighed or loose) and not exact) else (tag, score, mark)


def _is_sure(found: Scored, item: str) -> bool:
    """Whether one scored tag alone cannot be something else, as ``price: 0.99`` or ``ISO 50%`` is."""
    tag, score, mark = found
    if not mark.strip() and mark != "\t":
        return False
    if score.endswith("%"):
        return ": " not in item and mark in (":", "|", "\t")
    return re.fullmatch(r"0?[.,]\d{2,}|1[.,]0+", score) is not None and len(tag.split()) <= 4


def _alternating(text: str) -> list[str] | None:
    """The tags of ``1girl 0.98 solo 0.95``, with any one mark between all."""
    for between in (r"\s*[,\n]\s*", r"\t", r"\s*\|\s*", r"\s+"):
        words = re.split(between, text.strip())
        tags, scores = words[::2], words[1::2]
        exact = all(re.fullmatch(r"[01]?\.\d{2,}|1\.0+", score) for score in scores)
        if len(tags) == len(scores) >= 2 and exact and all(re.search(r"[^\W\d]", tag) for tag in tags):
            return shown(tags)
    return None
