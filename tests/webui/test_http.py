"""Programs and visitors at once: each gets the pictures that it asked for, by the queue and by direct calls."""

from __future__ import annotations

import base64
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import PATIENCE, Served, Visitor, pixels, post, served, until

from sd_lora import load_base
from sd_lora.preview.events import PreviewCell
from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewRow
from sd_lora.preview.prompts import parse_strengths
from sd_lora.preview.service import PreviewService

pytestmark = pytest.mark.slow
CALLS = int(os.environ.get("SD_LORA_CALLS", "150"))
PROMPTS = ("a red boat on the sea", "a small cup", "a house at night")
Ask = tuple[tuple[str, ...], tuple[str, ...], str, int, int]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, random_sd_folder: Path) -> Path:
    """Three runs whose adapters act on the random base."""
    import torch

    from sd_lora import Adapter
    from sd_lora.lora.targets import plan_targets

    home, (pipe, family) = tmp_path_factory.mktemp("runs"), load_base(random_sd_folder)
    for number in range(3):
        targets = plan_targets({"unet": pipe.unet}, family.target_groups, ["attn"], (2, 2.0))
        adapter = Adapter.create(targets, {"sdlora.family": "sd"}, seed=number)
        draw = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * 0.2)
        (home / f"style {number}").mkdir()
        adapter.save(home / f"style {number}" / "adapter.safetensors")
    return home


@pytest.fixture(scope="module")
def page(runs: Path, random_sd_folder: Path) -> Iterator[Served]:
    with served(runs, base=str(random_sd_folder)) as running:
        yield running


def reference(base: Path, runs: Path, asks: list[Ask]) -> dict[Ask, list[bytes]]:
    """The pixels of the requested pictures, drawn one after the other."""
    service, drawn = PreviewService.open(str(base)), {}
    for ask in dict.fromkeys(asks):
        prompts, names, strengths, seed, steps = ask
        mix = tuple(MixedAdapter(runs / name / "adapter.safetensors") for name in names)
        rows = tuple(PreviewRow(prompt, mix) for prompt in prompts)
        job = PreviewJob(rows, parse_strengths(strengths), seed=seed, steps=steps)
        cells = [event for event in service.draw(job) if isinstance(event, PreviewCell)]
        drawn[ask] = [c.image.tobytes() for c in sorted(cells, key=lambda c: (c.row, c.column))]
    service.close()
    return drawn


def some_asks(count: int) -> list[Ask]:
    draw = random.Random(3)
    names = [f"style {n}" for n in range(3)]
    return [
        (tuple(draw.sample(PROMPTS, draw.randrange(1, 3))), tuple(draw.sample(names, draw.randrange(3))),
         draw.choice(["1", "0.5, 1", "0-1(+0.5)", "1.3", "-0.5"]), draw.randrange(4), draw.choice([1, 2]))
        for _ in range(count)
    ]  # fmt: skip


def test_sixteen_callers_get_what_one_gets_alone(page: Served, runs: Path, random_sd_folder: Path) -> None:
    asks = some_asks(CALLS)
    expected = reference(random_sd_folder, runs, asks)
    with page.client() as client:
        ids = {entry["name"]: entry["id"] for entry in post(client, "adapters", [])}

    def call(numbered: tuple[int, Ask]) -> int:
        number, (prompts, names, strengths, seed, steps) = numbered
        chosen, wanted = [ids[name] for name in names], expected[numbered[1]]
        with page.client() as client:
            if number % 8 < 2:  # like browsers, each visitor pressing once at a time
                visitor = Visitor(client)
                fields = [chosen, "\n".join(prompts), strengths, seed, steps, 5.0, 16, 16, "", 1, "", ""]
                shown = visitor.press("preview-generate", 4, [True, *fields])
                gallery = shown[1]["value"] if isinstance(shown[1], dict) else shown[1]
                drawn = [visitor.picture(cell) for cell in gallery]
                wanted = wanted if names else wanted[:: len(wanted) // len(prompts)]  # the base model, once per prompt
            else:
                data = [list(prompts), chosen, strengths, seed, steps, 5.0, 0, 0, ""]
                drawn = [pixels(base64.b64decode(p["png"])) for p in post(client, "preview", data)["pictures"]]
        return drawn != wanted

    with ThreadPoolExecutor(16) as pool:
        wrong = sum(pool.map(call, enumerate(asks)))
    assert wrong == 0
    assert not any("Traceback" in line for line in page.printed)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([["a"], ["../../etc/passwd"], "1", 0, 2, 5.0, 0, 0, ""], "no longer exists"),
        ([[], [], "1", 0, 2, 5.0, 0, 0, ""], "at least one prompt"),
        ([["a"], [], "much", 0, 2, 5.0, 0, 0, ""], "is not a strength"),
        ([["a"], [], "1", 0, 100_000, 5.0, 0, 0, ""], "steps are between"),
        ([["a"], [], "1", 0, 2, 5.0, 100_000, 100_000, ""], "pixels"),
        ([["a <lora:none:1>"], [], "1", 0, 2, 5.0, 0, 0, ""], "no adapter is called none"),
        ([["a"], [], "1", 0.5, 2, 5.0, 0, 0, ""], "seed must be a whole number"),
        ([["a"], [], "0-9(+0.1)", 0, 2, 5.0, 0, 0, ""], "at most 64"),
    ],
)
def test_a_job_that_cannot_be_drawn_gets_one_sentence(page: Served, data: list[Any], message: str) -> None:
    with page.client() as client:
        answer = client.post("/gradio_api/run/preview", json={"data": data})
    assert answer.status_code >= 400
    assert message in str(answer.json()["error"])
    assert "Traceback" not in answer.text


def test_the_job_of_a_caller_that_leaves_is_stopped(page: Served) -> None:
    with page.client() as client:
        (entry, *_) = post(client, "adapters", [])
        long = {"data": [["a long one " * n for n in range(1, 33)], [entry["id"]], "0-1[2]", 1, 150, 5.0, 32, 32, ""]}
        with pytest.raises(httpx.ReadTimeout):
            client.post("/gradio_api/run/preview", json=long, timeout=3)
        # the long one would take minutes, longer than this call would wait
        assert post(client, "preview", [["a short one"], [], "1", 1, 1, 5.0, 0, 0, ""])["pictures"]


@contextmanager
def not_ignored(number: signal.Signals) -> Iterator[None]:
    """Processes started within do not ignore the signal, even if this one does (`nohup`)."""
    before = signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_nothing_is_left_when_the_page_ends(number: signal.Signals, tmp_path: Path, random_sd_folder: Path) -> None:
    (tmp_path / "temp").mkdir()
    env = {"TMPDIR": str(tmp_path / "temp")}
    with not_ignored(number), served(tmp_path, base=str(random_sd_folder), env=env) as page:
        assert list((tmp_path / "temp").glob("sd-lora-page-*"))
        page.process.send_signal(number)
        assert page.process.wait(60) == 128 + number
    assert not list((tmp_path / "temp").glob("sd-lora-page-*"))
    assert not any("Traceback" in line for line in page.printed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_of_a_page_that_is_ended_while_it_starts(
    number: signal.Signals, tmp_path: Path, random_sd_folder: Path
) -> None:
    command = [sys.executable, "-P", "-m", "sd_lora", "webui", "--base", str(random_sd_folder), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        until(lambda: process.poll() is not None or list(tmp_path.glob("sd-lora-page-*")), PATIENCE)
        time.sleep(0.05)  # the folder exists a moment before its deletion is arranged
        process.send_signal(number)
        printed, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert "Traceback" not in printed
    assert not list(tmp_path.glob("sd-lora-page-*"))


def test_a_recipe_draws_the_same_picture_again(page: Served, runs: Path) -> None:
    with page.client() as client:
        (entry, *_) = post(client, "adapters", [])
        first = post(client, "preview", [["a cup"], [entry["id"]], "0.7", 5, 3, 4.0, 16, 24, "a cat"])["pictures"][1]
        recipe = first["recipe"]
        assert recipe["adapters"][0]["name"] == entry["name"]
        shutil.copytree(runs / entry["name"], runs / "copy of it")
        copied = next(e for e in post(client, "adapters", []) if e["name"] == "copy of it")
        again = post(client, "preview", [
            [recipe["prompt"]], [copied["id"]], str(recipe["strength"]), recipe["seed"], recipe["steps"],
            recipe["guidance"], recipe["width"], recipe["height"], recipe["negative"],
        ])["pictures"][1]  # fmt: skip
    assert again["png"] != first["png"]  # another name in its recipe
    assert pixels(base64.b64decode(again["png"])) == pixels(base64.b64decode(first["png"]))
