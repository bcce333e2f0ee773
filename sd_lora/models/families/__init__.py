"""Model families by name: a family is one file here and one row. Facts are read without torch; methods import it."""

from __future__ import annotations

from sd_lora.models.families.base import Kind, ModelFamily
from sd_lora.models.families.flux import FluxFamily
from sd_lora.models.families.sd import SdFamily
from sd_lora.models.families.sd3 import Sd3Family
from sd_lora.models.families.sdxl import SdxlFamily
from sd_lora.models.families.z_image import ZImageFamily

FAMILIES: dict[str, ModelFamily] = {
    family.name: family for family in (SdFamily(), SdxlFamily(), Sd3Family(), FluxFamily(), ZImageFamily())
}


def register_family(family: ModelFamily) -> None:
    """Add a family that is not part of this package, as a program or plug-in does before it uses it. ValueError if
    there is one of that name, or if it has no kinds or components."""
    if family.name in FAMILIES:
        raise ValueError(f'there is a family "{family.name}" already; give this one another name')
    if not family.kinds or family.denoiser not in [each.name for each in family.components]:
        raise ValueError(f'family "{family.name}" needs kinds, and its denoiser among its components')
    FAMILIES[family.name] = family


def components() -> tuple[str, ...]:
    """The names of all components that can carry layers."""
    return tuple(dict.fromkeys(each.name for family in FAMILIES.values() for each in family.components))


def weighted() -> tuple[str, ...]:
    """The names of all components that have weights: denoisers, text encoders and the VAE."""
    names = [name for family in FAMILIES.values() for name in (family.denoiser, *family.text_encoders)]
    return (*dict.fromkeys(names), "vae")


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
