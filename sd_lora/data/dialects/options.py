"""Options that people write behind a prompt for a program: Midjourney's, kohya's, and those of command lines."""

from __future__ import annotations

import re

_NUMBER = r"[ =](?:\d+(?:\.\d+)?|\.\d+)(?=[\s,]|$)"
#: Midjourney's and kohya's options by what follows them
_NUMERIC = (
    "version v quality q stylize style seed chaos c iw stop uplight w h weird s d l g ss sw cw ow sv exp repeat r niji "
    "width height steps scale cfg cfg_scale guidance guidance_scale n_iter n_samples ddim_steps strength am fps f"
)
_ALONE = (
    "tile hd raw niji draft fast relax turbo stealth public video upbeta creative hq plms test testp v q s p w h d l r"
)
_WITH_WORDS = "no n style profile p personalize sref cref oref sampler ss negative_prompt neg motion ckpt version v ar"


def _names(names: str) -> str:
    return "|".join(sorted(names.split(), key=len, reverse=True))


_OPTION = re.compile(
    rf"\s(?:--|—)(?:(?:ar|aspect)[ =]\d+(?:\.\d+)?[:x/]\d+(?:\.\d+)?|(?:{_names(_NUMERIC)}){_NUMBER}"
    rf"|(?:{_names(_ALONE)})(?=\s*$|\s+(?:--|—)))|\s--(?:{_names(_WITH_WORDS)})(?=[ =]|$)"
)
#: pictures that Midjourney starts from
_PICTURE = re.compile(
    r"\s*<?https?://(?:s\.mj\.run/\S+|\S+?\.(?:png|jpe?g|webp|gif)(?:\?[^\s>]*)?)>?[\s,]+", re.IGNORECASE
)
_ADDRESS = re.compile(r"(?:\s*<?https?://\S+[\s,]+)+", re.IGNORECASE)
_IMAGINE = re.compile(r"\s*/imagine\s+(?:prompt\s*:?\s*)?", re.IGNORECASE)
_CALL = re.compile(r"\s*(?:(?:dream|invoke)\s*[>:]\s*|!dream\s+)", re.IGNORECASE)
_FLAG = r"\s+-{1,2}[A-Za-z][^\s\"]*(?:\"[^\"]*\"|\s(?!-)[^\s\"]+|\s\"[^\"]*\")?"
_QUOTED = re.compile(rf"([\"'])(?P<prompt>[^\"]+?)\1(?P<flags>(?:{_FLAG})+)\s*", re.DOTALL)
_FLAGS = re.compile(
    r"(?:\s+-[A-Za-z]\s?(?:[\d.]+|[a-z]\w*))*(?:\s+-[A-Za-z]\s?\d[\d.]*)(?:\s+-[A-Za-z]\s?(?:[\d.]+|[a-z]\w*))*\s*$"
)
_PROMPT = re.compile(r"(?:^|\s)--prompt[ =]+(?:\"([^\"]+)\"|'([^']+)'|((?:(?!\s--\w).)+))", re.DOTALL)
#: InvokeAI's negative prompt, inside of the prompt
_UNWANTED = re.compile(r"\s*\[[^\[\]|:]*\]")
_END = 400


def without_call(text: str) -> tuple[str, str]:
    """The prompt of a command line such as ``"a red house" -s 50 -W 512``, and what was left out, as a clause; `text`
    itself if it is none."""
    call = _CALL.match(text)
    body = text[call.end() :] if call else text
    named = _PROMPT.search(body)
    quoted = None if named else _QUOTED.fullmatch(body.strip())
    if named:
        prompt = next(filter(None, named.groups()))
    elif quoted:
        prompt = quoted["prompt"]
    else:
        start = max(0, len(body) - _END)
        flags = _FLAGS.search(body, start)
        if flags is None or (len(re.findall(r"\s-[A-Za-z]", flags[0])) < 2 and not call):
            return (body, "the prompt of a command line is trained alone") if call else (text, "")
        prompt = body[: flags.start()].strip(" \"'")
    prompt = _UNWANTED.sub("", prompt).strip()
    return prompt, f"text of a command line, of which {'only the prompt is trained' if prompt else 'no prompt is left'}"


def without_options(text: str) -> tuple[str, str]:
    """`text` without Midjourney's or kohya's options and the pictures before it, and what was left out, as a clause."""
    notes = []
    if imagine := _IMAGINE.match(text):
        text = text[imagine.end() :]
        notes.append("/imagine is left out")
    place, pictures = 0, 0
    while picture := _PICTURE.match(text, place):
        place, pictures = picture.end(), pictures + 1
    if place:
        text = text[place:]
        what = "an address before the prompt is" if pictures == 1 else "addresses before the prompt are"
        notes.append(f"{what} left out")
    option = _OPTION.search(f" {text}")
    if option and not pictures and (address := _ADDRESS.match(text)):
        text = text[address.end() :]
        notes.append("an address before the prompt is left out")
        option = _OPTION.search(f" {text}")
    if option is not None:
        start = max(0, option.start() - 1)
        notes.append(f'"{_short(text[start:].strip())}" is an option for drawing and is left out')
        text = text[:start].rstrip(" ,*")
        text = text[2:] if text.startswith("**") else text
    return text, "; ".join(notes)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
