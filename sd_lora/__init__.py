"""sd_lora: style LoRA for Stable Diffusion, from a folder of captioned images to a measured adapter.

Names are imported when first used, so that ``import sd_lora`` and the command line's help stay instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sd_lora.version import __version__

if TYPE_CHECKING:
    from sd_lora.adapter import Adapter
    from sd_lora.check.doctor import check_folder
    from sd_lora.check.model import Check
    from sd_lora.config import ModelConfig, RunConfig
    from sd_lora.data.findings import Finding
    from sd_lora.errors import AdapterError, BaseModelError, ConfigError, DataError, SdLoraError, TrainingStopped
    from sd_lora.families import load_base
    from sd_lora.presets import load_config, preset_names
    from sd_lora.preview import Previewer, PreviewGrid
    from sd_lora.tinybase import tiny_base_path
    from sd_lora.tools.convert import convert_adapter
    from sd_lora.tools.extract import extract_adapter
    from sd_lora.tools.fuse import fuse_adapter
    from sd_lora.tools.inspect import AdapterReport, inspect_adapter
    from sd_lora.tools.merge import merge_adapters
    from sd_lora.tools.resize import resize_adapter
    from sd_lora.tools.verify import verify_adapter
    from sd_lora.training import StepReport, resume, train

_HOME = {
    "Adapter": "adapter", "RunConfig": "config", "AdapterError": "errors", "BaseModelError": "errors",
    "ConfigError": "errors", "DataError": "errors", "SdLoraError": "errors", "TrainingStopped": "errors",
    "load_base": "families", "load_config": "presets", "preset_names": "presets", "Previewer": "preview",
    "PreviewGrid": "preview", "tiny_base_path": "tinybase", "AdapterReport": "tools.inspect",
    "inspect_adapter": "tools.inspect", "StepReport": "training", "train": "training", "resume": "training",
    "ModelConfig": "config",
    "convert_adapter": "tools.convert", "extract_adapter": "tools.extract", "fuse_adapter": "tools.fuse",
    "Check": "check.model", "check_folder": "check.doctor", "Finding": "data.findings",
    "merge_adapters": "tools.merge", "resize_adapter": "tools.resize", "verify_adapter": "tools.verify",
}  # fmt: skip

__all__ = [
    "Adapter",
    "AdapterError",
    "AdapterReport",
    "BaseModelError",
    "Check",
    "ConfigError",
    "DataError",
    "Finding",
    "ModelConfig",
    "PreviewGrid",
    "Previewer",
    "RunConfig",
    "SdLoraError",
    "StepReport",
    "TrainingStopped",
    "__version__",
    "check_folder",
    "convert_adapter",
    "extract_adapter",
    "fuse_adapter",
    "inspect_adapter",
    "load_base",
    "load_config",
    "merge_adapters",
    "preset_names",
    "resize_adapter",
    "resume",
    "tiny_base_path",
    "train",
    "verify_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sd_lora' has no attribute {name!r}")
    return getattr(import_module(f"sd_lora.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
