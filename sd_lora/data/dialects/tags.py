"""Tags as taggers, boorus and their downloaders write them: which of them describe the picture."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

#: 0.98, in the ways in which taggers write it after a tag
_SCORED = re.compile(r"\(?\s*(\S.*?)\s*(?:[:=]\s*|\s\(|\s)(?:0?\.\d{2,}|1\.0+)\s*\)?")
_MARKED = re.compile(r"(?:(\w+):|(rating): )(\S.*)", re.IGNORECASE)
#: marks of tags that say something about the file, not about what is to be seen
_ABOUT = frozenset({
    "artist", "chapter", "creator", "date", "filename", "id", "language", "md5", "meta", "metadata", "page", "parent",
    "pool", "rating", "score", "site", "source", "studio", "title", "translator", "uploader", "url", "volume", "year",
})  # fmt: skip
_SHOWN = frozenset({
    "body", "character", "clothing", "copyright", "general", "lore", "person", "series", "species", "tag",
})  # fmt: skip
_SENTENCE = frozenset({"a", "an", "and", "are", "at", "by", "from", "in", "is", "of", "on", "the", "to", "with"})
#: what Pony and its heirs are prompted with, underscore and all
_PROMPTED = re.compile(r"(?:score_\d\w*|source_\w+|rating_\w+)")
_UNDERSCORED = re.compile(r"[^\W_][\w'().:-]*_[\w'().:-]*[\w')]")
_WEIGHT = re.compile(r":\d*\.?\d+\)*$")
_LONGEST, _FEWEST_LINES = 80, 3


def described_by(content: Mapping[str, Any]) -> tuple[str, str] | None:
    """Who wrote an object of JSON, and the tags and texts in it that describe a picture; None if there are none."""
    groups: list[Any] = []
    program = "a booru"
    inner = content.get("tags")
    if isinstance(inner, Mapping) and not _are_scores(inner):  # e621
        groups = [inner.get(name) for name in ("general", "species", "character", "copyright")]
    elif any(key in content for key in ("tag_string_general", "tags_general")):
        groups = [content.get(f"{kind}_{name}") for kind in ("tag_string", "tags")
                  for name in ("general", "character", "copyright")]  # fmt: skip
    elif "tag_string" in content:
        groups = [content["tag_string"]]
    elif (scores := next((v for v in (content, inner, content.get("tag")) if _are_scores(v)), None)) is not None:
        program, groups = "a tagger", [" ".join(re.sub(r"\s+", "_", key) for key in scores)]
    if groups:
        return program, ", ".join(spaced(tag) for group in groups for tag in _words(group))
    texts = [content.get(key) for key in ("text", "caption", "description")]
    text = next((value for value in texts if isinstance(value, str) and value.strip()), "")
    tags = inner if isinstance(inner, str) else ", ".join(map(str, inner)) if isinstance(inner, list) else ""
    return ("JSON", ", ".join(filter(None, (text, tags)))) if text or tags else None


def _are_scores(value: object) -> bool:
    """Whether `value` gives each of several tags a number from 0 to 1."""
    return isinstance(value, Mapping) and bool(value) and all(
        isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1 for score in value.values()
    )  # fmt: skip


def _words(group: object) -> Iterable[str]:
    if isinstance(group, str):
        return group.split(", ") if ", " in group else group.split()
    return [str(tag) for tag in group] if isinstance(group, list) else []


def spaced(tag: str) -> str:
    """``long_hair`` → ``long hair``; faces such as ``^_^`` and ``o_o``, and what models are prompted with, stay."""
    if not 3 < len(tag) <= _LONGEST or _PROMPTED.fullmatch(tag) or not _UNDERSCORED.fullmatch(tag):
        return tag
    return tag.replace("_", " ")


def tags_by_line(text: str) -> str:
    """The tags of a file with one per line, as hydrus and gallery-dl write them, with commas; else empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) < _FEWEST_LINES or any("," in line or len(line.split()) > 6 for line in lines):
        return ""
    marked = sum(_is_marked(line) for line in lines)
    joined = sum(" " not in line and spaced(line) != line for line in lines)
    return ", ".join(lines) if marked or joined >= 2 else ""


def _is_marked(tag: str) -> bool:
    return _mark(tag)[0] in _ABOUT | _SHOWN


def _mark(tag: str) -> tuple[str, str]:
    """The mark of a tag and what it marks: ``creator:bob`` → creator, bob. Empty without one."""
    match = _MARKED.fullmatch(tag)
    return ((match[1] or match[2]).lower(), match[3]) if match else ("", "")


def read_tags(caption: str, keep: str = "") -> tuple[str, str]:
    """`caption` with only those tags that describe the picture, without scores and marks; and what was left out, as a
    clause (empty: nothing, it is as it was). The word `keep` is left as it is."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    words = caption.split()
    if len(tags) == 1 and _is_tag_string(words):
        return ", ".join(w if w.lower() == keep.lower() else spaced(w) for w in words), "tags of a booru get commas"
    if len(tags) < 2:
        return caption, ""
    notes, scored = [], [_SCORED.fullmatch(tag) for tag in tags]
    if sum(map(bool, scored)) >= max(2, 0.8 * len(tags)):
        tags = [match[1] if match else tag for match, tag in zip(scored, tags, strict=True)]
        notes.append("a tagger's scores are left out")
    dropped, shown = [], []
    for tag in tags:
        mark, marked = _mark(tag)
        if mark in _ABOUT:
            dropped.append(tag)
        else:
            shown.append(spaced(marked) if mark in _SHOWN else tag)
    if dropped:
        named, verb = ", ".join(dropped[:3]), "is" if len(dropped) == 1 else "are"
        notes.append(f"{named}{' …' if len(dropped) > 3 else ''} {verb} left out")
    elif shown != tags:
        notes.append("marks such as character: are left out")
    return (", ".join(shown), "; ".join(notes)) if notes else (caption, "")


def _is_tag_string(words: list[str]) -> bool:
    """Whether `words` are tags with spaces between them, as boorus write them."""
    joined = sum(spaced(word) != word for word in words)
    return len(words) >= 3 and joined >= 2 and joined >= len(words) / 4 and not _SENTENCE & {w.lower() for w in words}


def bare(word: str) -> str:
    """`word` without its weight, and without brackets that open or close around more than it."""
    word = word.strip(",")
    if len(word) > _LONGEST:
        return word
    word = _WEIGHT.sub("", word)
    while word[:1] in tuple("([{") and word.count(")]}"["([{".index(word[0])]) < word.count(word[0]):
        word = word[1:]
    while word[-1:] in tuple(")]}") and word.count("([{"[")]}".index(word[-1])]) < word.count(word[-1]):
        word = word[:-1]
    return word


def underscored(caption: str, keep: str = "") -> list[str]:
    """The tags of `caption` with underscores for spaces, if there are several."""
    words = [bare(word) for tag in caption.split(",") for word in tag.split()]
    found = [word for word in words if word.lower() != keep.lower() and spaced(word) != word]
    return found if len(found) > 1 and "," in caption else []
