"""How long `sd-lora webui` takes on one core: until it answers, until the page is usable, until its first picture.

    python benchmarks/page_start.py [--starts 5]

Each start is a process of its own, bound to one core; the browser, which needs Chromium, may use the others. What the
page spends of the processor until it answers does not depend on what else the machine does; the rest is wall time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "webui"))

from browsing import Tab, browser, first_visit
from serving import Served, served

ONE_CORE = {"OMP_NUM_THREADS": "1"}
FIGURES = ("cpu until it answers", "until it answers", "until the page is usable", "until the base is loaded",
           "from a click to a picture")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5)
    options, rows = parser.parse_args(), list[tuple[float, ...]]()
    with browser() as chromium:
        for _ in range(options.starts):
            rows.append(measure(chromium))
            print("  ".join(f"{seconds:.2f}" for seconds in rows[-1]), file=sys.stderr, flush=True)
    for name, column in zip(FIGURES, zip(*rows, strict=True), strict=True):
        print(f"{name:<26} {statistics.median(column):5.2f} s (median), {max(column):5.2f} s at most")


def measure(chromium: Any) -> tuple[float, ...]:
    """The figures of one start."""
    mine, began = os.sched_getaffinity(0), time.monotonic()
    os.sched_setaffinity(0, {min(mine)})  # the server inherits it
    with tempfile.TemporaryDirectory() as runs, served(Path(runs), env=ONE_CORE) as page:
        os.sched_setaffinity(0, mine)
        spent = psutil.Process(page.process.pid).cpu_times()
        answered = time.monotonic() - began
        usable, _ = first_visit(chromium, page.address)
        while not any("is loaded" in line for line in page.printed):
            time.sleep(0.05)
        loaded = time.monotonic() - began
        return spent.user + spent.system, answered, usable, loaded, _first_picture(chromium, page)


def _first_picture(chromium: Any, page: Served) -> float:
    tab = Tab(chromium, page.address)
    began = time.monotonic()
    tab.page.click("#preview-generate")
    tab.page.wait_for_selector("#preview-gallery .grid-container img")
    seconds = time.monotonic() - began
    tab.close()
    return seconds


if __name__ == "__main__":
    main()
