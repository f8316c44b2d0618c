"""Timings that look honest but are not: answers remembered by content, work that outlives `run`, a bent clock.

Each test compares a worker with itself, so that slow or odd but honest backends pass. A suspicion must show twice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lnbench.bench import quiet
from lnbench.bench.calls import TimedCall
from lnbench.bench.world import Arrays
from lnbench.protocol import Sample

LONG_NS = 4_000_000  # the long sample of a pair; noise of messages and wake-ups is small beside it
MOST_CALLS = 1 << 18
TRIES = 3
PATIENCE_SECONDS = 2.0  # longer than any pool spins: what is still at work then has work
PAIRS = 5
BIGGEST_FRESH = 1 << 26  # bytes of x; above it drawing new inputs would cost more than the measurement

BENT_CLOCK = 1.3
AFTERWARDS = 0.4
EXTRA_PROCESSORS = 1.5
REMEMBERED = 1.5


@dataclass(frozen=True, slots=True)
class Seen:
    """What one sample cost by three clocks, in ns: the worker's, the parent's, and processor time used afterwards."""

    sample: Sample
    idle_ns: float

    @property
    def outside_ns(self) -> int:
        """What no backend can bend: the clock read in C, or the parent's."""
        return self.sample.raw_ns or self.sample.parent_ns


def audit(call: TimedCall, inner: int) -> str | None:
    """Why the timings of this call are not to be believed, or None. Raises Failed when the worker dies."""
    for test in (_slopes, _memory):
        if test(call, inner) is not None:
            reason = test(call, inner)
            if reason is not None:
                return reason
    return None


def _slopes(call: TimedCall, inner: int) -> str | None:
    """What one more call costs, from short and long samples: by the worker's clock, by ours, and in processor time."""
    short = max(1, inner // 4)
    per_call = _look(call, max(1, short)).sample.wall_ns / max(1, short)
    more = min(MOST_CALLS, max(1, round(LONG_NS / max(per_call, 1.0))))
    tries = TRIES if per_call < LONG_NS else 1
    pairs = [(_look(call, short), _look(call, short + more)) for _ in range(tries)]
    wall = min(long.sample.wall_ns for _, long in pairs) - min(one.sample.wall_ns for one, _ in pairs)
    parent = min(long.sample.parent_ns for _, long in pairs) - min(one.sample.parent_ns for one, _ in pairs)
    raw = min(long.outside_ns for _, long in pairs) - min(one.outside_ns for one, _ in pairs)
    after = min(long.idle_ns for _, long in pairs) - min(one.idle_ns for one, _ in pairs)
    used = min(long.sample.cpu_ns for _, long in pairs)
    shown = max(min(long.sample.wall_ns for _, long in pairs), 1)
    wall = max(wall, 1)
    if parent > BENT_CLOCK * wall + LONG_NS / 4 or raw > BENT_CLOCK * wall + LONG_NS / 4:
        return f"the worker's clock showed {wall / 1e6:.3g} ms where {max(parent, raw) / 1e6:.3g} ms passed"
    if after > AFTERWARDS * wall:
        return (
            f"every call leaves work behind: {100 * after / wall:.0f} % of the time it took was used after it had ended"
        )
    return _processors(call, used / shown)


def _processors(call: TimedCall, used: float) -> str | None:
    threads, facts = call.item.case.threads, call.lane.session.description.facts
    if facts.threads == "ignored" or used <= EXTRA_PROCESSORS * threads:
        return None
    return f"it used {used:.1f} processors although {threads} thread{'s were' if threads > 1 else ' was'} allowed"


def _look(call: TimedCall, inner: int) -> Seen:
    """One sample, and the processor time that the worker uses after it until it rests."""
    lane = call.lane
    sample = call.sample(inner)
    ended = lane.session.cpu_seconds()
    lane.world.sleep(quiet.STEP_SECONDS)
    quiet.settle(lane, lane.world, PATIENCE_SECONDS)
    idle = lane.session.cpu_seconds() - ended
    lane.session.thaw()
    return Seen(sample, idle * 1e9)


def _memory(call: TimedCall, inner: int) -> str | None:
    """Calls on inputs never seen before against calls on the same inputs loaded once more: all else is equal."""
    case = call.item.case
    if len(call.handles) > 1 or case.alias is not None or not 0 < case.bytes <= BIGGEST_FRESH:
        return None
    timed = _stopwatch(call)
    timed(call.variants[call.loaded])
    fresh, again = [], []
    for _ in range(PAIRS):
        arrays = _never_seen(call)
        fresh.append(timed(arrays))
        again.append(timed(arrays))
    call.load(call.loaded)
    ratios = sorted(new / max(old, 1) for new, old in zip(fresh, again, strict=True))
    if ratios[0] > (1 + REMEMBERED) / 2 and ratios[PAIRS // 2] > REMEMBERED:
        times = ratios[PAIRS // 2]
        return f"answers are remembered: a call on new inputs takes {times:.1f} times as long as one on known inputs"
    return None


def _stopwatch(call: TimedCall) -> Callable[[Arrays], int]:
    def timed(arrays: Arrays) -> int:
        call.put(arrays)
        return call.sample(1, 0).wall_ns

    return timed


def _never_seen(call: TimedCall) -> Arrays:
    """Inputs that this worker has not met: all for forward; another dy for backward, so that statistics hold."""
    call.unseen += 1
    drawn = call.lane.world.draw(call.item.case, variant=call.unseen)
    base = call.variants[call.loaded]
    if call.item.pass_ == "forward":
        return {**base, **drawn}
    return {**base, "dy": drawn["dy"]} if "dy" in drawn else base
