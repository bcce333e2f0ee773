"""The embedded base model: its weights, the renderer of its world, and the judge."""

from pathlib import Path


def tiny_base_path() -> Path:
    """The folder of the embedded base, a plain diffusers `StableDiffusionPipeline` folder."""
    return Path(__file__).parent / "base"
