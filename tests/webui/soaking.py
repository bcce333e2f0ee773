"""Callers and visitors without a pause: drawing, stopping, leaving, sending nonsense.

    python tests/webui/soaking.py --minutes 30

Prints calls, tracebacks, jobs that hang, the slope of the server's memory, and what its private folder holds.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np
import psutil
from serving import Served, Visitor, post, served

#: the share of the time in which caches fill, of which memory is not judged
WARM_UP = 0.5
#: calls that fill the caches; on a slow machine a short soak continues until twice as many are made
_FILLING = 450
_CALLERS = 6
#: pages opened before anything is judged: more than the server remembers
_VISITORS = 80
#: what the soaked page is started with: pictures are kept as ever, but the memory for them is soon full
OPTIONS = ("--keep-mb", "2")
_PROMPTS = ("a red boat on the sea", "a small cup", "a house at night", "a cat")


@dataclass
class Soak:
    """The result: calls, errors that no caller should see, and (calls, bytes) over time."""

    calls: int = 0
    refused: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[tuple[int, int]] = field(default_factory=list)
    tracebacks: int = 0
    stuck: int = 0
    folder: int = 0

    @property
    def judged(self) -> int:
        """Calls after the warm-up."""
        return self.memory[-1][0] - self.memory[int(len(self.memory) * WARM_UP)][0]

    @property
    def growth(self) -> float:
        """Megabytes after the warm-up, from its first fifth to its last: what a step adds, wherever it is."""
        size = np.array([bytes for _, bytes in self.memory[int(len(self.memory) * WARM_UP) :]]) / 2**20
        fifth = len(size) // 5
        return float(np.median(size[-fifth:]) - np.median(size[:fifth]))

    @property
    def slope(self) -> float:
        """Megabytes per 1,000 calls after the warm-up."""
        calls, size = zip(*self.memory[int(len(self.memory) * WARM_UP) :], strict=True)
        return float(np.polyfit(calls, np.array(size) / 2**20, 1)[0] * 1000) if self.judged else 0.0


def soak(page: Served, seconds: float, temp: Path, *, seed: int = 0) -> Soak:
    """Keep `page`, whose private folder is in `temp`, busy for `seconds`, then check that it still answers."""
    with page.client() as client:
        for _ in range(_VISITORS):
            Visitor(client).press("preview-dice", 1, [])
    result, end, lock = Soak(), time.monotonic() + seconds, threading.Lock()

    def is_over() -> bool:
        now = time.monotonic()
        return now > end and (result.calls >= 2 * _FILLING or now > end + 2 * seconds)

    def call(number: int) -> None:
        draw = random.Random(seed * 1000 + number)
        with page.client() as client:
            ids = [entry["id"] for entry in post(client, "adapters", [])]
            while not is_over():
                try:
                    refused = once(client, draw, ids)
                    problem = ""
                except (httpx.HTTPError, AssertionError, KeyError) as error:
                    refused, problem = False, f"{type(error).__name__}: {error}"
                with lock:
                    result.calls += 1
                    result.refused += refused
                    if problem:
                        result.wrong.append(problem)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(_CALLERS)]
    for thread in threads:
        thread.start()
    process = psutil.Process(page.process.pid)
    while not is_over():
        result.memory.append((result.calls, process.memory_info().rss))
        time.sleep(min(1.0, seconds / 50))
    for thread in threads:
        thread.join(120)
    result.stuck = sum(thread.is_alive() for thread in threads)
    result.tracebacks = sum("Traceback" in line for line in page.printed)
    (folder,) = temp.glob("sd-lora-page-*")
    result.folder = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    with page.client() as client:
        assert post(client, "preview", [["a boat"], [], "0", 1, 1, 1.0, 0, 0, ""])["pictures"]
    return result


def once(client: httpx.Client, draw: random.Random, ids: Sequence[str]) -> bool:
    """One random action of a visitor or program; returns whether it was refused, as it should be."""
    what = draw.random()
    adapters = draw.sample(list(ids), min(len(ids), draw.randrange(3)))
    data = [
        [draw.choice(_PROMPTS)],
        adapters,
        draw.choice(["1", "0, 0.5", "0.3"]),
        draw.randrange(10_000),
        1,
        1.0,
        0,
        0,
        "",
    ]
    if what < 0.6:
        assert len(post(client, "preview", data)["pictures"]) >= 1
    elif what < 0.75:  # a visitor presses Generate and waits
        visitor = Visitor(client)
        fields = [adapters, data[0][0], "0, 1", data[3], 1, 1.0, 64, 64, "", 1, "", "smooth"]
        visitor.press("preview-generate", 4, [True, *fields])
    elif what < 0.85:  # a caller that leaves
        try:
            client.post("/gradio_api/run/preview", json={"data": data}, timeout=draw.random() * 0.2 + 0.01)
        except httpx.TimeoutException:
            return False
    elif what < 0.95:  # a mistake
        data[2] = draw.choice(["much", "0-9(+0.01)", ""])
        assert client.post("/gradio_api/run/preview", json={"data": data}).status_code >= 400
        return True
    else:
        client.get("/config").raise_for_status()
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temp, served(options.runs, *OPTIONS, env={"TMPDIR": temp}) as page:
        result = soak(page, options.minutes * 60, Path(temp))
    print(f"{result.calls} calls, {result.refused} rightly refused, {len(result.wrong)} wrong {result.wrong[:3]}")
    print(f"{result.tracebacks} tracebacks, {result.stuck} stuck, {result.slope:+.2f} MB per 1,000 calls")
    print(f"{result.folder / 2**20:.1f} MB in the private folder")


if __name__ == "__main__":
    main()
