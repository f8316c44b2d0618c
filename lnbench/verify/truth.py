"""The "was it right" function of a benchmark: the bound as a yes or a reason. Knows nothing of timing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lnbench import laws
from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.operators import registry
from lnbench.operators.schema import statistic_dtype
from lnbench.verify.bound import judge, reference
from lnbench.verify.verdict import Status

Arrays = Mapping[str, np.ndarray]


class Truth:
    """Judges outputs by the rounding-error bound; stateless."""

    def is_right(self, case: Case, pass_: str, inputs: Arrays, outputs: Arrays, facts: Facts) -> str | None:
        """None when every output passes or keeps a named weaker bound, else the first reason."""
        found = judge(case, pass_, inputs, outputs, facts, unsystematic=laws.is_unsystematic(case))
        for name, judgement in found.items():
            if judgement.status not in (Status.PASSED, Status.UNSTABLE):
                return f"wrong: {judgement.reason or f'{name} is {judgement.status}'}"
        return None

    def statistics(self, case: Case, inputs: Arrays, facts: Facts) -> Arrays:
        """mean and statistic of the reference, in the declared kind and dtype; none where the kind is `none`."""
        stat_dtype = case.dtype if facts.statistics_dtype == "storage" else statistic_dtype(case.dtype)
        tensors = registry.get(case.op).tensors(case, facts.statistics, stat_dtype)
        names = tuple(n for n, t in tensors.items() if t.role == "statistic")
        if not names:
            return {}
        return reference(case, "forward", inputs, kind=facts.statistics, stat_dtype=stat_dtype, only=names)
