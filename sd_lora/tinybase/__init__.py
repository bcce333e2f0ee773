"""The embedded base model: its weights, the renderer of its world, and the judge."""

import functools
from pathlib import Path


def tiny_base_path() -> Path:
    """The folder of the embedded base, a plain diffusers `StableDiffusionPipeline` folder."""
    return Path(__file__).parent / "base"


@functools.cache
def tiny_base_fingerprint() -> str:
    """What tells this edition of the embedded base from others: the start of its denoiser's sha256."""
    import hashlib

    with (tiny_base_path() / "unet" / "diffusion_pytorch_model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
