"""Orders are balanced, counts are long enough, and everything is drawn from the seed alone."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest

from lnbench.bench import schedule


@pytest.mark.parametrize("lanes", [1, 2, 3, 5, 8])
def test_every_backend_holds_every_slot_equally_often(lanes: int) -> None:
    order = schedule.latin_rounds(lanes, 4 * lanes, np.random.default_rng(0))
    assert len(order) == 4 * lanes
    for slot in range(lanes):
        assert set(Counter(row[slot] for row in order).values()) == {4}
    assert all(sorted(row) == list(range(lanes)) for row in order)


def test_over_many_squares_every_backend_follows_every_other_about_equally_often() -> None:
    rng = np.random.default_rng(1)
    order = schedule.latin_rounds(4, 4000, rng)
    pairs = Counter((a, b) for row in order for a, b in itertools.pairwise(row))
    counts = [pairs[a, b] for a in range(4) for b in range(4) if a != b]
    assert max(counts) < 1.15 * min(counts)


def test_a_plan_depends_on_its_place_and_seed_only() -> None:
    def draw(*place: int) -> list[tuple[int, ...]]:
        return schedule.latin_rounds(3, 9, schedule.generator(7, *place))

    assert draw(1, 2, 3) == draw(1, 2, 3) != draw(1, 2, 4)


def test_offsets_are_whole_cache_lines_within_a_page_and_environments_vary_in_length() -> None:
    rng = np.random.default_rng(2)
    offsets = {schedule.random_offset(rng) for _ in range(500)}
    assert all(o % 64 == 0 and 0 <= o < 4096 for o in offsets) and len(offsets) > 32
    assert len({len(schedule.random_environment(rng)["LNBENCH_PADDING"]) for _ in range(20)}) > 10


@pytest.mark.parametrize("call_ns", [(80,), (80, 1_000_000), (3_000, 9_000), (5_000_000,), (900, 40_000_000)])
def test_the_count_makes_the_fastest_sample_long_enough_and_the_slowest_not_too_long(call_ns: tuple[int, ...]) -> None:
    count = schedule.InnerCount()
    inner = schedule.find_inner(lambda n: [n * c for c in call_ns], count)
    assert inner * max(call_ns) <= schedule.CEILING_NS
    if 2 * inner * max(call_ns) <= schedule.CEILING_NS:
        assert schedule.FLOOR_NS <= inner * min(call_ns) < 8 * schedule.FLOOR_NS or inner == 1


def test_a_slow_first_reading_is_not_believed() -> None:
    readings = iter([9_000_000])
    count = schedule.InnerCount()
    inner = schedule.find_inner(lambda n: [next(readings, 1_000 * n)], count)
    assert inner >= 200


def test_a_call_longer_than_the_ceiling_is_measured_once_per_sample() -> None:
    assert schedule.find_inner(lambda n: [10**10 * n], schedule.InnerCount()) == 1


def test_a_clock_that_shows_no_time_does_not_hang_the_search() -> None:
    assert schedule.find_inner(lambda n: [0], schedule.InnerCount()) <= 2 * schedule.MOST_INNER


def test_a_coarse_clock_needs_longer_samples() -> None:
    assert schedule.floor_ns(1) == 200_000
    assert schedule.floor_ns(1_000_000) == 1_000_000_000
