"""sd_lora: style LoRA for Stable Diffusion, from a folder of captioned images to a measured adapter.

Names are imported when first used, so that ``import sd_lora`` and the command line's help stay instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sd_lora.version import __version__

if TYPE_CHECKING:
    from sd_lora.adapter import Adapter
    from sd_lora.config import RunConfig
    from sd_lora.errors import AdapterError, BaseModelError, ConfigError, DataError, SdLoraError, TrainingStopped
    from sd_lora.families import load_base
    from sd_lora.presets import load_config, preset_names
    from sd_lora.preview import Previewer, PreviewGrid
    from sd_lora.tinybase import tiny_base_path
    from sd_lora.tools.inspect import AdapterReport, inspect_adapter
    from sd_lora.training import StepReport, train

_HOME = {
    "Adapter": "adapter", "RunConfig": "config", "AdapterError": "errors", "BaseModelError": "errors",
    "ConfigError": "errors", "DataError": "errors", "SdLoraError": "errors", "TrainingStopped": "errors",
    "load_base": "families", "load_config": "presets", "preset_names": "presets", "Previewer": "preview",
    "PreviewGrid": "preview", "tiny_base_path": "tinybase", "AdapterReport": "tools.inspect",
    "inspect_adapter": "tools.inspect", "StepReport": "training", "train": "training",
}  # fmt: skip

__all__ = [
    "Adapter",
    "AdapterError",
    "AdapterReport",
    "BaseModelError",
    "ConfigError",
    "DataError",
    "PreviewGrid",
    "Previewer",
    "RunConfig",
    "SdLoraError",
    "StepReport",
    "TrainingStopped",
    "__version__",
    "inspect_adapter",
    "load_base",
    "load_config",
    "preset_names",
    "tiny_base_path",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sd_lora' has no attribute {name!r}")
    return getattr(import_module(f"sd_lora.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
