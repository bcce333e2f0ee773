"""How long a first visit to the page takes, and how much comes over the wire; needs Chromium.

    python benchmarks/page_load.py [--visits 10]

Each visit is a browser without a cache. The time is from the request until the Generate button is there and the page
answers at once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "webui"))

from browsing import browser, first_visit
from serving import served


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--visits", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs, served(Path(runs)) as page, browser() as chromium:
        seconds, sizes = zip(*(first_visit(chromium, page.address) for _ in range(options.visits)), strict=True)
    print(f"{options.visits} visits: {statistics.median(seconds):.2f} s (median), {max(seconds):.2f} s at most")
    print(f"{max(sizes) / 1e6:.2f} MB at most")


if __name__ == "__main__":
    main()
