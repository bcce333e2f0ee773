"""How a run starts: what is loaded when, and what is measured once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_bases import write_base
from small_runs import config_of, write_images
from torch import Tensor

from sd_lora.check import cost
from sd_lora.commands.run_plan import plan_of
from sd_lora.config.schema import ModelConfig
from sd_lora.data.cache import Cache
from sd_lora.data.encoded import EncodedSet, Encoders
from sd_lora.data.exposures import Schedule
from sd_lora.models.checkpoint import filling
from sd_lora.models.checkpoint.file import save_single_file
from sd_lora.models.opening import is_empty, load_base, open_base
from sd_lora.models.recompute import STEPS_DOWN, Recomputed
from sd_lora.training.encoding import encode
from sd_lora.training.preparation import prepare
from sd_lora.training.run import accelerator_for, train


@pytest.fixture(autouse=True)
def nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "known"))


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every time that steps are timed."""
    made, plain = list[int](), cost.measure

    def counted(*arguments: Any, **options: Any) -> cost.Cost:
        made.append(1)
        return plain(*arguments, **options)

    monkeypatch.setattr(cost, "measure", counted)
    return made


def test_the_denoiser_is_loaded_after_the_encoders_are_gone(
    random_sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_CHEAP", 0)
    run = prepare(config_of(random_sd_folder, write_images(tmp_path / "images"), tmp_path / "run"))
    assert is_empty(run.pipe.unet)
    with accelerator_for(run.device, run.dtype) as accelerator:
        encode(run, accelerator, None)
    assert run.pipe.text_encoder is None
    assert is_empty(run.pipe.vae)
    whole = load_base(random_sd_folder)[0]
    run.base.fill("vae")
    for name in ("unet", "vae"):
        expected = getattr(whole, name).state_dict()
        found = getattr(run.pipe, name).state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
        assert not any(p.requires_grad for p in getattr(run.pipe, name).parameters())


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", ["folder", "checkpoint", "older names"])
def test_weights_that_are_filled_in_later_are_the_same(kind: str, dtype: str, layout: str, tmp_path: Path) -> None:
    base: Path = write_base(kind, tmp_path / "base")
    more = {}
    if layout == "checkpoint":
        more["config"] = str(base)
        save_single_file(load_base(base)[0], file := tmp_path / "base.safetensors", torch.float32)
        base = file
    elif layout == "older names":
        rename_attention(base / "vae" / "diffusion_pytorch_model.safetensors")
    model = ModelConfig(base=str(base), dtype=dtype, device="cpu", **more)  # type: ignore[arg-type]
    whole, later = open_base(model), open_base(model, later=True)
    assert is_empty(later.pipe.unet)
    later.empty("vae")
    for name in ("unet", "vae"):
        later.fill(name)
        expected, found = (getattr(base.pipe, name).state_dict() for base in (whole, later))
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[key], tensor) for key, tensor in expected.items())
        assert {tensor.dtype for tensor in found.values()} == {later.dtype}


@pytest.mark.parametrize("kept", ["float32", "bfloat16"])
def test_weights_of_the_type_they_are_used_in_are_not_copied(
    kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = write_base("sd1", tmp_path / "base")
    read, plain = list[str](), filling.reading

    @contextmanager
    def counted(path: Path) -> Iterator[Callable[[str], Tensor]]:
        with plain(path) as tensor:
            yield lambda key: (read.append(key), tensor(key))[1]

    monkeypatch.setattr(filling, "reading", counted)
    opened = open_base(ModelConfig(base=str(base), dtype=kept, device="cpu"), later=True)  # type: ignore[arg-type]
    opened.fill("unet")
    weights = opened.pipe.unet.state_dict()
    assert sorted(read) == ([] if kept == "float32" else sorted(weights))
    before = {file: file.read_bytes() for file in base.rglob("*.safetensors")}
    for tensor in weights.values():
        tensor.zero_()
    assert {file: file.read_bytes() for file in before} == before


def rename_attention(file: Path) -> None:
    """The names that diffusers' first versions gave the attention of a VAE."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(file)
    for new, name in old.items():
        tensors = {key.replace(f".{new}.", f".{name}."): tensor for key, tensor in tensors.items()}
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
@pytest.mark.parametrize("recomputed", STEPS_DOWN)
def test_what_is_counted_without_weights_is_what_autograd_keeps(
    kind: str, recomputed: Recomputed, tmp_path: Path
) -> None:
    base, view = write_base(kind, tmp_path / "base"), cost.View((128, 64))
    counts = []
    for later in (True, False):
        opened = open_base(ModelConfig(base=str(base), device="cpu"), later=later)
        device = torch.device("meta" if later else "cpu")
        arguments = (opened.family, opened.pipe, device, view, 2)
        counts.append(cost._step(*arguments, recomputed))
    assert counts[0] == pytest.approx(counts[1], rel=0.03)


def test_a_second_run_of_a_kind_measures_nothing(random_sd_folder: Path, tmp_path: Path, timings: list[int]) -> None:
    images = write_images(tmp_path / "images")
    first = prepare(config_of(random_sd_folder, images, tmp_path / "run")).means
    assert len(timings) == 1
    second = prepare(config_of(random_sd_folder, images, tmp_path / "run")).means
    assert len(timings) == 1
    assert second.seconds == first.seconds
    prepare(config_of(random_sd_folder, images, tmp_path / "run", "lora.rank=3"))
    assert len(timings) == 2


def test_steps_of_a_large_base_are_timed_in_a_plan_only(
    random_sd_folder: Path, tmp_path: Path, timings: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost, "_CHEAP", 0)
    config = config_of(random_sd_folder, write_images(tmp_path / "images"), tmp_path / "run")
    run = prepare(config)
    assert run.means.seconds is None
    assert run.means.memory > 10**6
    assert plan_of(run)["seconds"] is None
    assert not timings
    planned = prepare(config, planned=True)
    assert plan_of(planned)["seconds"] > 0
    assert len(timings) == 1


def test_the_steps_of_a_run_are_the_promise_of_the_next(random_sd_folder: Path, tmp_path: Path) -> None:
    images, seconds = write_images(tmp_path / "images"), list[float]()
    train(config_of(random_sd_folder, images, tmp_path / "run"), watch=lambda report: seconds.append(report.seconds))
    means = prepare(config_of(random_sd_folder, images, tmp_path / "again")).means
    assert min(seconds) <= (means.seconds or 0) <= max(seconds)
    assert any("an earlier run" in reason for reason in means.reasons)


@pytest.mark.parametrize("odd", ["{}", "[1]", '{"KEY": 3}', '{"KEY": {"seconds": "x"}}', "nonsense"])
def test_what_was_kept_and_cannot_be_read_is_measured_again(
    odd: str, random_sd_folder: Path, tmp_path: Path, timings: list[int]
) -> None:
    config = config_of(random_sd_folder, write_images(tmp_path / "images"), tmp_path / "run")
    key = prepare(config).cost_key
    (kept,) = (tmp_path / "known").rglob("costs.json")
    kept.write_text(odd.replace("KEY", key))
    assert (prepare(config).means.seconds or 0) > 0
    assert len(timings) == 2


def test_captions_are_encoded_together(tmp_path: Path) -> None:
    calls = list[Sequence[str]]()

    def states(captions: Sequence[str]) -> dict[str, Tensor]:
        calls.append(tuple(captions))
        return {"states": torch.tensor([[float(len(caption))] for caption in captions])}

    def encoded(cache: Cache) -> EncodedSet:
        encoders = Encoders(lambda images: images, states, lambda _: {})
        data = EncodedSet([], Schedule([], 1, 0), encoders, cache)
        data._encode_captions(["", "a", "abc"])
        return data

    data = encoded(cache := Cache(tmp_path / "cache"))
    assert calls == [("", "a", "abc")]
    assert [data.caption(text)["states"].tolist() for text in ("", "a", "abc")] == [[[0.0]], [[1.0]], [[3.0]]]
    assert len(calls) == 1
    cache.path(data._caption_key("a")).unlink()
    encoded(Cache(tmp_path / "cache"))
    assert calls[1:] == [("", "a", "abc")]  # as before, for the same last bits
    assert data.caption("new")["states"].tolist() == [[3.0]]


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_captions_are_the_same_together_and_alone(kind: str, tmp_path: Path) -> None:
    pipe, family = load_base(write_base(kind, tmp_path / "base"))
    captions = ["", "a cat", "two red boats on the sea at night", "x"]
    with torch.no_grad():
        together = family.encode_captions(pipe, captions)
        for row, caption in enumerate(captions):
            for key, states in family.encode_captions(pipe, [caption]).items():
                torch.testing.assert_close(states[0], together[key][row], atol=1e-5, rtol=0)
