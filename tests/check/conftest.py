"""A check times steps of the base model; here they are timed once, as only a few tests ask what they cost."""

from __future__ import annotations

from typing import Any

import pytest

from sd_lora.check import doctor
from sd_lora.check.cost import Cost, measure


@pytest.fixture(scope="session")
def timed_once() -> Any:
    costs: dict[str, Cost] = {}

    def measured(family: Any, *arguments: Any, **options: Any) -> Cost:
        name = type(family).__name__
        costs[name] = costs.get(name) or measure(family, *arguments, **options)
        return costs[name]

    return measured


@pytest.fixture(autouse=True)
def _timed_once(timed_once: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "measure", timed_once)
