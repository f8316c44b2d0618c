"""The columns of every table, what they mean, and how verdicts become rows and rows verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lnbench.case import Case
from lnbench.verify.verdict import Status, Verdict

# Raised when a column changes its meaning or goes away; readers refuse a larger number and ignore unknown columns.
SCHEMA = 1

# Columns that say which case a row is about, in every table.
CASE_COLUMNS: dict[str, str] = {
    "schema": "number of the format of this table",
    "key": "identity of the case: equal keys are equal problems",
    "case": "name of the case, or its key",
    "op": "operator",
    "shape": "shape of x, such as 8x512x768",
    "axis": "an int (from it to the end) or a list such as [1, 3]",
    "epsilon": "epsilon of the case",
    "dtype": "dtype of x, y, dy and dx",
    "affine_dtype": "dtype of gamma, beta and their gradients",
    "law": "law of the inputs, or a mapping from tensor to law",
    "layout": "how x lies in memory",
    "threads": "threads that the backend was given",
    "seed": "seed of the inputs",
    "pass": "forward or backward",
    "backend": "name of the backend, as it was asked for",
}

VERDICT_COLUMNS: dict[str, str] = {
    **CASE_COLUMNS,
    "check": "the check that decided",
    "output": "the tensor judged; empty for the whole call",
    "status": "PASSED, UNSTABLE, FAILED, SKIPPED, CRASHED, TIMEOUT, ERROR or EMPTY",
    "accepted": "whether the run may succeed with this row (true or false)",
    "reason": "a sentence, always there when the status is not PASSED",
    "compared": "elements held to a finite bound",
    "undecided": "elements whose bound is infinite",
    "out_of_domain": "elements with an intermediate beyond the largest finite number",
    "max_abs": "largest absolute error",
    "max_ulp": "largest error in units in the last place of the output's dtype",
    "budget": "largest error divided by its bound; over 1 breaks it",
    "tier": "best summation tier whose bound holds (2, 1 or 0)",
    "effective_a": "smallest summation constant with which the worst row passes",
    "resolution": "smallest relative wrongness that would surely have been seen",
    "worst_index": "index of the worst element, such as 0;3;17",
    "expected": "expected value there",
    "got": "value the backend returned there",
    "bound": "largest allowed error there",
    "seconds": "time the check took in the backend's worker, not a benchmark",
}


def case_cells(case: Case) -> dict[str, Any]:
    """The `CASE_COLUMNS` that a case fills."""
    return {
        "schema": SCHEMA,
        "key": case.key,
        "case": case.label,
        "op": case.op,
        "shape": "x".join(map(str, case.shape)),
        "axis": case.axis if isinstance(case.axis, int) else list(case.axis),
        "epsilon": case.epsilon,
        "dtype": case.dtype,
        "affine_dtype": case.affine_dtype,
        "law": case.inputs or (case.law if isinstance(case.law, str) else dict(case.law)),
        "layout": case.layout,
        "threads": case.threads,
        "seed": case.seed,
    }


def verdict_cells(verdict: Verdict) -> dict[str, Any]:
    """One row of verdicts.csv, by column."""
    own = {name: getattr(verdict, name) for name in VERDICT_COLUMNS if name not in CASE_COLUMNS}
    return {
        **case_cells(verdict.case),
        "pass": verdict.pass_,
        "backend": verdict.backend,
        **own,
        "threads": verdict.threads,
    }


def verdict_of(row: Mapping[str, str], case: Case) -> Verdict:
    """The verdict that `verdict_cells` wrote, read back. Raises ValueError for cells that it did not write."""
    numbers: dict[str, Any] = {}
    for name in ("compared", "undecided", "out_of_domain", "threads"):
        numbers[name] = int(row[name] or 0)
    for name in ("tier", "effective_a"):
        numbers[name] = int(float(row[name])) if row[name] else None
    for name in ("max_abs", "max_ulp", "budget", "resolution", "expected", "got", "bound"):
        numbers[name] = float(row[name]) if row[name] else None
    index = tuple(int(i) for i in row["worst_index"].split(";")) if row["worst_index"] else None
    return Verdict(
        case=case,
        backend=row["backend"],
        pass_=row["pass"],
        check=row["check"],
        output=row["output"],
        status=Status(row["status"]),
        accepted=row["accepted"] == "true",
        reason=row["reason"],
        worst_index=index,
        seconds=float(row["seconds"] or 0),
        **numbers,
    )
