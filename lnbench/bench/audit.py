"""Timings that look honest but are not: remembered answers, work done before or after the clock, a bent clock.

Each test compares a worker with itself, so that slow or odd but honest backends pass. A suspicion must show twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median

from lnbench.bench import quiet, schedule
from lnbench.bench.calls import TimedCall, checked
from lnbench.bench.world import Arrays
from lnbench.protocol import Sample

LONG_NS = 4_000_000  # the long sample of a pair; noise of messages and wake-ups is small beside it
MOST_CALLS = 1 << 18
TRIES = 3
PATIENCE_SECONDS = 2.0  # longer than any pool spins: what is still at work then has work
PAIRS, CLEAR = 15, 13  # pairs of calls, and how many of them must show the same
BIGGEST_FRESH = 1 << 24  # bytes of x; above it drawing new inputs would cost more than the measurement

BENT_CLOCK = 1.3
HIDDEN_WORK = 1.5
REMEMBERED, CLEARLY = 1.5, 1.25  # in the middle, and in each clear pair
# Seconds that fetching outputs may take: a start, and bytes at a slow rate, slower from a declared device.
COPY_START, COPY_RATE, DEVICE_RATE = 50e-6, 5e9, 5e8


@dataclass(frozen=True, slots=True)
class Seen:
    """One sample, and the processor time in ns that the worker used for it until it was at rest again."""

    sample: Sample
    spent_ns: float


def audit(call: TimedCall, inner: int) -> str | None:
    """Why the timings of this call are not to be believed, or None. Raises Failed when the worker dies."""
    for test in (_slopes, _memory, _late):
        if test(call, inner) is not None:
            reason = test(call, inner)
            if reason is not None:
                return reason
    return None


def _slopes(call: TimedCall, inner: int) -> str | None:
    """What one more call costs, from short and long samples: by the worker's clock, by ours, and in processor time."""
    per_call = _look(call, inner).sample.wall_ns / inner
    # A slow backend beside a fast one has long samples; here those that it would have alone are enough.
    inner = max(1, min(inner, math.ceil(schedule.FLOOR_NS / max(per_call, 1.0))))
    per_call = min(_look(call, inner).sample.wall_ns for _ in range(TRIES - 1)) / inner
    more = min(MOST_CALLS, max(1, round(LONG_NS / max(per_call, 1.0))))
    tries = TRIES if per_call < LONG_NS else 1
    pairs = [(_look(call, inner), _look(call, inner + more)) for _ in range(tries)]
    bent = _bent(pairs)
    if bent is not None:
        return bent
    spent = min(long.spent_ns for _, long in pairs) - min(one.spent_ns for one, _ in pairs) - LONG_NS / 4
    return _hidden(call, [one.sample for one, _ in pairs], inner, spent / more)


def _bent(pairs: list[tuple[Seen, Seen]]) -> str | None:
    """The worker's clock against one that Python code cannot reach: read in C around the same calls, or the parent's.

    The parent's holds messages and waiting too, the same for short and long samples: their difference is compared.
    """
    longs = [long.sample for _, long in pairs]
    if all(s.raw_ns for s in longs):
        wall, outside, slack = sum(s.wall_ns for s in longs), sum(s.raw_ns for s in longs), LONG_NS / 40
    else:
        wall = min(s.wall_ns for s in longs) - min(one.sample.wall_ns for one, _ in pairs)
        outside = min(s.parent_ns for s in longs) - min(one.sample.parent_ns for one, _ in pairs)
        slack = LONG_NS / 4
    if outside <= BENT_CLOCK * max(wall, 1) + slack:
        return None
    return f"the worker's clock showed {wall / 1e6:.3g} ms where {outside / 1e6:.3g} ms passed"


def _hidden(call: TimedCall, samples: list[Sample], inner: int, spent: float) -> str | None:
    """Processor time of a call, until the worker rests, against the time that samples of the usual length show.

    Pools that spin for a while add the same to a short and to a long sample, and so nothing to one more call.
    """
    threads, facts = call.item.case.threads, call.lane.session.description.facts
    shown = median(s.wall_ns for s in samples) / inner
    used = median(s.cpu_ns / max(s.wall_ns, 1) for s in samples)
    allowed = max(threads, used) if facts.threads == "ignored" else threads
    if used > HIDDEN_WORK * allowed:
        return f"it used {used:.1f} processors although {threads} thread{'s were' if threads > 1 else ' was'} allowed"
    # On a busy machine time grows and processor time does not: what was used within the sample is the fairer measure. The
    # most of them, because a pool whose threads got no processor for the few calls of one sample used too little there.
    within = max(s.cpu_ns for s in samples) / inner
    if call.lane.restless or spent <= HIDDEN_WORK * min(allowed * shown, within):
        return None
    cost = f"{spent / 1e6:.3g} ms of processor time, and shows {min(shown, within) / 1e6:.3g} ms"
    return f"work goes on after a call has ended: it costs {cost}"


def _look(call: TimedCall, inner: int) -> Seen:
    lane = call.lane
    before = lane.session.cpu_seconds()
    sample = call.sample(inner, 0)
    quiet.settle(lane, lane.world, PATIENCE_SECONDS)
    spent = lane.session.cpu_seconds() - before
    lane.session.thaw()
    return Seen(sample, spent * 1e9)


def _memory(call: TimedCall, inner: int) -> str | None:
    """Calls on inputs never seen before against calls on known ones, in pairs of random order: all else is equal."""
    case = call.item.case
    if len(call.handles) > 1 or case.alias is not None or not 0 < case.bytes <= BIGGEST_FRESH:
        return None
    known = call.loaded
    for variant in range(len(call.variants)):
        _timed(call, call.variants[variant])
    ratios: list[float] = []
    for number in range(PAIRS):
        pair = [_never_seen(call, known), call.variants[number % len(call.variants)]]
        is_turned = schedule.generator(call.unseen).random() < 0.5
        times = [_timed(call, arrays) for arrays in (reversed(pair) if is_turned else pair)]
        new, old = reversed(times) if is_turned else times
        ratios.append(new / max(old, 1))
        if sum(r <= CLEARLY for r in ratios) > PAIRS - CLEAR:
            break
    call.load(known)
    if len(ratios) == PAIRS and median(ratios) > REMEMBERED:
        return f"answers are remembered: a call on new inputs takes {median(ratios):.1f} times as long as one on known ones"
    return None


def _timed(call: TimedCall, arrays: Arrays) -> int:
    """One call right after its inputs were loaded, which are first read here: whether they are old must not matter."""
    for array in arrays.values():
        array.tobytes()
    call.put(arrays)
    return call.sample(1, 0).wall_ns


def _late(call: TimedCall, inner: int) -> str | None:
    """What asking for the outputs costs, against the time of a call and against a slow copy of the outputs."""
    per_call = call.sample(max(1, inner // 4)).wall_ns / max(1, inner // 4) * 1e-9
    taken, size = [], 0
    for _ in range(TRIES):
        call.change()
        call.sample(1, 0)
        reply = checked(call.handles[0].collect())
        size = sum(a.nbytes for a in reply.outputs.values())
        taken.append(reply.collect_seconds)
    device = call.lane.session.description.described.get("device", "cpu")
    rate = COPY_RATE if device.lower().startswith("cpu") else DEVICE_RATE
    if min(taken) > max(2 * per_call, COPY_START + size / rate):
        return (
            f"asking for the outputs takes {min(taken) / per_call:.1f} times as long as a call: work is left until then"
        )
    return None


def _never_seen(call: TimedCall, known: int) -> Arrays:
    """Inputs that this worker has not met: all for forward; another dy for backward, so that statistics hold."""
    call.unseen += 1
    drawn = call.lane.inputs.get(call.item.case, call.unseen)
    base = call.variants[known]
    if call.item.pass_ == "forward":
        return {**base, **drawn}
    return {**base, "dy": drawn["dy"]} if "dy" in drawn else base
