"""Schedules against closed forms; every optimizer learns and goes on exactly from its state."""

from __future__ import annotations

import json
import math
import sys
from typing import Any, get_args, get_type_hints

import pytest
import torch
from safetensors.torch import load as load_bytes
from safetensors.torch import save as save_bytes
from torch import Tensor, nn

from sd_lora.config.schema import OptimizerConfig
from sd_lora.errors import AdapterError, ConfigError
from sd_lora.lora.variants import new_layer
from sd_lora.training.optimizer_state import optimizer_state, restore_optimizer, settle
from sd_lora.training.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    ParameterGroup,
    make_optimizer,
    optimizer_problems,
    rate_share,
    set_rate,
)
from sd_lora.training.run import accelerator_for

CPU = torch.device("cpu")
#: name → settings with which it learns the toy problem
SETTINGS: dict[str, dict[str, Any]] = {
    "adamw": {"learning_rate": 1e-2, "plus_ratio": 4.0},
    "adafactor": {"learning_rate": 1e-2, "plus_ratio": 4.0},
    "prodigy": {"learning_rate": 1.0},
    "schedule-free": {"learning_rate": 3e-2, "schedule": "constant", "plus_ratio": 2.0},
    "lion": {"learning_rate": 1e-2, "betas": (0.8, 0.95)},
}
#: adamw8bit computes on CUDA devices only
EVERY = pytest.mark.parametrize("name", [name for name, row in OPTIMIZERS.items() if not row.needs_cuda])


def config(name: str = "adamw", **settings: Any) -> OptimizerConfig:
    return OptimizerConfig(name=name, **{**SETTINGS[name], **settings})  # type: ignore[arg-type]


class Toy:
    """A linear and a conv layer that learn random products, each step from another noisy view of them."""

    def __init__(self, settings: OptimizerConfig, steps: int) -> None:
        torch.manual_seed(1)
        targets = nn.Linear(6, 5), nn.Conv2d(3, 4, 3)
        self.layers = [new_layer(target, 2, 4.0) for target in targets]
        self.goals = [torch.randn_like(target.weight) for target in targets]
        linear, conv = self.layers
        peak = settings.learning_rate
        text = peak if settings.name == "prodigy" else 0.5 * peak
        self.settings, self.steps = settings, steps
        self.optimizer = make_optimizer(
            [
                ParameterGroup([linear.down.weight], peak),
                ParameterGroup([linear.up.weight], peak, up=True),
                ParameterGroup([], peak),
                ParameterGroup([conv.down.weight, conv.up.weight], text),
            ],
            settings,
            CPU,
        )

    def loss(self) -> Tensor:
        pairs = zip(self.layers, self.goals, strict=True)
        return sum((nn.functional.mse_loss(layer.delta_weight(goal), goal) for layer, goal in pairs), torch.zeros(()))

    def train(self, first: int, last: int) -> None:
        for step in range(first, last):
            set_rate(self.optimizer, rate_share(step, self.steps, self.settings))
            generator = torch.Generator().manual_seed(step)
            loss = self.loss()
            for layer, goal in zip(self.layers, self.goals, strict=True):
                product = layer.delta_weight(goal)
                loss = loss + 0.1 * (product * torch.randn(product.shape, generator=generator)).mean()
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    def weights(self) -> list[Tensor]:
        return [tensor.detach().clone() for layer in self.layers for tensor in layer.tensors().values()]

    def load(self, weights: list[Tensor]) -> None:
        down, up, conv_down, conv_up = weights
        self.layers[0].load_tensors({"down": down, "up": up})
        self.layers[1].load_tensors({"down": conv_down, "up": conv_up})


def through_files(tensors: dict[str, Tensor], facts: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    return load_bytes(save_bytes(tensors)), json.loads(json.dumps(facts, allow_nan=False))


# ---- the rate


def test_the_cosine_is_the_one_that_runs_have_had_so_far() -> None:
    # from training.loop.schedule before this module took its place
    frozen = [
        1 / 3, 2 / 3, 1.0, 0.9554359905560885, 0.8305704108364301, 0.6501344202803414, 0.44986557971965857,
        0.26942958916356996,
    ]  # fmt: skip
    plain = OptimizerConfig(warmup=0.2)
    assert [rate_share(step, 10, plain) for step in range(8)] == pytest.approx(frozen, rel=1e-14)
    warm = round(0.05 * 400)
    for step in range(warm, 400):
        progress = (step - warm) / (399 - warm)
        assert rate_share(step, 400, OptimizerConfig()) == 0.1 + (1 - 0.1) * 0.5 * (1 + math.cos(math.pi * progress))


#: schedule → its share half way from 1 to 0.2
HALF = {"cosine": 0.6, "linear": 0.6, "polynomial": 0.2 + 0.8 / 8, "constant": 1.0}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_rises_alike_and_ends_at_the_final_share(schedule: Any) -> None:
    settings = OptimizerConfig(schedule=schedule, warmup=0.2, final=0.2, power=3.0)
    shares = [rate_share(step, 51, settings) for step in range(51)]
    assert shares[:10] == [(step + 1) / 11 for step in range(10)]
    assert shares[10] == pytest.approx(1.0)
    assert shares[30] == pytest.approx(HALF[schedule])
    assert shares[-1] == (1.0 if schedule == "constant" else 0.2)
    assert shares[10:] == sorted(shares[10:], reverse=True)


def test_schedules_and_optimizers_are_those_of_the_config() -> None:
    kinds = get_type_hints(OptimizerConfig)
    assert set(get_args(kinds["schedule"])) == set(SCHEDULES)
    assert set(get_args(kinds["name"])) == set(OPTIMIZERS)


# ---- what optimizers do


@EVERY
def test_every_optimizer_learns(name: str) -> None:
    toy = Toy(config(name), 150)
    before = toy.loss().item()
    toy.train(0, 150)
    with settle(toy.optimizer):
        assert toy.loss().item() < 0.75 * before  # a rank of 2 cannot reach all of a random weight


@EVERY
@pytest.mark.parametrize("warmup", [0.8, 0.05])
def test_a_run_goes_on_from_its_state_bit_for_bit(name: str, warmup: float) -> None:
    settings = config(name, warmup=warmup)
    whole = Toy(settings, 13)
    whole.train(0, 13)
    begun = Toy(settings, 13)
    begun.train(0, 7)
    tensors, facts = through_files(*optimizer_state(begun.optimizer))
    kept = begun.weights()
    begun.train(7, 9)  # what was saved is a copy
    resumed = Toy(settings, 13)
    resumed.load(kept)
    restore_optimizer(resumed.optimizer, tensors, facts)
    again, same = through_files(*optimizer_state(resumed.optimizer))
    assert same == facts
    assert all(torch.equal(again[key], tensors[key]) and again[key].dtype == tensors[key].dtype for key in tensors)
    resumed.train(7, 13)
    assert all(map(torch.equal, resumed.weights(), whole.weights()))
    assert not all(map(torch.equal, kept, whole.weights()))
    assert all(torch.equal(tensor, again[key]) for key, tensor in tensors.items())  # steps write nothing into it


def test_the_rate_that_prodigy_has_found_is_in_its_state() -> None:
    whole, begun, resumed = (Toy(config("prodigy"), 90) for _ in range(3))
    whole.train(0, 90)
    begun.train(0, 60)
    resumed.load(begun.weights())
    restore_optimizer(resumed.optimizer, *through_files(*optimizer_state(begun.optimizer)))
    found = [group["d"] for group in resumed.optimizer.param_groups]
    assert found == [group["d"] for group in begun.optimizer.param_groups]
    assert found[0] > 10 * 1e-6  # where it starts
    resumed.train(60, 90)
    assert all(map(torch.equal, resumed.weights(), whole.weights()))
    assert whole.optimizer.param_groups[0]["d"] == resumed.optimizer.param_groups[0]["d"]


@EVERY
def test_without_its_state_a_run_goes_on_otherwise(name: str) -> None:
    whole, fresh = Toy(config(name), 13), Toy(config(name), 13)
    whole.train(0, 7)
    fresh.load(whole.weights())
    whole.train(7, 13)
    fresh.train(7, 13)
    assert not all(map(torch.equal, fresh.weights(), whole.weights()))


def test_a_state_from_before_the_first_step_is_one_too() -> None:
    toy = Toy(config("schedule-free"), 3)
    with settle(toy.optimizer):
        pass
    tensors, facts = through_files(*optimizer_state(toy.optimizer))
    assert not tensors
    restore_optimizer(toy.optimizer, tensors, facts)
    toy.train(0, 1)


def test_groups_have_their_peaks_and_up_matrices_a_multiple() -> None:
    toy = Toy(config(plus_ratio=4.0, weight_decay=0.3), 10)
    assert [group["peak"] for group in toy.optimizer.param_groups] == [1e-2, 4e-2, 5e-3]
    set_rate(toy.optimizer, 0.25)
    assert [group["lr"] for group in toy.optimizer.param_groups] == [2.5e-3, 1e-2, 1.25e-3]
    assert [group["peak"] for group in toy.optimizer.param_groups] == [1e-2, 4e-2, 5e-3]
    assert {group["weight_decay"] for group in toy.optimizer.param_groups} == {0.3}


def test_the_first_step_of_an_up_matrix_is_as_much_longer() -> None:
    weights = [nn.Parameter(torch.zeros(3, 2)) for _ in range(2)]
    groups = [ParameterGroup([weight], 1e-3, up=up) for weight, up in zip(weights, (False, True), strict=True)]
    optimizer = make_optimizer(groups, OptimizerConfig(plus_ratio=8.0), CPU)
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    torch.testing.assert_close(weights[1].detach(), 8 * weights[0].detach())
    assert weights[0].detach().flatten().tolist() == pytest.approx([-1e-3] * 6)


def test_adamw_is_torchs_own_in_one_kernel() -> None:
    toy, settings = Toy(config(plus_ratio=1.0), 9), config(plus_ratio=1.0)
    other = Toy(settings, 9)
    groups = [{"params": group["params"], "peak": group["peak"]} for group in other.optimizer.param_groups]
    other.optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.999), weight_decay=1e-2, fused=True)
    toy.train(0, 9)
    other.train(0, 9)
    assert all(map(torch.equal, toy.weights(), other.weights()))


def test_betas_at_the_default_are_the_optimizers_own() -> None:
    def betas(**settings: Any) -> tuple[float, float]:
        weights = [ParameterGroup([nn.Parameter(torch.ones(2))], 1e-3)]
        return make_optimizer(weights, OptimizerConfig(**settings), CPU).param_groups[0]["betas"]

    assert betas(name="adamw") == (0.9, 0.999)
    assert betas(name="lion") == (0.9, 0.99)
    assert betas(name="lion", betas=(0.95, 0.98)) == (0.95, 0.98)


def test_a_rate_means_for_adafactor_what_it_means_for_adamw() -> None:
    weight = nn.Parameter(torch.zeros(4, 4))
    optimizer = make_optimizer([ParameterGroup([weight], 1e-3)], OptimizerConfig(name="adafactor"), CPU)
    weight.grad = torch.ones(4, 4)
    optimizer.step()
    assert weight.detach().flatten().tolist() == pytest.approx([-1e-3] * 16, rel=1e-3)


def test_prodigy_is_set_up_for_a_warm_up_and_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    toy = Toy(config("prodigy", weight_decay=0.1), 2)
    assert {group["weight_decay"] for group in toy.optimizer.param_groups} == {0.1}
    assert all(group["safeguard_warmup"] and group["use_bias_correction"] for group in toy.optimizer.param_groups)
    assert capfd.readouterr() == ("", "")


def test_schedule_free_settles_at_its_average_and_leaves_no_trace() -> None:
    toy = Toy(config("schedule-free"), 20)
    toy.train(0, 20)
    trained = toy.weights()
    with settle(toy.optimizer):
        final = toy.weights()
    assert all(map(torch.equal, toy.weights(), trained))
    z = toy.optimizer.state[toy.layers[0].down.weight]["z"]
    torch.testing.assert_close(trained[0], 0.1 * z + 0.9 * final[0])  # y = (1 - β₁) z + β₁ x, arXiv 2405.15682
    assert not torch.equal(trained[0], final[0])
    toy.train(20, 21)  # still training


def test_others_settle_where_they_are() -> None:
    toy = Toy(config(), 5)
    toy.train(0, 5)
    trained = toy.weights()
    with settle(toy.optimizer):
        assert all(map(torch.equal, toy.weights(), trained))


@pytest.mark.parametrize("name", ["adamw", "schedule-free"])
def test_an_optimizer_that_accelerate_has_wrapped_has_the_same_state(name: str) -> None:
    plain, wrapped = Toy(config(name), 8), Toy(config(name), 8)
    with accelerator_for(CPU, torch.float32) as accelerator:
        wrapped.optimizer = accelerator.prepare(wrapped.optimizer)
        plain.train(0, 4)
        wrapped.train(0, 4)
        (tensors, facts), (own, own_facts) = optimizer_state(plain.optimizer), optimizer_state(wrapped.optimizer)
        assert own_facts == facts
        assert all(torch.equal(own[key], tensors[key]) for key in tensors)
        restore_optimizer(wrapped.optimizer, tensors, facts)
        with settle(wrapped.optimizer), settle(plain.optimizer):
            assert all(map(torch.equal, wrapped.weights(), plain.weights()))
        plain.train(4, 8)
        wrapped.train(4, 8)
    assert all(map(torch.equal, plain.weights(), wrapped.weights()))


class Packed(torch.optim.Optimizer):
    """State as bitsandbytes has it, bytes in a dict of its own and a map that weights share, and one wider number."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 1.0, "limits": [float("inf"), -0.0, (None, True)]})
        self.map = torch.linspace(-1, 1, 256)

    def step(self, closure: Any = None) -> Any:  # noqa: ARG002
        for parameter in self.param_groups[0]["params"]:
            state = self.state[parameter]
            state["step"] = state.get("step", 0) + 1
            state["wide"] = torch.full((), math.pi, dtype=torch.float64)
            state["packed"] = {"bytes": torch.full((3,), 7 + state["step"], dtype=torch.uint8), "map": self.map}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        packs = {place: own.pop("packed") for place, own in state_dict["state"].items()}
        super().load_state_dict(state_dict)
        for place, pack in packs.items():
            state_dict["state"][place]["packed"] = pack
            self.state[self.param_groups[0]["params"][place]]["packed"] = pack


def test_bytes_and_wide_numbers_keep_their_types() -> None:
    params = [nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))]
    packed, fresh = Packed(params), Packed(params)
    packed.step()
    tensors, facts = through_files(*optimizer_state(packed))
    fresh.param_groups[0]["limits"] = None
    restore_optimizer(fresh, tensors, facts)
    state = fresh.state[params[1]]
    assert state["step"] == 1
    assert state["wide"].dtype == torch.float64
    assert state["wide"].item() == math.pi
    assert state["packed"]["bytes"].tolist() == [8, 8, 8]
    assert state["packed"]["bytes"].dtype == torch.uint8
    assert torch.equal(state["packed"]["map"], packed.map)
    assert repr(fresh.param_groups[0]["limits"]) == "[inf, -0.0, (None, True)]"


def test_rates_and_decay_are_the_configs_and_not_the_checkpoints() -> None:
    toy = Toy(config(weight_decay=0.1), 4)
    toy.train(0, 2)
    other = Toy(config(weight_decay=0.2, learning_rate=3e-2, betas=(0.8, 0.9)), 4)
    restore_optimizer(other.optimizer, *optimizer_state(toy.optimizer))
    group = other.optimizer.param_groups[0]
    assert (group["peak"], group["weight_decay"], group["betas"]) == (3e-2, 0.2, (0.8, 0.9))
    assert other.optimizer.state[other.layers[0].down.weight]["step"] == 2


# ---- what does not fit


def test_the_state_of_another_optimizer_is_refused() -> None:
    toy, other = Toy(config(), 3), Toy(config("lion"), 3)
    toy.train(0, 1)
    with pytest.raises(AdapterError, match=r"is of AdamW, but this run's optimizer is Lion; .* optimizer\.name"):
        restore_optimizer(other.optimizer, *optimizer_state(toy.optimizer))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ([(2, 3), (4,)], "of 4 weights in 3 groups, but this run trains 2 weights in 1 groups"),
        ([(9, 9)], "of 4 weights in 3 groups, but this run trains 1 weights in 1 groups"),
    ],
)
def test_the_state_of_other_weights_is_refused(shapes: list[tuple[int, ...]], words: str) -> None:
    toy = Toy(config(), 3)
    toy.train(0, 1)
    group = ParameterGroup([nn.Parameter(torch.zeros(shape)) for shape in shapes], 1e-3)
    other = make_optimizer([group], OptimizerConfig(), CPU)
    with pytest.raises(AdapterError, match=words):
        restore_optimizer(other, *optimizer_state(toy.optimizer))
    assert not other.state


def test_the_state_of_weights_of_other_shapes_is_refused() -> None:
    first, second = (
        make_optimizer([ParameterGroup([nn.Parameter(torch.ones(n))], 1e-3)], OptimizerConfig(), CPU) for n in (2, 3)
    )
    with pytest.raises(AdapterError, match=r"of other shapes; resume with the targets and ranks"):
        restore_optimizer(second, *optimizer_state(first))


def test_an_incomplete_or_broken_state_is_refused() -> None:
    toy = Toy(config(), 3)
    toy.train(0, 1)
    tensors, facts = optimizer_state(toy.optimizer)
    with pytest.raises(AdapterError, match=r"lacks tensors or has foreign ones \(2\.exp_avg\)"):
        restore_optimizer(toy.optimizer, {k: v for k, v in tensors.items() if k != "2.exp_avg"}, facts)
    for broken in ({}, {**facts, "groups": facts["groups"][:1]}, {**facts, "groups": 3}, {**facts, "state": {"x": 1}}):
        with pytest.raises(AdapterError, match="cannot be read"):
            restore_optimizer(toy.optimizer, tensors, broken)


# ---- what the config may say


@pytest.mark.parametrize("name", [name for name, row in OPTIMIZERS.items() if row.package != "torch"])
def test_a_missing_package_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row, settings = OPTIMIZERS[name], OptimizerConfig(name=name, **SETTINGS.get(name, {}))  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, row.package, None)
    words = rf'optimizer\.name={name} needs {row.package}, .*; run pip install "sd-lora\[{row.extra}\]"$'
    with pytest.raises(ConfigError, match=words):
        make_optimizer([], settings, torch.device("cuda"))


@pytest.mark.parametrize("name", [name for name, row in OPTIMIZERS.items() if row.needs_cuda])
def test_an_optimizer_for_cuda_devices_says_only_that(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, OPTIMIZERS[name].package, None)
    sentence = f"optimizer.name={name} needs a CUDA device, not cpu; set optimizer.name=adamw"
    assert optimizer_problems(OptimizerConfig(name=name), "cpu") == [sentence]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "adafactor", "betas": (0.9, 0.99)}, "betas has no effect with adafactor"),
        ({"name": "prodigy"}, "learning_rate multiplies the rate that prodigy finds .* set it to 1, but 0.0001 was"),
        ({"name": "prodigy", "learning_rate": 1, "text_learning_rate": 0.5}, "text_learning_rate must be 1.* but 0.5"),
        ({"name": "prodigy", "learning_rate": 1, "plus_ratio": 2}, "plus_ratio cannot act with prodigy"),
        ({"name": "schedule-free"}, "schedule=cosine cannot act with schedule-free"),
        ({"name": "schedule-free", "schedule": "constant", "betas": (0, 0.9)}, "a first one above 0"),
        ({"name": "schedule-free", "schedule": "constant", "max_norm": 1}, "max_norm cannot act with schedule-free"),
    ],
)
def test_settings_that_cannot_act_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        make_optimizer([], OptimizerConfig(**settings), CPU)


def test_all_problems_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    with pytest.raises(ConfigError, match=r"schedule=linear .*; optimizer\.max_norm .* needs sch"):
        make_optimizer([], OptimizerConfig(name="schedule-free", schedule="linear", max_norm=2), CPU)


@EVERY
def test_settings_that_act_pass(name: str) -> None:
    assert optimizer_problems(config(name), "cpu") == []
    assert optimizer_problems(config(name, text_learning_rate=config(name).learning_rate), "cpu") == []
