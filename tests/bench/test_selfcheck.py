"""The self-check on fake backends, the machine's lock, rest between samples, and the overhead in a real worker."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lnbench.bench import overhead, selfcheck
from lnbench.bench.lock import machine_lock
from lnbench.bench.stopping import Plan
from lnbench.bench.world import World, is_runnable
from lnbench.case import Case
from lnbench.errors import EnvironmentUnfit
from lnbench.verify.right import Right

PLAN = Plan(pilot=8, most_epochs=8, rounds=4)
CASE = Case(shape=(100, 8), passes="forward")
Lab = Callable[..., Any]


def test_identical_sides_are_rarely_different_and_planted_work_is_found(lab: Lab, script: Callable[..., Any]) -> None:
    made = lab(native=script(process=0.01, noise=0.01))
    aa = selfcheck.run_aa(30, world=made.world, case=CASE, plan=PLAN)
    assert aa.different.trials == 30 and aa.claims.hits == 0
    assert aa.different.interval[0] <= 0.05 and aa.covered.interval[1] >= 0.93
    small, large = selfcheck.run_plant([0.01, 0.1], 12, world=made.world, case=CASE, plan=PLAN)
    assert large.slower.value == 1.0 and abs(large.bias) < 0.01 and small.slower.value < 1.0
    assert large.measured > 0 and large.seconds > 0


def test_a_run_of_four_sides_is_four_trials_of_which_those_of_a_kind_share_no_side(
    lab: Lab, script: Callable[..., Any]
) -> None:
    made = lab(native=script(process=0.002, noise=0.005))
    found = selfcheck.quartet(made.world, "native", 0.05, 3, case=CASE, plan=PLAN)
    assert [t.delta for t in found] == [0.0, 0.0, 0.05, 0.05] and len(made.sessions) == 4 * PLAN.pilot
    assert [t.is_slower for t in found[2:]] == [True, True] and all(t.is_covered for t in found)
    assert all(t.measured > 0 for t in found) and len({t.ratio for t in found}) == 4
    wrong = selfcheck.quartet(lab(native=script(wrong=True)).world, "native", 0.05, 3, case=CASE, plan=PLAN)
    assert [t.verdict for t in wrong] == ["INVALID"] * 4 and not any(t.is_different for t in wrong)


def test_a_rate_says_its_exact_interval() -> None:
    assert str(selfcheck.Rate(1, 20)) == "1/20 = 5.0 % (0.1 to 24.9 %)"
    assert selfcheck.Rate(0, 0).interval == (0.0, 1.0)


def test_a_trial_that_measured_nothing_found_nothing(lab: Lab, script: Callable[..., Any]) -> None:
    made = lab(native=script(wrong=True))
    found = selfcheck.trial(made.world, "native", 0.05, 0, case=CASE, plan=PLAN)
    assert not found.is_different and not found.is_slower and found.verdict == "INVALID"
    assert selfcheck.summarise([found], 0.05).slower.hits == 0


def test_only_one_run_has_the_machine(tmp_path: Path) -> None:
    with machine_lock(tmp_path), pytest.raises(EnvironmentUnfit, match="another lnbench"), machine_lock(tmp_path):
        pass
    with machine_lock(tmp_path):
        pass


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_process_that_wants_a_processor_is_not_at_rest() -> None:
    sleeper = subprocess.Popen(["sleep", "60"])
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        deadline = time.monotonic() + 30
        while not is_runnable(busy.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert is_runnable(busy.pid)
        while is_runnable(sleeper.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_runnable(sleeper.pid)
    finally:
        for process in (sleeper, busy):
            process.kill()
            process.wait()
    assert not is_runnable(busy.pid)
    assert is_runnable(os.getpid()) and threading.active_count() >= 1


def test_the_overhead_of_the_harness_is_measured_with_a_backend_that_does_nothing() -> None:
    found = overhead.measure(World(Right()))
    assert found is not None and 0 < found.call < found.sample
