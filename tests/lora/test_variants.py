"""The table of variants: what stands in it, and who must agree with it."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest

from sd_lora.config.schema import LoraConfig
from sd_lora.lora.variants import VARIANTS, called, variant_of


def test_the_setting_names_the_variants_of_the_table() -> None:
    assert get_args(get_type_hints(LoraConfig)["variant"]) == tuple(
        name for name, row in VARIANTS.items() if row.is_trained
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_a_row_has_the_same_roles_in_every_layout(name: str) -> None:
    row = VARIANTS[name]
    assert row.name == name
    needed = set(row.roles) - set(row.optional)
    assert all(needed <= set(endings) <= set(row.roles) for endings in row.keys.values() if endings or row.is_trained)


def test_an_ending_has_one_meaning() -> None:
    """Whatever row it is of: the reader goes by endings alone."""
    for layout in ("kohya", "diffusers"):
        meant = {(ending, role) for row in VARIANTS.values() for role, ending in row.keys[layout].items()}
        assert len({ending for ending, _ in meant}) == len(meant) == len({role for _, role in meant})


def test_the_variant_is_found_by_the_roles_and_lacks_fewest() -> None:
    found = {roles: variant_of(roles.split()) for roles in ("down up", "down", "magnitude", "down up magnitude", "odd")}
    assert {roles: row and row.name for roles, row in found.items()} == {
        "down up": "lora", "down": "lora", "magnitude": "dora", "down up magnitude": "dora", "odd": None,
    }  # fmt: skip


def test_an_adapter_is_called_by_its_last_variant() -> None:
    assert [called(names) for names in (["lora"], ["dora", "lora"], [])] == ["lora", "dora", ""]
