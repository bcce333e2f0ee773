"""Bases of fewer bits. They are for CUDA devices; their numbers are the same on a CPU, so here they are let in."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small_runs import Crash, body_of, config_of, go, resumed, write_images

from sd_lora import Adapter, AdapterError, ConfigError, load_base, load_config
from sd_lora.config.schema import ModelConfig
from sd_lora.models.opening import open_base
from sd_lora.models.quantize import is_quantized, plain_weight, quantize
from sd_lora.preview.previewer import Previewer
from sd_lora.training.preparation import prepare

Patch = pytest.MonkeyPatch
KINDS = ("int8", "fp8", "nf4")
#: how far the denoiser's output may be from the whole one's, and the bytes of a quantized weight per whole one's
BOUNDS = {"int8": (0.01, 0.27), "fp8": (0.05, 0.27), "nf4": (0.2, 0.16)}


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("quantized") / "images")


@pytest.fixture
def let_in(monkeypatch: Patch) -> None:
    monkeypatch.setattr("sd_lora.models.opening.check_quantize", lambda *_: None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_denoiser_computes_nearly_the_same_with_fewer_bytes(kind: str) -> None:
    unet = load_base("tiny")[0].unet
    config, draw = unet.config, torch.Generator().manual_seed(0)
    x = torch.randn(2, config.in_channels, config.sample_size, config.sample_size, generator=draw)
    words = torch.randn(2, 77, config.cross_attention_dim, generator=draw)
    whole = copy.deepcopy(unet)
    assert quantize(unet, kind) == sum(is_quantized(m.weight) for m in unet.modules() if type(m) is torch.nn.Linear)
    with torch.no_grad():
        expected, given = (u(x, torch.tensor([10, 900]), words).sample for u in (whole, unet))
    far, share = BOUNDS[kind]
    assert 0 < float((given - expected).norm() / expected.norm()) < far
    weight = unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    before = whole.mid_block.attentions[0].transformer_blocks[0].attn1.to_q.weight
    assert bytes_of(weight) <= share * before.nbytes
    assert torch.linalg.vector_norm(plain_weight(weight) - before) < far * torch.linalg.vector_norm(before)


def bytes_of(weight: torch.Tensor) -> int:
    """What the inner tensors of a quantized weight take."""
    names, _ = weight.__tensor_flatten__()  # pyright: ignore[reportAttributeAccessIssue]
    return sum(getattr(weight, name).nbytes for name in names)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_it_learns_is_resumed_to_the_same_bytes_and_fits_the_whole_base(
    kind: str, images: Path, tmp_path: Path, let_in: None
) -> None:
    settings = (f"model.quantize={kind}", "training.checkpoint_every=2", 'lora.targets=["attn","ff","conv"]')
    reports = go(config_of(Path("tiny"), images, tmp_path / "whole", *settings))
    assert all(torch.isfinite(torch.tensor(report.loss)) for report in reports)
    with pytest.raises(Crash):
        go(config_of(Path("tiny"), images, tmp_path / "cut", *settings), crash_after=3)
    resumed(tmp_path / "cut")
    assert body_of(tmp_path / "cut" / "adapter.safetensors") == body_of(tmp_path / "whole" / "adapter.safetensors")
    go(config_of(Path("tiny"), images, tmp_path / "plain", *settings[1:]))
    assert body_of(tmp_path / "plain" / "adapter.safetensors") != body_of(tmp_path / "whole" / "adapter.safetensors")
    adapter = Adapter.load(tmp_path / "whole" / "adapter.safetensors")
    assert any(w.tensors["up"].abs().max() > 0 for w in adapter.weights.values())
    with adapter.injected(load_base("tiny")[0]):
        pass


@pytest.mark.slow
def test_a_preview_draws_on_it(images: Path, tmp_path: Path, let_in: None) -> None:
    go(config_of(Path("tiny"), images, tmp_path / "run"))
    whole, fewer = (
        Previewer.open(tmp_path / "run" / "adapter.safetensors", model=ModelConfig(quantize=kind)).grid(["a red house"])
        for kind in ("none", "nf4")
    )
    assert whole.images[0][0].tobytes() != fewer.images[0][0].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_cuda_device_it_is_refused_in_one_sentence(kind: str, images: Path, tmp_path: Path) -> None:
    config = config_of(Path("tiny"), images, tmp_path / "run", f"model.quantize={kind}")
    with pytest.raises(ConfigError, match=rf"^model\.quantize={kind} needs a CUDA device, not cpu; leave it out$"):
        prepare(config)
    assert not (tmp_path / "run").exists()


def test_without_torchao_the_error_says_what_to_install(monkeypatch: Patch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchao", None)
    monkeypatch.setattr("sd_lora.models.opening.choose_device", lambda _: torch.device("cuda"))
    monkeypatch.setattr("sd_lora.models.opening.choose_dtype", lambda *_: torch.float32)
    with pytest.raises(ConfigError, match=r'needs torchao.*run pip install "sd-lora\[cuda\]", or leave it out'):
        open_base(ModelConfig(quantize="int8"))


@pytest.mark.slow
def test_dora_is_refused_on_it(images: Path, tmp_path: Path, let_in: None) -> None:
    with pytest.raises(ConfigError, match=r"lora\.variant=dora needs the full weights of the base model; leave"):
        prepare(config_of(Path("tiny"), images, tmp_path / "run", "model.quantize=int8", "lora.variant=dora"))
    go(config_of(Path("tiny"), images, tmp_path / "dora", "lora.variant=dora"))
    dora = Adapter.load(tmp_path / "dora" / "adapter.safetensors")
    pipe = open_base(load_config("tiny-style", "model.quantize=nf4", "model.device=cpu").model).pipe
    with pytest.raises(AdapterError, match="holds DoRA, which needs an unquantized base"):
        dora.inject(pipe)
    assert not dora.is_injected
