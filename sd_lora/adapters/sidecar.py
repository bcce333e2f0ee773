"""What other programs read beside an adapter: its facts, as A1111 and Forge write them into NAME.json. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from sd_lora.models.families import kinds

_STRONGEST = 10.0


def sidecar_of(metadata: Mapping[str, str], kind: str = "", strength: float | None = None) -> dict[str, str | float]:
    """The facts in `metadata`, of a base model of that `kind`; without those that are not recorded.

    No preferred weight is given unless a `strength` has been measured: a program would take it for a recommendation.
    """
    facts = {
        "description": metadata.get("modelspec.description", ""),
        "sd version": kinds()[kind].version if kind in kinds() else "",
        "activation text": metadata.get("modelspec.trigger_phrase") or metadata.get("sdlora.trigger", ""),
        "notes": metadata.get("modelspec.usage_hint", ""),
    }
    weight = {"preferred weight": strength} if strength is not None and abs(strength) <= _STRONGEST else {}
    return {key: value for key, value in facts.items() if value} | weight
