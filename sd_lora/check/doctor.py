"""The dataset doctor: reads an entire folder, looks at every picture and caption, and says what a run on it will be."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any

from PIL import ImageStat

from sd_lora.check.cost import cost_key, keep_cost, kept_cost, measure
from sd_lora.check.idle_settings import excessive_repeats, idle_settings
from sd_lora.check.quality import Look, duplicates, look_at, thumbnail
from sd_lora.check.result import Check, ImageRow, plan_for
from sd_lora.check.wording import Reader, prior_wording, wording
from sd_lora.config.schema import RunConfig
from sd_lora.data.captions import PLACEHOLDER, has_placeholder
from sd_lora.data.dialects.prompts import sample_prompts
from sd_lora.data.examples import Example, example_of, with_captions
from sd_lora.data.exposures import Schedule
from sd_lora.data.findings import Finding
from sd_lora.data.folders.entries import Entry, Listing
from sd_lora.data.folders.kohya import plural
from sd_lora.data.folders.listing import list_folder
from sd_lora.data.pictures.decode import PictureError, check_colour, read_mask, read_picture
from sd_lora.data.pictures.pixels import mask_of
from sd_lora.data.pictures.views import views_of
from sd_lora.data.planning import exposures_of, hold_out, schedule_for, steps_of
from sd_lora.models.opening import ModelFamily, OpenBase, open_base

Watch = Callable[[int, int], None]
_MOST_THUMBNAILS = 500
_MOST_CAPTIONS = 8
_LEAST_MASK = 0.01
_OF_CAPTIONS = ("caption-missing", "caption-empty", "caption-unread")
_ALPHA = ("image-alpha", "image-transparent")
#: how to train on an image that is left out, where repair is not the remedy
_TO_TRAIN = {
    "image-unsupported": "save [it|them] as PNG to train on [it|them]",
    "image-oversized": "scale [it|them] down to train on [it|them]",
    "mask-size": "save the [mask|masks] in the size of the image to train on [it|them]",
}


@dataclass(frozen=True)
class Examined:
    """A folder examined for a base model: what is trained on, in which order, all findings, and the images that are
    `held` out to measure the validation loss."""

    examples: list[Example]
    findings: list[Finding]
    schedule: Schedule | None
    steps: int
    side: int
    thumbnails: dict[str, bytes]
    held: list[Example] = field(default_factory=list)


@dataclass(frozen=True)
class _Inspected:
    """One entry, inspected: an example and its look, or the findings that say why it has neither."""

    entry: Entry
    example: Example | None
    look: Look | None
    digest: str
    findings: tuple[Finding, ...]
    thumbnail: bytes | None = None
    transparent: bool = False
    #: width and height in pixels, upright; None if it cannot be read
    size: tuple[int, int] | None = None


#: what was seen in pictures that have not changed since, by file and settings
Looks = dict[Hashable, _Inspected]


@dataclass(frozen=True)
class Looking:
    """How pictures are looked at: whether small copies are made, who is told how many are done, and what is known."""

    thumbnails: bool = False
    watch: Watch | None = None
    looks: Looks | None = None


def check_folder(
    config: RunConfig,
    *,
    thumbnails: bool = False,
    watch: Watch | None = None,
    base: OpenBase | None = None,
    looks: Looks | None = None,
) -> Check:
    """Examine ``config.data.folder`` for ``config.model.base`` and measure what a run would take; writes nothing.

    `watch` is called with how many of how many pictures are done. With a `base` that is open already nothing is loaded
    or measured: the plan has a cost only if it is known. Pictures in `looks` that have not changed are not decoded
    again. Raises SdLoraError if the folder or the base model cannot be opened; what is wrong with single images and
    captions is among the findings.
    """
    check_colour(config.data.background)
    listing = list_folder(config.data)
    given, base = base is not None, base or open_base(config.model)
    how = Looking(thumbnails, watch, looks)
    result = examine(config, listing, base.family, base.pipe, how)
    plan = None
    if result.schedule is not None:
        key = cost_key(base, result.schedule, quantize=config.model.quantize)
        cost = kept_cost(key, base)
        if cost is None and not given:
            cost = keep_cost(key, measure(base.family, base.pipe, base.device, result.schedule))
        plan = plan_for(result.schedule, result.steps, cost.of(result.steps) if cost else (None, None, ""))
    order, small = {entry.name: number for number, entry in enumerate(listing.entries)}, result.thumbnails
    times = exposures_of(result.schedule, result.steps) if result.schedule else [None] * len(result.examples)
    counted = [*zip(result.examples, times, strict=True), *((example, None) for example in result.held)]
    held = {id(example) for example in result.held}
    rows = [
        _row(example, number, small.get(example.name), id(example) in held)
        for example, number in sorted(counted, key=lambda pair: order[pair[0].name])
    ]
    skipped = sum(finding.code == "image-skipped" for finding in result.findings)
    summary = f"{listing.summary}; {skipped} cannot be read and {'is' if skipped == 1 else 'are'} left out"
    summary = summary if skipped else listing.summary
    return Check(config.data.folder, listing.layout, summary, rows, result.findings, plan)


def _row(example: Example, exposures: int | None, small: bytes | None, held: bool) -> ImageRow:
    """An image as a check shows it."""
    mask = example.mask.name if example.mask else "alpha" if example.alpha else None
    use = "validation" if held else "regularisation" if example.prior else "training"
    captions = tuple(dict.fromkeys(example.captions))[:_MOST_CAPTIONS]
    return ImageRow(example.name, captions, example.width, example.height, small, exposures, mask, use)


def examine(
    config: RunConfig, listing: Listing, family: ModelFamily, pipe: Any, how: Looking | None = None
) -> Examined:
    """Decode and look at every entry of `listing`, read its captions as the base model will, and plan the exposures."""
    side, grain = config.data.resolution or family.native_size(pipe), family.grain(pipe)
    entries, unused = _used(listing, config)
    every = list(_look_at_all(entries, config, (side, grain), how or Looking()))
    good = [s for s in every if s.example is not None and s.look is not None]
    lost = {s.entry.name for s in every} - {s.entry.name for s in good}  # no caption would help them
    used = {entry.name for entry in entries}
    left_out = {entry.name for entry in listing.entries} - used
    homes = {_home(name) for name in left_out} - {_home(name) for name in used}
    listed = [
        finding
        for finding in listing.findings
        if finding.file not in lost or finding.code not in _OF_CAPTIONS
        if not finding.code.startswith("caption-") or not (finding.file in left_out or _home(finding.file) in homes)
    ]
    findings = [*listed, *unused, *(finding for s in every for finding in s.findings)]
    examples = with_captions(
        [s.example for s in good if s.example is not None],
        [s.entry for s in good],
        config.data,
        config.training.seed,
        lambda captions: family.overlong(pipe, captions),
    )
    findings += duplicates(
        [s.entry.name for s in good], [s.digest for s in good], [s.look.phash for s in good if s.look]
    )
    findings += _words(examples, config, family, pipe)
    transparent = any(s.transparent for s in good)
    entries = [s.entry for s in good]
    excessive = excessive_repeats(entries)
    syntax = any(f.code == "caption-read" for f in listing.findings) or bool(sample_prompts(config))
    findings += [*idle_settings(config, listing.layout, entries, side, (transparent, syntax)), *excessive]
    examples, held = hold_out(examples, config.training.hold_out, config.training.seed)
    trained = [example for example in examples if not example.prior]
    findings += _about_the_set(listing, trained, bool(every), config.data.layout == "auto")
    schedule = schedule_for(examples, config, side, grain) if trained and not excessive else None
    steps = steps_of(config.training, examples)
    findings += _unseen(schedule, examples, steps)
    pictures = {s.entry.name: s.thumbnail for s in good if s.thumbnail is not None}
    return Examined(examples, findings, schedule, steps, side, pictures, held)


def _used(listing: Listing, config: RunConfig) -> tuple[Sequence[Entry], list[Finding]]:
    """The entries of `listing` that are used: those to hold out only if the loss on them is measured, which a finding
    says if it is not."""
    held = [entry.name for entry in listing.entries if entry.held]
    if config.training.validate_every or not held:
        return listing.entries, []
    advice = "set training.validate_every to measure the loss on them, or data.folder_roles=false to train on them"
    folders = Counter(_home(name) for name in held)
    unused = [
        Finding(
            "folder-role",
            folder,
            f"taken for validation images: {plural(number)} {'is' if number == 1 else 'are'} not read",
            advice,
        )
        for folder, number in folders.items()
    ]
    return [entry for entry in listing.entries if not entry.held], unused


def _home(name: str | None) -> str | None:
    """The folder of a file, with ``/`` at the end; None for the one that is checked."""
    folder = (name or "").rpartition("/")[0]
    return f"{folder}/" if folder else None


def _unseen(schedule: Schedule | None, examples: Sequence[Example], steps: int) -> list[Finding]:
    """A finding if the run ends before it has shown every image to learn from."""
    if schedule is None:
        return []
    times = [n for n, e in zip(exposures_of(schedule, steps), examples, strict=True) if not e.prior]
    if all(times):
        return []
    detail = f"{times.count(0):,} of {len(times):,} images are never seen in {steps * schedule.batch_size:,} exposures"
    return [Finding("images-unseen", None, detail)]


def _look_at_all(
    entries: Sequence[Entry], config: RunConfig, sizes: tuple[int, int], how: Looking
) -> Iterator[_Inspected]:
    """Every entry looked at, in order; decoding releases the interpreter, so several at once."""
    looks = how.looks if how.looks is not None else {}

    def look(entry: Entry, number: int) -> _Inspected:
        pictured = how.thumbnails and number < _MOST_THUMBNAILS
        key = (_stamp(entry), sizes, pictured, entry.alpha, replace(config.data, trigger=""))
        seen = looks.get(key)
        if seen is None:
            seen = looks[key] = _look(entry, config, sizes, pictured)
        if seen.size is None:
            return replace(seen, entry=entry)
        example = example_of(entry, seen.size, config.data, transparent=seen.transparent)
        return replace(seen, entry=entry, example=replace(example, digest=seen.digest))

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, inspected in enumerate(pool.map(look, entries, count()), 1):
            if how.watch is not None:
                how.watch(done, len(entries))
            yield inspected


def _stamp(entry: Entry) -> tuple[Hashable, ...]:
    """Changes when the picture of an entry, or its mask, does."""
    files = [file for file in (entry.file, entry.mask) if file is not None]
    with contextlib.suppress(OSError):
        return tuple((str(file), (facts := file.stat()).st_mtime_ns, facts.st_size) for file in files)
    return (object(),)


def _look(entry: Entry, config: RunConfig, sizes: tuple[int, int], pictured: bool) -> _Inspected:
    """Decode one entry and look at it; whatever is wrong becomes a finding."""
    data, findings = config.data, list[Finding]()
    try:
        picture = read_picture(entry.file, data.background)
        given = read_mask(entry.mask, picture.image.size) if entry.mask is not None else None
        mask = mask_of(given, picture.alpha if entry.alpha else None)
        if mask is not None:
            share = ImageStat.Stat(mask).mean[0] / 255
            if share < _LEAST_MASK:
                findings.append(Finding("mask-empty", entry.name, f"{_little(share)} of it is learnt"))
    except PictureError as error:
        file = entry.name if error.code != "mask-size" else f"{entry.name} and its mask"
        code, advice = ("image-skipped", _TO_TRAIN.get(error.code, "")) if data.skip_bad else (error.code, "")
        return _Inspected(entry, None, None, "", (Finding(code, file, error.detail, advice),))
    view = views_of(*picture.image.size, *sizes, data)[0]
    look = look_at(picture.image, trained=view.size, jpeg_quality=picture.jpeg_quality)
    transparent, size = picture.alpha is not None, picture.image.size
    laid = f", laid on {data.background}"
    findings += [
        Finding(code, entry.name, detail + (laid if code == "image-alpha" else ""))
        for code, detail in (*picture.remarks, *look.remarks)
        if not (entry.alpha and code in _ALPHA)  # what is transparent is left out, as was asked for
    ]
    small = thumbnail(picture.image) if pictured else None
    return _Inspected(entry, None, look, picture.digest, tuple(findings), small, transparent, size)


def _little(share: float) -> str:
    return f"{share:.1%}" if share >= 0.001 else "under 0.1%" if share else "nothing"


def _words(examples: Sequence[Example], config: RunConfig, family: ModelFamily, pipe: Any) -> list[Finding]:
    """Findings on captions and trigger word; regularisation images have captions of another kind."""
    trigger = config.data.trigger
    reader = Reader(family.token_limit(pipe), partial(family.token_counts, pipe), partial(family.is_known_word, pipe))
    style, prior = ([(e.name, e.written) for e in examples if e.prior is kind] for kind in (False, True))
    unset = [e.name for e in examples if any(map(has_placeholder, e.written)) and (e.prior or not trigger)]
    findings = [Finding("trigger-unset", name, f"its caption has {PLACEHOLDER}") for name in unset]
    trained = [(e.name, e.captions) for e in examples if not e.prior]
    return [*findings, *wording(style, trigger, reader, trained), *prior_wording(prior, trigger, reader)]


def _about_the_set(listing: Listing, trained: Sequence[Example], any_entry: bool, found_bare: bool) -> list[Finding]:
    if not trained:
        known = any(f.code == "no-images" for f in listing.findings)
        why = "none of its images can be trained on" if any_entry else "it has no images"
        return [] if known else [Finding("no-images", None, why)]
    images, findings = "one image" if len(trained) == 1 else f"{len(trained)} images", []
    known = {finding.code for finding in listing.findings}.intersection(("caption-missing", "caption-names"))
    if found_bare and listing.layout == "bare" and not known and not any(any(e.written) for e in trained):
        findings.append(Finding("captions-none", None, f"{images} without captions: content is learnt with the style"))
    if len(trained) < 4:
        findings.append(Finding("set-small", None, f"{images} only: expect the adapter to copy as much as to learn"))
    return findings
