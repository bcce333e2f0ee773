"""What is wrong, or worth knowing, about a folder of images: a table of codes, each with its severity and remedy.

Every code has a section in docs/findings.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sd_lora.errors import printable, some

Severity = Literal["error", "warning", "info"]
_NUMBER = re.compile(r"\[([^\]|]*)\|([^\]|]*)\]")


@dataclass(frozen=True)
class Code:
    """A kind of finding: `about` continues the sentence "<n> …", `remedy` says what to do. ``[it|them]`` in either is
    the first for one finding and the second for several."""

    severity: Severity
    about: str
    remedy: str


CODES: dict[str, Code] = {
    # the folder
    "no-images": Code("error", "[folder holds|folders hold] no images", "name the folder that holds them"),
    "layout-mixed": Code("warning", "[image is|images are] beside kohya's folders",
        "move [it|them] into a folder such as 10_style"),
    "layout-number": Code("info", "[folder has a number|folders have numbers] that [is|are] not read as repeats",
        "rename [it|them] like 10_style if repeats are meant"),
    "folder-role": Code("warning", "[folder has the name|folders have the names] of another purpose",
        "rename [it|them], or set data.folder_roles=false, to train on the images in [it|them]"),
    "folder-unsure": Code("warning", "[folder|folders] may have another purpose, by [its name|their names]",
        "if [it is|they are] meant to be trained, nothing is wrong"),
    "dataset-broken": Code("error", "dataset [file|files] cannot be read", "correct [it|them], or set data.layout"),
    "not-read": Code("warning", "[entry|entries] of the folder not read", "move them elsewhere if that is meant"),
    "entry-outside": Code("error", "[entry points|entries point] out of the folder",
        "copy the [file|files] into the folder"),
    "entry-broken": Code("error", "[row|rows] of the metadata cannot be used", "correct or remove [it|them]"),
    "column-unread": Code("warning", "[table has|tables have] text that is not read, as another column is",
        "join them in one list of texts"),
    "column-role": Code("warning", "[column of the metadata says|columns of the metadata say] what images are for",
        "correct [it|them] if that is wrong"),
    "entry-missing": Code("error", "listed [image does|images do] not exist",
        "correct the [name or remove the row|names or remove the rows]"),
    "unlisted": Code("warning", "[image is|images are] in the folder but not listed, and not read",
        "add [a row for it|rows for them]"),
    "setting-unknown": Code("warning", "[setting|settings] of the dataset file not used",
        "set [its|their] like in this config"),
    "repeats-large": Code("error", "epochs would be too long", "give smaller repeats; only their ratio counts"),
    "setting-idle": Code("error", "[setting has|settings have] no effect on these images", "leave [it|them] out"),
    "repeats": Code("info", "lists of repeats", "only their ratio counts, unless training.epochs is set"),
    # decoding
    "image-unreadable": Code("error", "[file|files] cannot be read as [an image|images]",
        "repair or remove [it|them], or set data.skip_bad=true"),
    "image-unsupported": Code("error", "[file is|files are] of a kind that is not read",
        "save [it|them] as PNG, or set data.skip_bad=true"),
    "image-oversized": Code("error", "[image is|images are] too large, with over 100 megapixels",
        "scale [it|them] down, or set data.skip_bad=true"),
    "image-extension": Code("info", "[image has|images have] the extension of another format", "rename [it|them]"),
    "image-animated": Code("warning", "[image is|images are] animated; only the first frame is read",
        "save the frame you mean"),
    "image-alpha": Code("warning", "[image is|images are] partly transparent",
        "choose another colour with data.background"),
    "image-transparent": Code("warning", "[image is|images are] almost completely transparent",
        "remove [its|their] alpha channel"),
    "image-profile": Code("warning", "[image has|images have] a colour profile that cannot be used",
        "save [it|them] in sRGB"),
    "image-skipped": Code("warning", "[image|images] cannot be read and [is|are] left out",
        "repair [it|them] to train on [it|them]"),
    "mask-size": Code("error", "[mask has|masks have] a different shape from [its|their] image",
        "save [it|them] in the size of the image"),
    "mask-unmatched": Code("warning", "[mask is|masks are] not used",
        "give [it the name of its image|each the name of its image]"),
    "mask-ambiguous": Code("error", "[mask could be|masks could be] of several images",
        "put [it|each] in a subfolder named like that of its image, or set data.masks=false"),
    "mask-empty": Code("warning", "[mask leaves|masks leave] almost nothing to learn from",
        "white parts are learnt"),
    # picture quality
    "image-tiny": Code("warning", "[image is|images are] far too small and greatly upscaled",
        "use [a larger original|larger originals]"),
    "image-small": Code("warning", "[image is|images are] upscaled",
        "use [a larger original|larger originals] or set data.upscale=false"),
    "image-huge": Code("info", "[image is|images are] far larger than trained", "scale [it|them] down to save time"),
    "image-blurred": Code("warning", "[image is|images are] blurred",
        "use [a sharper one|sharper ones], unless blur is the style"),
    "image-compressed": Code("warning", "[image is|images are] heavily compressed",
        "use [a better copy|better copies]; artefacts are learnt"),
    "image-bordered": Code("warning", "[image has a border|images have borders] of one colour",
        "crop [it|them], or the border is learnt"),
    "image-blank": Code("warning", "[image shows|images show] next to nothing", "remove [it|them]"),
    "image-aspect": Code("warning", "[image is|images are] so long that much is cropped away",
        "crop [it|them] yourself"),
    "image-duplicate": Code("warning", "[image is|images are] duplicated",
        "remove the [copy, or it counts|copies, or they count] double"),
    "image-near-duplicate": Code("warning", "[image is|images are] almost the same as another",
        "keep one of each, or they count double"),
    # captions
    "caption-missing": Code("error", "[image has|images have] no caption",
        "add NAME.txt beside [it|each], or data.default_caption"),
    "caption-empty": Code("error", "[image has|images have] an empty caption",
        "write one, or set data.default_caption"),
    "caption-unreadable": Code("error", "caption [file|files] cannot be read as text",
        "save [it|them] as UTF-8 text"),
    "caption-unread": Code("error", "caption [file is|files are] not read",
        "save the [caption|captions] as NAME.txt, or set data.layout=bare to train without [it|them]"),
    "caption-elsewhere": Code("error", "images have no captions, but other files may hold them",
        "save them as NAME.txt beside the images or in a metadata.jsonl, or set data.layout=bare to train without"),
    "captions-none": Code("warning", "images have no captions at all: their content is learnt with their style",
        "write captions that describe the content; for that to be meant, set data.layout=bare"),
    "caption-names": Code("warning", "names of images read like captions, and are not",
        "set data.captions_from=name to train on them"),
    "caption-shared": Code("error", "[image shares its|images share their] caption file with another",
        "give them different names"),
    "caption-twice": Code("warning", "[image has|images have] two caption files, of which one is read",
        "remove the other"),
    "caption-encoding": Code("warning", "caption [file is|files are] not UTF-8; the encoding was guessed",
        "save [it|them] as UTF-8"),
    "caption-lines": Code("info", "caption [file has|files have] several lines, each a caption",
        "if it is one caption, set data.caption_lines=joined"),
    "caption-dialect": Code("warning", "[caption is|captions are] text of another program, trained in part",
        "write a caption instead if that is wrong"),
    "caption-syntax": Code("warning", "[caption has|captions have] the syntax of a web UI, trained as written",
        "take it out, or set data.syntax=read"),
    "caption-read": Code("info", "[caption has|captions have] the syntax of a web UI, which is read",
        "set data.syntax=keep to train it as written"),
    "caption-escaped": Code("info", "[caption has|captions have] backslashes before brackets, which are left out",
        "nothing is wrong"),
    "caption-many": Code("warning", "[image has|images have] more captions than are read", "choose the best of them"),
    "caption-long": Code("warning", "[caption is|captions are] longer than the text encoder reads",
        "shorten [it|them]"),
    "caption-style": Code("warning", "[caption names|captions name] a style",
        "describe content only; the trigger learns style"),
    "caption-same": Code("warning", "captions are the same", "say what differs between the images"),
    "subject-bias": Code("warning", "words are in almost every caption",
        "add images without [it, or it joins|them, or they join] the style"),
    "trigger-none": Code("info", "trigger words were given", "set data.trigger to call the style by a word"),
    "trigger-known": Code("warning", "trigger words already mean something to the base", "choose a word it lacks"),
    "trigger-partly": Code("warning", "captions name the trigger word and others do not",
        "put [trigger] into all or into none"),
    "trigger-prior": Code("warning", "regularisation [image names|images name] the trigger word",
        "leave it out of the [caption|captions]"),
    "trigger-unusable": Code("error", "trigger words cannot be used", "set data.trigger to a short word"),
    "trigger-unset": Code("error", "[caption holds|captions hold] [trigger], but no trigger word is set",
        "set data.trigger"),
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
            raise KeyError(f'"{self.code}" is not a code of a finding')

    @property
    def severity(self) -> Severity:
        return CODES[self.code].severity

    @property
    def remedy(self) -> str:
        return numbered(self.advice or CODES[self.code].remedy, 1)

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
    """The findings as (code, sentence), all of a kind in one sentence: errors, then warnings, then infos, each in the
    order of the table."""
    kinds: dict[str, list[Finding]] = {}
    for finding in findings:
        kinds.setdefault(finding.code, []).append(finding)
    order = ("error", "warning", "info")
    codes = sorted((code for code in CODES if code in kinds), key=lambda code: order.index(CODES[code].severity))
    return [(code, _sentence(kinds[code])) for code in codes]


def sentences(findings: Iterable[Finding], severity: Severity) -> list[str]:
    """The findings of one severity, a sentence for each kind."""
    return [sentence for code, sentence in grouped(findings) if CODES[code].severity == severity]


def numbered(text: str, count: int) -> str:
    """`text` of the table for `count` findings: of ``[it|them]`` the one or the other."""
    return _NUMBER.sub(lambda match: match[1 if count == 1 else 2], text)


def remedy_of(findings: Sequence[Finding]) -> str:
    """What to do about findings of one code; each remedy once."""
    return "; ".join(dict.fromkeys(numbered(f.advice or CODES[f.code].remedy, len(findings)) for f in findings))


def headline(findings: Sequence[Finding]) -> str:
    """What findings of one code have in common: ``2 images are blurred``. A single one without a file is its detail."""
    if len(findings) == 1 and not findings[0].file:
        return findings[0].detail
    return f"{len(findings)} {numbered(CODES[findings[0].code].about, len(findings))}"


def _sentence(findings: Sequence[Finding]) -> str:
    title = headline(findings)
    named = [f"{f.file} ({f.detail})" if f.file and f.detail not in title else f.file or f.detail for f in findings]
    listed = "" if len(findings) == 1 and not findings[0].file else f": {some(named)}"
    return printable(f"{title}{listed}; {remedy_of(findings)}")
