"""The syntax in which web UIs weigh, mix and swap parts of a prompt; a text encoder reads it letter by letter."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice, product
from math import comb

from sd_lora.data.dialects.tags import SENTENCE, bare, spaced, underscored

_OPENING = {")": "(", "]": "[", "}": "{"}
_DEEPEST, _NEAR = 40, 80
#: how many captions the alternatives of one may become
_MOST = 16
_ADDED = re.compile(
    r"<(?:lora|lyco|lycoris|hypernet|hypernetwork|embedding|embed|ti|segment|object|region|clear|preset|p|wildcard|wc"
    r"|setvar|var|trigger|comment|base|refiner|video|extend)(?:\[[^<>\]]*\])?:[^<>]*>|\bembedding:[\w./\\-]+",
    re.IGNORECASE,
)
#: SwarmUI's alternatives, and what becomes another
_CHOSEN = re.compile(r"<(random|alternate|alt|fromto)(?:\[[^<>\]]*\])?:([^<>]*)>", re.IGNORECASE)
#: compel's ("a", "b").blend(1, 1) and a.swap(b)
_CALLED = re.compile(r"\.(?:blend|and)\(\s*[\d.,\s+-]*\)")
_LISTED = re.compile(
    r"\(\s*((?:\"[^\"()]*\"|'[^'()]*')(?:\s*,\s*(?:\"[^\"()]*\"|'[^'()]*'))*)\s*\)(?=\.(?:blend|and|swap)\()"
)
_SWAPPED = re.compile(
    r"(?:\([^()]{0,200}\)|[\w-]{1,80}|\"[^\"]{0,200}\")\.swap\(\s*[\"']?([^()\"',]{0,200})[\"']?[^()]{0,200}\)"
)
#: compel's weights behind a word; C++ and Disney+ are names
_RAISED = re.compile(
    r"(?<![\w+])(?!(?:[Cc]|[Gg]|[Nn]otepad|[A-Za-z])\+\+(?!\+))([A-Za-z]\w*(?=\+{2})|[a-z]{3,})\+{1,9}(?=[\s,.)]|$)|(?<![\w-])([A-Za-z]\w*)-{2,}(?=\s*(?:,|$))"
)
#: a weight that stands behind words without brackets, as before AND
_BARE_WEIGHT = re.compile(r"(?:(?<=[^\W\d])|(?<=\))|(?<=\s)|^):-?\d*[.,]?\d+(?=\s*$|\s*,|\s+AND\b|\s+BREAK\b)")
#: Midjourney's weights behind parts of a prompt
_PART = re.compile(r"(?<=[^\s:])\s?::\s?-?\d*\.?\d+(?=[\s,]|$)")
#: :( and [: are faces
_FACE = re.compile(r"(?<!\S)(?:[:;=]['o^-]?[()\[\]{}]+|[()\[\]{}]+['o^-]?[:;=])(?=[\s,.!?]|$)")
_WILDCARD = re.compile(r"__[A-Za-z0-9][\w*./-]*?__")
_COMMAND = re.compile(r"(?<=[\s,])(?:BREAK|ADDCOMM|ADDBASE|ADDCOL|ADDROW)\b")
_AND = re.compile(r"(?<= )AND(?= )")
_WEIGHT = re.compile(r"((?:.*\S)?)\s*:\s*-?\d*[.,]?\d+\s*", re.DOTALL)
_NUMERIC = re.compile(r"(?<![\w:.])-?\d+(?:\.\d+)?::(?=\s*[^\s:])|(?<=[^\s:])::(?=[\s,]|$)")
_AFTER = re.compile(r"(?:\++|-+|\d*\.\d+)(?=[\s,.]|$)")
#: how many of several alternatives are chosen, and what stands between these
_COUNT = re.compile(r"\s*(\d*)(-\d*)?\$\$(?:([^$]*)\$\$)?")
_SHARE = re.compile(r"\s*-?\d*\.?\d+::")
#: written for brackets that are meant, and for the trigger word's place, while the others are looked at
_ESCAPED = {"\\(": "\ufdd0", "\\)": "\ufdd1", "\\[": "\ufdd2", "\\]": "\ufdd3", "\\{": "\ufdd4", "\\}": "\ufdd5"}
_MEANT = re.compile(r"\\[()\[\]{}]")
_PLACE = re.compile(r"\[\s*trigger\s*\]", re.IGNORECASE)
_HELD = {held: escape for escape, held in _ESCAPED.items()}


@dataclass
class _Group:
    """Text in brackets: where it begins and ends, and the groups in it."""

    start: int
    end: int = -1
    inner: list[_Group] = field(default_factory=list)


def unescaped(text: str) -> str:
    r"""``\(`` → ``(``, and so for all brackets."""
    return _MEANT.sub(lambda match: match[0][1], text)


def pieces_of(text: str, keep: str = "") -> list[str]:
    """The pieces of `text` that are syntax, as they are written. The word `keep` is no piece."""
    held = _hold(text)
    patterns = [_ADDED, _CHOSEN, _WILDCARD, _COMMAND, _NUMERIC, _CALLED, _RAISED, _BARE_WEIGHT, _PART]
    patterns += [_SWAPPED] * (".swap(" in held)  # it looks at each word
    found = [(match.start(), match[0].strip()) for pattern in patterns for match in pattern.finditer(held)
             if not _is_scale(held, match)]  # fmt: skip
    found += [(match.start(), "AND") for match in _AND.finditer(held) if _joins(held, match)]
    found += [(group.start, held[group.start : _end(held, group)]) for group in _outermost(held, _groups(held))]
    words = [(len(held), word) for word in underscored(held, keep)[:3]]
    return list(dict.fromkeys(_release(piece) for _, piece in [*sorted(found), *words] if piece != keep))


def read(text: str, keep: str = "") -> list[str]:
    """`text` as a text encoder should read it: without weights and what is added by name, and with each of its
    alternatives once. The word `keep` is left as it is."""
    held = _CHOSEN.sub(_braces, _hold(text))
    held = _WILDCARD.sub(lambda match: match[0] if match[0] == keep else "", _ADDED.sub("", held))
    held = _LISTED.sub(lambda match: re.sub(r"\s*,\s*", ", ", re.sub(r"[\"']", "", match[1])), held)
    held = _CALLED.sub("", _SWAPPED.sub(r"\1", held) if ".swap(" in held else held)
    held = _BARE_WEIGHT.sub(lambda match: match[0] if _is_scale(match.string, match) else "", held)
    held = _RAISED.sub(lambda match: match[1] or match[2], held)
    held = _NUMERIC.sub("", _PART.sub(",", _COMMAND.sub(",", held)))
    held = _AND.sub(lambda match: "," if _joins(match.string, match) else match[0], held)
    has_underscores = bool(underscored(text, keep))
    versions = _evaluated(held, 0, len(held), _groups(held))
    versions = [_release(_neat(version)) for version in versions]
    if has_underscores:
        versions = [re.sub(r"\S+", lambda match: _respaced(match[0], keep), version) for version in versions]
    return list(dict.fromkeys(versions))


def _braces(match: re.Match[str]) -> str:
    """SwarmUI's ``<random:a|b>`` as ``{a|b}``; of ``<fromto[0.5]:a|b>`` what it ends as."""
    choices = re.split(r"\|\|?" if "|" in match[2] else ",", match[2])
    return choices[-1].strip() if match[1].lower() == "fromto" else f"{{{'|'.join(map(str.strip, choices))}}}"


def _is_scale(text: str, match: re.Match[str]) -> bool:
    """Whether a number behind a colon is a scale or a time (1:20, at :30), not a weight."""
    if match.re is not _BARE_WEIGHT:
        return False
    decimal = re.search(r"[.,]", match[0]) is not None
    return not decimal and not re.match(r"\s+AND\b", text[match.end() :])


def _respaced(word: str, keep: str) -> str:
    inner = bare(word)
    return word if inner.lower() == keep.lower() else word.replace(inner, spaced(inner))


def _hold(text: str) -> str:
    return _PLACE.sub("\ufdd6", _MEANT.sub(lambda match: _ESCAPED[match[0]], text))


def _release(text: str) -> str:
    text = text.replace("\ufdd6", "[trigger]")
    return re.sub("[\ufdd0-\ufdd5]", lambda match: _HELD[match[0]], text)


def _neat(text: str) -> str:
    """`text` without the commas and spaces around what was taken out."""
    return re.sub(r"\s*,(?:\s*,)*", ",", " ".join(text.split())).strip(" ,")


def _joins(text: str, match: re.Match[str]) -> bool:
    """Whether AND is not just a word of text in capitals."""
    before = text[max(0, match.start() - _NEAR) : match.start()].split()
    after = text[match.end() : match.end() + _NEAR].split()
    return bool(before and after) and not (before[-1].isupper() and after[0].isupper())


def _groups(text: str) -> list[_Group]:
    """The balanced brackets of `text`, outermost first; none if they are too deep for a person to have written."""
    stack: list[_Group] = []
    top: list[_Group] = []
    faces = {place for match in _FACE.finditer(text) for place in range(*match.span())}
    for place, letter in enumerate(text):
        if place in faces:
            continue
        if letter in "([{":
            if len(stack) >= _DEEPEST:
                return []
            stack.append(_Group(place))
        elif letter in _OPENING:
            while (
                stack
                and text[stack[-1].start] != _OPENING[letter]
                and any(text[group.start] == _OPENING[letter] for group in stack)
            ):  # brackets that are not closed are text
                (stack[-2].inner if len(stack) > 1 else top).extend(stack.pop().inner)
            if stack and text[stack[-1].start] == _OPENING[letter]:
                group = stack.pop()
                group.end = place + 1
                (stack[-1].inner if stack else top).append(group)
    for group in stack:
        top += group.inner
    return sorted(top, key=lambda group: group.start)


def _end(text: str, group: _Group) -> int:
    """Where `group` ends, with the weight behind it, if any."""
    after = _AFTER.match(text, group.end) if text[group.start] == "(" else None
    return after.end() if after else group.end


def _is_syntax(text: str, group: _Group) -> bool:
    """Whether the brackets do more than brackets of plain text."""
    content = text[group.start + 1 : group.end - 1]
    if not content.strip():
        return False
    if text[group.start] == "{" or (text[group.start] == "[" and not _is_remark(text, group)):
        return True
    doubled = len(group.inner) == 1 and (group.inner[0].start, group.inner[0].end) == (group.start + 1, group.end - 1)
    end = _end(text, group)
    before, after = text[: group.start].rstrip(), text[end:].lstrip()
    alone = (not before or before[-1] in ",([{|\ufdd6") and (not after or after[0] in ",)]}|:")
    return bool(doubled or alone or end > group.end or _WEIGHT.fullmatch(content))


def _is_remark(text: str, group: _Group) -> bool:
    """Whether square brackets are those of a sentence, such as [sic]."""
    content = text[group.start + 1 : group.end - 1]
    near = text[max(0, group.start - 2 * _NEAR) : group.end + 2 * _NEAR]
    words = [word.strip(".,;") for word in near.lower().split()]
    return not re.search(r"[|:\[\](){}]", content) and sum(word in SENTENCE for word in words) > 2


def _outermost(text: str, groups: Sequence[_Group]) -> Iterator[_Group]:
    for group in groups:
        if _is_syntax(text, group):
            yield group
        else:
            yield from _outermost(text, group.inner)


def _evaluated(text: str, start: int, end: int, groups: Sequence[_Group]) -> list[str]:
    """``text[start:end]`` with its `groups` read, in every version that their alternatives give."""
    parts: list[list[str]] = []
    place = start
    for group in groups:
        parts += [[text[place : group.start]], _of_group(text, group)]
        place = _end(text, group) if _is_syntax(text, group) else group.end
    parts.append([text[place:end]])
    count = 1
    for choices in parts:
        count *= len(choices)
    if count > _MOST:  # each choice at least once, as far as that is possible
        most = min(_MOST, max(map(len, parts)))
        return ["".join(choices[number % len(choices)] for choices in parts) for number in range(most)]
    return ["".join(chosen) for chosen in product(*parts)]


def _of_group(text: str, group: _Group) -> list[str]:
    """What the brackets of `group` stand for."""
    opening, start, end = text[group.start], group.start + 1, group.end - 1
    if not _is_syntax(text, group):
        closing = text[end]
        return [f"{opening}{inner}{closing}" for inner in _evaluated(text, start, end, group.inner)]
    if opening == "(":
        weighed = _WEIGHT.fullmatch(text[start:end])
        return _evaluated(text, start, start + len(weighed[1]) if weighed else end, group.inner)
    count = _COUNT.match(text, start, end) if opening == "{" else None
    choices = _split(text, count.end() if count else start, end, "|", group.inner)
    if len(choices) == 1 and opening == "[":
        parts = _split(text, start, end, ":", group.inner)
        if len(parts) in (2, 3) and _is_number(text[slice(*parts[-1])]):  # [from:to:when] ends as "to", if there is one
            choices = [next((part for part in parts[-2::-1] if text[slice(*part)].strip()), parts[0])]
    options: list[list[str]] = []
    for first, last in choices:
        share = _SHARE.match(text, first, last)
        first = share.end() if share else first  # noqa: PLW2901
        inside = [inner for inner in group.inner if first <= inner.start and inner.end <= last]
        options.append(_evaluated(text, first, last, inside))
    versions = _several(options, count) if count else [version for option in options for version in option]
    return list(dict.fromkeys(versions))


def _several(options: Sequence[list[str]], count: re.Match[str]) -> list[str]:
    """What sd-dynamic-prompts makes of ``{2$$a|b|c}``: two at a time, in the order in which they are written."""
    most = len(options)
    low = min(int(count[1] or 1), most)
    high = low if count[2] is None else max(low, min(int(count[2][1:] or most), most))
    between = ", " if count[3] is None else count[3]
    chosen: list[Sequence[list[str]]] = []
    for size in range(low, high + 1):
        if comb(most, size) <= _MOST:
            chosen += combinations(options, size)
        else:  # each at least once
            chosen += [[options[(first + place) % most] for place in range(size)] for first in range(most)]
    return [between.join(map(str.strip, parts)) for each in chosen for parts in islice(product(*each), _MOST)]


def _split(text: str, start: int, end: int, mark: str, inner: Sequence[_Group]) -> list[tuple[int, int]]:
    """Where the parts between each `mark` begin and end that is not inside of inner brackets."""
    marks = [place for place in range(start, end)
             if text[place] == mark and not any(group.start <= place < group.end for group in inner)]  # fmt: skip
    return list(zip([start, *(place + 1 for place in marks)], [*marks, end], strict=True))


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\s*-?\d*[.,]?\d+\s*", text) is not None
