"""A long run on the embedded base: are memory, open files and the speed of a step flat, and is the log bounded?

    python benchmarks/long_run.py OUT [--steps 10000]

Twelve pictures, one a step, the shipped preset otherwise, a checkpoint every 250 steps. Memory and descriptors are read
every 100 steps; the slopes are fitted over all but the first tenth.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from sd_lora import StepReport, load_config, train
from sd_lora.commands.console import quiet_libraries
from sd_lora.tinybase.folder import TRIGGER, demo_scenes, write_captioned_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args()
    quiet_libraries()
    torch.set_num_threads(1)
    images, run = options.out / "images", options.out / "run"
    if not images.exists():
        write_captioned_folder(images, "woodcut", demo_scenes())
    process, seen = psutil.Process(), list[tuple[int, float, int, float]]()

    def watch(report: StepReport) -> None:
        if report.step % 100 == 0:
            seen.append((report.step, process.memory_info().rss / 2**20, process.num_fds(), report.seconds))

    paths = (f"data.folder={json.dumps(str(images))}", f"output.folder={json.dumps(str(run))}")
    plain = ("training.batch_size=1", f"training.steps={options.steps}", "training.checkpoint_every=250")
    began = time.monotonic()
    train(load_config("tiny-style", *paths, f"data.trigger={TRIGGER}", "preview.every=0", *plain), watch=watch)
    seconds = time.monotonic() - began
    steps, memory, files, each = (np.array(column, dtype=float) for column in zip(*seen, strict=True))
    late = steps > options.steps / 10
    slope = np.polyfit(steps[late], memory[late], 1)[0] * 1000
    log = (run / "log.jsonl").stat().st_size
    print(f"{options.steps} steps in {seconds:.0f} s; a step {np.median(each[late]) * 1000:.0f} ms (median)")
    print(f"memory {memory[late].min():.0f} to {memory[late].max():.0f} MB, slope {slope:+.2f} MB per 1,000 steps")
    print(f"open files {int(files[late].min())} to {int(files[late].max())}")
    print(f"log {log / 1024:.0f} kB, {log / options.steps:.0f} bytes a step")
    print(f"checkpoints kept: {len(list((run / 'checkpoints').glob('step-*')))}")


if __name__ == "__main__":
    main()
