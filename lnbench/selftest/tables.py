"""The self-test's results as tables: columns and rows of text, CSV, and the last sentence. Shows nothing itself."""

from __future__ import annotations

import csv as csv_module
import io
from collections import Counter
from collections.abc import Sequence

from lnbench.selftest.accusing import Trial
from lnbench.selftest.killing import Kill
from lnbench.selftest.mutants import FAMILIES
from lnbench.selftest.run import Summary

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def families(kills: Sequence[Kill]) -> Table:
    """Planted and found by family, and which checks found them."""
    rows: list[tuple[str, ...]] = []
    for family, what in FAMILIES.items():
        own = [k for k in kills if k.target.family == family]
        if not own:
            continue
        checks = Counter(k.check for k in own if not k.survived)
        found = sum(not k.survived for k in own)
        by = ", ".join(f"{check} {count}" for check, count in checks.most_common())
        rows.append((family, what, str(len(own)), str(found), by))
    return ("", "family of bugs", "planted", "found", "first found by"), rows


def matrix(kills: Sequence[Kill]) -> Table:
    """Mutant by check: the first case on which that check fails."""
    checks = sorted({c for k in kills for c in k.by_check})
    rows = [
        (k.target.name, k.target.family, *(k.by_check.get(c, "") for c in checks))
        for k in sorted(kills, key=lambda k: (k.target.family, k.target.name))
    ]
    return ("planted bug", "", *checks), rows


def kinds(trials: Sequence[Trial]) -> Table:
    """Random cases, accusations and the largest share of a bound, by correct kind."""
    rows = []
    for kind in dict.fromkeys(t.kind for t in trials):
        own = [t for t in trials if t.kind == kind]
        numbers = [
            sum(values) for values in zip(*((t.cases, t.verdicts, t.weaker, t.vacuous) for t in own), strict=True)
        ]
        accused = sum(len(t.accusations) for t in own)
        rows.append((kind, *map(str, numbers), str(accused), f"{max(t.budget for t in own):.2f}"))
    return ("correct kernel", "cases", "verdicts", "weaker as declared", "vacuous", "accused", "largest budget"), rows


def csv(kills: Sequence[Kill]) -> str:
    """One line per mutant; with a matrix one column per check."""
    checks = sorted({c for k in kills for c in k.by_check})
    out = io.StringIO()
    writer = csv_module.writer(out, lineterminator="\n")
    columns = ("name", "family", "op", "sentence", "survived", "case", "pass", "check", "output", "status", "reason")
    writer.writerow((*columns, "tried", "seconds", *checks))
    for k in sorted(kills, key=lambda k: (k.target.family, k.target.name)):
        t = k.target
        writer.writerow(
            (t.name, t.family, t.op, t.sentence, str(k.survived).lower(), k.case, k.pass_, k.check, k.output, k.status,
             k.reason or k.problem, k.tried, f"{k.seconds:.2f}", *(k.by_check.get(c, "") for c in checks))
        )  # fmt: skip
    return out.getvalue()


def sentence(summary: Summary) -> str:
    """The last line of a self-test."""
    planted, survived = len(summary.kills), len(summary.survivors)
    killed = f"{planted - survived} of {planted} planted bugs found"
    if not summary.trials:
        return f"{killed}."
    kinds_count = len({t.kind for t in summary.trials})
    accused = len(summary.accusations)
    verdicts = sum(t.verdicts for t in summary.trials)
    return (
        f"{killed}; {accused} false accusations against {kinds_count} correct kernels "
        f"over {summary.cases:,} random cases ({verdicts:,} verdicts)."
    )
