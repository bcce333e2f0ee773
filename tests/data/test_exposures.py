"""The order of exposures: every image as often as planned, whatever its size, in steps of full size."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from sd_lora.config.schema import DataConfig
from sd_lora.data.exposures import Exposure, Schedule, Seen
from sd_lora.data.pictures.views import View, views_of

SQUARE = ((View((64, 64)),),)
MIXED = [(w, h) for w, h in ((3000, 2000), (2000, 3000), (4000, 3000), (1000, 1000), (1920, 1080), (1000, 2400))] * 4


def squares(count: int, **facts: int) -> list[Seen]:
    return [Seen(SQUARE, flips=2, **facts) for _ in range(count)]


def mixed(flips: int = 2) -> list[Seen]:
    return [Seen((views_of(*size, 512, 64, DataConfig()),), flips) for size in MIXED]


def seen_in(schedule: Schedule, steps: int) -> list[Exposure]:
    return [exposure for step in range(steps) for group in schedule.groups(step) for exposure in group.exposures]


def test_24_images_of_mixed_aspect_are_each_seen_exactly_as_often_as_planned() -> None:
    schedule = Schedule(mixed(), 4, 0)
    counts, sizes = Counter[int](), set()
    for step in range(60):
        groups = schedule.groups(step)
        assert sorted(place for group in groups for place in group.places) == [0, 1, 2, 3]
        for group in groups:
            assert {schedule.view(exposure).size for exposure in group.exposures} == {group.size}
            counts.update(exposure.image for exposure in group.exposures)
            sizes.add(group.size)
    assert counts == dict.fromkeys(range(24), 10)
    assert len(sizes) > 3


@pytest.mark.parametrize(("count", "size"), [(5, 1), (6, 4), (3, 7), (1, 4), (4, 4), (24, 5)])
def test_no_image_is_ever_more_than_one_exposure_ahead(count: int, size: int) -> None:
    for images in (squares(count), mixed()[:count]):
        schedule, seen = Schedule(images, size, 0), Counter[int]()
        for step in range(3 * count):
            seen.update(e.image for group in schedule.groups(step) for e in group.exposures)
            behind = min(seen[i] for i in range(count))
            assert max(seen.values()) - behind <= 1 + size // count
        assert set(seen.values()) == {3 * size}


def test_most_steps_have_one_size() -> None:
    """30 images of one size and 10 of another: two sizes meet in one step an epoch, if at all."""
    images = [Seen(SQUARE)] * 30 + [Seen(((View((48, 80)),),))] * 10
    schedule = Schedule(images, 4, 3)
    assert sum(len(schedule.groups(step)) > 1 for step in range(100)) <= 10


def test_one_size_is_simply_shuffled() -> None:
    schedule = Schedule(squares(8), 8, 0)
    orders = {tuple(e.image for e in seen_in(schedule, 6)[8 * k : 8 * k + 8]) for k in range(6)}
    assert len(orders) == 6
    assert all(sorted(order) == list(range(8)) for order in orders)


def test_exposures_are_pure_functions_of_seed_and_position() -> None:
    first, again, other = Schedule(mixed(), 4, 1), Schedule(mixed(), 4, 1), Schedule(mixed(), 4, 2)
    expected = [first.exposure(position) for position in range(200)]
    assert [again.exposure(position) for position in reversed(range(200))] == expected[::-1]
    assert [other.exposure(position) for position in range(200)] != expected


def test_mirror_images_alternate_and_do_not_all_start_alike() -> None:
    flags: dict[int, list[int]] = {}
    for exposure in seen_in(Schedule(squares(5), 3, 0), 20):
        flags.setdefault(exposure.image, []).append(exposure.mirrored)
    assert all(a != b for seen in flags.values() for a, b in pairwise(seen))
    assert {seen[0] for seen in flags.values()} == {0, 1}


@pytest.mark.parametrize("flips", [1, 2])
def test_views_resolutions_mirror_images_and_captions_are_all_used_alike(flips: int) -> None:
    views = tuple(tuple(View((size, size), k / 4) for k in range(4)) for size in (32, 48, 64))
    schedule = Schedule([Seen(views, flips, captions=3)] * 2, 1, 0)
    rounds = 3 * 4 * flips
    seen = [e for e in seen_in(schedule, 2 * 3 * rounds) if e.image == 1]
    combinations = Counter((e.resolution, e.view, e.mirrored) for e in seen)
    assert len(combinations) == rounds
    assert set(combinations.values()) == {3}
    assert set(Counter(e.caption for e in seen).values()) == {rounds}


def test_repeats_count_relative_to_one_another() -> None:
    images = [Seen(SQUARE, repeats=20), Seen(SQUARE, repeats=10), Seen(SQUARE, repeats=30)]
    schedule = Schedule(images, 2, 0)
    assert schedule.epoch_size == 6
    counts = Counter(e.image for e in seen_in(schedule, 30))
    assert counts == {0: 20, 1: 10, 2: 30}


def test_regularisation_images_are_half_of_all_exposures() -> None:
    images = [*squares(4), *squares(3, prior=True)]
    counts = Counter(e.image for e in seen_in(Schedule(images, 4, 0), 24))
    assert [counts[i] for i in range(4)] == [12] * 4
    assert [counts[i] for i in range(4, 7)] == [16] * 3


def test_repeats_of_regularisation_images_count_relative_to_one_another() -> None:
    priors = [Seen(SQUARE, captions=3, repeats=10, prior=True), Seen(SQUARE, repeats=2, prior=True)]
    exposures = seen_in(Schedule([*squares(4), *priors], 4, 0), 36)
    counts = Counter(e.image for e in exposures)
    assert counts == {0: 18, 1: 18, 2: 18, 3: 18, 4: 60, 5: 12}
    often = [e for e in exposures if e.image == 4]
    assert sorted(e.visit for e in often) == list(range(60))
    assert Counter(e.caption for e in often) == {0: 20, 1: 20, 2: 20}


def test_the_count_of_a_plan_is_what_happens() -> None:
    schedule = Schedule(mixed(), 4, 0)
    planned = schedule.count(30)
    assert sum(planned.values()) == 120
    assert Counter({i: n for (i, _), n in planned.items()}) == Counter(e.image for e in seen_in(schedule, 30))


def test_whole_epochs_are_counted_without_going_through_them() -> None:
    sizes = tuple((View((side, side)),) for side in (32, 48, 64))
    own = [Seen(sizes, 2, 3, repeats) for repeats in (2, 4, 10)]
    priors = [Seen(sizes[:2], prior=True, repeats=repeats) for repeats in (1, 3)]
    for images, steps in ((own, 23), ([*own, *priors], 41), ([*own[:1], *priors], 30), (mixed()[:5], 7)):
        schedule = Schedule(images, 7, 3)
        seen = [schedule.exposure(position) for position in range(7 * steps)]
        assert schedule.count(steps) == Counter((e.image, schedule.view(e).size) for e in seen)
    assert sum(Schedule([*own, *priors], 4096, 0).count(10**7).values()) == 4096 * 10**7
