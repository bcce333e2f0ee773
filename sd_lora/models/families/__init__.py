"""Model families by name: a family is one file here and one row. Facts are read without torch; methods import it."""

from __future__ import annotations

from sd_lora.models.families.base import Kind, ModelFamily
from sd_lora.models.families.sd import SdFamily
from sd_lora.models.families.sdxl import SdxlFamily

FAMILIES: dict[str, ModelFamily] = {family.name: family for family in (SdFamily(), SdxlFamily())}


def components() -> tuple[str, ...]:
    """The names of all components that can carry layers."""
    return tuple(dict.fromkeys(each.name for family in FAMILIES.values() for each in family.components))


def kinds() -> dict[str, Kind]:
    """All kinds of base, by name."""
    return {kind.name: kind for family in FAMILIES.values() for kind in family.kinds}


def family_of_checkpoint(layout: str) -> ModelFamily:
    """The family whose single files have this `layout`."""
    return next(f for f in FAMILIES.values() if any(kind.checkpoint == layout for kind in f.kinds))


def family_of_class(name: str) -> ModelFamily | None:
    """The family of pipelines of class `name`, or None.

    Pipelines for other tasks count as well: ``StableDiffusionXLImg2ImgPipeline`` is of the family of
    ``StableDiffusionXLPipeline``.
    """
    stems = {made.removesuffix("Pipeline"): family for family in FAMILIES.values() for made in family.pipeline_classes}
    fitting = [stem for stem in stems if name.startswith(stem)]
    return stems[max(fitting, key=len)] if fitting else None
