"""Two processes (gloo, on the CPU) train what one does, and their runs are killed and resumed like any other."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file
from small_runs import body_of, config_of, go, valid_steps, write_images

from sd_lora.config.schema import RunConfig
from sd_lora.runs.folder import RunFolder
from sd_lora.training.checkpoints import Checkpoints

pytestmark = pytest.mark.slow

STEPS = 30
PLAIN = ("training.batch_size=4", f"training.steps={STEPS}", "training.checkpoint_every=5", "lora.targets=attn,text")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("processes") / "images", 5)


def start(config: RunConfig, work: Path, *, resumed: bool = False) -> subprocess.Popen[bytes]:
    """Two processes that train as `config` says, or go on with the run in its folder."""
    script, file = work / "script.py", work / "config.toml"
    file.write_text(config.to_toml(), "utf-8")
    action = f"resume({config.output.folder!r})" if resumed else f"train(sd_lora.load_config({str(file)!r}))"
    script.write_text(f"import sd_lora\nsd_lora.{action}\n", "utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=(work / "errors").open("wb"), start_new_session=True
    )


def ended(process: subprocess.Popen[bytes], work: Path) -> None:
    assert process.wait(timeout=300) == 0, (work / "errors").read_text()[-3000:]


def test_two_processes_train_what_one_does_and_resume_after_a_kill(
    random_sd_folder: Path, images: Path, tmp_path: Path
) -> None:
    """To 1e-5 of the largest weight: only the order in which gradients are summed differs. After a kill two processes
    end with the bytes of two that were not killed."""
    go(config_of(random_sd_folder, images, tmp_path / "one", *PLAIN))
    ended(start(config_of(random_sd_folder, images, tmp_path / "two", *PLAIN), tmp_path), tmp_path)

    run = tmp_path / "killed"
    process = start(config_of(random_sd_folder, images, run, *PLAIN), tmp_path)
    until = time.monotonic() + 200
    while not valid_steps(Checkpoints(run / "checkpoints", 2)) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    kill_all(process)
    assert not RunFolder(run).is_finished
    assert len((run / "log.jsonl").read_bytes().splitlines()) < STEPS
    ended(start(RunFolder(run).read_config(), tmp_path, resumed=True), tmp_path)

    assert body_of(run / "adapter.safetensors") == body_of(tmp_path / "two" / "adapter.safetensors")
    one, two = (load_file(newest(tmp_path / name)) for name in ("one", "two"))
    assert set(one) == set(two)
    largest = max(float(tensor.abs().max()) for tensor in one.values())
    assert max(float((two[key] - one[key]).abs().max()) for key in one) <= 1e-5 * largest


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """Kill `process` and those it has started, each of which leads a session of its own."""
    started = psutil.Process(process.pid).children(recursive=True)
    for one in (process, *started):
        one.kill()
    process.wait()
    until = time.monotonic() + 60
    while any(map(is_alive, started)):
        assert time.monotonic() < until
        time.sleep(0.02)


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def newest(run: Path) -> Path:
    """The last checkpoint's weights, which are float32."""
    return max((run / "checkpoints").glob("step-*")) / "adapter.safetensors"
