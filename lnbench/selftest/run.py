"""The self-test as a whole: many mutants and correct kinds on several processes, results as they come.

Owns the order of cases (what found bugs before goes first) and the summary. Shows nothing.
"""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

from lnbench import places
from lnbench.case import Case
from lnbench.errors import EnvironmentUnfit
from lnbench.selftest import accusing, correct, killing, native, native_sources
from lnbench.selftest.accusing import Trial
from lnbench.selftest.killing import Kill, Target
from lnbench.selftest.mutants import MUTANTS
from lnbench.selftest.native_patches import PATCHES

T = TypeVar("T")
BATCH = 100


@dataclass(slots=True)
class Summary:
    """The numbers of a self-test."""

    kills: list[Kill] = field(default_factory=list)
    trials: list[Trial] = field(default_factory=list)
    skipped: str = ""

    @property
    def survivors(self) -> list[Kill]:
        return [k for k in self.kills if k.survived]

    @property
    def accusations(self) -> list[accusing.Accusation]:
        return [a for t in self.trials for a in t.accusations]

    @property
    def cases(self) -> int:
        return sum(t.cases for t in self.trials)

    @property
    def is_good(self) -> bool:
        return not self.survivors and not self.accusations


def targets(folder: Path | None) -> tuple[list[Target], str]:
    """All planted bugs; those in C are compiled into `folder`. Also why some are left out (no compiler), or ""."""
    found = [Target(m.name, m.family, m.sentence, m.op, m.spec, m.dies) for m in MUTANTS.values()]
    if folder is None:
        return found, "the bugs that live in C were left out on request"
    built: dict[str, Path] = {}
    skipped = ""
    try:
        built |= {p.name: native.build(folder, p.macro, p.name) for p in native.PLANTED}
        built |= native_sources.build_all(folder)
    except EnvironmentUnfit as error:
        skipped = str(error)
    in_c = [p for p in (*native.PLANTED, *PATCHES) if p.name in built]
    found += [Target(p.name, p.family, p.sentence, "layer_norm", str(built[p.name]), dies=True) for p in in_c]
    return found, skipped


def jobs_here() -> int:
    """Processes to use by default: one per core, at most eight."""
    return max(1, min(8, len(places.allowed())))


def kill_all(
    mutants: Sequence[Target], cases: Sequence[Case], jobs: int, *, matrix: bool, on_kill: Callable[[Kill], None]
) -> list[Kill]:
    """Hunts every mutant with the cases of its operator; with `matrix` through everything."""
    wins: Counter[str] = Counter()
    found: list[Kill] = []

    def submit(pool: ProcessPoolExecutor) -> Iterator[Future[Kill]]:
        for mutant in mutants:
            own = [c for c in cases if c.op == mutant.op]
            ordered = sorted(own, key=lambda c: (-wins[c.key], c.elements))
            yield pool.submit(killing.everything if matrix else killing.hunt, mutant, ordered)

    for kill in _spread(submit, jobs):
        wins[kill.key] += not kill.survived
        found.append(kill)
        on_kill(kill)
    return found


def try_correct(total: int, jobs: int, seed: int, *, on_trial: Callable[[Trial], None]) -> list[Trial]:
    """At least `total` random cases, spread evenly over the correct kinds."""
    kinds = correct.names()
    each = -(-total // len(kinds))
    found: list[Trial] = []

    def submit(pool: ProcessPoolExecutor) -> Iterator[Future[Trial]]:
        for batch, start in enumerate(range(0, each, BATCH)):
            for kind in kinds:
                yield pool.submit(accusing.trial, kind, seed, batch, min(BATCH, each - start))

    for trial in _spread(submit, jobs):
        found.append(trial)
        on_trial(trial)
    return found


def _spread(submit: Callable[[ProcessPoolExecutor], Iterator[Future[T]]], jobs: int) -> Iterator[T]:
    """Results of a lazy stream of tasks in the order in which they end, never more than `jobs` at once."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context)
    try:
        stream = submit(pool)
        running = set(islice(stream, jobs))
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
                after = next(stream, None)
                if after is not None:
                    running.add(after)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
