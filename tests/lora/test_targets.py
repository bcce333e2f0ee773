"""`plan_targets`: which modules are chosen, with which rank and alpha, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from sd_lora.errors import AdapterError
from sd_lora.lora.inject import inject
from sd_lora.lora.targets import Target, plan_targets
from sd_lora.lora.variants import new_layer
from sd_lora.models.families import FAMILIES

GROUPS = FAMILIES["sd"].target_groups
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


@pytest.fixture
def components() -> dict[str, nn.Module]:
    block = nn.ModuleDict({"to_q": nn.Linear(4, 4), "to_k": nn.Linear(4, 4), "norm": nn.LayerNorm(4)})
    root = nn.ModuleDict({"mid_block": block, "conv": nn.Conv2d(4, 4, 3), "embed": nn.Embedding(4, 4)})
    return {"unet": root}


def names(plan: list[Target]) -> list[str]:
    return [target.name for target in plan]


def test_a_pattern_chooses_full_names(components: dict) -> None:
    plan = plan_targets(components, {}, ["unet.mid_block.to_q"], (2, 3.0))
    assert plan == [Target("unet.mid_block.to_q", components["unet"]["mid_block"]["to_q"], 2, 3.0)]
    assert plan[0].module is components["unet"]["mid_block"]["to_q"]


def test_only_linear_and_conv_modules_are_eligible(components: dict) -> None:
    assert names(plan_targets(components, {}, ["*"])) == ["unet.mid_block.to_q", "unet.mid_block.to_k", "unet.conv"]


def test_groups_and_patterns_join_without_doubles(components: dict) -> None:
    plan = plan_targets(components, {"k": ("*.to_k",)}, ["unet.conv", "k", "unet.mid_block.*"])
    assert names(plan) == ["unet.mid_block.to_q", "unet.mid_block.to_k", "unet.conv"]


def test_the_last_matching_rank_and_alpha_win(components: dict) -> None:
    ranks, alphas = {"*": 8, "*.to_q": 4, "unet.conv": 2}, {"*.to_k": 1.0}
    plan = plan_targets(components, {}, ["*"], (16, 32.0), (ranks, alphas))
    sizes = {target.name.split(".")[-1]: (target.rank, target.alpha) for target in plan}
    assert sizes == {"to_q": (4, 32.0), "to_k": (8, 1.0), "conv": (2, 32.0)}
    assert plan_targets(components, {}, ["*.to_q"], overrides=({"*.to_q": 4, "*": 8}, {}))[0].rank == 8


def test_alphas_are_floats(components: dict) -> None:
    plan = plan_targets(components, {}, ["*"], (4, 8), ({}, {"*.to_q": 2}))
    assert [type(target.alpha) for target in plan] == [float] * 3


def test_everything_that_matches_nothing_is_named_in_one_error(components: dict) -> None:
    with pytest.raises(AdapterError) as caught:
        plan_targets(
            components, {"attn": ("*.to_q",)}, ["atn", "attn", "unet.up_blocks.*"],
            overrides=({"*.to_v": 4}, {"*.to_out": 4.0}),
        )  # fmt: skip
    message = str(caught.value)
    for part in ('"atn"', 'did you mean "attn"?', '"unet.up_blocks.*"', '"*.to_v"', '"*.to_out"', "unet"):
        assert part in message
    assert '"attn" matches no' not in message
    assert "\n" not in message


def test_a_word_near_to_no_group_lists_the_groups(components: dict) -> None:
    with pytest.raises(AdapterError, match="known are attn, ff"):
        plan_targets(components, {"attn": ("*",), "ff": ("*",)}, ["zzzz"])


def test_a_size_pattern_must_match_a_chosen_module_not_just_any(components: dict) -> None:
    with pytest.raises(AdapterError, match=r'"unet\.conv" matches none of the 1 chosen'):
        plan_targets(components, {}, ["*.to_q"], overrides=({"unet.conv": 4}, {}))


@pytest.mark.parametrize(("rank", "ranks"), [(0, {}), (-1, {}), (4, {"*.to_q": 0})])
def test_a_rank_below_one_is_refused(components: dict, rank: int, ranks: dict[str, int]) -> None:
    with pytest.raises(AdapterError, match=f"at least 1, but {min(rank, 0)} was given"):
        plan_targets(components, {}, ["*"], (rank, 4.0), (ranks, {}))


def test_layers_already_injected_are_no_targets(components: dict) -> None:
    plan = plan_targets(components, {}, ["unet.*"])
    modules = {target.name: target.module for target in plan}
    inject({name: new_layer(module, 2, 2.0) for name, module in modules.items()}, modules)
    assert names(plan_targets(components, {}, ["unet.*"])) == names(plan)


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_every_group_matches_modules_of_the_random_base(random_sd: Any, group: str) -> None:
    plan = plan_targets({"unet": random_sd.unet, "text_encoder": random_sd.text_encoder}, GROUPS, [group])
    assert plan
    for target in plan:
        component, path = target.name.split(".", 1)
        assert component == ("text_encoder" if group.startswith("text") else "unet")
        assert getattr(random_sd, component).get_submodule(path) is target.module


def test_attn_is_exactly_the_attention_projections(random_sd: Any) -> None:
    chosen = names(plan_targets({"unet": random_sd.unet}, GROUPS, ["attn"]))
    paths = [path for path, _ in random_sd.unet.named_modules()]
    assert chosen == [f"unet.{path}" for path in paths if path.endswith(tuple(f".{end}" for end in ATTENTION))]
    assert {name.split("attn")[-1][2:] for name in chosen} == set(ATTENTION)


@pytest.mark.parametrize(
    ("groups", "count"),
    [("attn", 128), ("ff", 32), ("proj", 32), ("attn+ff+proj", 192), ("attn+ff+proj+conv", 278)],
)
def test_sd15_at_full_size_has_the_published_number_of_targets(sd15_unet: Any, groups: str, count: int) -> None:
    assert len(plan_targets({"unet": sd15_unet}, GROUPS, groups.split("+"))) == count


def test_the_groups_leave_out_what_other_programs_never_load(sd15_unet: Any) -> None:
    """conv_in, conv_out and the time embedding, which not every program loads."""
    groups = [group for group in GROUPS if not group.startswith("text")]
    chosen = names(plan_targets({"unet": sd15_unet}, GROUPS, groups))
    assert not [name for name in chosen if name.startswith(("unet.conv_in", "unet.conv_out", "unet.time_embedding"))]
    everything = names(plan_targets({"unet": sd15_unet}, GROUPS, ["*"]))
    assert {n.split(".")[1] for n in set(everything) - set(chosen)} == {"conv_in", "conv_out", "time_embedding"}
