"""Markup around captions: HTML, and the XMP and XML that programs write into sidecars."""

from __future__ import annotations

import html
import re
from xml.etree import ElementTree

_NAMES = (
    "a abbr article b blockquote body br center code del div em font footer h1 h2 h3 h4 h5 h6 head header hr html i "
    "img ins kbd label li link main mark meta ol p pre q s section small span strike strong sub sup table tbody td "
    "tfoot th thead title tr tt u ul"
)
_TAG = re.compile(rf"</?(?:{'|'.join(_NAMES.split())})(?:\s[^<>]*)?/?>|<!DOCTYPE[^<>]*>", re.IGNORECASE)
#: tags that stand alone; any other that does is part of a sentence about HTML
_ALONE = re.compile(r"<(?:br|hr|p|li|img|div|span)\b", re.IGNORECASE)
_HIDDEN = re.compile(r"<(script|style)\b[^<>]*>.{0,2000}?</\1\s*>|<!--.{0,2000}?-->", re.IGNORECASE | re.DOTALL)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_XML = re.compile(r"\s*(?:<\?xpacket[^>]*\?>\s*)?(?:<\?xml[^>]*\?>\s*)?<(?:x:xmpmeta|rdf:RDF|[A-Za-z][\w.:-]*[\s>])")
_DESCRIBING = ("usercomment", "parameters", "prompt", "caption", "description", "text")
_KEYWORDS = ("subject", "keywords", "tags", "hierarchicalsubject")


def text_of_xml(text: str) -> tuple[str, str]:
    """What an XMP or XML document says of a picture, and a clause about it; `text` itself if it is none. Empty if it
    says nothing."""
    if not _XML.match(text) or "<!" in text or _TAG.match(text.lstrip()):
        return text, ""
    try:
        root = ElementTree.fromstring(re.sub(r"<\?xpacket[^>]*\?>", "", text).strip())
    except (ElementTree.ParseError, ValueError, RecursionError):
        return text, ""
    said: dict[str, list[str]] = {}
    for element in root.iter():
        if (name := _plain(element.tag)) in (*_DESCRIBING, *_KEYWORDS):
            inner = [(child.text or "").strip() for child in element.iter()]
            said.setdefault(name, []).extend(filter(None, inner))
        for key, value in element.attrib.items():
            said.setdefault(_plain(key), []).append(value.strip())
    texts = next((said[name] for name in _DESCRIBING if any(said.get(name, ()))), [])
    words = next((said[name] for name in _KEYWORDS if said.get(name)), [])
    found = ", ".join(dict.fromkeys([*texts[:1], *words]))
    if not found and len(root) == 0:  # a tag of another kind around a text
        return text, ""
    return found, f"XML, of which {'only what describes the picture is trained' if found else 'nothing does so'}"


def _plain(name: object) -> str:
    return str(name).rpartition("}")[2].lower()


def has_tags(text: str) -> bool:
    """Whether tags of HTML are in `text`."""
    tags = _TAG.findall(text)
    return len(tags) > 1 or (len(tags) == 1 and _ALONE.match(tags[0]) is not None)


def without_html(text: str) -> tuple[str, str]:
    """`text` without HTML's tags and with the characters that its entities stand for, and a clause about it."""
    is_html = has_tags(text)
    plain = _HIDDEN.sub(" ", text)
    plain = _TAG.sub(" ", plain) if is_html else plain
    for _ in range(2):  # &amp;#39; was escaped twice
        plain = _ENTITY.sub(lambda match: html.unescape(match[0]), plain)
    if plain == text:
        return text, ""
    plain = re.sub(r"\s+(?=[,.;:!?](?:\s|$))", "", " ".join(plain.split())) if is_html else plain
    return plain, "HTML is read as text"
