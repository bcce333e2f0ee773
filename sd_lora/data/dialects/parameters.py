"""Blocks of text that programs write beside or into pictures: the prompt, the negative prompt and the settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest


@dataclass(frozen=True)
class Generation:
    """What `program` wrote: the prompt and its negative, and the settings as written, by A1111's names."""

    program: str
    positive: str
    negative: str = ""
    settings: Mapping[str, str] = field(default_factory=dict)


#: A1111's names of what a prompt can set here, by those that other programs have
CANONICAL = {
    **dict.fromkeys(("steps", "sampling steps", "num inference steps"), "Steps"),
    **dict.fromkeys(("cfg scale", "cfg", "guidance scale", "guidance", "cfgscale"), "CFG scale"),
    "seed": "Seed", "size": "Size", "width": "Width", "height": "Height",
}  # fmt: skip
_NUMBERS = (*CANONICAL, "denoising strength", "clip skip", "eta", "ensd", "sharpness", "strength", "batch size")
#: settings of no other kind of text; of the others, one alone proves nothing
_STRONG = frozenset({
    *CANONICAL, "sampler", "sampler name", "sampling method", "schedule type", "scheduler", "clip skip",
    "denoising strength", "seed mode",
}) - {"size", "width", "height", "guidance"}  # fmt: skip
_WORDS = (
    "sampler", "sampler name", "sampling method", "schedule type", "scheduler", "seed mode", "model", "model hash",
    "stable diffusion model", "vae model", "vae", "vae hash", "base model", "refiner", "refiner model", "styles",
    "performance", "resolution", "fooocus v2 expansion", "metadata scheme", "version", "backend", "lora hashes",
    "hires upscale", "hires steps", "hires upscaler", "software", "created date", "use upscaling",
    "use face correction",
    "lora model", "negative embeddings",
)  # fmt: skip


def _names(names: Sequence[str]) -> str:
    return "|".join(name.replace(" ", "[ _]?") for name in sorted(names, key=len, reverse=True))


_SETTING = re.compile(
    rf"(?:^[ \t>*-]*|(?<=[\s,;|]))\*{{0,2}}(?:(?P<number>{_names(_NUMBERS)})|(?P<word>{_names(_WORDS)}))"
    r"\*{0,2}[ \t]*[:=]\*{0,2}[ \t]*(?(number)(?P<value>-?\d+(?:[.,]\d+)?(?:\s?[x×]\s?\d+)?)"
    r"(?=\s*(?:[,;|\n]|$)|\s+\w))",
    re.IGNORECASE | re.MULTILINE,
)
_POSITIVE = (
    r"(?:positive[ _]prompts?|pos[ _]prompt|(?:image|text|full|final)[ _]prompt|prompt|positive|/imagine[ _]prompt)"
)
_NEGATIVE = r"(?:neg(?:ative)?[ _]?prompts?|undesired[ _]content|negative|neg|uc)"
_LABEL = re.compile(
    rf"^[ \t>#*-]*(?:(?P<positive>{_POSITIVE})|(?P<negative>{_NEGATIVE}))[*_]*[ \t]*(?::[*_]*[ \t]*|\t)"
    r"|(?<=\s)(?:(?P<inner_positive>positive[ _]prompt)|(?P<inner_negative>negative[ _]prompts?))[ \t]*:[ \t]*"
    r"|^[ \t]*(?:(?P<line_positive>(?:positive[ _])?prompt)|(?P<line_negative>negative[ _]prompt))[ \t]*\n",
    re.IGNORECASE | re.MULTILINE,
)
_INNER_NEGATIVE = re.compile(r"(?<=[\s,.;])negative[ \t]*:[ \t]*", re.IGNORECASE)
_HEADING = re.compile(r"\s*parameters\s*(?::|\n)\s*", re.IGNORECASE)
_STEPS = re.compile(r"^Steps: \d+[ \t]*(?:,(?P<more> *[A-Z][\w ]{0,40}: )?|$)", re.MULTILINE)
_UPSCALED = re.compile(r"\s*Postprocess (?:upscale|upscaler|crop)\b[^:]*: ")
_PAIR = re.compile(r'\s*(\w[\w ]{0,60}):\s*("(?:\\.|[^"\\])*"|[^,]*)(?:,|$)')
#: Draw Things' negative prompt
_MINUS = re.compile(r"(?:^|\n)[ \t]*-(?=\S)")
_INNER_MINUS = re.compile(r"\s-(?=[^\W\d])")
_NEAR, _LONGEST_LINE = 200, 10_000
_PROGRAMS = (
    ("Fooocus", "Fooocus"), ("Seed Mode:", "Draw Things"), ("Stable Diffusion model:", "Easy Diffusion"),
    ("Software: NovelAI", "NovelAI"), ("Undesired", "NovelAI"), ("InvokeAI", "InvokeAI"), ("SwarmUI", "SwarmUI"),
)  # fmt: skip


@dataclass(frozen=True)
class _Mark:
    """Where a part of a block begins, where its text does, and what it is: positive, negative or settings."""

    start: int
    text: int
    kind: str


def read_parameters(text: str) -> Generation | None:
    """The prompt, ``Negative prompt: …`` and ``Steps: 20, Sampler: …`` in any of the forms in which programs write
    them; None if there is neither a label nor a run of settings."""
    if _UPSCALED.match(text):
        return Generation("A1111", "")
    labels = list(_labels(text))
    settings = list(_settings(text, bool(labels)))
    marks = sorted([*labels, *settings], key=lambda mark: mark.start)
    if (
        not marks
        or (not settings and _are_captions(labels))
        or [text[m.start : m.text] for m in marks] == ["positive: "]
    ):
        return None
    ends = [*(mark.start for mark in marks[1:]), len(text)]
    parts = [(mark.kind, text[mark.text : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    begin = text[: marks[0].start].strip()
    heading = _HEADING.match(f"{begin}\n")
    begin = begin[heading.end() :] if heading else begin
    labelled = [part for kind, part in parts if kind == "positive" and part]
    negative = ", ".join(part for kind, part in parts if kind == "negative" and part)
    positive = (", ".join(labelled) or begin).rstrip(" |;,")
    minus = _MINUS.search(positive) or (_INNER_MINUS.search(positive) if "Guidance Scale:" in text else None)
    if settings and not negative and minus:
        positive, negative = positive[: minus.start()].strip(), positive[minus.end() :].strip()
    named = next((program for sign, program in _PROGRAMS if sign in text), "A1111" if settings or negative else "")
    line = text[settings[0].start :] if settings else ""
    return Generation(named or "a program that draws", positive, negative, _values(line[:_LONGEST_LINE]))


def _labels(text: str) -> Iterator[_Mark]:
    first = True
    for match in _LABEL.finditer(text):
        kind = (match.lastgroup or "").removeprefix("inner_").removeprefix("line_")
        alone = match.end() - match.start() < 12 and kind == "negative"  # "Negative:" begins text of its own too
        if first and alone and not text[: match.start()].strip():
            continue
        first = False
        yield _Mark(match.start(), match.end(), kind)
        if match.start() == 0 and match["positive"] and match["positive"].lower() == "positive":
            inner = _INNER_NEGATIVE.search(text, match.end())
            if inner and not _LABEL.search(text, match.end()):
                yield _Mark(inner.start(), inner.end(), "negative")


def _are_captions(labels: Sequence[_Mark]) -> bool:
    """Whether several lines have a label, and are prompts of their own."""
    return len(labels) > 1 and all(label.kind == "positive" for label in labels)


def _settings(text: str, labelled: bool) -> Iterator[_Mark]:
    """Where settings begin: at the first of a run of them; in a text with labels, at each that begins a line too."""
    found = [match for match in _SETTING.finditer(text) if match["word"] or match["number"]]
    steps = _STEPS.search(text)
    if steps and (labelled or text[: steps.start()].strip() or steps["more"]):
        yield _Mark(steps.start(), steps.start(), "settings")
    strong = max((match.start() for match in found if _name(match) in _STRONG), default=-1)
    for match, after in zip_longest(found, found[1:]):
        begins_line = not text[text.rfind("\n", 0, match.start()) + 1 : match.start()].strip()
        near = after is not None and after.start() - match.end() < _NEAR
        begins = begins_line or match["number"] or _name(match) in _STRONG
        if (near and begins and match.start() <= strong) or (
            labelled and begins_line and text[: match.start()].strip()
        ):
            yield _Mark(match.start(), match.start(), "settings")


def _name(match: re.Match[str]) -> str:
    return re.sub(r"[ _]+", " ", (match["number"] or match["word"]).lower())


def _values(line: str) -> dict[str, str]:
    """The settings of a block by their names; those that can be set here by A1111's."""
    values = dict(_PAIR.findall(re.sub(r"\s*[\n;|]\s*", ", ", line)))
    for match in _SETTING.finditer(line):
        if match["number"] and _name(match) in CANONICAL:
            values.setdefault(CANONICAL[_name(match)], match["value"])
    if "Size" not in values and {"Width", "Height"} <= values.keys():
        values["Size"] = f"{values['Width']}x{values['Height']}"
    return values
