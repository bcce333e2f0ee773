"""sd_lora: style LoRA for Stable Diffusion, from a folder of captioned images to a measured adapter.

Names are imported when first used, so that ``import sd_lora`` and the command line's help stay instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sd_lora.version import __version__

if TYPE_CHECKING:
    from sd_lora.adapter import Adapter
    from sd_lora.check.doctor import check_folder
    from sd_lora.check.model import Check, duration, how_often
    from sd_lora.config import ModelConfig, RunConfig
    from sd_lora.config_help import setting_help
    from sd_lora.data.captions import triggered
    from sd_lora.data.editing import CaptionChanged, CaptionEditor
    from sd_lora.data.findings import Finding, grouped
    from sd_lora.data.pictures import IMAGE_SUFFIXES
    from sd_lora.errors import AdapterError, BaseModelError, ConfigError, DataError, SdLoraError, TrainingStopped
    from sd_lora.families import load_base
    from sd_lora.library import AdapterSummary, read_summary
    from sd_lora.presets import load_config, preset_names
    from sd_lora.preview import Previewer, PreviewGrid
    from sd_lora.run_control import resume_run, start_run, stop_run
    from sd_lora.run_state import RunState, list_runs, read_run, run_status
    from sd_lora.service import (
        MixedAdapter,
        PreviewBusy,
        PreviewCell,
        PreviewEvent,
        PreviewJob,
        PreviewLimits,
        PreviewProgress,
        PreviewRow,
        PreviewService,
        PreviewStopped,
        PreviewWaiting,
        a1111_line,
        png_with_recipe,
        read_recipe,
    )
    from sd_lora.strength_text import parse_strengths, plain_name, split_tags
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
    "CaptionChanged": "data.editing", "CaptionEditor": "data.editing", "IMAGE_SUFFIXES": "data.pictures",
    "duration": "check.model",
    "grouped": "data.findings", "how_often": "check.model", "triggered": "data.captions",
    "Check": "check.model", "check_folder": "check.doctor", "Finding": "data.findings",
    "merge_adapters": "tools.merge", "resize_adapter": "tools.resize", "verify_adapter": "tools.verify",
    "AdapterSummary": "library", "read_summary": "library",
    "MixedAdapter": "service", "PreviewBusy": "service", "PreviewCell": "service", "PreviewEvent": "service",
    "PreviewJob": "service", "PreviewLimits": "service", "PreviewProgress": "service", "PreviewRow": "service",
    "PreviewService": "service", "PreviewStopped": "service", "PreviewWaiting": "service", "a1111_line": "service",
    "parse_strengths": "strength_text", "png_with_recipe": "service", "read_recipe": "service",
    "plain_name": "strength_text", "split_tags": "strength_text",
    "RunState": "run_state", "list_runs": "run_state", "read_run": "run_state", "run_status": "run_state",
    "resume_run": "run_control", "start_run": "run_control", "stop_run": "run_control", "setting_help": "config_help",
}  # fmt: skip

__all__ = [
    "IMAGE_SUFFIXES",
    "Adapter",
    "AdapterError",
    "AdapterReport",
    "AdapterSummary",
    "BaseModelError",
    "CaptionChanged",
    "CaptionEditor",
    "Check",
    "ConfigError",
    "DataError",
    "Finding",
    "MixedAdapter",
    "ModelConfig",
    "PreviewBusy",
    "PreviewCell",
    "PreviewEvent",
    "PreviewGrid",
    "PreviewJob",
    "PreviewLimits",
    "PreviewProgress",
    "PreviewRow",
    "PreviewService",
    "PreviewStopped",
    "PreviewWaiting",
    "Previewer",
    "RunConfig",
    "RunState",
    "SdLoraError",
    "StepReport",
    "TrainingStopped",
    "__version__",
    "a1111_line",
    "check_folder",
    "convert_adapter",
    "duration",
    "extract_adapter",
    "fuse_adapter",
    "grouped",
    "how_often",
    "inspect_adapter",
    "list_runs",
    "load_base",
    "load_config",
    "merge_adapters",
    "parse_strengths",
    "plain_name",
    "png_with_recipe",
    "preset_names",
    "read_recipe",
    "read_run",
    "read_summary",
    "resize_adapter",
    "resume",
    "resume_run",
    "run_status",
    "setting_help",
    "split_tags",
    "start_run",
    "stop_run",
    "tiny_base_path",
    "train",
    "triggered",
    "verify_adapter",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sd_lora' has no attribute {name!r}")
    return getattr(import_module(f"sd_lora.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
