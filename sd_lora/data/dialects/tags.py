"""Tags as taggers, boorus and their downloaders write them: which of them describe the picture."""

from __future__ import annotations

import re

from sd_lora.data.dialects.scores import are_scored, scored_tags

#: those who made it; "artist: bob" says nothing about the picture, while "character: Hamlet" may
_MAKER = re.compile(r"(?:artist|creator|contributor|uploader): \S", re.IGNORECASE)
_MARKED = re.compile(r"(?:(\w+):|(rating|artist|creator|contributor|uploader): )(\S.*)", re.IGNORECASE)
#: marks of tags that say something about the file, or what cannot be seen
ABOUT = frozenset({
    "approver", "artist", "booru", "chapter", "circle", "commentary", "contributor", "creator", "date", "director",
    "downvotes", "duration", "fav", "favcount", "favorites", "filename", "filesize", "filetype", "fps", "group",
    "hash", "height", "id", "imported", "invalid", "language", "lore", "md5", "meta", "metadata", "mpixels", "order",
    "page", "parent", "pixiv", "pool", "publisher", "rating", "ratio", "resolution", "score", "set", "site", "source",
    "status", "studio", "title", "translator", "uploader", "upvotes", "url", "user", "views", "volume", "width", "year",
})  # fmt: skip
#: marks of tags that say what is to be seen
SHOWN = frozenset({
    "action", "animal", "background", "body", "character", "clothes", "clothing", "color", "colour", "copyright",
    "eyes",
    "fandom", "female", "gender", "general", "genre", "hair", "item", "location", "male", "medium", "mixed", "object",
    "oc", "parody", "person", "place", "pose", "race", "series", "setting", "species", "subject", "tag", "theme",
})  # fmt: skip
#: what boorus say of a file under the mark medium
_OF_FILE = re.compile(
    r"(?:high|low|absurd)[ _]?res\w*|(?:high|low)[ _]resolution|absurdres|\w*[ _]filesize", re.IGNORECASE
)
SENTENCE = frozenset({"a", "an", "and", "are", "at", "by", "from", "in", "is", "of", "on", "the", "to", "with"})
#: what Pony and its heirs are prompted with, underscore and all
_PROMPTED = re.compile(r"(?:score_\d\w*|source_\w+|rating_\w+)")
_UNDERSCORED = re.compile(r"[^\W_][\w'().:-]*_[\w'().:-]*[\w')]")
_WEIGHT = re.compile(r":\d*[.,]?\d+\)*$")
_LONGEST, _FEWEST_LINES, _LONGEST_NAME = 80, 3, 5


def spaced(tag: str) -> str:
    """``long_hair`` → ``long hair``; faces such as ``^_^`` and ``o_o``, and what models are prompted with, stay."""
    if not 3 < len(tag) <= _LONGEST or _PROMPTED.fullmatch(tag) or not _UNDERSCORED.fullmatch(tag):
        return tag
    return tag.replace("_", " ")


def tags_by_line(text: str) -> str:
    """The tags of a file with one per line, as hydrus, gallery-dl and taggers write them, with commas; else empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and are_scored(lines):
        return "\n".join(lines)
    if len(lines) < 2 or any("," in line or len(line.split()) > 6 for line in lines):
        return ""
    marked = sum(_is_marked(line) for line in lines)
    joined = sum(" " not in line and spaced(line) != line for line in lines)
    few = len(lines) < _FEWEST_LINES
    return ", ".join(lines) if (marked > few or (joined >= 2 and not few)) else ""


def _is_marked(tag: str) -> bool:
    return _mark(tag)[0] in ABOUT | SHOWN


def _mark(tag: str) -> tuple[str, str]:
    """The mark of a tag and what it marks: ``creator:bob`` → creator, bob. Empty without one."""
    match = _MARKED.fullmatch(tag)
    if _MAKER.match(tag) and (len(tag.split()) > _LONGEST_NAME or SENTENCE & set(tag.lower().split())):
        return "", ""  # artist: a man at an easel
    return ((match[1] or match[2]).lower(), match[3]) if match and not match[3].startswith(("//", ":")) else ("", "")


def read_tags(caption: str, keep: str = "") -> tuple[str, str]:
    """`caption` with only those tags that describe the picture, without scores and marks; and what was left out, as a
    clause (empty: nothing, it is as it was). The word `keep` is left as it is."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    notes, words = [], caption.split()
    scored = scored_tags(caption)
    if scored is not None:
        tags = [tag if keep and tag.lower() == keep.lower() else spaced(tag) for tag in scored]
        notes.append("a tagger's scores are left out")
    elif len(tags) == 1 and _is_tag_string(words):
        tags = [word if word.lower() == keep.lower() else spaced(word) for word in words]
        notes.append("tags of a booru get commas")
    elif len(tags) < 2 and not ((len(words) == 1 or _MAKER.match(caption.strip())) and _is_marked(caption.strip())):
        return caption, ""
    dropped, shown = [], []
    for tag in tags:
        mark, marked = _mark(tag)
        if mark in ABOUT or (mark == "medium" and _OF_FILE.fullmatch(marked)):
            dropped.append(tag)
        else:
            shown.append(spaced(marked) if mark in SHOWN else tag)
    if dropped:
        named, verb = ", ".join(dropped[:3]), "is" if len(dropped) == 1 else "are"
        notes.append(f"{named}{' …' if len(dropped) > 3 else ''} {verb} left out")
    elif shown != tags:
        notes.append("marks such as character: are left out")
    return (", ".join(shown), "; ".join(notes)) if notes else (caption, "")


def _is_tag_string(words: list[str]) -> bool:
    """Whether `words` are tags with spaces between them, as boorus write them."""
    joined = sum(spaced(word) != word or _is_marked(word) for word in words)
    return len(words) >= 3 and joined >= 2 and joined >= len(words) / 4 and not SENTENCE & {w.lower() for w in words}


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
