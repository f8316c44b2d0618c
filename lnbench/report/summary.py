"""What is worth saying about a set of verdicts, as data and sentences; how it looks is left to the other reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lnbench.case import Case
from lnbench.verify.verdict import ORDER, Status, Verdict, summary


@dataclass(frozen=True, slots=True)
class Failure:
    """The verdicts of one case on one backend that make the run fail, worst first."""

    case: Case
    backend: str
    verdicts: tuple[Verdict, ...]

    @property
    def status(self) -> Status:
        return summary(v.status for v in self.verdicts)


@dataclass(frozen=True, slots=True)
class BackendLine:
    """The counts of one backend, and the largest budget of what it passed."""

    backend: str
    counts: Counter[Status]
    budget: float | None
    tier: int | None


def failures(verdicts: Iterable[Verdict]) -> list[Failure]:
    """What was not accepted, by case and backend: the smallest case first, because it is the one to look at."""
    groups: dict[tuple[str, str], list[Verdict]] = {}
    for v in verdicts:
        if not v.accepted:
            groups.setdefault((v.case.key, v.backend), []).append(v)
    made = [Failure(vs[0].case, vs[0].backend, tuple(sorted(vs, key=_badness))) for vs in groups.values()]
    return sorted(made, key=lambda f: f.case.elements)


def most_telling(found: list[Failure], most: int) -> list[Failure]:
    """At most `most` of the failures, in order, but always the first of every backend."""
    firsts = {f.backend: f for f in reversed(found)}
    others = [f for f in found if f is not firsts[f.backend]]
    chosen = [*firsts.values(), *others[: max(0, most - len(firsts))]]
    return [f for f in found if f in chosen]


def present(lines: Iterable[BackendLine]) -> list[Status]:
    """The statuses that occur, from good to bad, SKIPPED last."""
    held = [s for s in reversed(ORDER) if any(line.counts[s] for line in lines)]
    return sorted(held, key=lambda s: s is Status.SKIPPED)


def _badness(verdict: Verdict) -> tuple[int, float]:
    budget = verdict.budget
    return ORDER.index(verdict.status), -(budget if budget is not None and budget == budget else 0.0)


def by_backend(verdicts: Iterable[Verdict]) -> list[BackendLine]:
    """One line per backend, in order of appearance."""
    groups: dict[str, list[Verdict]] = {}
    for v in verdicts:
        groups.setdefault(v.backend, []).append(v)
    lines = []
    for backend, vs in groups.items():
        budgets = [v.budget for v in vs if v.budget is not None and v.status is Status.PASSED]
        tiers = [v.tier for v in vs if v.tier is not None]
        counts = Counter(v.status for v in vs)
        lines.append(BackendLine(backend, counts, max(budgets, default=None), min(tiers, default=None)))
    return lines


def skipped(verdicts: Iterable[Verdict]) -> list[tuple[str, str, int]]:
    """(backend, reason, how many cases and passes), most frequent first."""
    counts = Counter((v.backend, v.reason) for v in verdicts if v.status is Status.SKIPPED)
    return [(backend, reason, n) for (backend, reason), n in counts.most_common()]


def weaknesses(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """UNSTABLE verdicts that were accepted: one per backend, output and reason."""
    found: dict[tuple[str, str, str], Verdict] = {}
    for v in verdicts:
        if v.status is Status.UNSTABLE and v.accepted:
            found.setdefault((v.backend, v.output, v.reason), v)
    return list(found.values())


def counts(verdicts: Iterable[Verdict]) -> str:
    """ "300 PASSED, 12 SKIPPED", worst first."""
    number = Counter(v.status for v in verdicts)
    return ", ".join(f"{number[s]} {s}" for s in ORDER if number[s])


def sentence(verdicts: Sequence[Verdict], seconds: float) -> str:
    """The last line of a run: how many, on what, with which result, and whether that is good."""
    cases = len({v.case.key for v in verdicts})
    backends = list(dict.fromkeys(v.backend for v in verdicts))
    bad = failures(verdicts)
    where = f"{_plural(len(verdicts), 'verdict')} on {_plural(cases, 'case')} and {_plural(len(backends), 'backend')}"
    text = f"{where}: {counts(verdicts)} in {seconds:.1f} s" if verdicts else "nothing was verified"
    if not bad:
        return f"{text}."
    names = ", ".join(dict.fromkeys(f.backend for f in bad))
    failed = _plural(len({f.case.key for f in bad}), "case")
    return f"{text}; not accepted: {names} on {failed}, smallest {bad[0].case.label}."


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def detail(v: Verdict) -> str:
    """Where and how far a verdict is off: "y[3, 17]: expected 1, got 1.5, budget 4e+06 (bound 1.2e-07), 8e+06 ulp"."""
    parts = []
    if v.expected is not None and v.got is not None:
        parts.append(f"expected {number(v.expected, v.case.dtype)}, got {number(v.got, v.case.dtype)}")
    if v.budget is not None:
        bound = "" if v.bound is None else f" (bound {v.bound:.3g})"
        parts.append(f"budget {v.budget:.3g}{bound}")
    if v.max_ulp is not None:
        parts.append(f"{v.max_ulp:.3g} ulp")
    place = v.output + ("" if v.worst_index is None else str(list(v.worst_index)))
    text = ", ".join(parts)
    return f"{place}: {text}" if place and text else place or text


def number(value: float, dtype: str) -> str:
    """A value with as many digits as tell neighbours of its dtype apart (statistics of half types are float32)."""
    return f"{value:.17g}" if dtype == "float64" else f"{value:.9g}"
