"""The embedded base model: its weights, and the renderer and scripts that rebuild them from nothing."""

from pathlib import Path


def tiny_base_path() -> Path:
    """The folder of the embedded base, a plain diffusers `StableDiffusionPipeline` folder."""
    return Path(__file__).parent / "base"
