"""What models that write captions leave around them: thoughts, tokens, fences, polite words, refusals and errors."""

from __future__ import annotations

import ast
import json
import re

from sd_lora.data.dialects.refusals import nothing_in

_THOUGHT = re.compile(
    r"<(/?)(?:think|thinking|thought|reasoning|reflection|analysis)>|◁(/?)think▷|\[(/?)think(?:ing)?\]", re.IGNORECASE
)
_FENCE = re.compile(
    r"(?:^|(?<=\s))(`{3,8}|~{3,8})[ \t]*(?:(?:text|txt|markdown|md|json|plaintext|plain|yaml|xml|html"
    r"|caption)\b)?(.*?)\1",
    re.DOTALL | re.IGNORECASE,
)
_TURN = re.compile(
    r".*(?:<\|im_start\|>\s*assistant|<\|start_header_id\|>\s*assistant\s*<\|end_header_id\|>|<\|assistant\|>"
    r"|<start_of_turn>\s*model|\[/INST\])\s*",
    re.DOTALL | re.IGNORECASE,
)
_ASKED = re.compile(
    r"\s*(?:(?:USER|Human|User|Question)\s*:.*?\b(?:ASSISTANT|Assistant|Answer)|#+ Instruction:.*?#+ Response)\s*:\s*",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"</?s>|<(?:pad|unk|bos|eos|mask|image|img|start_of_turn|end_of_turn|start_of_image|image_soft_token|endoftext"
    r"|end_of_utterance|fake_token_around_image|loc_\d+|od|cap|(?:more_)?(?:detailed_)?caption)>|</(?:img|image|cap|caption)>"
    r"|</?(?:answer|output|response|final)>|<\|[\w/ -]{1,40}\|>|<｜[^<>｜]{1,40}｜>|\[/?INST\]|\[(?:CLS|SEP|PAD|BOS"
    r"|EOS|UNK|MASK)\]"
    r"|<0x[0-9A-F]{2}>|<(box|quad|poly)>[^<>]*</\1>|</?(?:ref|phrase|grounding|object)>|<patch_index_\d+>",
    re.IGNORECASE,
)
_BOLD = re.compile(r"(?<![\w*])\*\*(?=[^\s*])([^*]*[^\s*])\*\*(?![\w*])")
#: one # alone may be meant
_HEADING = re.compile(
    r"^\s*(?:#{2,6}\s+(?=\S)|#\s+(?=(?:image )?(?:caption|description|prompt|tags)\b))", re.MULTILINE | re.IGNORECASE
)
_THING = (
    r"(?:(?:image|picture|photo|detailed|short|brief|long|concise|simple|possible|suitable|descriptive|comprehensive"
    r"|generated|final|new|suggested|revised|refined|alt|one|two|single|sentence|the|your|training|stable|diffusion"
    r"|booru|danbooru|style|comma|separated|list|of)[\s-]+)*"
    r"(?:captions?|descriptions?|prompts?|tags?|alt[ -]text|output|response)"
)
_OPENER = re.compile(
    r"\s*(?:(?:sure(?: thing)?|certainly|absolutely|of course|okay|ok|alright|great|no problem|understood|got it|yes"
    r"|gladly|happy to help)\s*[!.:,—-]+\s+(?=here|i['’]?(?:ll|d)\b|below|the following)|(?:sure(?: thing)?"
    r"|certainly|absolutely"
    r"|of course|understood|got it|no problem)\s*[!:]+\s*|(?:sure(?: thing)?|certainly|of course)\.\s+"
    r"|(?:(?:sure(?: thing)?|certainly|absolutely|of course|okay|ok)\s*[!.,]\s*)?i(?:['’]d| would| can|['’]ll"
    r"| will)\s+(?:be\s+)?"
    r"(?:happy|glad|help|describe|caption|provide|write|do that)\b[^.!:\n]{0,80}[.!:]\s*)",
    re.IGNORECASE,
)
_ABOUT = r"(?:[^:\n\"“.!?]{0,100})"
_PREAMBLE = re.compile(
    rf"\s*(?:(?:based on|looking at|from|given|after analyzing)\b[^:,\n]{{0,60}},\s*)?"
    r"(?:(?:here(?:['’]s| is| are)|below is|below are|this is|the following is|i['’](?:d|ll) (?:suggest"
    r"|describe|caption))\s+"
    rf"(?:an?\s+|the\s+|some\s+|my\s+|your\s+)?{_THING}\b{_ABOUT}(?::|[.!]?\s*\n)"
    rf"|(?:the|a|an|one)\s+{_THING}(?:\s+(?:for|of)\s+(?:this|the|your)\s+\w+)?\s+(?:is|are|would be|could be"
    r"|might be)\s*:"
    rf"|{_THING}(?:\s+(?:for|of)\s+(?:this|the|your)\s+\w+)?\s*:|assistant\s*:(?=\s)|here you go\s*[:!])\s*",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"(?:(?<=[.!?…\"”])\s+|\n\s*|^\s*)(?:let me know if|(?:i )?hope (?:this|that) helps|feel free to"
    r"|please let me know|is there anything else"
    r"|would you like me to|if you(?:['’]d like| need| have| want)\b[^.]*,? (?:let me know|i can|feel free"
    r"|please)|do you want me to|is this what you)"
    r"\b.*",
    re.IGNORECASE | re.DOTALL,
)
_QUOTES = {'"': '"', "“": "”", "„": "“", "‘": "’", "«": "»", "`": "`", "'": "'", "「": "」", "*": "*"}
_ESCAPED = re.compile(r"\\([\"'])")
_PYTHON = re.compile(r"\s*[\[{(]\s*(?:['\"])")
_LONGEST = 4_000


def unwrapped(text: str) -> tuple[str, str]:
    """`text` without a model's thoughts and the turns before its own, and of a fenced text what is inside; and what was
    left out, as a clause (empty: nothing, it is as it was)."""
    notes, given = [], text
    text = _without_thoughts(text)
    notes += ["a model's thoughts are left out"] * (text != given)
    turn = _TURN.match(text) or _ASKED.match(text)
    if turn and text[turn.end() :].strip():
        text = text[turn.end() :]
        notes.append("what a model was asked is left out")
    fences = list(_FENCE.finditer(text)) if "```" in text or "~~~" in text else []
    if fences:
        first = fences[0]
        before, after = text[: first.start()].strip(), text[first.end() :].strip()
        around = _PREAMBLE.sub("", _OPENER.sub("", f"{before} ")).strip()
        if len(fences) == 1 and not around and (not after or _CLOSING.match(f"\n{after}")):
            text = first[2].strip()
        else:
            text = _FENCE.sub(lambda match: match[2], text)
        notes.append("the marks of a fenced text are left out")
    return (text, "; ".join(notes)) if notes else (given, "")


def _without_thoughts(text: str) -> str:
    """`text` without what is between the marks of thoughts, or before an end or behind a beginning that is alone."""
    kept: list[str] = []
    place, thinking = 0, False
    for mark in _THOUGHT.finditer(text):
        ends = any(mark.groups())
        if ends and not thinking:
            kept.clear()
        elif not thinking:
            kept.append(text[place : mark.start()])
        place, thinking = mark.end(), not ends
    return "".join([*kept, "" if thinking else text[place:]])


def as_json(text: str) -> str:
    """A list or an object as Python writes it, as JSON; any other `text` as it is."""
    if len(text) > _LONGEST or not _PYTHON.match(text):
        return text
    try:
        return json.dumps(ast.literal_eval(text.strip()))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text


def begins_an_answer(text: str) -> bool:
    """Whether the lines of `text` are one answer of a model: the first only leads to the others, or is an error."""
    first, _, rest = text.lstrip().partition("\n")
    if not rest.strip():
        return False
    if first.lower().startswith("traceback (most recent call last"):
        return True
    led = _led(f"{first}\n")
    return (
        led.strip() != first.strip()
        and not led.strip(" *:\"'“")
        and not any(_PREAMBLE.match(line) for line in rest.splitlines())
    )


def read_answer(text: str) -> tuple[str, str]:
    """The caption in a model's answer, and what was left out, as a clause; empty if there is none, as in a refusal."""
    notes, given = [], text
    text = _TOKEN.sub(" ", text)
    if text != given:
        text = " ".join(text.split())
        notes.append("a model's tokens are left out")
    if "**" in text or text.lstrip().startswith("#"):
        plain = _HEADING.sub("", _BOLD.sub(r"\1", text))
        notes += ["marks of Markdown are left out"] * (plain != text)
        text = plain
    bare = _unquoted(_ESCAPED.sub(r"\1", text))
    inner = _unquoted(_led(bare))
    inner = _unquoted(_CLOSING.sub("", inner[:_LONGEST]).strip()) if len(inner) <= _LONGEST else inner
    if what := nothing_in(inner) or nothing_in(bare):
        return "", f'{what} is no caption: "{bare[:60]}"'
    if inner != bare:
        notes.append("a model's words about its answer are left out")
    elif bare != text:
        notes.append("quotation marks around the caption are left out")
    return (inner, "; ".join(notes)) if notes else (given, "")


def _led(text: str) -> str:
    """`text` without the words that lead to a caption."""
    rest = text
    for _ in range(3):
        match = _OPENER.match(rest) or _PREAMBLE.match(rest)
        if match is None:
            break
        rest = rest[match.end() :]
    return rest


def _unquoted(text: str) -> str:
    """`text` without quotation marks around all of it."""
    plain = re.sub(r'^""+(.+?)""+$', r'"\1"', text.strip(), flags=re.DOTALL)
    closing = _QUOTES.get(plain[:1])
    plain = plain.removesuffix(".") if closing and plain.endswith(f"{closing}.") else plain
    if closing is None or len(plain) < 3 or not plain.endswith(closing):
        return text
    inner = plain[1:-1]
    quoted = re.sub(r"(?<=\w)['’](?=\w)", "", inner)
    return text if plain[0] in quoted or closing in quoted or not inner.strip() else inner.strip()
