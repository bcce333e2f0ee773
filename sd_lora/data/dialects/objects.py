"""JSON of boorus, taggers and models that write captions: the tags and texts in it that describe a picture."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sd_lora.data.dialects.parameters import CANONICAL
from sd_lora.data.dialects.scores import scores_in
from sd_lora.data.dialects.tags import ABOUT, SENTENCE, SHOWN, spaced

#: what models and programs call a caption
_TEXTS = (
    "text", "caption", "more_detailed_caption", "detailed_caption", "description", "generated_text", "response",
    "answer", "output", "content", "message", "alt_text", "alt", "base_caption",
)  # fmt: skip
#: where boorus and programs keep the object that says it
_AROUND = ("post", "posts", "choices", "message", "result", "results", "data", "metadata", "file_metadata")
#: keys that tell a booru's post
_POST = frozenset({
    "rating", "md5", "file_url", "sample_url", "preview_url", "score", "source", "created_at", "change", "file_ext",
    "parent_id", "fav_count", "tag_count", "hash", "directory", "pixiv_id", "creator_id",
})  # fmt: skip
#: Sankaku's and Danbooru's numbers of kinds
_NUMBERED = {0: "general", 1: "artist", 3: "copyright", 4: "character", 5: "meta", 9: "meta"}
_KINDS = ("general", "species", "character", "copyright")
_DEEPEST = 6


def described_by(content: Mapping[str, Any], depth: int = 0) -> tuple[str, str] | None:
    """Who wrote an object of JSON, and the tags and texts in it that describe a picture; None if there are none.
    `depth` is how many objects it is inside of."""
    given = {str(key).strip(" <>").lower(): value for key, value in content.items()}
    tags = given.get("tags", given.get("tag"))
    kinds = {
        kind: value for key, value in given.items()
        if (kind := _kind(key)) and value is not None and (key.startswith("tag") or isinstance(value, list | dict))
    }  # fmt: skip
    if isinstance(tags, Mapping):
        return ("a tagger" if scores_in(tags) else "a booru"), tags_in(tags)
    if kinds:
        scored = any(scores_in(value) for value in kinds.values())
        return ("a tagger" if scored else "a booru"), tags_in(kinds)
    if isinstance(given.get("tag_string"), str):
        return "a booru", tags_in(given["tag_string"])
    if not {key.replace("_", " ") for key in given} & CANONICAL.keys() and scores_in(content):
        return "a tagger", tags_in(content)
    if tags and scores_in(tags):
        return "a tagger", tags_in(tags)
    return _of_texts(given, tags) or (_inside(given, depth) if depth < _DEEPEST else None)


def left_out(content: Mapping[str, Any]) -> list[str]:
    """The keys of a booru's object that hold tags which do not describe the picture, or a text beside the tags."""
    inner = content.get("tags")
    kinds = [str(key) for key in (inner if isinstance(inner, Mapping) else ()) if str(key).lower() in ABOUT]
    return kinds + [str(key) for key in content if _kind(str(key)) in ABOUT or str(key) in _TEXTS]


def _of_texts(given: Mapping[str, Any], tags: object) -> tuple[str, str] | None:
    text = next((value for key in _TEXTS if isinstance(value := given.get(key), str) and value.strip()), "")
    is_post = len(given.keys() & _POST) > 1
    if isinstance(tags, str) and "," not in tags and not SENTENCE & set(tags.lower().split()):
        if is_post or not text:
            return "a booru", tags_in(tags)
        tags = tags_in(tags)
    if isinstance(tags, list) and (is_post or any(isinstance(tag, Mapping | list) for tag in tags)):
        return "a booru", tags_in(tags)
    listed = tags if isinstance(tags, str) else ", ".join(map(str, tags)) if isinstance(tags, list) else ""
    if text or listed:
        return "JSON", ", ".join(filter(None, (text, listed)))
    return None


def _inside(given: Mapping[str, Any], depth: int) -> tuple[str, str] | None:
    for key in _AROUND:
        inner = given.get(key)
        inner = next(iter(inner), None) if isinstance(inner, list) else inner
        if isinstance(inner, Mapping) and (described := described_by(inner, depth + 1)):
            return described
    return None


def _kind(key: str) -> str:
    """The kind of tags that a key of JSON names: ``tag_string_artist`` → artist; empty if it names none."""
    name = key.lower().removeprefix("tag_string_").removeprefix("tags_").removesuffix("_tags")
    return name if name in _KINDS or (name != key and name in ABOUT | SHOWN) else ""


def tags_in(value: object) -> str:
    """The tags in JSON of a booru or a tagger, with commas."""
    return ", ".join(dict.fromkeys(spaced(tag) for tag in _each(value, 0) if tag))


def _each(value: object, depth: int) -> Iterator[str]:
    """The tags in `value`, whatever its form, but for those of kinds that do not describe a picture."""
    scored = scores_in(value) if isinstance(value, list | Mapping) else None
    if depth > _DEEPEST:
        return
    if scored is not None:
        yield from (re.sub(r"\s+", "_", tag) for tag in scored)
    elif isinstance(value, str):
        yield from (tag.strip() for tag in (value.split(",") if "," in value else value.split()))
    elif isinstance(value, Mapping):
        general = sorted(value, key=lambda key: str(key).lower() != "general")
        for key in general:
            if str(key).lower().removesuffix("s") not in ABOUT and str(key).lower() not in ABOUT | {"name"}:
                yield from _each(value[key], depth + 1)
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, Mapping):
                yield from _of_item(item)
            elif isinstance(item, list) and len(item) == 2 and str(item[1]).lower() in ABOUT | SHOWN:
                yield from _of_item({"name": item[0], "category": item[1]})
            elif isinstance(item, str):
                yield item.strip()


def _of_item(item: Mapping[str, Any]) -> Iterator[str]:
    """The tag of an object that names it and its kind."""
    names = item.get("name", item.get("names", item.get("tag", item.get("tagName"))))
    kind = item.get("category", item.get("type", item.get("kind", "")))
    kind = _NUMBERED.get(kind, "") if isinstance(kind, int) else str(kind).lower()
    name = next(iter(names), "") if isinstance(names, list) else names
    if isinstance(name, str) and kind not in ABOUT:
        yield name.strip()
