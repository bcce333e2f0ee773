"""Where the settings of a form can come from: presets of the base model, those saved on this page, and earlier runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sd_lora.config.presets import default_preset, load_config, preset_misfit, preset_names, preset_summary
from sd_lora.config.reading import parse_config, read_config
from sd_lora.config.schema import RunConfig
from sd_lora.errors import ConfigError, SdLoraError
from sd_lora.runs.state import list_runs
from sd_lora.storage.atomic import storing, write_atomically

from ...bases import presets_for
from ...site import Site

_OWN, _RUN = "own:", "run:"
_MOST_RUNS = 20


def choices(site: Site) -> list[tuple[str, str]]:
    """Names and values of all sources: presets that suit the base model, with what they are for, the saved ones, and
    the newest runs."""
    first, known = usual(site), presets_for(site.base)
    names = sorted(preset_names(), key=lambda name: (name != first, name))
    suiting = [name for name in names if not preset_misfit(name, site.base, known)]
    saved = [(f"saved: {path.stem}", _OWN + path.stem) for path in sorted(_home(site).glob("*.toml"))]
    runs = [path for path in list_runs(site.runs)[:_MOST_RUNS] if (path / "config.toml").is_file()]
    return [
        *((f"{name}: {preset_summary(name)}", name) for name in suiting),
        *saved,
        *((f"settings of the run {path.name}", _RUN + site.id_of(path)) for path in runs),
    ]


def usual(site: Site) -> str:
    """The preset that a form begins with."""
    return next(iter(presets_for(site.base)), default_preset(site.base))


def config_from(site: Site, source: str) -> RunConfig:
    """The settings of a source, "" for the preset of the base model, on the base model of the page. ConfigError."""
    model = {"model": {"base": site.base}}
    if source.startswith(_RUN):
        return _of_run(site.run(source.removeprefix(_RUN)), site)
    if source.startswith(_OWN):
        saved = {path.stem: path for path in _home(site).glob("*.toml")}
        if source.removeprefix(_OWN) not in saved:
            raise ConfigError("that saved preset no longer exists; choose another")
        return with_options(read_config(saved[source.removeprefix(_OWN)]), model)
    if source and source not in preset_names():  # `load_config` would read a path
        raise ConfigError("that preset does not exist; choose another")
    if source and (why := preset_misfit(source, site.base, presets_for(site.base))):
        raise ConfigError(why)
    return load_config(source or usual(site), options=model)


def with_options(config: RunConfig, options: Mapping[str, Mapping[str, Any]]) -> RunConfig:
    """`config` with other values (section → key → value). ConfigError, one sentence for all that cannot be used."""
    return parse_config([("preset", tomllib.loads(config.to_toml())), ("options", options)])


def save(site: Site, name: str, config: RunConfig) -> str:
    """Keep the settings of `config`, without its images, as a preset of this page; returns its value in `choices`.

    ConfigError for a name that cannot be that of a file, StorageError if it cannot be written.
    """
    name = (name or "").strip()
    if not re.fullmatch(r"[^\W_][\w .-]{0,39}", name) or name.endswith("."):
        raise ConfigError("a saved preset needs a name of up to 40 letters, digits, spaces, - and _; give one")
    home = _home(site)
    with storing(home):
        home.mkdir(parents=True, exist_ok=True)
    write_atomically(home / f"{name}.toml", _without_places(config).to_toml().encode())
    return _OWN + name


def _of_run(folder: Path, site: Site) -> RunConfig:
    try:
        config = read_config(folder / "config.toml")
    except SdLoraError as error:
        raise ConfigError(f"the settings of {folder.name} cannot be read: {error}") from error
    return replace(_without_places(config), model=replace(config.model, base=site.base, revision="", config="", vae=""))


def _without_places(config: RunConfig) -> RunConfig:
    """`config` without what belongs to one run: its images, their words and prompts, files, and what was computed for
    this machine."""
    data = replace(config.data, folder="", trigger="", regularisation="", mask_folder="", cache="")
    training = replace(config.training, threads=None, micro_batch=None, gradient_checkpointing=None)
    preview = replace(config.preview, prompts=(), prompts_file="")
    output = replace(config.output, folder="", name="")
    lora = replace(config.lora, init="")
    return replace(config, data=data, training=training, preview=preview, output=output, lora=lora)


def _home(site: Site) -> Path:
    return site.runs / ".presets"
