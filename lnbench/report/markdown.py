"""Verdicts as GitHub-flavoured Markdown, for pull requests and step summaries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lnbench.report import summary
from lnbench.report.terminal import Matrix
from lnbench.verify.verdict import Verdict


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; cells may hold anything."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines)


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def text(verdicts: Sequence[Verdict], *, repro: Callable[[Verdict], str], seconds: float, matrix: Matrix) -> str:
    """The sentence, the counts by backend, every failure with its command, and the pairwise differences."""
    parts = ["## lnbench verify", summary.sentence(verdicts, seconds)]
    lines = summary.by_backend(verdicts)
    present = summary.present(lines)
    if lines:
        rows = [[f"`{x.backend}`", *[x.counts[s] for s in present], _budget(x.budget), x.tier] for x in lines]
        parts.append(table(["backend", *present, "worst budget", "tier"], rows))
    found = summary.failures(verdicts)
    if found:
        parts.append("### Not accepted, smallest case first")
        parts.append(
            table(
                ["status", "case", "backend", "pass", "check", "where", "reason"],
                [(v.status, v.case.label, v.backend, v.pass_, v.check, summary.detail(v), v.reason)
                 for f in found for v in f.verdicts],
            )
        )  # fmt: skip
        parts.append("Run the smallest again:\n\n```sh\n" + repro(found[0].verdicts[0]) + "\n```")
    if matrix:
        parts.append("### Largest pairwise differences")
        pairs = [(o, a, b, f"{d.ulp:.3g}", d.case) for (o, a, b), d in matrix.items()]
        parts.append(table(["output", "backend", "other", "ulp", "case"], pairs))
    return "\n\n".join(parts) + "\n"


def _budget(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
