"""Silence between samples: the worker that was measured before must have come to rest, or it is stopped.

Thread pools keep spinning after a call, and a neighbour would be measured against them.
"""

from __future__ import annotations

from lnbench.bench.calls import Lane
from lnbench.bench.world import World

STEP_SECONDS = 100e-6
PATIENCE_SECONDS = 0.3  # OpenMP's own spinning ends after 0.2 s
BUSY = 0.05  # share of one processor that still counts as rest


def settle(lane: Lane, world: World, patience: float = PATIENCE_SECONDS) -> None:
    """Waits until the lane's worker uses no processor time. One that never rests is marked and frozen from now on."""
    if lane.restless:
        _stop(lane, world)
        return
    if lane.session.threads_now() <= 1:
        return  # its only thread waits for the next request
    start = world.now()
    while not _is_still(lane, world):
        if world.now() - start > patience:
            lane.restless = True
            _stop(lane, world)
            return


def _stop(lane: Lane, world: World) -> None:
    """Freezes the worker and waits until that has happened: a thread that waits for a processor stops when it gets one."""
    lane.session.freeze()
    start = world.now()
    while world.is_runnable(lane.session.pid) and world.now() - start < PATIENCE_SECONDS:
        world.sleep(STEP_SECONDS)


def _is_still(lane: Lane, world: World) -> bool:
    used, start = lane.session.cpu_seconds(), world.now()
    world.sleep(STEP_SECONDS)
    if lane.session.cpu_seconds() - used > BUSY * (world.now() - start):
        return False
    # On a busy machine a thread with work to do may get no processor for milliseconds: rest is not wanting one.
    return not world.is_runnable(lane.session.pid)
