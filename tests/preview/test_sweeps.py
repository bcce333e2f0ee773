"""A sweep of strengths: in the largest batch that memory holds, nothing computed twice, pictures as if drawn alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerAncestralDiscreteScheduler
from PIL import Image
from preview_jobs import job_of

from sd_lora import Adapter, Previewer
from sd_lora.config.schema import PreviewConfig
from sd_lora.lora.targets import plan_targets
from sd_lora.models.families import FAMILIES
from sd_lora.preview import painter as painting
from sd_lora.preview.batches import fitting, peak_bytes
from sd_lora.preview.service import PreviewService

PROMPT = "a red boat on the sea"
SWEEP = [number / 10 for number in range(1, 12)]
SETTINGS = PreviewConfig(inference_steps=2, guidance=4.0)
Maker = Callable[..., Adapter]
MEGABYTE = 2**20


@pytest.fixture
def adapter(random_sd: Any, trained_adapter: Maker) -> Adapter:
    random_sd.set_progress_bar_config(disable=True)
    return trained_adapter(random_sd, "attn", "ff", "conv", std=0.2)


@pytest.fixture(autouse=True)
def nothing_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a picture takes is measured in each test, not known from another."""
    monkeypatch.setattr(painting, "_BYTES", type(painting._BYTES)())


def holds(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make memory hold `count` pictures."""
    monkeypatch.setattr(painting, "peak_bytes", lambda _: MEGABYTE)
    monkeypatch.setattr("sd_lora.preview.batches.free_memory", lambda _: int((count + 0.5) * MEGABYTE / 0.7))


def counted(module: Any, method: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that `method` of `module` gets from now on."""
    plain, sizes = getattr(module, method), list[int]()

    def counting(*args: Any, **kwargs: Any) -> Any:
        sizes.append(len(args[0] if args else next(iter(kwargs.values()))))
        return plain(*args, **kwargs)

    monkeypatch.setattr(module, method, counting)
    return sizes


def apart(one: Image.Image, other: Image.Image) -> int:
    return int(np.abs(np.asarray(one).astype(int) - np.asarray(other).astype(int)).max())


@pytest.mark.parametrize(
    ("held", "batches"), [(100, [12, 12]), (12, [12, 12]), (11, [11, 11, 1, 1]), (5, [5, 5, 5, 5, 2, 2]), (0, [1] * 24)]
)
def test_a_sweep_is_drawn_in_the_largest_batch_that_memory_holds(
    random_sd: Any, adapter: Adapter, held: int, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    holds(held, monkeypatch)
    sizes = counted(random_sd.unet, "forward", monkeypatch)
    grid = Previewer(random_sd, adapter, SETTINGS).grid([PROMPT], SWEEP)
    assert sizes == [2 * size for size in batches]  # guided pictures are two samples
    assert len({image.tobytes() for image in grid.images[0]}) == 12


def test_full_memory_halves_the_batch_of_a_sweep(
    random_sd: Any, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds(100, monkeypatch)
    plain, sizes = random_sd.unet.forward, list[int]()

    def forward(sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(sample) // 2)
        if len(sample) > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(sample, *args, **kwargs)

    monkeypatch.setattr(random_sd.unet, "forward", forward)
    assert len(Previewer(random_sd, adapter, SETTINGS).grid([PROMPT], SWEEP).images[0]) == 12
    assert sizes == [12, 6, 3, 3, 3, 3, 3, 3, 3, 3]


def test_what_a_picture_takes_is_measured_once_for_its_kind(
    random_sd: Any, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = list[int]()
    monkeypatch.setattr(painting, "peak_bytes", lambda step: measured.append(peak_bytes(step)) or measured[-1])
    for prompts in ([PROMPT], [PROMPT, "a cup"], [f"{PROMPT} --w 64 --h 64"], ["a cup --l 1"]):
        Previewer(random_sd, adapter, SETTINGS).grid(prompts, SWEEP)
    small, large, unguided = measured
    assert large > 2 * small > 2 * unguided > 0
    Previewer(random_sd, adapter, SETTINGS).grid(["a cup --w 32"], [0])  # one picture needs no measurement
    assert len(measured) == 3


def test_the_bytes_held_at_a_time_are_counted() -> None:
    weight = torch.ones(1000, 1000)

    def work() -> None:
        one = weight.t() @ weight  # 4 MB; a view of what exists takes nothing
        two = one + 1
        del one
        assert (two * 2).shape == (1000, 1000)

    assert peak_bytes(work) == 8_000_000
    assert fitting(torch.device("cpu"), 2**60) == 1
    assert fitting(torch.device("cpu"), 1) > 1_000_000


def test_texts_are_encoded_once_for_all_strengths_and_batches(
    random_sd: Any, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds(5, monkeypatch)
    sizes = counted(random_sd.text_encoder, "forward", monkeypatch)
    Previewer(random_sd, adapter, SETTINGS).grid([PROMPT, "a cup", PROMPT], SWEEP)
    assert sizes == [1] * 4  # two prompts, each with its negative


def test_layers_of_text_encoders_read_the_prompt_at_each_strength(random_sd: Any) -> None:
    parts = {"unet": random_sd.unet, "text_encoder": random_sd.text_encoder}
    adapter = Adapter.create(plan_targets(parts, FAMILIES["sd"].target_groups, ["attn", "text"], (2, 2.0)))
    with torch.no_grad():
        for number, parameter in enumerate(adapter.parameters()):
            parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(number))
    row = Previewer(random_sd, adapter, SETTINGS).grid([PROMPT], [0.5, 1]).images[0]
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    for strength, image in zip((0, 0.5, 1), row, strict=True):
        with adapter.injected(random_sd, strength):
            alone = random_sd(PROMPT, latents=noise, guidance_scale=4.0, num_inference_steps=2).images[0]
        assert apart(image, alone) <= 1
    assert len({image.tobytes() for image in row}) == 3


def test_each_picture_is_decoded_once_and_sketches_only_where_they_are_shown(
    random_sd: Any, adapter: Adapter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds(100, monkeypatch)
    file, service = adapter.save(tmp_path / "a.safetensors"), PreviewService(random_sd)
    sizes = counted(random_sd.vae.decoder, "forward", monkeypatch)
    service.grid(job_of(file, strengths=tuple(SWEEP), steps=3))
    assert sizes == [1] * 12
    list(service.draw(job_of(file, strengths=tuple(SWEEP), steps=3, seed=1)))
    assert len(sizes) > 24
    service.close()
    assert random_sd.vae.use_slicing is False


def test_a_picture_does_not_depend_on_its_batch_where_steps_add_noise(
    random_sd: Any, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_sd.scheduler = EulerAncestralDiscreteScheduler.from_config(random_sd.scheduler.config)
    whole = Previewer(random_sd, adapter, SETTINGS).grid([PROMPT], SWEEP).images[0]
    parts = Previewer(random_sd, adapter, SETTINGS, batch_size=5).grid([PROMPT], SWEEP[::-1]).images[0]
    alone = Previewer(random_sd, adapter, SETTINGS).grid([PROMPT], SWEEP[-1:]).images[0]
    assert max(apart(a, b) for a, b in zip(whole[1:], parts[:0:-1], strict=True)) <= 1
    assert apart(whole[0], alone[0]) <= 1
    assert apart(whole[-1], alone[-1]) <= 1
    generator = torch.Generator().manual_seed(0)
    settings = {"guidance_scale": 4.0, "num_inference_steps": 2, "height": 16, "width": 16}
    diffusers = random_sd(PROMPT, generator=generator, **settings).images[0]
    assert apart(whole[0], diffusers) <= 1  # what the pipeline draws from this seed


def test_the_base_is_drawn_once_for_all_grids_of_a_prepared_prompt(
    random_sd: Any, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds(100, monkeypatch)
    previewer = Previewer(random_sd, adapter, SETTINGS)
    family = previewer._painter.family
    states = [family.encode_captions(random_sd, [text]) for text in (PROMPT, "")]
    previewer.prepare(PROMPT, family.pipeline_arguments(*states))
    first = previewer.grid([PROMPT], [0.5, 1]).images[0]
    sizes = counted(random_sd.unet, "forward", monkeypatch)
    again = previewer.grid([PROMPT], [0.5, 1]).images[0]
    assert sizes == [4, 4]
    assert again[0] is first[0]
    other = previewer.grid([PROMPT], [0.5, 1], seed=1).images[0]
    assert sizes == [4, 4, 6, 6]
    assert apart(other[0], first[0]) > 8


def test_words_that_the_pipeline_expands_are_left_to_it(
    random_sd: Any, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = list[Any]()
    plain = type(random_sd).encode_prompt
    monkeypatch.setattr(
        type(random_sd),
        "encode_prompt",
        lambda pipe, prompt, *a, **k: (asked.append(prompt), plain(pipe, prompt, *a, **k))[1],
    )
    random_sd.tokenizer.add_tokens("<ink>")
    random_sd.text_encoder.resize_token_embeddings(len(random_sd.tokenizer))
    Previewer(random_sd, adapter, SETTINGS).grid(["a boat, <ink>"], [1])
    assert asked[-1] == ["a boat, <ink>"] * 2
    Previewer(random_sd, adapter, SETTINGS).grid(["a boat"], [1])
    assert asked[-1] is None
