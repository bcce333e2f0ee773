"""What tests share: a tiny random base in the real SD1 layout, folders of captioned pictures, adapters that act."""

from __future__ import annotations

import copy
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing a test needs lies outside the repository
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # so shells start what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers that each take every core wait for one another

from PIL import Image
from small_bases import write_base

import sd_lora
from sd_lora.tinybase.styles import render
from sd_lora.tinybase.world import sample_scene

_CACHES = tempfile.TemporaryDirectory(prefix="sd-lora-tests-")
# what was measured of this machine, and what runs on it, is not the tests' to use
for place in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME"):
    os.environ[place] = _CACHES.name
WriteFolder = Callable[..., Path]

#: the UNet of Stable Diffusion 1.5 as published
SD15_UNET = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
RANDOM_UNET = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
RANDOM_VAE = {
    "sample_size": 16,
    "block_out_channels": (8, 16),
    "norm_num_groups": 4,
    "latent_channels": 4,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
}


#: files that take longest; with `--dist=loadfile` one that came last would leave the other workers idle
LONGEST = {
    "test_browser.py", "test_browser_access.py", "test_soak.py", "test_resume.py", "test_faults.py", "test_demo.py",
    "test_processes.py", "test_http.py", "test_single_file.py",
}  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """On a shared machine (OMP_NUM_THREADS=1) torch keeps to one thread as well."""
    if os.environ.get("OMP_NUM_THREADS") == "1":
        import torch

        torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What else runs on this machine must not decide with how many threads the runs of tests compute."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))


@pytest.fixture(autouse=True)
def _plain_curves() -> Iterator[None]:
    """Pictures of losses cost a third of a small training: only tests of such pictures draw them (by a fixture of this
    name in their module)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sd_lora.runs.curves.write_figure", lambda _, path: Image.new("RGB", (1, 1)).save(path))
        yield


@pytest.fixture(scope="session")
def random_sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `StableDiffusionPipeline` folder with random weights: SD1's layout, 8 × 8 latents, 16 × 16 pictures."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(sd_lora.tiny_base_path() / "tokenizer")
    text_config = CLIPTextConfig(
        hidden_size=32, intermediate_size=64, projection_dim=32, num_hidden_layers=2, num_attention_heads=4,
        vocab_size=len(tokenizer), max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, set_alpha_to_one=False,
        steps_offset=1, prediction_type="epsilon",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipe = StableDiffusionPipeline(
            vae=AutoencoderKL(**RANDOM_VAE), text_encoder=CLIPTextModel(text_config), tokenizer=tokenizer,
            unet=UNet2DConditionModel(**RANDOM_UNET), scheduler=scheduler, safety_checker=None, feature_extractor=None,
            requires_safety_checker=False,
        )  # fmt: skip
    folder = tmp_path_factory.mktemp("bases") / "random-sd"
    pipe.to(torch.float32).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Tiny random bases with the published layouts, by their kinds in `small_bases`, written when asked for."""
    home = tmp_path_factory.mktemp("layouts")

    class Bases(dict[str, Path]):
        def __missing__(self, kind: str) -> Path:
            self[kind] = write_base(kind, home / f"random-{kind}")
            return self[kind]

    return Bases()


@pytest.fixture(scope="session")
def opened(bases: dict[str, Path]) -> Callable[[str], Any]:
    """A factory of pipelines and their families: `opened(kind)` copies what was loaded once; "tiny" is the embedded."""

    @cache
    def load(kind: str) -> Any:
        return sd_lora.load_base("tiny" if kind == "tiny" else bases[kind])

    return lambda kind: (copy.deepcopy(load(kind)[0]), load(kind)[1])


@pytest.fixture(scope="session")
def loaded_random_sd(random_sd_folder: Path) -> Any:
    return sd_lora.load_base(random_sd_folder)[0]


@pytest.fixture
def random_sd(loaded_random_sd: Any) -> Any:
    """The random base as loaded: a frozen pipeline of this test's own."""
    return copy.deepcopy(loaded_random_sd)


@pytest.fixture(scope="session")
def sd15_unet() -> Any:
    """The UNet of Stable Diffusion 1.5 at full size, without storage for its weights."""
    import torch
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(**SD15_UNET)


@pytest.fixture
def captioned(tmp_path: Path) -> WriteFolder:
    """A factory of folders: `captioned(name, count=, style=, first=, size=)` writes NAME.png and NAME.txt pairs."""

    def write(name: str = "images", *, count: int = 4, style: str = "woodcut", first: int = 0, size: int = 64) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for i in range(first, first + count):
            scene = sample_scene(i)
            render(scene, style, size).save(folder / f"{i:02}.png")
            (folder / f"{i:02}.txt").write_text(scene.caption + "\n", "utf-8")
        return folder

    return write


@pytest.fixture
def image_folder(captioned: WriteFolder) -> Path:
    """Four captioned woodcuts of 64 × 64 pixels."""
    return captioned("images", count=4)


@pytest.fixture
def trained_adapter() -> Callable[..., Any]:
    """A factory of adapters that do something: `trained_adapter(pipe, "attn", rank=, std=)` has random weights."""

    def make(pipe: Any, *targets: str, rank: int = 4, alpha: float = 2.0, std: float = 0.05, seed: int = 0) -> Any:
        import torch

        from sd_lora.lora.targets import plan_targets
        from sd_lora.models.families import FAMILIES

        groups = FAMILIES["sd"].target_groups
        plan = plan_targets({"unet": pipe.unet}, groups, targets or ("attn",), (rank, alpha))
        adapter = sd_lora.Adapter.create(plan, {"sdlora.base": "somewhere"}, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in adapter.parameters():
                if not weight.any():  # the up weights, which start at zero
                    weight.normal_(0, std, generator=generator)
        return adapter

    return make
