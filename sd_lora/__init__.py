"""sd_lora: style LoRA for Stable Diffusion, from a folder of captioned images to a measured adapter.

Names are imported when first used, so that ``import sd_lora`` and the command line's help stay instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sd_lora.version import __version__

if TYPE_CHECKING:
    from sd_lora.adapters.adapter import Adapter
    from sd_lora.adapters.summary import AdapterSummary, read_summary
    from sd_lora.check.doctor import check_folder
    from sd_lora.check.result import Check, duration, how_often
    from sd_lora.config.help import setting_help
    from sd_lora.config.presets import load_config, preset_names
    from sd_lora.config.schema import ModelConfig, RunConfig
    from sd_lora.data.captions import triggered
    from sd_lora.data.editing.editor import CaptionChanged, CaptionEditor
    from sd_lora.data.findings import Finding, grouped
    from sd_lora.data.pictures.decode import IMAGE_SUFFIXES
    from sd_lora.errors import AdapterError, BaseModelError, ConfigError, DataError, SdLoraError, TrainingStopped
    from sd_lora.models.opening import load_base
    from sd_lora.preview.events import (
        PreviewBusy,
        PreviewCell,
        PreviewEvent,
        PreviewProgress,
        PreviewStopped,
        PreviewWaiting,
    )
    from sd_lora.preview.job import MixedAdapter, PreviewJob, PreviewLimits, PreviewRow
    from sd_lora.preview.previewer import Previewer, PreviewGrid
    from sd_lora.preview.prompts import parse_strengths, plain_name, split_tags
    from sd_lora.preview.recipe import a1111_line, png_with_recipe, read_recipe
    from sd_lora.preview.service import PreviewService
    from sd_lora.runs.control import resume_run, start_run, stop_run
    from sd_lora.runs.reports import StepReport
    from sd_lora.runs.state import RunState, list_runs, read_run, run_status
    from sd_lora.tinybase import tiny_base_path
    from sd_lora.tools.convert import convert_adapter
    from sd_lora.tools.extract import extract_adapter
    from sd_lora.tools.fuse import fuse_adapter
    from sd_lora.tools.inspect import AdapterReport, inspect_adapter
    from sd_lora.tools.merge import merge_adapters
    from sd_lora.tools.resize import resize_adapter
    from sd_lora.tools.verify import verify_adapter
    from sd_lora.training.run import resume, train

_HOME = {
    "Adapter": "adapters.adapter",
    "RunConfig": "config.schema",
    "AdapterError": "errors",
    "BaseModelError": "errors",
    "ConfigError": "errors",
    "DataError": "errors",
    "SdLoraError": "errors",
    "TrainingStopped": "errors",
    "load_base": "models.opening",
    "load_config": "config.presets",
    "preset_names": "config.presets",
    "Previewer": "preview.previewer",
    "PreviewGrid": "preview.previewer",
    "tiny_base_path": "tinybase",
    "AdapterReport": "tools.inspect",
    "inspect_adapter": "tools.inspect",
    "StepReport": "runs.reports",
    "train": "training.run",
    "resume": "training.run",
    "ModelConfig": "config.schema",
    "convert_adapter": "tools.convert",
    "extract_adapter": "tools.extract",
    "fuse_adapter": "tools.fuse",
    "CaptionChanged": "data.editing.editor",
    "CaptionEditor": "data.editing.editor",
    "IMAGE_SUFFIXES": "data.pictures.decode",
    "duration": "check.result",
    "grouped": "data.findings",
    "how_often": "check.result",
    "triggered": "data.captions",
    "Check": "check.result",
    "check_folder": "check.doctor",
    "Finding": "data.findings",
    "merge_adapters": "tools.merge",
    "resize_adapter": "tools.resize",
    "verify_adapter": "tools.verify",
    "AdapterSummary": "adapters.summary",
    "read_summary": "adapters.summary",
    "MixedAdapter": "preview.job",
    "PreviewBusy": "preview.events",
    "PreviewCell": "preview.events",
    "PreviewEvent": "preview.events",
    "PreviewJob": "preview.job",
    "PreviewLimits": "preview.job",
    "PreviewProgress": "preview.events",
    "PreviewRow": "preview.job",
    "PreviewService": "preview.service",
    "PreviewStopped": "preview.events",
    "PreviewWaiting": "preview.events",
    "a1111_line": "preview.recipe",
    "parse_strengths": "preview.prompts",
    "png_with_recipe": "preview.recipe",
    "read_recipe": "preview.recipe",
    "plain_name": "preview.prompts",
    "split_tags": "preview.prompts",
    "RunState": "runs.state",
    "list_runs": "runs.state",
    "read_run": "runs.state",
    "run_status": "runs.state",
    "resume_run": "runs.control",
    "start_run": "runs.control",
    "stop_run": "runs.control",
    "setting_help": "config.help",
}

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
