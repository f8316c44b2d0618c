"""The page of a verification: what failed and how to run it again, budgets of every output, the table of verdicts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lnbench.report import summary
from lnbench.report.html import plot
from lnbench.report.html.markup import (
    COLORS,
    Markup,
    details,
    element,
    facts,
    joined,
    legend,
    page,
    section,
    table,
    word,
)
from lnbench.verify.verdict import ORDER, Status, Verdict
from lnbench.verify.verdict import summary as worst

Repro = Callable[[Verdict], str]

_NONE = element("span", "0", class_="none")

# Verdicts of a failure that are shown without unfolding.
FIRST = 3
# Failures shown with all they say; the others are counted, and are in verdicts.csv.
SHOWN = 100
# Cases up to which their table is unfolded from the start.
UNFOLDED = 40


def page_of(verdicts: Sequence[Verdict], environment: Mapping[str, Any], *, repro: Repro, seconds: float) -> str:
    """The document for these verdicts. environment: what environment.json holds. seconds: how long the run took."""
    return page(
        "lnbench verify",
        element("h1", "lnbench verify"),
        element("p", environment.get("started", ""), class_="note"),
        element("p", summary.sentence(verdicts, seconds), class_="lead"),
        _backends(verdicts),
        _failures(summary.failures(verdicts), repro),
        _budgets(verdicts),
        _notes(verdicts),
        _cases(verdicts),
        facts(environment),
    )


def _backends(verdicts: Sequence[Verdict]) -> Markup:
    lines = summary.by_backend(verdicts)
    present = summary.present(lines)
    rows = [
        [x.backend, *[word(s, str(x.counts[s])) if x.counts[s] else _NONE for s in present], _number(x.budget), x.tier]
        for x in lines
    ]
    columns = ["backend", *[str(s) for s in present], "worst budget", "tier"]
    return table(columns, rows, right=columns[1:])


def _failures(found: Sequence[summary.Failure], repro: Repro) -> Markup | None:
    if not found:
        return None
    hidden = len(found) - SHOWN
    more = element("p", f"and {hidden} more in verdicts.csv", class_="note") if hidden > 0 else None
    return section("Not accepted, smallest case first", *[_failure(f, repro) for f in found[:SHOWN]], more)


def _failure(failure: summary.Failure, repro: Repro) -> Markup:
    head = element("p", word(failure.status), " ", element("strong", failure.case.label), f" on {failure.backend}")
    lines = [_verdict(v, failure.status) for v in failure.verdicts]
    more = details(f"{len(lines) - FIRST} more", *lines[FIRST:]) if len(lines) > FIRST else None
    color = COLORS[failure.status]
    command = element("pre", repro(failure.verdicts[0]))
    return element("div", head, *lines[:FIRST], more, command, class_="failure", style=f"border-color:{color}")


def _verdict(v: Verdict, usual: Status) -> Markup:
    state = None if v.status is usual else joined([" ", word(v.status)])
    where = summary.detail(v)
    said = element("p", f"{v.pass_} {v.check}", state, f": {where}" if where else None)
    return joined([said, element("p", v.reason, class_="note") if v.reason else None])


def _budgets(verdicts: Sequence[Verdict]) -> Markup | None:
    """A row per backend and output; one dot for all verdicts that would lie on each other."""
    groups: dict[str, dict[tuple[Status, int], list[Verdict]]] = {}
    for v in verdicts:
        if v.budget is not None and v.output:
            row = groups.setdefault(f"{v.backend}  {v.output}", {})
            row.setdefault((v.status, _place(v.budget)), []).append(v)
    if not groups:
        return None
    lines = [plot.Line(label, [_mark(vs) for vs in row.values()]) for label, row in sorted(groups.items())]
    statuses = [s for s in ORDER if any(v.status is s for v in verdicts if v.budget is not None and v.output)]
    said = (
        "The largest error of every verdict divided by the error that is allowed there. Right of the line the bound is "
        "broken; at the left edge the result was exact."
    )
    return section(
        "Budgets by output",
        element("p", said, class_="note"),
        legend({str(s): COLORS[s] for s in statuses}),
        plot.dots(lines, shown=lambda v: f"{v:g}", reference=1.0),
    )


def _place(budget: float) -> int:
    """Budgets that no eye tells apart have the same place."""
    if not 0 < budget < math.inf:
        return -(1 << 30) if budget == 0 else 1 << 30
    return round(40 * math.log10(budget))


def _mark(verdicts: Sequence[Verdict]) -> plot.Mark:
    v = max(verdicts, key=lambda v: v.budget or 0.0)
    more = f" and {len(verdicts) - 1} more" if len(verdicts) > 1 else ""
    title = f"{v.case.label} {v.pass_} {v.check}: {v.status}, budget {_number(v.budget)}{more}"
    return plot.Mark(v.budget or 0.0, COLORS[v.status], title)


def _notes(verdicts: Sequence[Verdict]) -> Markup | None:
    weak = [
        element("p", word(Status.UNSTABLE), f" {v.backend} {v.output} on {v.case.label}, accepted: {v.reason}")
        for v in summary.weaknesses(verdicts)
    ]
    skips = [
        element("p", word(Status.SKIPPED), f" {n} on {backend}: {reason}")
        for backend, reason, n in summary.skipped(verdicts)
    ]
    return section("Accepted weaknesses, and what was skipped", *weak, *skips) if weak or skips else None


def _cases(verdicts: Sequence[Verdict]) -> Markup | None:
    """A row per case, a column per backend: the worst status and the largest budget."""
    if not verdicts:
        return None
    backends = list(dict.fromkeys(v.backend for v in verdicts))
    groups: dict[str, dict[str, list[Verdict]]] = {}
    for v in verdicts:
        groups.setdefault(v.case.key, {}).setdefault(v.backend, []).append(v)
    rows = []
    for by_backend in groups.values():
        case = next(iter(by_backend.values()))[0].case
        law = case.law if isinstance(case.law, str) else ", ".join(f"{k} {v}" for k, v in case.law)
        told = [case.label, case.op, "x".join(map(str, case.shape)), case.dtype, law]
        rows.append([*told, *[_cell(by_backend.get(b, [])) for b in backends]])
    title = f"Verdicts by case ({len(rows)})"
    shown = table(["case", "operator", "shape", "dtype", "law", *backends], rows)
    return details(title, shown, is_open=len(rows) <= UNFOLDED)


def _cell(verdicts: Sequence[Verdict]) -> Markup | None:
    if not verdicts:
        return None
    status = worst(v.status for v in verdicts)
    budgets = [v.budget for v in verdicts if v.budget is not None]
    return joined([word(status), f" {_number(max(budgets))}" if budgets else ""])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2g}" if value < 100 else f"{value:.3g}"
