"""From the values of the preview's fields to a job; the same for the page and for HTTP callers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sd_lora.data.dialects.prompts import Prompt
from sd_lora.errors import ConfigError
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewRow
from sd_lora.preview.prompts import parse_strengths, split_tags

from .site import Site


@dataclass(frozen=True)
class PreviewFields:
    """The preview's fields as a visitor filled them in: ids of adapters, one prompt per line, strengths as text."""

    adapters: Sequence[str]
    prompts: str
    strengths: str
    seed: float
    steps: float
    guidance: float
    #: in pixels; None or 0: the base model's own
    width: float | None
    height: float | None
    negative: str
    #: how many pictures of each prompt, each from the seed after the last one's
    seeds: float = 1
    #: a name of `SCHEDULERS`; empty: the base model's own
    scheduler: str = ""

    def job(self, site: Site) -> PreviewJob:
        """The job. ConfigError for unknown ids, unknown names in ``<lora:NAME:0.8>``, and for what is not a number."""
        most = site.service.limits.cells
        lines = [line for line in (self.prompts or "").splitlines() if line.strip()]
        if len(lines) > most or len(self.adapters or ()) > most:
            raise ConfigError(f"at most {most} prompts and {most} adapters can be used at once")
        chosen = tuple(MixedAdapter(site.adapter(str(identity))) for identity in self.adapters or ())
        seeds = whole_number("the number of seeds", self.seeds)
        if not 1 <= seeds * max(1, len(lines)) <= most:
            raise ConfigError(f"{seeds} seeds of {len(lines)} prompts were asked for; at most {most} rows are drawn")
        seed = whole_number("seed", self.seed)
        rows = [one for line in lines for one in _of_seeds(_row(line, chosen, site), seed, seeds)]
        numbers = {name: whole_number(name, getattr(self, name)) for name in ("seed", "steps")}
        numbers |= {name: whole_number(name, getattr(self, name) or 0) for name in ("width", "height")}
        if not isinstance(self.guidance, int | float):
            raise ConfigError("guidance must be a number")
        return PreviewJob(
            tuple(rows),
            parse_strengths(self.strengths or ""),
            negative=(self.negative or "").strip(),
            guidance=float(self.guidance),
            scheduler=str(self.scheduler or ""),
            **numbers,
        )


def _row(line: str, chosen: tuple[MixedAdapter, ...], site: Site) -> PreviewRow:
    prompt, tags = split_tags(line)
    named = {name: site.named(name) for name, _ in tags}
    unknown = sorted(name for name, paths in named.items() if not paths)
    if unknown:
        known = ", ".join(sorted(map(site.name_of, site.adapters().values()))[:5]) or "none"
        raise ConfigError(f"no adapter is called {', '.join(unknown)}; known: {known}")
    for name, paths in named.items():
        if len(paths) > 1:
            names = " or ".join(dict.fromkeys(map(site.name_of, paths[:5])))
            raise ConfigError(f"{len(paths)} adapters are called {name}; write {names}, or choose one from the list")
    return PreviewRow.of(prompt, (*chosen, *(MixedAdapter(named[name][0], strength) for name, strength in tags)))


def _of_seeds(row: PreviewRow, seed: int, seeds: int) -> list[PreviewRow]:
    """`row` once for each seed, from its own on, or else from `seed`."""
    if seeds == 1:
        return [row]
    own = row.own or Prompt(row.prompt)
    first = seed if own.seed is None else own.seed
    numbers = [(first + n) % 2**32 for n in range(seeds)]
    return [replace(row, own=replace(own, seed=n), label=f"{row.prompt} · seed {n}") for n in numbers]


def whole_number(name: str, value: object) -> int:
    """`value` as a whole number. ConfigError."""
    given = "nothing" if value is None else repr(str(value)[:40])
    if not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        raise ConfigError(f"{name} must be a whole number, but {given} was given")
    return int(value)


def untagged(prompt: str | None) -> str:
    """`prompt`, where adapters are chosen from a list. ConfigError if it names one itself."""
    plain, tags = split_tags(prompt or "")
    if tags:
        raise ConfigError(f"the prompt itself names {tags[0][0]}; choose LoRAs from the list instead")
    return plain
