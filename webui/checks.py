"""The package's checks, which load torch when they are first called: the page answers before that."""

from __future__ import annotations

from typing import Any

import sd_lora
from sd_lora.check.result import Check
from sd_lora.config.schema import RunConfig


def check_folder(config: RunConfig, **options: Any) -> Check:
    """As `sd_lora.check_folder`."""
    return sd_lora.check_folder(config, **options)


def check_settings(config: RunConfig) -> None:
    """As `sd_lora.check_settings`."""
    sd_lora.check_settings(config)
