"""Verdicts as data for other programs: CSV and JSON, with the columns of the run folder."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lnbench import results
from lnbench.report.terminal import Matrix
from lnbench.verify.verdict import Verdict


def csv(verdicts: Sequence[Verdict]) -> str:
    """The text of verdicts.csv."""
    return results.csv_text(tuple(results.VERDICT_COLUMNS), map(results.verdict_cells, verdicts))


def as_json(
    verdicts: Sequence[Verdict],
    *,
    repro: Callable[[Verdict], str],
    seconds: float,
    exit_code: int,
    matrix: Matrix,
    environment: Mapping[str, Any],
) -> str:
    """One JSON document: schema, environment, counts, exit code, verdicts with their repro command, differences."""
    document = {
        "schema": results.SCHEMA,
        "command": "verify",
        "environment": environment,
        "seconds": seconds,
        "exit_code": exit_code,
        "counts": Counter(str(v.status) for v in verdicts),
        "verdicts": [{**results.verdict_cells(v), "repro": repro(v)} for v in verdicts],
        "differences": [
            {"output": output, "backends": [a, b], "max_ulp": d.ulp, "case": d.case}
            for (output, a, b), d in matrix.items()
        ],
    }
    return json.dumps(results.json_value(document), indent=2) + "\n"
