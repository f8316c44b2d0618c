"""GitHub annotations: one workflow command per failing case, smallest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lnbench.report import summary
from lnbench.verify.verdict import Verdict

# GitHub shows ten annotations of a kind per step.
MOST = 10


def lines(verdicts: Sequence[Verdict], repro: Callable[[Verdict], str]) -> list[str]:
    """Lines such as `::error title=FAILED case on backend::sentence`."""
    found = []
    for failure in summary.failures(verdicts)[:MOST]:
        v = failure.verdicts[0]
        parts = [f"{v.pass_} {v.check}", summary.detail(v), v.reason, f"again: {repro(v)}"]
        title = f"{failure.status} {failure.case.label} on {failure.backend}"
        found.append(f"::error title={_property(title)}::{_data('; '.join(p for p in parts if p))}")
    return found


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
