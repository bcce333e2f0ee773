"""What is wrong, or worth knowing, about a folder of images: one table of codes, each with its severity and remedy.

Every code has a section of its own in docs/findings.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sd_lora.errors import printable, some

Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Code:
    """A kind of finding: `about` continues the sentence "<n> images …" or "<n> files …", `remedy` says what to do."""

    severity: Severity
    about: str
    remedy: str


CODES: dict[str, Code] = {
    # the folder
    "no-images": Code("error", "folders hold no images", "name the folder that holds them"),
    "layout-mixed": Code("warning", "images lie beside kohya's folders", "move them into a folder such as 10_style"),
    "layout-number": Code("info", "folders have a number in their name that was not taken for repeats",
        "if it is repeats, give the folder right above it, or rename it like 10_style"),
    "dataset-broken": Code("error", "dataset files cannot be read", "correct them, or set data.layout to another"),
    "not-read": Code("warning", "entries of the folder are not read", "move them elsewhere if that is meant"),
    "entry-outside": Code("error", "entries point out of the folder", "copy the files into the folder"),
    "entry-broken": Code("error", "rows of the metadata cannot be used", "correct or remove them"),
    "column-unread": Code("warning", "columns of text are not read, as another is", "join them in one list of texts"),
    "entry-missing": Code("error", "images that are listed do not exist", "correct the names or remove the rows"),
    "unlisted": Code("warning", "images are in the folder but not listed, and not read", "add rows for them"),
    "setting-unknown": Code("warning", "settings of the dataset file are not used", "set their like in this config"),
    "repeats-large": Code("error", "epochs would be too long", "give smaller repeats; only their ratio counts"),
    "setting-idle": Code("error", "settings have no effect on these images", "leave them out"),
    "repeats": Code("info", "repeats were read", "only their ratio counts; training.steps sets how long to train"),
    # decoding
    "image-unreadable": Code("error", "files cannot be read as images", "repair or remove them, or set data.skip_bad"),
    "image-unsupported": Code("error", "files are of a kind that is not read", "save them as PNG, or data.skip_bad"),
    "image-oversized": Code("error", "images have over 100 megapixels", "scale them down, or set data.skip_bad"),
    "image-extension": Code("info", "images have another format's ending", "rename them"),
    "image-animated": Code("warning", "images are animated; only the first frame is read", "save the frame you mean"),
    "image-alpha": Code("warning", "images are partly transparent", "choose another colour with data.background"),
    "image-transparent": Code("warning", "images are almost wholly transparent", "remove their alpha channel"),
    "image-profile": Code("warning", "images have a colour profile that cannot be used", "save them in sRGB"),
    "image-skipped": Code("warning", "images cannot be read and are left out", "repair or convert them"),
    "mask-size": Code("error", "masks have another shape than their image", "save them in the size of the image"),
    "mask-empty": Code("warning", "masks leave almost nothing to learn from", "white is what is learnt"),
    # picture quality
    "image-tiny": Code("warning", "images are far too small and are much enlarged", "use larger originals"),
    "image-small": Code("warning", "images are enlarged", "use larger originals or set data.upscale=false"),
    "image-huge": Code("info", "images are far larger than trained", "scale them down to save time"),
    "image-blurred": Code("warning", "images are blurred", "use sharper ones, unless blur is the style"),
    "image-compressed": Code("warning", "images are heavily compressed", "use better copies; artefacts are learnt"),
    "image-bordered": Code("warning", "images have borders of one colour", "crop them, or the border is learnt"),
    "image-blank": Code("warning", "images show next to nothing", "remove them"),
    "image-aspect": Code("warning", "images are so long that much is cropped away", "crop them yourself"),
    "image-duplicate": Code("warning", "images are there more than once", "remove the copies, or they count double"),
    "image-near-duplicate": Code("warning", "images are almost the same", "keep one of each, or they count double"),
    # captions
    "caption-missing": Code("error", "images have no caption", "add NAME.txt beside each, or data.default_caption"),
    "caption-empty": Code("error", "images have an empty caption", "write one, or set data.default_caption"),
    "caption-unreadable": Code("error", "caption files cannot be read as text", "save them as UTF-8 text"),
    "caption-shared": Code("error", "images share a caption file", "give them different names"),
    "caption-twice": Code("warning", "images have two caption files, of which one is read", "remove the other"),
    "caption-encoding": Code("warning", "caption files are not UTF-8; their encoding was guessed", "save as UTF-8"),
    "caption-lines": Code("info", "captions have several lines, each a caption", "or set data.caption_lines=joined"),
    "caption-many": Code("warning", "images have more captions than are read", "choose the best of them"),
    "caption-long": Code("warning", "captions are longer than the text encoder reads", "shorten them"),
    "caption-style": Code("warning", "captions name a style", "describe content only; the trigger learns style"),
    "caption-same": Code("warning", "images have the same caption", "say what differs between them"),
    "subject-bias": Code("warning", "words are in almost every caption", "add other subjects, or they join the style"),
    "trigger-none": Code("info", "trigger words were given", "set data.trigger to call the style by a word"),
    "trigger-known": Code("warning", "trigger words already mean something to the base", "choose a word it lacks"),
    "trigger-partly": Code("warning", "captions name the trigger word and others do not", "use [trigger] or none"),
    "trigger-prior": Code("warning", "regularisation images name the trigger word", "leave it out of their captions"),
    "trigger-unusable": Code("error", "trigger words cannot be used", "set data.trigger to a short word"),
    "trigger-unset": Code("error", "captions hold [trigger], but no trigger word is set", "set data.trigger"),
    # the set
    "images-unseen": Code("warning", "sets are larger than the run", "raise training.steps, or give a smaller folder"),
    "set-small": Code("warning", "images only: the adapter may copy them", "use 4 or more"),
}  # fmt: skip


@dataclass(frozen=True)
class Finding:
    """One finding: its `code`, the `file` it is about (relative to the folder, with ``/``) and what was found."""

    code: str
    file: str | None
    detail: str
    #: what to do, where the table's remedy does not fit
    advice: str = ""

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise KeyError(f'"{self.code}" is no code of a finding')

    @property
    def severity(self) -> Severity:
        return CODES[self.code].severity

    @property
    def remedy(self) -> str:
        return self.advice or CODES[self.code].remedy

    @property
    def message(self) -> str:
        """One sentence: what is wrong, where, what was given, what to do."""
        return printable(f"{f'{self.file}: ' if self.file else ''}{self.detail}; {self.remedy}")

    def to_json(self) -> dict[str, str | None]:
        return {
            "code": self.code, "severity": self.severity, "file": self.file, "message": self.message,
            "remedy": self.remedy,
        }  # fmt: skip


def grouped(findings: Iterable[Finding]) -> list[tuple[str, str]]:
    """The findings as (code, sentence), all of a kind in one sentence: errors, then warnings, then what is worth
    knowing, each in the order of the table."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.code, []).append(finding)
    order = ("error", "warning", "info")
    codes = sorted((code for code in CODES if code in kinds), key=lambda code: order.index(CODES[code].severity))
    return [(code, _sentence(code, kinds[code])) for code in codes]


def sentences(findings: Iterable[Finding], severity: Severity) -> list[str]:
    """The findings of one severity, a sentence for each kind."""
    return [sentence for code, sentence in grouped(findings) if CODES[code].severity == severity]


def _sentence(code: str, found: list[Finding]) -> str:
    if len(found) == 1:
        return found[0].message
    named = [f"{f.file} ({f.detail})" if f.file else f.detail for f in found]
    return f"{len(found)} {CODES[code].about}: {some(named)}; {found[0].remedy}"
