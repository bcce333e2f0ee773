"""The one place that decides by what a module's change is scaled."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sd_lora.adapters.keys import DIFFUSERS_KEY
from sd_lora.adapters.source import CONFIG, Source
from sd_lora.errors import AdapterError
from sd_lora.models.families import components

#: module, rank, the alpha that the file has for it, and whether that scales it → alpha
Resolver = Callable[[str, int, float | None, bool], float]
#: ways in which PEFT starts an adapter that change the base model as well
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")


def alphas_of(source: Source) -> Resolver:
    """The alpha of each module: the file's own, else what diffusers' record in the metadata says, else PEFT's config
    beside the file, else the rank. An alpha of 0 stands for the rank, as in kohya's scripts.

    Raises AdapterError for a record that cannot be read.
    """
    records = _records(source)

    def alpha(name: str, rank: int, given: float | None, is_scaled: bool = True) -> float:
        if given is not None and is_scaled:
            return given or float(rank)
        component, _, module = name.partition(".")
        for where, of_component, record in records:
            is_ours = of_component in ("", component) and (is_scaled or record.get("peft_type") == "LOKR")
            if is_ours and (recorded := _recorded(where, record, module, ("lora_alpha", "alpha"), "alpha_pattern")):
                if not is_scaled:  # PEFT scales a LoKr of two complete factors by the rank that it would have had
                    return recorded / (_recorded(where, record, module, ("r",), "rank_pattern") or recorded) * rank
                return recorded * (rank**0.5 if record.get("use_rslora") else 1.0)
        return float(rank)

    return alpha


def _records(source: Source) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Where a record is, the component it is about ("" for all), and the record in PEFT's words."""
    records: list[tuple[str, str, Mapping[str, Any]]] = []
    if DIFFUSERS_KEY in source.metadata:
        where = f"{source.path} has a damaged record of its alphas ({DIFFUSERS_KEY})"
        try:
            flat = json.loads(source.metadata[DIFFUSERS_KEY], parse_int=float)  # else an integer may be too large
            for component in components():
                start = f"{component}."
                own = {key.removeprefix(start): value for key, value in flat.items() if key.startswith(start)}
                records.append((where, component, own))
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise AdapterError(f"{where}: {error}") from error
    for component, config in source.configs.items():
        records.append((f"{source.path} has a damaged record of its alphas ({CONFIG})", component, config))
    for where, _, record in records:
        start = str(record.get("init_lora_weights", "")).lower()
        if start.startswith(_CHANGES_BASE):
            raise AdapterError(
                f"{source.path} was started by {start} ({CONFIG}), which changes the base model as well; save it again "
                "with PEFT's path_initial_model_for_weight_conversion"
            )
        if not isinstance(record.get("alpha_pattern") or {}, Mapping):
            raise AdapterError(f"{where}: alpha_pattern is {record['alpha_pattern']!r:.40}")
    return records


def _recorded(where: str, record: Mapping[str, Any], module: str, names: Sequence[str], patterns: str) -> float:
    """The number that a record has for `module` under one of `names`; 0 if it has none. PEFT's patterns match the end
    of a module's path."""
    value: Any = next((record[name] for name in names if record.get(name)), 0.0)
    for pattern, own in (record.get(patterns) or {}).items():
        if re.search(rf"(?:^|\.)(?:{_expression(pattern)})$", module):
            value = own
            break
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise AdapterError(f"{where}: {value!r:.40}")
    return float(value)


def _expression(pattern: str) -> str:
    try:
        return re.compile(pattern).pattern
    except re.error:
        return re.escape(pattern)
