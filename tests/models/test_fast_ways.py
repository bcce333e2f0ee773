"""Of several ways the fastest right one is chosen, once for each shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from torch import Tensor

from sd_lora.models.fast import ways
from sd_lora.models.fast.ways import PLAIN, Choices, Way, fastest


class Clock:
    """A clock that only ways move."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.calls = 0.0, list[str]()
        monkeypatch.setattr(ways, "_clock", lambda: self.now)

    def way(self, name: str, *seconds: float, result: float = 1.0, dtype: torch.dtype = torch.float32) -> Way:
        """It takes `seconds`, the last of them from then on."""
        takes = list(seconds)

        def compute() -> Sequence[Tensor]:
            self.calls.append(name)
            self.now += takes.pop(0) if len(takes) > 1 else takes[0]
            return torch.ones(3, dtype=dtype), torch.full((4,), result, dtype=dtype)

        return compute


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_fastest_is_chosen(clock: Clock) -> None:
    assert fastest({PLAIN: clock.way("p", 3.0), "a": clock.way("a", 2.0), "b": clock.way("b", 1.0)}) == "b"


def test_the_plain_way_stays_where_another_hardly_gains(clock: Clock) -> None:
    assert fastest({PLAIN: clock.way("p", 1.0), "a": clock.way("a", 0.97)}) == PLAIN
    assert fastest({PLAIN: clock.way("p", 1.0), "a": clock.way("a", 0.9)}) == "a"


def test_a_slow_first_call_does_not_decide(clock: Clock) -> None:
    assert fastest({PLAIN: clock.way("p", 2.0), "a": clock.way("a", 5.0, 1.0)}) == "a"


def test_what_is_far_slower_is_tried_once_and_short_ones_more_often(clock: Clock) -> None:
    fastest({PLAIN: clock.way("p", 1.0), "a": clock.way("a", 9.0)})
    assert (clock.calls.count("p"), clock.calls.count("a")) == (2, 1)
    clock.calls.clear()
    fastest({PLAIN: clock.way("p", 0.001), "a": clock.way("a", 0.001)})
    assert clock.calls.count("p") == 5


@pytest.mark.parametrize("wrong", [1.001, -1.0, float("nan")])
def test_what_gives_other_results_is_not_chosen(wrong: float, clock: Clock) -> None:
    assert fastest({PLAIN: clock.way("p", 2.0), "a": clock.way("a", 1.0, result=wrong)}) == PLAIN


def test_lower_precision_may_differ_by_more(clock: Clock) -> None:
    low = torch.bfloat16
    assert fastest({PLAIN: clock.way("p", 2.0, dtype=low), "a": clock.way("a", 1.0, result=1.01, dtype=low)}) == "a"
    assert fastest({PLAIN: clock.way("p", 2.0, dtype=low), "a": clock.way("a", 1.0, result=1.1, dtype=low)}) == PLAIN


def test_each_shape_is_timed_once_and_remembered(clock: Clock) -> None:
    choices = Choices()

    def offered() -> Mapping[str, Way]:
        return {PLAIN: clock.way("p", 2.0), "a": clock.way("a", 1.0)}

    with torch.no_grad():  # pictures that are drawn
        assert choices.way("4x4", offered) == PLAIN
    assert not choices.new
    assert not clock.calls
    assert choices.way("4x4", offered) == "a"
    assert choices.new
    timed = len(clock.calls)
    assert choices.way("4x4", offered) == "a"
    with torch.no_grad():
        assert choices.way("4x4", offered) == "a"
    assert len(clock.calls) == timed
    choices.way("5x5", offered)
    assert len(clock.calls) == 2 * timed
    assert Choices(dict(choices.known)).way("5x5", dict) == "a"
