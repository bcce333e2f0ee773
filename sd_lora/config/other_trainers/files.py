"""Config files of other trainers: read, recognised, and laid flat as name → value."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sd_lora.config.other_trainers.ai_toolkit import ARCHITECTURES, OTHER_FAMILIES
from sd_lora.config.other_trainers.causes import cause, refuse_windows_paths
from sd_lora.config.other_trainers.onetrainer import MODELS
from sd_lora.config.other_trainers.row import is_off, is_unset
from sd_lora.config.other_trainers.table import AI_TOOLKIT, KOHYA, ONETRAINER, Trainer
from sd_lora.config.schema import SECTIONS
from sd_lora.errors import ConfigError, printable, reason
from sd_lora.storage.text import read_text

_MAX_BYTES = 1_000_000
#: names that only kohya's scripts or their GUI have
_KOHYAS = frozenset({
    "pretrained_model_name_or_path", "network_module", "network_dim", "network_alpha", "train_data_dir", "unet_lr",
    "text_encoder_lr", "optimizer_type", "LoRA_type", "max_train_steps", "max_train_epochs", "train_batch_size",
    "lr_scheduler", "output_name", "dataset_config",
})  # fmt: skip
#: settings that hold others
_LISTS = ("network_args", "optimizer_args", "lr_scheduler_args")
#: what a dataset TOML says that is a setting of the run here
_OF_DATASETS = (
    "resolution", "batch_size", "enable_bucket", "bucket_no_upscale", "min_bucket_reso", "max_bucket_reso",
    "bucket_reso_steps", "caption_dropout_rate", "random_crop",
)  # fmt: skip
_OTHER_MODELS = re.compile(r"black-forest-labs/|stable-diffusion-3|/(?:flux|sd3)[.\w-]*$", re.IGNORECASE)


@dataclass(frozen=True)
class Flat:
    """A file of another trainer: its settings, by name, and what it has more than one of, of which one is read."""

    trainer: Trainer
    given: dict[str, Any]
    more: dict[str, str]


def read_any(path: str | Path) -> dict[str, Any]:
    """The content of a TOML, JSON or YAML file. ConfigError with the likely cause if it is none."""
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ConfigError(f"{path} is larger than {_MAX_BYTES // 1000} kB; name a config file")
        text = read_text(path)
    except FileNotFoundError as error:
        raise ConfigError(f"{path} does not exist; name a config file of another trainer") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8 or UTF-16; name a config file of another trainer") from error
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {reason(error)}") from error
    kind = {".json": "JSON", ".yaml": "YAML", ".yml": "YAML"}.get(path.suffix.lower(), "TOML")
    if kind == "TOML" and text.lstrip().startswith("{"):
        kind = "JSON"
    try:
        content = _parsed(kind, text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as {kind}: {cause(text, error, kind)}") from error
    if not isinstance(content, dict):
        what = {list: "a list", str: "a text", type(None): "nothing"}.get(type(content), "a number")
        raise ConfigError(f"{path} holds {what}, and no settings; name a config file")
    refuse_windows_paths(path, text)
    return content


def _parsed(kind: str, text: str) -> Any:
    if kind == "JSON":
        return json.loads(text)
    if kind == "TOML":
        return tomllib.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        said = ", ".join(filter(None, (getattr(error, "context", ""), getattr(error, "problem", ""))))
        mark = getattr(error, "problem_mark", None)
        raise ValueError(f"{said or error}{f' (at line {mark.line + 1})' if mark else ''}") from error


def trainer_of(content: Mapping[str, Any]) -> Trainer | None:
    """Whose config `content` is; None for ours, a dataset file, or nobody's."""
    config = content.get("config")
    if isinstance(config, Mapping) and isinstance(config.get("process"), list):
        return AI_TOOLKIT
    if {"training_method", "base_model_name", "model_type"} & content.keys():
        return ONETRAINER
    if any(
        isinstance(content.get(section), Mapping) and content[section].keys() & kind.__dataclass_fields__.keys()
        for section, kind in SECTIONS.items()
    ):  # type: ignore[attr-defined]
        return None
    names = set(content) | {key for part in content.values() if isinstance(part, Mapping) for key in part}
    return KOHYA if names & _KOHYAS else None


def refuse(path: str | Path, content: Mapping[str, Any]) -> None:
    """ConfigError if `content` is a config of another trainer, or a dataset file, and not of ours."""
    trainer = trainer_of(content)
    if trainer is not None:
        raise ConfigError(
            f"{path} is a config of {trainer.title}; write it as one of ours with: sd-lora import-config "
            f"{shlex.quote(str(path))} --out mine.toml"
        )
    if "datasets" in content or Path(path).suffix.lower() != ".toml":
        raise ConfigError(_not_one(Path(path), content))


def flat(path: str | Path) -> Flat:
    """A file of another trainer laid flat. ConfigError if it is none, or for what cannot be trained here."""
    content = read_any(path)
    trainer = trainer_of(content)
    if trainer is None:
        raise ConfigError(_not_one(Path(path), content))
    laid = {KOHYA: _kohya, ONETRAINER: _onetrainer, AI_TOOLKIT: _ai_toolkit}
    found = laid[trainer](content, Path(path).parent)
    family = _other_family(found.given)
    if family:
        raise ConfigError(
            f"{path} trains {printable(family)}, but only configs for Stable Diffusion 1, 2 and XL are imported; start "
            "from a preset instead (sd-lora presets)"
        )
    return found


def _not_one(path: Path, content: Mapping[str, Any]) -> str:
    if "datasets" in content:
        return (
            f"{path} is a dataset file, which needs no import; give it as the FOLDER: sd-lora train "
            f"{shlex.quote(str(path))}"
        )
    ours = [section for section in content if section in SECTIONS]
    if ours:
        return f"{path} is a config of sd-lora already; use it with --preset {shlex.quote(str(path))}"
    return f"{path} is no config of kohya's scripts, kohya_ss, OneTrainer or ai-toolkit; name one of these"


def _kohya(content: Mapping[str, Any], home: Path) -> Flat:
    """Sections have no meaning there; lists of ``key=value`` are settings of the network, optimizer or schedule. What a
    dataset TOML says of all its images counts more than the config, as it does there."""
    given: dict[str, Any] = {}
    laid = {key: inner for name, value in content.items()
            for key, inner in (value.items() if isinstance(value, Mapping) else [(name, value)])}  # fmt: skip
    more = _dataset(given, laid.get("dataset_config"), home)
    _add(given, laid, replace=False)
    typed: dict[str, Any] = {}
    _add(typed, _command_line(str(laid.get("additional_parameters") or "")))
    for name in typed:  # which counts more than the page, and perhaps by another name
        row = KOHYA.row(name)
        for other in {name, *(row.names if row else ())} & given.keys():
            more[other] = f"additional_parameters has {name}"
            del given[other]
    return Flat(KOHYA, {**given, **typed}, more)


def _add(given: dict[str, Any], settings: Mapping[str, Any], *, replace: bool = True) -> None:
    """Add `settings` of kohya's to `given`, those in a list of ``key=value`` one by one."""
    for key, inner in settings.items():
        if key in _LISTS and not is_unset(inner):
            given.update(_arguments(key, inner))
        elif replace or key not in given:
            given[key] = inner


def _command_line(text: str) -> dict[str, Any]:
    """The options in `text`, as they are typed: ``--name``, ``--name value``, ``--name=value``, ``--name a=1 b=2``."""
    try:
        words = shlex.split(text)
    except ValueError:  # a quote that is not closed
        words = text.split()
    options: dict[str, Any] = {}
    name = ""
    for word in words:
        if re.match(r"--[A-Za-z]", word):
            name, equals, value = word[2:].partition("=")
            options[name] = value if equals else True
        elif name:
            before = options[name]
            options[name] = word if before is True else [*(before if isinstance(before, list) else [before]), word]
        else:
            options[word] = True
    return options


def _dataset(given: dict[str, Any], name: Any, home: Path) -> dict[str, str]:
    """Add to `given` what a dataset TOML says of all images, and is not read when they are; what is not read at all."""
    place = next((place for place in (home / str(name), Path(str(name))) if name and place.is_file()), None)
    if place is None:
        return {}
    content = read_any(place)
    tables = _tables(content.get("datasets"))
    general = content.get("general")
    shared = {**(general if isinstance(general, dict) else {}), **(tables[0] if tables else {})}
    given.update({key: value for key, value in shared.items() if key in _OF_DATASETS})
    return {f"{name}: datasets[{number}]": "its resolution, batch size and buckets are those of the first"
            for number in range(1, len(tables))}  # fmt: skip


def _arguments(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    parts = value if isinstance(value, list) else re.split(r"\s+(?=[\w.]+=)", str(value).strip())
    for part in parts:
        key, _, inner = str(part).strip("\"' ").partition("=")
        yield f"{name}.{key.strip()}", inner.strip("\"' ")


def _onetrainer(content: Mapping[str, Any], home: Path) -> Flat:
    given, more = {}, {}
    tree = {key: value for key, value in content.items() if key not in ("concepts", "samples")}
    given.update(_leaves(tree, ""))
    concepts = _tables(content.get("concepts")) or _beside(content.get("concept_file_name"), home)
    usable = [concept for concept in concepts if not is_off(concept.get("enabled", True))]
    more |= {f"concepts[{number}]": "it is switched off" for number, concept in enumerate(concepts)
             if concept not in usable}  # fmt: skip
    more |= {f"concepts[{concepts.index(concept)}] ({concept.get('path')})": _ONE_FOLDER for concept in usable[1:]}
    if usable:
        given.update(_leaves(usable[0], "concepts."))
    samples = _tables(content.get("samples")) or _beside(content.get("sample_definition_file_name"), home)
    drawn = [sample for sample in samples if not is_off(sample.get("enabled", True))]
    more |= {f"samples[{number}] ({printable(str(sample.get('prompt')))})": "it is switched off"
             for number, sample in enumerate(samples) if sample not in drawn}  # fmt: skip
    if drawn:
        given["samples"] = drawn
    return Flat(ONETRAINER, given, more)


_ONE_FOLDER = "one folder is read; put them in one, or name each in a subset of a dataset TOML"


def _beside(name: Any, home: Path) -> list[dict[str, Any]]:
    """The tables of a file that another names; none if it is not there."""
    for place in (home / str(name), home.parent / str(name), Path(str(name))):
        if name and place.is_file():
            try:
                content = json.loads(read_text(place))
            except (OSError, ValueError) as error:
                raise ConfigError(f"{place} cannot be read as JSON: {error}") from error
            return _tables(content)
    return []


def _tables(content: Any) -> list[dict[str, Any]]:
    """The tables in a list; none if it is no list."""
    return [item for item in content if isinstance(item, dict)] if isinstance(content, list) else []


def _ai_toolkit(content: Mapping[str, Any], _: Path) -> Flat:
    config, given, more = content["config"], {}, {}
    processes = _tables(config["process"]) or [{}]
    process = dict(processes[0])
    more |= {f"config.process[{number}]": "one process is read" for number in range(1, len(processes))}
    datasets = _tables(process.pop("datasets", None))
    given["name"] = config.get("name")
    given.update(_leaves(process, ""))
    regular = [item for item in datasets if is_off(item.get("is_reg"))]
    more |= {f"datasets[{datasets.index(item)}] ({item.get('folder_path')})":
             _ONE_FOLDER if item in regular else "name it in data.regularisation" for item in datasets
             if item not in regular[:1]}  # fmt: skip
    given.update(_leaves(regular[0], "datasets.") if regular else {})
    given.update(_leaves({key: value for key, value in content.items() if key != "config"}, ""))
    return Flat(AI_TOOLKIT, given, more)


def _leaves(tree: Mapping[str, Any], before: str) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            leaves.update(_leaves(value, f"{before}{key}."))
        else:
            leaves[f"{before}{key}"] = value
    return leaves


def _other_family(given: Mapping[str, Any]) -> str:
    """The family that is trained, or what else, if it cannot be trained here."""
    module = str(given.get("network_module", ""))
    if re.search(r"flux|sd3|lumina|hunyuan|anima|wan|qwen|framepack|zimage", module):
        return f"another family (network_module = {module})"
    if str(given.get("LoRA_type", "")).startswith("Flux") or any(
        not is_off(given.get(name)) for name in ("flux1_checkbox", "sd3_checkbox")
    ):
        return "Flux or Stable Diffusion 3"
    model, method = str(given.get("model_type", "")), str(given.get("training_method", "LORA"))
    if model and model not in MODELS and "training_method" in given:
        return f"another family (model_type = {model})"
    if method != "LORA":
        return f"no LoRA (training_method = {method})"
    wrong = [name for name in OTHER_FAMILIES if not is_off(given.get(f"model.{name}"))]
    if wrong or (given.get("model.arch") and str(given["model.arch"]) not in ARCHITECTURES):
        return f"another family (model.{wrong[0]})" if wrong else f"another family (model.arch = {given['model.arch']})"
    base = str(given.get("pretrained_model_name_or_path") or given.get("model.name_or_path") or "")
    return f"another family ({base})" if _OTHER_MODELS.search(base) else ""
