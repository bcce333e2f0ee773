"""How fast a page draws while a run that it started trains, and the run beside it, as shares of their speeds alone.

    python benchmarks/page_beside_training.py [--seconds 20] [--rounds 3] [--unshared] [--json FILE]

On the embedded base model. Each round measures the page alone, the run alone and both together, so that the machine's
load falls on each alike; figures are medians. ``--unshared``: without the rule, that is with as many threads as cores
for each, which spin while they wait, as GNU's OpenMP does by default.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from measuring import machine, show

from sd_lora.config.presets import load_config
from sd_lora.preview.events import PreviewCell
from sd_lora.preview.job import PreviewJob, PreviewRow
from sd_lora.runs.control import start_run, stop_run
from sd_lora.runs.process import is_alive
from sd_lora.runs.threads import claimed, cores, free_threads, kept_for_a_page
from sd_lora.tinybase.folder import demo_scenes, write_captioned_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--unshared", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    # Before torch is loaded: as the command line does, or how long threads spin where nobody says.
    os.environ |= {"GOMP_SPINCOUNT": "300000"} if options.unshared else {"OMP_WAIT_POLICY": "PASSIVE"}
    facts = machine("torch") | {"shared": not options.unshared, "seconds": options.seconds, "rounds": options.rounds}
    page, results = Page(shared=not options.unshared), list[dict[str, float]]()
    threads = str(cores()) if options.unshared else "auto"
    with tempfile.TemporaryDirectory() as work:
        images = Path(work) / "images"
        write_captioned_folder(images, "woodcut", demo_scenes())
        for number in range(options.rounds):
            found = {"page alone": page.speed(options.seconds)}
            with Training(images, Path(work) / f"alone{number}", threads) as training:
                found["run alone"] = training.speed(options.seconds)
            with ExitStack() as stack:
                if not options.unshared:
                    stack.enter_context(claimed(kept_for_a_page(), "the page"))
                training = stack.enter_context(Training(images, Path(work) / f"beside{number}", threads))
                found["page beside the run"], found["run beside the page"] = training.speed_beside(
                    page, options.seconds
                )
            print(found, file=sys.stderr, flush=True)
            results.append(found)
    rows = []
    for who, unit in (("page", "pictures"), ("run", "steps")):
        alone, beside = f"{who} alone", f"{who} beside the {'run' if who == 'page' else 'page'}"
        rows.append({
            "who": who, "unit": f"{unit} per second",
            **{name: statistics.median(each[key] for each in results) for name, key in
               (("alone", alone), ("beside", beside))},
            "share": statistics.median(each[beside] / each[alone] for each in results),
        })  # fmt: skip
    show(facts, rows, options.json)


class Page:
    """What a page draws with."""

    def __init__(self, *, shared: bool) -> None:
        from sd_lora.preview.service import PreviewService  # loads torch, which then reads its environment

        self.service, self.seed = PreviewService.open("tiny", threads=free_threads if shared else None), 0

    def speed(self, seconds: float) -> float:
        """Pictures per second over about that many seconds."""
        started, count = time.monotonic(), 0
        while time.monotonic() - started < seconds:
            self.seed += 1
            job = PreviewJob((PreviewRow("a red house"),), (0.0,), seed=self.seed)
            count += sum(isinstance(event, PreviewCell) for event in self.service.draw(job))
        return count / (time.monotonic() - started)


class Training:
    """A run as the page starts it, for the length of a ``with`` block."""

    def __init__(self, images: Path, folder: Path, threads: str) -> None:
        self.images, self.folder, self.threads = images, folder, threads

    def __enter__(self) -> Training:
        config = load_config(
            "tiny-style", f"data.folder={self.images}", "training.steps=100000", "training.checkpoint_every=0",
            "preview.every=0", "model.device=cpu", f"training.threads={self.threads}",
        )  # fmt: skip
        start_run(config, self.folder)
        while self.steps < 5:
            if not is_alive(self.folder):
                raise SystemExit((self.folder.parent / ".logs" / f"{self.folder.name}.log").read_text("utf-8"))
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        stop_run(self.folder)
        while is_alive(self.folder):
            time.sleep(0.2)

    @property
    def steps(self) -> int:
        log = self.folder / "log.jsonl"
        return log.read_bytes().count(b'"step"') if log.exists() else 0

    def speed(self, seconds: float) -> float:
        """Steps per second."""
        return self._during(lambda: time.sleep(seconds))[1]

    def speed_beside(self, page: Page, seconds: float) -> tuple[float, float]:
        """Pictures per second of `page`, and steps per second meanwhile."""
        return self._during(lambda: page.speed(seconds))

    def _during(self, work: Callable[[], Any]) -> tuple[Any, float]:
        before, started = self.steps, time.monotonic()
        result = work()
        return result, (self.steps - before) / (time.monotonic() - started)


if __name__ == "__main__":
    main()
