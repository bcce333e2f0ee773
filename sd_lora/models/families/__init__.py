"""Model families by name: a family is one file here and one row. Facts are read without torch; methods import it."""

from __future__ import annotations

from sd_lora.models.families.base import ModelFamily
from sd_lora.models.families.sd import SdFamily
from sd_lora.models.families.sdxl import SdxlFamily

FAMILIES: dict[str, ModelFamily] = {family.name: family for family in (SdFamily(), SdxlFamily())}
