"""Drawing processors, and starting workers on them."""

from __future__ import annotations

import os

import numpy as np
import pytest

from lnbench import places
from lnbench.pool import Session

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system does not place threads")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Six processors on four cores: 0 and 4 share one, 1 and 5 another."""
    monkeypatch.setattr(os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(places, "allowed", lambda: (0, 1, 2, 3, 4, 5))
    monkeypatch.setattr(places, "cores", lambda processors: [(0, 4), (1, 5), (2,), (3,)])


def test_drawn_processors_are_on_cores_of_their_own_and_every_processor_gets_its_turn(machine: None) -> None:
    rng = np.random.default_rng(0)
    ones = {places.draw(1, rng) for _ in range(200)}
    assert ones == {(n,) for n in range(6)}
    for _ in range(50):
        drawn = places.draw(4, rng)
        assert drawn is not None and len({n % 4 for n in drawn}) == 4
        five = places.draw(5, rng)
        assert five is not None and len(set(five)) == 5 and len({n % 4 for n in five}) == 4


def test_nothing_is_drawn_where_all_processors_are_wanted(machine: None) -> None:
    rng = np.random.default_rng(0)
    assert places.draw(6, rng) is None and places.draw(9, rng) is None


def test_processors_without_known_topology_are_cores_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_TOPOLOGY", "/nowhere/{}")
    assert places.cores((1, 3)) == [(1,), (3,)]
    assert sorted(n for group in places.cores(places.allowed()) for n in group) == list(places.allowed())


@needs_affinity
def test_a_worker_and_all_its_threads_run_where_they_are_put() -> None:
    before, one = os.sched_getaffinity(0), places.allowed()[-1]
    with Session("native", threads=2, processors=(one,)) as session:
        assert session.description.name == "native" and session.pid is not None
        tasks = os.listdir(f"/proc/{session.pid}/task")
        assert all(os.sched_getaffinity(int(task)) == {one} for task in tasks)
    assert os.sched_getaffinity(0) == before
