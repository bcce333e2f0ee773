"""What a notebook shows of an adapter, a grid, a check and a training."""

from __future__ import annotations

import html
import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

import sd_lora
from sd_lora.adapters.adapter import Adapter
from sd_lora.check.result import Check, ImageRow
from sd_lora.data.findings import Finding
from sd_lora.preview.sheet import PreviewGrid
from sd_lora.runs.reports import StepReport
from sd_lora.training.bar import Bar


def test_an_adapter_says_what_it_is(random_sd: Any, trained_adapter: Callable[..., Any], tmp_path: Path) -> None:
    adapter = trained_adapter(random_sd, "attn", rank=4)
    count = len(adapter.weights)
    assert repr(adapter) == f"Adapter(somewhere, rank 4, {count} modules)"
    adapter.metadata |= {"sdlora.trigger": "ink'wash", "sdlora.base": "tiny"}
    assert repr(adapter) == f'Adapter(tiny, rank 4, trigger "ink\'wash", {count} modules)'
    loaded = Adapter.load(adapter.save(tmp_path / "a.safetensors"))
    assert repr(loaded) == repr(adapter)
    name, weights = next(iter(adapter.weights.items()))
    assert repr(Adapter({name: weights}, {})) == "Adapter(base model unknown, rank 4, 1 module)"
    assert repr(Adapter({}, {})) == "Adapter(base model unknown, 0 modules)"


def test_a_grid_shows_itself_as_its_sheet(tmp_path: Path) -> None:
    picture = Image.new("RGB", (64, 64), "red")
    grid = PreviewGrid(("a cat", "a dog"), (0.0, 0.5), ((picture, picture), (picture, picture)), {"seed": 3})
    shown = Image.open(io.BytesIO(grid._repr_png_()))
    assert shown.size == grid.sheet().size
    assert grid._repr_png_() == grid.save(tmp_path / "sheet.png").read_bytes()
    assert repr(grid) == "PreviewGrid(2 prompts × strengths 0, 0.5)"


def test_a_check_shows_itself_as_its_report_in_a_frame() -> None:
    rows = [ImageRow("a.png", ("a </iframe><script>cat",), 30, 20)]
    findings = [Finding("column-unread", "a column", "a.png"), Finding("image-unreadable", "not a picture", "b.png")]
    check = Check("photos", "sidecars", "1 image", rows, findings, None)
    frame = check._repr_html_()
    assert re.fullmatch(r'<iframe sandbox="allow-popups" [^<>]*></iframe>', frame)
    page = html.unescape(re.search(r'srcdoc="([^"]*)"', frame)[1])  # type: ignore[index]
    assert page.startswith("<!doctype html>")
    assert "a.png" in page
    assert "<script" not in page
    kinds = sorted(finding.severity for finding in findings)
    assert repr(check).startswith("Check(photos: 1 image, ")
    assert all(kind in repr(check) for kind in kinds)


def steps(bar: Bar, first: int, last: int) -> None:
    for step in range(first, last + 1):
        bar.show(StepReport(step, 40, 1.0 / step, 1e-3, 0.1))


def test_the_bar_counts_what_is_encoded_and_then_the_steps_with_their_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(written, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setenv("COLUMNS", "120")
    with Bar() as bar:
        for done in (1, 3, 4):
            bar.encoding(done, 4)
        steps(bar, 1, 40)
    lines = written.getvalue().split("\r")
    assert any(line.startswith("encoding: 100%") and "4/4" in line for line in lines)
    assert "40/40" in lines[-1]
    assert f"loss {(1 / 39 + 1 / 40) / 2:.4f}" in lines[-1]  # a twentieth of 40 steps
    assert lines[-1].startswith("training: 100%")


def test_the_bar_of_a_resumed_run_begins_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    monkeypatch.setitem(sys.modules, "ipykernel", SimpleNamespace())  # a notebook's errors go to no terminal
    with Bar() as bar:
        steps(bar, 31, 32)
    assert "32/40" in written.getvalue()
    assert " 1/40" not in written.getvalue()


def test_where_nobody_watches_there_is_no_bar(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with Bar() as bar:
        bar.encoding(1, 4)
        steps(bar, 1, 3)
    assert capsys.readouterr() == ("", "")


def test_a_program_that_watches_gets_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    from sd_lora.training import run as training

    given: list[dict[str, Any]] = []
    monkeypatch.setattr(training, "prepare", lambda *_, **__: SimpleNamespace(notes=[]))
    monkeypatch.setattr(training, "run_training", lambda _, **options: given.append(options))
    seen: list[StepReport] = []
    config = sd_lora.load_config("tiny-style")
    sd_lora.train(config, watch=seen.append)
    sd_lora.train(config)
    assert given[0]["watch"] == seen.append
    assert isinstance(given[1]["watch"].__self__, Bar)


def test_opening_a_base_model_prints_nothing() -> None:
    code = "import sd_lora; sd_lora.load_base('tiny')[0].to('cpu')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
