"""sd_lora: style LoRA for Stable Diffusion, from a folder of captioned images to a measured adapter.

Names are imported when first used, so that ``import sd_lora`` and the command line's help stay instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sd_lora.version import __version__

if TYPE_CHECKING:  # for editors and type checkers only
    from sd_lora.adapters.adapter import Adapter
    from sd_lora.adapters.summary import read_summary
    from sd_lora.check.doctor import check_folder
    from sd_lora.config.presets import load_config, preset_names
    from sd_lora.config.schema import ModelConfig, RunConfig
    from sd_lora.errors import AdapterError, BaseModelError, ConfigError, DataError, SdLoraError, TrainingStopped
    from sd_lora.models.families import register_family
    from sd_lora.models.opening import load_base
    from sd_lora.preview.previewer import Previewer
    from sd_lora.preview.sheet import PreviewGrid
    from sd_lora.runs.reports import StepReport
    from sd_lora.tinybase import tiny_base_path
    from sd_lora.tools.convert import convert_adapter
    from sd_lora.tools.extract import extract_adapter
    from sd_lora.tools.fuse import fuse_adapter
    from sd_lora.tools.inspect import inspect_adapter
    from sd_lora.tools.merge import merge_adapters
    from sd_lora.tools.resize import resize_adapter
    from sd_lora.tools.verify import verify_adapter
    from sd_lora.training.run import resume, train
    from sd_lora.training.settings_check import check_settings

_NAMES = {
    "adapters.adapter": "Adapter",
    "adapters.summary": "read_summary",
    "check.doctor": "check_folder",
    "config.presets": "load_config preset_names",
    "config.schema": "ModelConfig RunConfig",
    "errors": "AdapterError BaseModelError ConfigError DataError SdLoraError TrainingStopped",
    "models.families": "register_family",
    "models.opening": "load_base",
    "preview.previewer": "Previewer",
    "preview.sheet": "PreviewGrid",
    "runs.reports": "StepReport",
    "tinybase": "tiny_base_path",
    "tools.convert": "convert_adapter",
    "tools.extract": "extract_adapter",
    "tools.fuse": "fuse_adapter",
    "tools.inspect": "inspect_adapter",
    "tools.merge": "merge_adapters",
    "tools.resize": "resize_adapter",
    "tools.verify": "verify_adapter",
    "training.run": "resume train",
    "training.settings_check": "check_settings",
}
_HOME = {name: module for module, names in _NAMES.items() for name in names.split()}

# Type checkers take nothing that is computed here; a test compares it with the table.
__all__ = [
    "Adapter", "AdapterError", "BaseModelError", "ConfigError", "DataError", "ModelConfig", "PreviewGrid",
    "Previewer", "RunConfig", "SdLoraError", "StepReport", "TrainingStopped", "__version__", "check_folder",
    "check_settings", "convert_adapter", "extract_adapter", "fuse_adapter", "inspect_adapter", "load_base",
    "load_config", "merge_adapters", "preset_names", "read_summary", "register_family", "resize_adapter", "resume",
    "tiny_base_path", "train", "verify_adapter",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sd_lora' has no attribute {name!r}")
    return getattr(import_module(f"sd_lora.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
