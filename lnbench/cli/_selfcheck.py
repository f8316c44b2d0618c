"""`lnbench selftest --aa R --plant D,D`: benchmarks of a backend against itself, summed up as rates with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lnbench.cli._output import say, stderr
from lnbench.errors import Exit

if TYPE_CHECKING:
    from lnbench.bench.selfcheck import Summary

ALPHA, COVERAGE = 0.05, 0.93


def check_bench(repeats: int, deltas: Sequence[float], spec: str = "native") -> Exit:
    """Runs `repeats` trials without a difference and as many for each planted one; says what they show.

    FAILED when the data contradict 5 % false positives or 93 % coverage, each at 95 % confidence.
    """
    from lnbench.bench import selfcheck
    from lnbench.bench.lock import machine_lock
    from lnbench.bench.world import World
    from lnbench.report.progress import Bar
    from lnbench.verify.right import Right

    wanted = [0.0, *deltas]
    with machine_lock(), Bar(stderr(), repeats * len(wanted)) as bar:
        bar.step(f"{spec} against itself")
        found = selfcheck.run_plant(wanted, repeats, world=World(Right()), spec=spec, on_trial=lambda t: bar.advance())
    for summary in found:
        say(sentence(summary))
    return Exit.FAILED if any(is_refuted(s) for s in found) else Exit.OK


def sentence(s: Summary) -> str:
    """One summary in words."""
    cost = f"{s.seconds:.1f} s a run, {s.measured:.2f} s timed on a side"
    if s.delta == 0:
        return f"A/A: called different {s.different}, beyond the margin {s.claims}; {cost}."
    bias = "" if math.isnan(s.bias) else f", bias {100 * s.bias:+.2f} %"
    return f"planted {100 * s.delta:g} %: found {s.slower}{bias}, interval holds the truth {s.covered}; {cost}."


def is_refuted(s: Summary) -> bool:
    """Whether the trials contradict what is promised."""
    too_many = s.delta == 0 and s.different.interval[0] > ALPHA
    return too_many or s.covered.interval[1] < COVERAGE
