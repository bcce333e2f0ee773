"""A check as the Dataset tab shows it: HTML in which names and captions are text, whatever they contain."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePath

from sd_lora.check.result import Check, duration, how_often
from sd_lora.data.findings import Finding, grouped, headline, numbered, remedy_of
from sd_lora.errors import some

from ...messages import count_of, escaped

_SEVERITIES = {"error": "error", "warning": "warning", "info": "note"}
_MOST_PAIRS, _MOST_BUTTONS, _MOST_IN_SENTENCE = 24, 24, 5
#: the findings about images that are the same
DUPLICATES = {"image-duplicate", "image-near-duplicate"}

_OF_TRIGGER = {"trigger-none", "trigger-unset", "trigger-known", "trigger-unusable"}
#: what to do on this page, where that is another thing than on the command line
REMEDIES = {
    "no-images": "add some",
    "caption-missing": "write [it|them] in the caption field",
    "caption-empty": "write [it|them] in the caption field",
    "captions-none": "write captions that say what the pictures show, or the style takes it along",
    "caption-long": "shorten [it|them] in the caption field",
    "caption-style": "say only what the picture shows; the trigger word learns the style",
    "caption-same": "say in the captions what differs between the pictures",
    "image-duplicate": "remove the [copy|copies]",
    "image-near-duplicate": "remove one of each, or they count double",
    "image-unreadable": "repair [it|them], or remove [it|them] from the folder",
    "image-blank": "remove [it|them]",
    "trigger-none": "give the word that will call the style",
    "trigger-known": "choose a word that the base model does not know",
    "trigger-unset": "give the trigger word",
    "trigger-unusable": "give a short word",
}


def check_html(check: Check) -> str:
    """Everything but the pictures: how the folder was read, the plan, the findings, and the sizes of images."""
    return f'<div role="status">{summary_html(check)}{findings_html(check)}{buckets_html(check)}</div>'


def summary_html(check: Check) -> str:
    """How the folder was read, how many findings there are, and the plan."""
    counts = Counter(finding.severity for finding in check.findings)
    chips = "".join(
        f'<li class="is-{severity}">{count_of(counts[severity], noun)}</li>'
        for severity, noun in _SEVERITIES.items()
        if counts[severity]
    )
    chips = chips or '<li class="is-good">no problems found</li>'
    blocked = "<p>Training will not start until the errors are fixed.</p>" if check.has_errors else ""
    plan = plan_sentence(check)
    planned = f'<p class="plan">{escaped(plan)}</p>' if plan else ""
    return (
        f'<div class="dataset-report"><p class="understood" dir="auto">{_text(check, check.summary)}</p>'
        f'<ul class="counts">{chips}</ul>{blocked}{planned}</div>'
    )


def _text(check: Check, text: str) -> str:
    """`text` as HTML; without the folder's place on the server."""
    return escaped(text.replace(check.folder, PurePath(check.folder).name))


def plan_sentence(check: Check) -> str:
    """The plan of a run in a sentence; empty if there is none."""
    plan = check.plan
    if plan is None:
        return ""
    parts = [f"{plan.steps:,} steps of {plan.batch_size} see {how_often(check.images)}"]
    if plan.seconds is not None:
        parts.append(f"which takes about {duration(plan.seconds)} on this machine")
    if plan.memory_bytes is not None:
        parts.append(f"in about {plan.memory_bytes / 1e9:.1f} GB of memory")
    return f"{', '.join(parts)}."


def buckets_html(check: Check) -> str:
    """The sizes in which images are trained, as a table; empty without a plan."""
    if check.plan is None:
        return ""
    rows = "".join(
        f'<tr><th scope="row">{row.width} × {row.height}</th><td>{row.images:,}</td><td>{row.exposures:,}</td></tr>'
        for row in check.plan.buckets
    )
    head = '<tr><th scope="col">size in pixels</th><th scope="col">images</th><th scope="col">exposures</th></tr>'
    return (
        '<div class="dataset-report"><table class="buckets"><caption>Buckets</caption>'
        f"<thead>{head}</thead><tbody>{rows}</tbody></table></div>"
    )


def findings_html(check: Check) -> str:
    """The findings by severity, all of a kind in one sentence, with buttons for what can be done about them here."""
    parts = []
    for severity, noun in _SEVERITIES.items():
        findings = [finding for finding in check.findings if finding.severity == severity]
        kinds = "".join(
            _kind_html(check, code, [each for each in findings if each.code == code]) for code, _ in grouped(findings)
        )
        if kinds:
            title = f"{noun.capitalize()}s"
            parts.append(f'<section class="is-{severity}"><h4>{title}</h4><ul class="kinds">{kinds}</ul></section>')
    return f'<div class="dataset-report">{"".join(parts)}</div>' if parts else ""


def _kind_html(check: Check, code: str, findings: Sequence[Finding]) -> str:
    """What findings of one code have in common, the pictures that they are about, and what to do."""
    names = {row.name for row in check.images}
    shown = [finding for finding in findings if finding.file in names]
    others = [finding for finding in findings if finding.file and finding.file not in names]
    details = [finding.detail for finding in findings if not finding.file]
    listed = some([f"{f.file} ({f.detail})" for f in others] or details, _MOST_IN_SENTENCE)
    title = headline(findings)
    said = title if not listed or listed == title else f"{title}: {listed}"
    remedy = numbered(REMEDIES.get(code, ""), len(findings)) or remedy_of(findings)
    buttons = "".join(_act("show", f.file or "", f.file or "", f.detail) for f in shown[:_MOST_BUTTONS])
    more = f" and {len(shown) - _MOST_BUTTONS} more" if len(shown) > _MOST_BUTTONS else ""
    if code in DUPLICATES:
        buttons += "".join(_act("remove", f.file or "", f"Remove {f.file}", f.detail) for f in shown[:_MOST_PAIRS])
    if code in _OF_TRIGGER:
        buttons += _act("trigger", "", "Set the trigger word")
    highlighted = ' class="duplicate"' if code in DUPLICATES else ""
    return (
        f'<li{highlighted}><code>{code}</code> <span dir="auto">{_text(check, said)}; {_text(check, remedy)}</span>'
        f'<span class="acts" dir="auto">{buttons}{more}</span></li>'
    )


def _act(what: str, name: str, label: str, title: str = "") -> str:
    """A button that page.js hands to the server as `what` is to be done with the picture called `name`."""
    return (
        f'<button type="button" class="act" data-act="{what}" data-name="{escaped(name)}" title="{escaped(title)}">'
        f"{escaped(label)}</button>"
    )


def duplicates_html(check: Check) -> str:
    """Duplicated pictures, each beside the one that it repeats; empty if there are none."""
    findings = [finding for finding in check.findings if finding.code in DUPLICATES and finding.file]
    if not findings:
        return ""
    pictures = {row.name: row.thumbnail for row in check.images}
    pairs = "".join(_pair_html(finding, pictures) for finding in findings[:_MOST_PAIRS])
    more = f"<p>and {len(findings) - _MOST_PAIRS} more</p>" if len(findings) > _MOST_PAIRS else ""
    return f'<div class="dataset-report"><h4>Duplicates</h4><ul class="pairs">{pairs}</ul>{more}</div>'


def _pair_html(finding: Finding, pictures: dict[str, bytes | None]) -> str:
    other = max((name for name in pictures if finding.detail.endswith(f" {name}")), key=len, default="")
    images = "".join(_image_html(name, pictures.get(name)) for name in (finding.file or "", other) if name)
    text = f"{finding.file}: {finding.detail}"
    return f'<li><span class="images">{images}</span><span dir="auto">{escaped(text)}</span></li>'


def _image_html(name: str, thumbnail: bytes | None) -> str:
    if thumbnail is None:
        return ""
    source = f"data:image/jpeg;base64,{base64.b64encode(thumbnail).decode('ascii')}"
    return f'<img src="{source}" alt="{escaped(name)}">'


def tokens_html(counts: Sequence[tuple[int, int]], *, is_saved: bool = True) -> str:
    """How many tokens the longest line has, and how many are read."""
    state = "" if is_saved else " · not saved"
    if not counts:
        return f'<div class="tokens">no caption{state}</div>'
    line, (count, limit) = max(enumerate(counts, 1), key=lambda pair: pair[1][0])
    where = f"line {line}: " if len(counts) > 1 else ""
    if count <= limit:
        return f'<div class="tokens">{where}{count} of {limit} tokens{state}</div>'
    return f'<div class="tokens over" role="alert">{where}{count} of {limit} tokens; the end is not read{state}</div>'


def drafts_html(names: Sequence[str]) -> str:
    """The images whose captions are not saved."""
    if not names:
        return '<div class="drafts"></div>'
    return f'<div class="drafts">✎ not saved: <span dir="auto">{escaped(some(names, 8))}</span></div>'
