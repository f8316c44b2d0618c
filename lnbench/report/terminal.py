"""Verdicts for a person at a terminal: what failed and how to run it again first, the counts last."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, Group, RenderableType
from rich.text import Text

from lnbench.report import summary
from lnbench.report.console import styled, table
from lnbench.verify.differences import Difference
from lnbench.verify.verdict import Status, Verdict

Matrix = Mapping[tuple[str, str, str], Difference]
Repro = Callable[[Verdict], str]

# Failing cases shown in full unless everything is asked for.
SHOWN = 5


def verdict_line(v: Verdict) -> Text:
    """One verdict on one line, as `-v` prints them while they come."""
    words = f"{v.case.label} {v.pass_} {v.backend} {v.check}"
    more = " ".join(x for x in (summary.detail(v), f"- {v.reason}" if v.reason else "") if x)
    return Text.assemble(styled(f"{v.status:<9}"), words, f"  {more}" if more else "")


def failure_block(failure: summary.Failure, repro: Repro, limit: int | None = 4) -> Text:
    """Everything about one failing case on one backend, ending with the command that runs it again."""
    lines = [Text.assemble(styled(failure.status), f" {failure.case.label} on {failure.backend}")]
    for v in failure.verdicts[:limit]:
        head = f"  {v.pass_} {v.check}"
        state = "" if v.status is failure.status else f" {v.status}"
        where = summary.detail(v)
        lines.append(Text(f"{head}{state}: {where}" if where else f"{head}{state}"))
        if v.reason:
            lines.append(Text(f"    {v.reason}"))
    hidden = len(failure.verdicts) - len(failure.verdicts[:limit])
    if hidden:
        lines.append(Text(f"  and {hidden} more verdicts of this case (-v shows all)", style="dim"))
    lines.append(Text.assemble("  again: ", (repro(failure.verdicts[0]), "bold")))
    return Text("\n").join(lines)


def overview(verdicts: Sequence[Verdict]) -> RenderableType:
    """Counts by backend."""
    lines = summary.by_backend(verdicts)
    present = summary.present(lines)
    columns = ["backend", *present, "worst budget", "tier"]
    rows = [
        [
            line.backend,
            *[Text(str(line.counts[s]), style="" if not line.counts[s] else styled(s).style) for s in present],
            "" if line.budget is None else f"{line.budget:.2f}",
            line.tier,
        ]
        for line in lines
    ]
    return table(columns, rows, right=columns[1:])


def differences(matrix: Matrix) -> RenderableType | None:
    """The largest pairwise difference of every output in ULP; None when there is nothing to compare."""
    if not matrix:
        return None
    names = list(dict.fromkeys(n for _, a, b in matrix for n in (a, b)))
    outputs = list(dict.fromkeys(o for o, _, _ in matrix))
    if len(names) == 2:
        rows = [(o, _ulp(matrix[key]), matrix[key].case) for o in outputs for key in matrix if key[0] == o]
        title = f"largest difference between {names[0]} and {names[1]}"
        return table(["output", "ulp", "case"], rows, right=["ulp"], title=title)
    parts: list[RenderableType] = []
    for output in outputs:
        rows_of = [[a, *[_cell(matrix, output, a, b) for b in names]] for a in names]
        parts.append(
            table([output, *names], rows_of, right=names, title=f"largest pairwise difference of {output}, ulp")
        )
    return Group(*parts)


def _cell(matrix: Matrix, output: str, a: str, b: str) -> str:
    found = matrix.get((output, a, b)) or matrix.get((output, b, a))
    return "-" if found is None else _ulp(found)


def _ulp(difference: Difference) -> str:
    return f"{difference.ulp:.3g}"


def print_report(
    console: Console,
    verdicts: Sequence[Verdict],
    *,
    repro: Repro,
    seconds: float,
    matrix: Matrix,
    quiet: bool = False,
    verbose: bool = False,
) -> None:
    """Prints failures (smallest case first), weaknesses, skips, the matrix and, last, the sentence with the counts."""
    found = summary.failures(verdicts)
    shown = found if verbose else summary.most_telling(found, SHOWN)
    for failure in shown:
        console.print(failure_block(failure, repro, None if verbose else 4), soft_wrap=True)
        console.print()
    if len(found) > len(shown):
        console.print(f"and {len(found) - len(shown)} more failing cases (-v shows all)\n", style="dim")
    if not quiet:
        _print_notes(console, verdicts, matrix)
    console.print(summary.sentence(verdicts, seconds), soft_wrap=True)


def _print_notes(console: Console, verdicts: Sequence[Verdict], matrix: Matrix) -> None:
    for v in summary.weaknesses(verdicts):
        line = Text.assemble(
            styled(Status.UNSTABLE), f" {v.backend} {v.output} on {v.case.label}, accepted: {v.reason}"
        )
        console.print(line, soft_wrap=True)
    for backend, reason, n in summary.skipped(verdicts):
        console.print(Text.assemble(styled(Status.SKIPPED), f" {n} on {backend}: {reason}"), soft_wrap=True)
    if verdicts:
        console.print(overview(verdicts))
    grid = differences(matrix)
    if grid is not None:
        console.print()
        console.print(grid)
        console.print()
