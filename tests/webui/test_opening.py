"""The page answers before its base model is loaded: jobs wait for it, and a base that cannot be opened ends it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from sd_lora.webui.access import check_port
from sd_lora.webui.app import open_site
from sd_lora.webui.opening import BaseLoading, OpeningService
from sd_lora.webui.preview_fields import PreviewFields
from sd_lora.webui.preview_progress import Drawings
from sd_lora.webui.site import Site

from sd_lora import BaseModelError, ConfigError
from sd_lora.preview.events import PreviewCell, PreviewStopped
from sd_lora.preview.job import PreviewJob, PreviewLimits, PreviewRow
from sd_lora.preview.service import PreviewService

JOB = PreviewJob((PreviewRow("a red house"),), (0.0,), steps=1)


@pytest.fixture
def ready() -> threading.Event:
    return threading.Event()


@pytest.fixture
def opening(service: PreviewService, ready: threading.Event) -> Iterator[OpeningService]:
    """A service that opens once `ready` is set."""

    def open_it() -> PreviewService:
        ready.wait(60)
        return service

    made = OpeningService("tiny", PreviewLimits(), open_it)
    made.start()
    yield made
    ready.set()


def test_a_job_waits_for_the_base_model_and_is_then_drawn(opening: OpeningService, ready: threading.Event) -> None:
    events = opening.draw(JOB)
    assert next(events) == next(events) == BaseLoading("tiny")
    assert not opening.is_open
    ready.set()
    assert any(isinstance(event, PreviewCell) for event in events)
    assert opening.is_open
    assert not any(isinstance(event, BaseLoading) for event in opening.draw(JOB))


def test_a_job_that_waits_can_be_stopped(opening: OpeningService) -> None:
    stopped = threading.Event()
    events = opening.draw(JOB, stopped)
    next(events)
    stopped.set()
    with pytest.raises(PreviewStopped):
        list(events)


def test_the_page_says_what_a_job_waits_for(opening: OpeningService, ready: threading.Event, tmp_path: Path) -> None:
    site = Site(cast("PreviewService", opening), tmp_path, tmp_path, tmp_path)
    request: Any = SimpleNamespace(session_hash="v")
    lines = (progress.line for progress in Drawings().follow(site, JOB, request))
    assert next(lines) == "loading the base model tiny …"
    ready.set()
    assert list(lines)[-1].startswith("1 picture in")


def test_facts_that_need_the_base_model_wait_for_it(
    opening: OpeningService, ready: threading.Event, service: PreviewService
) -> None:
    threading.Timer(0.2, ready.set).start()
    assert opening.size == service.size
    with pytest.raises(AttributeError):
        _ = opening._no_such_thing


def test_an_error_of_opening_reaches_everyone_who_waits() -> None:
    def fail() -> PreviewService:
        raise BaseModelError("no weights")

    failing = OpeningService("broken", PreviewLimits(), fail)
    failing.start()
    for use in (failing.wait, lambda: failing.size, lambda: list(failing.draw(JOB))):
        with pytest.raises(BaseModelError, match="no weights"):
            use()


def test_a_base_that_does_not_exist_is_refused_before_the_page_is_served(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="does not exist"):
        open_site("nowhere", tmp_path)
    site = open_site("tiny", tmp_path)
    assert site.service.base == "tiny"
    assert site.service.limits.kept == 256 * 2**20


def test_an_empty_size_is_the_base_models_own(opening: OpeningService, tmp_path: Path) -> None:
    site = Site(cast("PreviewService", opening), tmp_path, tmp_path, tmp_path)
    job = PreviewFields([], "a cup", "0", 0, 1, 5.0, None, 32, "").job(site)
    assert (job.width, job.height) == (0, 32)
    assert not opening.is_open


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


def test_a_port_that_is_taken_is_one_sentence_and_exit_code_2(taken: int) -> None:
    with pytest.raises(ConfigError, match=f"port {taken} is taken by another program.*--port"):
        check_port("127.0.0.1", taken)
    command = [sys.executable, "-P", "-m", "sd_lora", "webui", "--port", str(taken)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: port {taken} is taken")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_free_ports_and_odd_hosts() -> None:
    check_port("127.0.0.1", 0)
    check_port("::1", 0)
    with pytest.raises(ConfigError, match=r"cannot listen on no\.such\.host\.invalid, port 7860 \(.*--host"):
        check_port("no.such.host.invalid", 7860)


@pytest.mark.slow
def test_a_base_that_cannot_be_loaded_ends_the_page(random_sd_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    for file in random_sd_folder.rglob("*.json"):
        (broken / file.relative_to(random_sd_folder)).parent.mkdir(parents=True, exist_ok=True)
        (broken / file.relative_to(random_sd_folder)).write_bytes(file.read_bytes())
    command = [sys.executable, "-P", "-m", "sd_lora", "webui", "--base", str(broken), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    first, second, *_ = done.stdout.splitlines()
    assert first == f"starting the page and loading the base model {broken} …"
    assert second.startswith("sd_lora is at http://127.0.0.1:")
    assert "Traceback" not in done.stderr
    assert f"error: base model {broken} cannot be loaded" in done.stderr
