"""What runs of sd_lora on a machine shares its cores, and a resumed run computes with the threads it began with."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sd_lora.runs import threads
from sd_lora.runs.threads import claimed, claims, free_threads, kept_for_a_page, reason

CLAIMING = """
from sd_lora.runs.threads import claimed
with claimed({count}, "the run ink"):
    print("claimed", flush=True)
    input()
"""


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 8)
    monkeypatch.setattr("psutil.getloadavg", lambda: (0.5, 0.5, 0.5))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@pytest.fixture
def other(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    """Another process, which claims as many threads as the test's parameter."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLAIMING.format(count=request.param)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ),
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "claimed\n"
    yield process
    process.kill()
    process.wait()


def test_alone_all_cores_are_free_and_an_own_claim_takes_none() -> None:
    with claimed(8, "the run ink"):
        assert (free_threads(), claims()) == (8, [])
        assert len(list(threads._folder().iterdir())) == 1
    assert list(threads._folder().iterdir()) == []


@pytest.mark.parametrize(("other", "free"), [(3, 5), (8, 1), (20, 1)], indirect=["other"])
def test_what_another_process_claims_is_not_free(other: subprocess.Popen[str], free: int) -> None:
    assert free_threads() == free
    assert [(claim.what, claim.process.pid) for claim in claims()] == [("the run ink", other.pid)]


@pytest.mark.parametrize("other", [3], indirect=True)
@pytest.mark.parametrize("kill", [True, False])
def test_what_has_ended_claims_nothing(other: subprocess.Popen[str], kill: bool) -> None:
    if kill:
        other.kill()
        other.wait()
    else:
        other.communicate("\n")
    assert free_threads() == 8
    assert list(threads._folder().iterdir()) == []


@pytest.mark.parametrize("other", [3], indirect=True)
def test_the_threads_of_a_run_are_explained(other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert reason(5) == "5 threads of 8 cores, as the run ink has 3"
    assert reason(1, "as set") == "1 thread of 8 cores, as set"
    assert reason(6, "as set").endswith("as set; the machine is overcommitted (load 0.5), so steps take longer")
    monkeypatch.setattr("psutil.getloadavg", lambda: (9.25, 0.0, 0.0))
    assert reason(5).endswith("; the machine is overcommitted (load 9.2), so steps take longer")


@pytest.mark.parametrize(("count", "kept"), [(1, 1), (2, 1), (7, 1), (8, 2), (64, 16)])
def test_a_page_keeps_a_quarter_of_the_cores(count: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: count)
    assert kept_for_a_page() == kept


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"process": 1}', '{"process": {"pid": "x"}, "what": 1, "threads": 9}']
)
def test_files_that_are_no_claims_take_nothing(text: str) -> None:
    threads._folder().mkdir(parents=True)
    (threads._folder() / "odd.json").write_text(text)
    assert free_threads() == 8


def test_nothing_fails_where_nothing_can_be_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    with claimed(3, "the page"):
        assert free_threads() == 8


def test_the_command_line_lets_threads_wait_without_spinning() -> None:
    code = "import os, sys, sd_lora.commands.app as app; sys.argv = ['sd-lora', '--version']\n"
    code += "try: app.main()\nexcept SystemExit: print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    for given, policy in (({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")):
        environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"} | given
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == f"{policy} False"
