"""Real worker processes: cold buffers rotate, and a neighbour whose threads spin is at rest while others are measured.

No time is asserted: what is asked is which addresses are used, and who wants a processor when a sample begins.
"""

from __future__ import annotations

import sys
import threading
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from lnbench.bench import world as worlds
from lnbench.bench.crew import Circumstances
from lnbench.bench.outcome import Listener
from lnbench.bench.record import Block, Contender, Item, Word
from lnbench.bench.runner import run
from lnbench.bench.stopping import Plan
from lnbench.bench.verdicts import Rules
from lnbench.bench.world import World, is_runnable
from lnbench.case import Case
from lnbench.verify.right import Right

PLAN = Plan(pilot=2, most_epochs=2, rounds=4)
CASE = Case(shape=(64, 256), passes="forward")

HONEST = """
import os, threading, time
import numpy as np
from lnbench import FunctionBackend

def norm(x, gamma, beta, epsilon):
    mean = x.mean(-1, keepdims=True)
    return {"y": (x - mean) / np.sqrt(x.var(-1, keepdims=True) + x.dtype.type(epsilon)) * gamma + beta}
"""
LOGS = """
backend = FunctionBackend("logs")
log = os.open(os.environ["LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@backend.forward("layer_norm")
def layer_norm(x, gamma, beta, *, axis, epsilon):
    os.write(log, f"{x.ctypes.data}\\n".encode())
    return norm(x, gamma, beta, epsilon)
"""
SPINS = """
backend = FunctionBackend("spins")
called = threading.Event()
until = 0.0

def spin():
    while called.wait():
        called.clear()
        while time.perf_counter() < until:
            pass

threading.Thread(target=spin, daemon=True).start()

@backend.forward("layer_norm")
def layer_norm(x, gamma, beta, *, axis, epsilon):
    global until
    until = time.perf_counter() + PATIENCE
    called.set()
    return norm(x, gamma, beta, epsilon)
"""


def test_cold_calls_take_turns_over_buffers_that_are_all_checked(tmp_path: Path) -> None:
    (tmp_path / "logs.py").write_text(HONEST + LOGS)
    how = Circumstances(seed=2, audit=False, cold_bytes=8 * 2 * CASE.bytes, environment={"LOG": str(tmp_path / "log")})
    sides = [Contender("logs", str(tmp_path / "logs.py")), Contender("numpy", "numpy")]
    blocks: list[Block] = []
    found = run(
        [Item(CASE, "forward", "cold")], sides, Rules(plan=PLAN, baseline="logs"), how, World(Right()),
        listener=Listener(on_block=blocks.append),
    )  # fmt: skip
    assert [b.rounds for b in blocks] == [4, 4] and not {r.verdict for r in found.rows} & {Word.INVALID, Word.SUSPECT}
    calls = (tmp_path / "log").read_text().split()
    assert len(set(calls)) >= 8
    # Only a check may call the same buffer twice in a row, once for each sample at most.
    samples = sum(len(b.timings) for b in blocks)
    assert sum(a == b for a, b in pairwise(calls)) <= samples
    assert len(calls) > 2 * samples


class Watched:
    """A session that notes, before each sample of its own, whether a spinner wants a processor."""

    def __init__(self, session: Any, others: list[Any], seen: list[bool]):
        self._session, self._others, self._seen = session, others, seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def open(self, request: Any) -> Any:
        handle = self._session.open(request)
        sample = handle.sample

        def noted(inner: int, untimed: int = 1) -> Any:
            if inner > 1:  # samples of one call are checks, whose time is not kept
                self._seen.append(any(is_runnable(s.pid) for s in self._others if s.pid is not None))
            return sample(inner, untimed)

        handle.sample = noted
        return handle


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("patience", ["0.02", "1e9"], ids=["rests", "never_rests"])
def test_a_neighbour_is_measured_only_while_a_spinning_pool_rests_or_is_stopped(tmp_path: Path, patience: str) -> None:
    (tmp_path / "spins.py").write_text(HONEST + SPINS.replace("PATIENCE", patience))
    spinners: list[Any] = []
    seen: list[bool] = []
    lock = threading.Lock()

    def open_session(spec: str, **circumstances: Any) -> Any:
        session = worlds.open_session(spec, **circumstances)
        with lock:
            if spec != "numpy":
                spinners.append(session)
                return session
        return Watched(session, spinners, seen)

    sides = [Contender("numpy", "numpy"), Contender("spins", str(tmp_path / "spins.py"))]
    blocks: list[Block] = []
    run(
        [Item(CASE, "forward")], sides, Rules(plan=PLAN, baseline="numpy"), Circumstances(seed=1, audit=False),
        World(Right(), open_session), listener=Listener(on_block=blocks.append),
    )  # fmt: skip
    assert [set(b.backends) for b in blocks] == [{"numpy", "spins"}] * 2
    assert len(seen) >= 4 * len(blocks) and not any(seen)
