"""What a figure was measured on."""

from __future__ import annotations

import importlib.metadata
import os
import platform

from sd_lora.storage.measured import processor


def described() -> str:
    """The processor, the cores that may be used, and the versions that matter, in one line."""
    packages = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "diffusers", "peft"))
    threads = os.environ.get("OMP_NUM_THREADS")
    return (
        f"{processor()} ({len(os.sched_getaffinity(0))} usable"
        + (f", {threads} thread each" if threads else "")
        + f"), Python {platform.python_version()}, {packages}"
    )
