"""A variant that only this module knows keeps every law and is saved, read, fused and judged by sd_lora as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from test_variant_laws import *  # noqa: F403 - the laws, collected here with the cases below
from test_variant_laws import Case
from torch import Tensor, nn

from sd_lora.adapters.adapter import Adapter
from sd_lora.adapters.summary import read_summary
from sd_lora.errors import AdapterError
from sd_lora.lora.targets import plan_targets
from sd_lora.lora.variants import VARIANTS
from sd_lora.lora.variants.variant import Shapes, Variant
from sd_lora.models.families import kinds
from sd_lora.tools.inspect import inspect_adapter
from sd_lora.tools.merge import merge_adapters
from sd_lora.tools.resize import resize_adapter
from sd_lora.tools.verify import verify_adapter

ENDINGS = {"left": "made_left", "right": "made_right", "mask": "made_mask"}


class Masked(Variant):
    """ΔW = (left @ right) times `mask`, by element: left (out, rank), right (rank, in, …), mask (out, in, …)."""

    name = "masked"
    title = "Masked LoRA"
    keys: ClassVar = {"kohya": ENDINGS, "diffusers": ENDINGS}
    network_module = "made.up"
    scaled_role = "mask"
    is_judged = True
    note = "nobody else reads a masked adapter"
    clients = (("drops", ("ComfyUI",), "masks, which it does not know", lambda _: True),)

    def problem(self, shapes: Shapes, layout: str) -> str:  # noqa: ARG002
        left, right, mask = (shapes[role] for role in self.roles)
        fits = len(left) == 2 and left[1] == right[0] and mask == (left[0], *right[1:])
        return "" if fits else f"has shapes {left}, {right} and {mask}"

    def rank(self, shapes: Shapes) -> int:
        return shapes["right"][0]

    def shape(self, shapes: Shapes) -> tuple[int, ...]:
        return shapes["mask"]

    def product(self, tensors: Mapping[str, Any]) -> Any:
        right, mask = tensors["right"], tensors["mask"]
        return (tensors["left"] @ right.reshape(len(right), -1)).reshape(mask.shape) * mask

    def start(self, shape: tuple[int, ...], rank: int) -> dict[str, Tensor]:
        left, right = torch.zeros(shape[0], rank), torch.randn(rank, *shape[1:])
        return {"left": left, "right": right, "mask": torch.ones(shape)}


@pytest.fixture(autouse=True)
def row() -> Iterator[Variant]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(VARIANTS, "masked", Masked())
        yield VARIANTS["masked"]


@pytest.fixture(params=[Case("masked", kind) for kind in ("linear", "conv-stride2", "conv-reflect")], ids=str)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture
def adapter(random_sd: Any) -> Adapter:
    targets = plan_targets({"unet": random_sd.unet}, {}, ["*.to_q", "*.conv1"], (2, 1.0))
    made = Adapter.create(targets, {"sdlora.family": "sd"}, variant="masked")
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(0))
    return made


def predict(pipe: Any) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(1, 4, 8, 8, generator=generator), torch.randn(1, 5, 32, generator=generator)
    with torch.no_grad():
        return pipe.unet(latents, 10, text).sample


@pytest.mark.parametrize("layout", ["kohya", "diffusers"])
def test_a_file_of_it_does_what_was_made(random_sd: Any, adapter: Adapter, tmp_path: Path, layout: str) -> None:
    base = predict(random_sd)
    with adapter.injected(random_sd, 0.7):
        expected = predict(random_sd)
    assert not torch.allclose(expected, base, atol=1e-3)
    loaded = Adapter.load(adapter.save(tmp_path / "style.safetensors", dtype="float32", layout=layout))
    assert (loaded.variant, loaded.metadata["sdlora.variant"]) == ("masked", "masked")
    with loaded.injected(random_sd, 0.7):
        torch.testing.assert_close(predict(random_sd), expected, rtol=0, atol=1e-6)
    assert torch.equal(predict(random_sd), base)
    loaded.fuse(random_sd, 0.7)
    torch.testing.assert_close(predict(random_sd), expected, rtol=0, atol=1e-5)


def test_what_it_does_not_fit_is_refused(random_sd: Any, adapter: Adapter) -> None:
    name = next(iter(adapter.weights))
    module: nn.Linear = random_sd.unet.get_submodule(name.removeprefix("unet."))
    module.weight = nn.Parameter(torch.zeros(7, 7))
    with pytest.raises(AdapterError, match=r"1 of its .* have another shape"):
        adapter.inject(random_sd)


def test_tools_say_what_it_is_and_what_cannot_be_done_with_it(adapter: Adapter, tmp_path: Path) -> None:
    path = adapter.save(tmp_path / "style.safetensors")
    modules = len(adapter.weights)
    assert (inspect_adapter(path).variant, inspect_adapter(path).modules) == ("masked", modules)
    assert read_summary(path).title == "Masked LoRA"
    clients = {answer.client: answer for answer in verify_adapter(path).clients}
    assert clients["ComfyUI"].reasons == (f"drops {modules} of {modules}: masks, which it does not know",)
    assert clients["AUTOMATIC1111"].is_whole
    out = tmp_path / "out.safetensors"
    with pytest.raises(AdapterError, match=r"holds Masked LoRA, .*; only LoRAs can be merged"):
        merge_adapters([path, path], out)
    marked = Adapter(adapter.weights, kinds()["sd1"].marks).save(tmp_path / "marked.safetensors")
    assert resize_adapter(marked, out, rank=1).modules[0].rank == 1
    assert inspect_adapter(out).variant == "lora"
