"""Kill runs with SIGKILL at random times, resume them to the end, and compare: not a bit may differ.

python tests/attacks/killed_runs.py --kills 200 --seed 0
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from small_bases import write_base
from small_runs import body_of, config_of, go, write_images

from sd_lora.runs.folder import RunFolder
from sd_lora.training.checkpoints import Checkpoints

STEPS = 24
OVERRIDES = (
    f"training.steps={STEPS}", "training.checkpoint_every=2", "training.average=ema", "lora.dropout=0.1",
    "training.save_every=10", "preview.every=12",
)  # fmt: skip


@dataclass
class Outcome:
    """How many runs came to their end after how many kills, and what was wrong."""

    runs: int = 0
    kills: int = 0
    faults: list[str] = field(default_factory=list)
    #: how many kills found how many steps behind the newest checkpoint
    progress: list[int] = field(default_factory=list)


def in_child(work: Callable[[], object]) -> int:
    """The id of a child process that does `work` and ends with 0, or tells its error and ends with 1."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    os._exit(code)


def newest_step(run: Path) -> int:
    """The step of the newest checkpoint that can be read, 0 without one."""
    state = Checkpoints(run / "checkpoints", 2).newest()
    return 0 if state is None else state.step


def kill_runs(base: Path, work: Path, kills: int, seed: int) -> Outcome:
    """Start runs and kill them until there were `kills`; every run is then resumed to its end."""
    dice, outcome = random.Random(seed), Outcome()
    images = write_images(work / "images")
    began = time.monotonic()
    assert _end_of(in_child(lambda: go(config_of(base, images, work / "whole", *OVERRIDES)))) == 0
    longest = time.monotonic() - began
    while outcome.kills < kills and not outcome.faults:
        run = work / f"run-{outcome.runs}"
        behind = 0
        while True:
            folder = RunFolder(run)
            again = folder.config.is_file()
            if not again:
                shutil.rmtree(run, ignore_errors=True)  # killed before there was a run
            config = folder.read_config() if again else config_of(base, images, run, *OVERRIDES)
            child = in_child(lambda again=again, config=config: go(config, resumed=again))
            wait = dice.uniform(0, longest) if outcome.kills < kills else 600.0
            ended = _wait(child, wait)
            if ended is None:
                os.kill(child, signal.SIGKILL)
                _end_of(child)
                outcome.kills += 1
                step = newest_step(run)
                if step < behind:
                    outcome.faults.append(f"{run}: step {behind} was saved, after a kill the newest is {step}")
                behind = max(behind, step)
                outcome.progress.append(behind)
            elif ended != 0:
                outcome.faults.append(f"{run}: ended with {ended}")
                break
            else:
                break
        outcome.faults += [
            f"{run / name} differs" for name in ("adapter.safetensors", "adapter-ema.safetensors")
            if not outcome.faults and body_of(run / name) != body_of(work / "whole" / name)
        ]  # fmt: skip
        outcome.runs += 1
        if not outcome.faults:
            shutil.rmtree(run)
    return outcome


def _wait(child: int, seconds: float) -> int | None:
    """The exit code of `child` if it ends within `seconds`."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def _end_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        base = write_base("sd1", Path(work) / "base")
        began = time.monotonic()
        outcome = kill_runs(base, Path(work), arguments.kills, arguments.seed)
    for fault in outcome.faults:
        print(fault)
    print(
        f"{outcome.kills} kills in {outcome.runs} runs of {STEPS} steps: {len(outcome.faults)} faults; "
        f"{len(set(outcome.progress))} different newest checkpoints; {time.monotonic() - began:.0f} s"
    )
    sys.exit(bool(outcome.faults))


if __name__ == "__main__":
    main()
