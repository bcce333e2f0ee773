"""What benchmarks of speed share: the machine in words, CPU time of commands and phases, and tables."""

from __future__ import annotations

import functools
import importlib
import json
import os
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from sd_lora.storage.measured import processor


def machine(*packages: str) -> dict[str, Any]:
    """The processor, the cores and memory that this process may use, how busy they are, and versions of `packages`."""
    memory = psutil.virtual_memory()
    return {
        "processor": processor(),
        "usable_cores": len(psutil.Process().cpu_affinity())
        if hasattr(psutil.Process, "cpu_affinity")
        else os.cpu_count(),
        "memory_gb": round(memory.total / 2**30, 1),
        "available_gb": round(memory.available / 2**30, 1),
        "load_at_start": round(os.getloadavg()[0], 2),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS", ""),
        **{name: version(name) for name in packages},
    }


def described(*packages: str) -> str:
    """`machine` in one line."""
    return "; ".join(f"{name} {value}" for name, value in machine(*packages).items())


def cpu_seconds(command: Sequence[str]) -> float:
    """CPU seconds, user and system, that `command` and its children take."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with code {process.returncode}")
    return usage.ru_utime + usage.ru_stime


def show(facts: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], to: Path | None) -> None:
    """Print `rows` as a table below the machine's `facts`; write both to the JSON file `to`, if there is one."""
    print("; ".join(f"{name} {value}" for name, value in facts.items()), end="\n\n")
    print("|", " | ".join(rows[0]), "|\n|", " | ".join("---" for _ in rows[0]), "|")
    for row in rows:
        print("|", " | ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in row.values()), "|")
    if to is not None:
        to.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n", "utf-8")


class Clock:
    """Shares out the CPU seconds of this process among `phases`: of each its seconds, and the peak memory in GiB when
    it last ended."""

    def __init__(self) -> None:
        self.phases: dict[str, tuple[float, float]] = {}
        self._counted, self._inside = 0.0, ["the rest"]

    def ends(self, phase: str) -> None:
        """What was not counted yet belongs to `phase`, which ends."""
        now = time.process_time()
        seconds, _ = self.phases.get(phase, (0.0, 0.0))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        self.phases[phase], self._counted = (seconds + now - self._counted, peak), now

    def watch(self, name: str, phase: str) -> None:
        """Have the calls of ``module:function`` counted as `phase`."""
        module, _, path = name.partition(":")
        *owners, last = path.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        call, clock = getattr(owner, last), self

        @functools.wraps(call)
        def watched(*arguments: Any, **named: Any) -> Any:
            clock.ends(clock._inside[-1])
            clock._inside.append(phase)
            try:
                return call(*arguments, **named)
            finally:
                clock.ends(clock._inside.pop())

        setattr(owner, last, watched)
