"""What the harness itself adds to every call: a backend that does nothing, measured like any other.

`backend` is found by a worker under the name `lnbench.bench.overhead:backend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lnbench.backend import Call, Tensors
from lnbench.bench.world import World
from lnbench.case import Case
from lnbench.operators import registry
from lnbench.protocol import Reply, Request

SPEC = f"{__name__}:backend"
CALLS = 20_000
TRIES = 5


class Nothing:
    """A call without work."""

    def run(self) -> None:
        """Does nothing; what it seems to cost is the harness."""

    def outputs(self) -> Mapping[str, np.ndarray]:
        return {}


class Empty:
    """The backend whose calls do nothing."""

    name = "empty"

    def describe(self) -> Mapping[str, str]:
        return {"statistics": "none"}

    def supports(self, case: Case) -> str | None:
        return None

    def prepare(self, case: Case, pass_: str, tensors: Tensors, threads: int) -> Call:
        return Nothing()


backend = Empty()


@dataclass(frozen=True, slots=True)
class Overhead:
    """call: seconds that the harness adds to each timed call. sample: seconds of a whole exchange with a worker."""

    call: float
    sample: float


def measure(world: World, timeout: float = 60.0) -> Overhead | None:
    """The overhead on this machine at this moment, the best of a few tries; None when it cannot be measured."""
    case = Case(shape=(1, 8), passes="forward")
    session = world.open_session(SPEC, threads=1, timeout=timeout, environment={}, allocator="keep")
    try:
        drawn = world.draw(case, variant=0)
        inputs = {n: drawn[n] for n in registry.get(case.op).forward_inputs if n in drawn}
        handle = session.open(Request(case=case, pass_="forward", inputs=inputs, outputs={}, placement="private"))
        if isinstance(handle, Reply):
            return None
        calls, exchanges = [], []
        for _ in range(TRIES):
            many, one = handle.sample(CALLS), handle.sample(1)
            if isinstance(many, Reply) or isinstance(one, Reply):
                return None
            calls.append(many.wall_ns / CALLS)
            exchanges.append(one.parent_ns)
        return Overhead(min(calls) * 1e-9, min(exchanges) * 1e-9)
    finally:
        session.close()
