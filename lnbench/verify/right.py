"""The "was it right" function of a benchmark: the main check, asked about outputs that somebody else obtained.

`lnbench.bench` knows no correctness and takes this from its caller.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lnbench import laws
from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.verify.bound import judge, reference
from lnbench.verify.verdict import Status, is_accepted

Arrays = Mapping[str, np.ndarray]


class Right:
    """Judges by the rounding-error bound. requirement: what outputs must reach unless the case asks otherwise."""

    def __init__(self, requirement: str = "stable"):
        self._requirement = requirement

    def is_right(self, case: Case, pass_: str, inputs: Arrays, outputs: Arrays, facts: Facts) -> str | None:
        """None when every output is as right as required, else a sentence about the first that is not."""
        judgements = judge(case, pass_, inputs, outputs, facts, unsystematic=laws.is_unsystematic(case, pass_))
        requirement = case.require or self._requirement
        if "unstable" in dict(case.expect).values():
            requirement = "any"
        for name, found in judgements.items():
            status = Status(found.status)
            if not is_accepted(status, found.tier, requirement):
                return (
                    f"{name} is {status}: {found.reason or f'only tier {found.tier} holds, {requirement} is required'}"
                )
        return None

    def statistics(self, case: Case, inputs: Arrays, facts: Facts) -> Arrays:
        """The reference's mean and statistic, rounded to the format that the backend declares."""
        if facts.statistics == "none":
            return {}
        stat_dtype = case.dtype if facts.statistics_dtype == "storage" else None
        names = ("mean", facts.statistics)
        return reference(case, "forward", inputs, kind=facts.statistics, stat_dtype=stat_dtype, only=names)
