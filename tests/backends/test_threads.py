"""Backends run with the threads that were asked for: the processor time of all threads of the worker, seen from outside.

A framework may hand its work from one thread to another, so threads are not counted by name: how much processor time all
of them use in a second is how many run at once.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pytest

from lnbench import Case, errors
from lnbench.pool import Reply
from lnbench.verify.sessions import Sessions
from lnbench.verify.subject import Problem, Subject

SLOW = ("jax", "keras", "tensorflow")
BACKENDS = [
    pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else [])
    for n in ("native", "torch", "onnxruntime", "onednn", "jax", "keras", "tensorflow")
]
SHAPE = (512, 4096)
SECONDS, SLACK = 0.5, 1.25
# A thread works when it runs this part of what the busiest one does: more than bookkeeping, less than a fair share.
SHARE = 0.2

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/schedstat").exists(), reason="the kernel does not tell the processor time of threads"
)


def processor_time(pid: int | None) -> dict[str, int]:
    """Nanoseconds that each thread of a process has run."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            found[task.name] = int((task / "schedstat").read_text().split()[0])
    return found


def use(name: str, threads: int, pass_: str) -> tuple[float, int] | None:
    """How many threads of the worker run at once, on average, and how many have work at all; None without such a call."""
    with Sessions(120.0) as sessions:
        subject = Subject.of(Problem(Case(shape=SHAPE, threads=threads)), name, sessions)
        handle = subject.open(subject.base_request(pass_))
        if isinstance(handle, Reply):
            assert handle.status == "SKIPPED", handle.reason
            return None
        with contextlib.closing(handle):
            handle.sample(3, 0)
            before, start = processor_time(subject.session.pid), time.perf_counter_ns()
            while time.perf_counter_ns() - start < SECONDS * 1e9:
                handle.sample(5, 0)
            after = processor_time(subject.session.pid)
            elapsed = time.perf_counter_ns() - start
    used = [ns - before.get(task, 0) for task, ns in after.items()]
    return sum(used) / elapsed, sum(ns > SHARE * max(used) for ns in used)


@pytest.mark.parametrize("pass_", ["forward", "backward"])
@pytest.mark.parametrize("name", BACKENDS)
def test_as_many_threads_run_as_were_asked_for(name: str, pass_: str) -> None:
    try:
        one, two = use(name, 1, pass_), use(name, 2, pass_)
    except errors.Unavailable as missing:
        pytest.skip(str(missing))
    if one is None or two is None:
        pytest.skip(f"{name} has no {pass_}")
    assert one[0] < SLACK
    # That both run at the same time needs an idle machine; that both have work does not.
    assert two[0] < 2 * SLACK and two[1] >= 2
