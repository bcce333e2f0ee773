"""From what stands in the preview's fields to a job; the same for the page and for HTTP callers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sd_lora.errors import ConfigError
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewRow
from sd_lora.preview.prompts import parse_strengths, split_tags

from .site import Site


@dataclass(frozen=True)
class Asked:
    """The fields of the preview as a visitor filled them: adapter ids, prompts one a line, strengths as text."""

    adapters: Sequence[str]
    prompts: str
    strengths: str
    seed: float
    steps: float
    guidance: float
    width: float
    height: float
    negative: str

    def job(self, site: Site) -> PreviewJob:
        """The job. ConfigError for ids and names in ``<lora:NAME:0.8>`` of nothing, and for numbers that are none."""
        most = site.service.limits.cells
        lines = [line for line in (self.prompts or "").splitlines() if line.strip()]
        if len(lines) > most or len(self.adapters or ()) > most:
            raise ConfigError(f"at most {most} prompts and {most} adapters are taken at once")
        chosen = tuple(MixedAdapter(site.adapter(str(identity))) for identity in self.adapters or ())
        rows = [_row(line, chosen, site) for line in lines]
        numbers = {
            name: whole(name, getattr(self, name)) for name in ("seed", "steps", "width", "height")
        }  # fmt: skip
        guidance = self.guidance if isinstance(self.guidance, int | float) else None
        if guidance is None:
            raise ConfigError("guidance must be a number")
        return PreviewJob(
            tuple(rows),
            parse_strengths(self.strengths or ""),
            negative=(self.negative or "").strip(),
            guidance=float(guidance),
            **numbers,
        )


def _row(line: str, chosen: tuple[MixedAdapter, ...], site: Site) -> PreviewRow:
    prompt, tags = split_tags(line)
    named = {name: site.named(name) for name, _ in tags}
    unknown = sorted(name for name, paths in named.items() if not paths)
    if unknown:
        known = ", ".join(sorted(map(site.name_of, site.adapters().values()))[:5]) or "none"
        raise ConfigError(f"no adapter is called {', '.join(unknown)}; there is {known}")
    for name, paths in named.items():
        if len(paths) > 1:
            names = " or ".join(dict.fromkeys(map(site.name_of, paths[:5])))
            raise ConfigError(f"{len(paths)} adapters are called {name}; write {names}, or choose one in the list")
    return PreviewRow(prompt, (*chosen, *(MixedAdapter(named[name][0], strength) for name, strength in tags)))


def whole(name: str, value: object) -> int:
    """`value` as a whole number. ConfigError."""
    given = "nothing" if value is None else repr(str(value)[:40])
    if not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        raise ConfigError(f"{name} must be a whole number, but {given} was given")
    return int(value)
