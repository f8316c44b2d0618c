"""Runs a verification: hands cases to an examiner here or to several in processes of their own, and verdicts to the caller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from lnbench import places
from lnbench.case import Case
from lnbench.verify import shards
from lnbench.verify.differences import Differences
from lnbench.verify.examiner import DEFAULT_REQUIREMENT, Examiner, Options
from lnbench.verify.verdict import Verdict

__all__ = ["DEFAULT_REQUIREMENT", "Options", "run"]

# A shard costs half a second to start, about as much as a dozen small cases; larger cases use all cores by themselves.
CASES_PER_SHARD = 24
SHARD_ELEMENTS = 1 << 20


def run(
    cases: Sequence[Case],
    backends: Sequence[str],
    options: Options,
    *,
    on_verdict: Callable[[Verdict], None] = lambda verdict: None,
    on_case: Callable[[Case, str], None] = lambda case, backend: None,
    skip: Callable[[Case, str], bool] = lambda case, backend: False,
    differences: Differences | None = None,
) -> list[Verdict]:
    """Verifies every case on every backend; returns all verdicts, in the order of the cases.

    on_verdict is called with each verdict as soon as it is known (of one case and backend together), on_case before a
    case runs on a backend, skip says which pairs are already known (a resumed run). Raises Unavailable or UnknownBackend
    before anything runs; a backend that breaks while it is loaded gets one verdict and does not disturb the others.
    """
    found: list[tuple[int, Verdict]] = []
    differences = Differences() if differences is None else differences

    def emit(number: int, verdicts: Sequence[Verdict]) -> bool:
        found.extend((number, v) for v in verdicts)
        for verdict in verdicts:
            on_verdict(verdict)
        return options.stop_on_first and not all(v.accepted for v in verdicts)

    skips = [[b for b in backends if skip(c, b)] for c in cases]
    jobs = _jobs(cases, options)
    small = [i for i, c in enumerate(cases) if jobs > 1 and c.elements <= SHARD_ELEMENTS]
    stopped = False
    if small:
        work = [(i, cases[i], skips[i]) for i in small]
        stopped = shards.run(work, backends, replace(options, jobs=1), jobs, emit, on_case, differences)
    rest = [i for i in range(len(cases)) if i not in set(small)]
    if rest and not stopped:
        with Examiner.of(backends, options) as examiner:
            broken = examiner.load(cases[rest[0]])
            stopped = emit(rest[0], [] if small else broken)
            for i in rest:
                for _, verdicts in examiner.examine(cases[i], skips[i], on_case):
                    stopped = emit(i, verdicts) or stopped
                if stopped:
                    break
            differences.merge(examiner.differences)
    return [v for _, v in sorted(found, key=lambda pair: pair[0])]


def _jobs(cases: Sequence[Case], options: Options) -> int:
    if options.in_process or options.jobs == 1:
        return 1
    return min(options.jobs or len(places.allowed()), len(cases) // CASES_PER_SHARD)
