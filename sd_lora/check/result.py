"""The result of checking a folder: its images, its findings, and the plan of a run on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sd_lora.data.findings import Finding, Severity
from sd_lora.data.planning import epoch_exposures
from sd_lora.errors import some

if TYPE_CHECKING:
    from sd_lora.data.exposures import Schedule


@dataclass(frozen=True)
class ImageRow:
    """One image that can be trained on: its first few `captions` as they are trained, its upright size in pixels, a
    small JPEG if one was asked for, and how often the run sees it; None if it is held out, or there is no plan."""

    name: str
    captions: tuple[str, ...]
    width: int
    height: int
    thumbnail: bytes | None = None
    exposures: int | None = None
    #: the mask's file name, and what the image is used as
    mask: str | None = None
    use: str = "training"


@dataclass(frozen=True)
class BucketRow:
    """A size (pixels) in which images are trained, how many are, and how often in all."""

    width: int
    height: int
    images: int
    exposures: int


@dataclass(frozen=True)
class Plan:
    """What a run would be: `exposures` = `steps` · `batch_size`, and what it takes, measured as `basis` says; an epoch
    shows each image as often as its repeats say."""

    images: int
    exposures: int
    steps: int
    batch_size: int
    buckets: tuple[BucketRow, ...]
    seconds: float | None = None
    memory_bytes: int | None = None
    basis: str = ""
    epochs: float = 0.0


def plan_for(schedule: Schedule, steps: int, cost: tuple[float | None, int | None, str] = (None, None, "")) -> Plan:
    """The plan of `steps` steps; `cost` is what `measure` gives for the entire run."""
    counts = schedule.count(steps)
    sizes = sorted({size for _, size in counts})
    rows = tuple(
        BucketRow(*size, sum(s == size for _, s in counts), sum(n for (_, s), n in counts.items() if s == size))
        for size in sizes
    )
    epochs = round(steps * schedule.batch_size / epoch_exposures(schedule.images), 2)
    return Plan(len(schedule.images), steps * schedule.batch_size, steps, schedule.batch_size, rows, *cost, epochs)


@dataclass(frozen=True)
class Check:
    """A folder checked; `summary` is one line. Without usable images there is no `plan`."""

    folder: str
    layout: str
    summary: str
    images: Sequence[ImageRow]
    findings: Sequence[Finding]
    plan: Plan | None

    @property
    def counts(self) -> dict[Severity, int]:
        """How many findings there are of each severity that occurs, the gravest first."""
        counts = Counter(finding.severity for finding in self.findings)
        order: tuple[Severity, ...] = ("error", "warning", "info")
        return {severity: counts[severity] for severity in order if counts[severity]}

    @property
    def has_errors(self) -> bool:
        return "error" in self.counts

    def _repr_html_(self) -> str:
        """The report, as a notebook shows the check."""
        from sd_lora.check.report import report_frame

        return report_frame(self)

    def __repr__(self) -> str:
        """``Check(photos: 12 images, 1 error, 2 warnings)``."""
        counts = [f"{n} {kind}{'' if n == 1 or kind == 'info' else 's'}" for kind, n in self.counts.items()]
        facts = [f"{len(self.images)} image{'' if len(self.images) == 1 else 's'}", *counts]
        return f"Check({self.folder}: {', '.join(facts)})"

    def to_json(self) -> dict[str, Any]:
        """The check as JSON; `examples` have all their `captions` beside the first."""
        return {
            "folder": self.folder,
            "layout": self.layout,
            "summary": self.summary,
            "examples": [
                {"file": row.name, "caption": row.captions[0], "captions": list(row.captions), "width": row.width,
                 "height": row.height, "exposures": row.exposures, "use": row.use, "mask": row.mask}
                for row in self.images
            ],
            "findings": [finding.to_json() for finding in self.findings],
            "plan": None if self.plan is None else asdict(self.plan),
        }  # fmt: skip


def how_often(images: Sequence[ImageRow]) -> str:
    """How often a run sees each image, by folder if that differs: ``each image 80 times``."""
    folders: dict[str, list[int]] = {}
    for row in images:
        if row.exposures is not None:
            folders.setdefault(row.name.rpartition("/")[0] or "the others", []).append(row.exposures)
    everywhere = [count for counts in folders.values() for count in counts]
    if not everywhere:
        return ""
    if max(everywhere) - min(everywhere) <= 1 or len(folders) == 1:
        return f"each image {_range(everywhere)} times"
    each = [f"{name} {_range(counts)}" for name, counts in sorted(folders.items())]
    return f"each image {_range(everywhere)} times: {some(each, 8)}"


def _range(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return f"{low:,}" if low == high else f"{low:,} {'or' if high == low + 1 else 'to'} {high:,}"


def duration(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
