"""Effective A against a plain search over all constants."""

from __future__ import annotations

import numpy as np
import pytest

from lnbench import laws
from lnbench.backend import Facts
from lnbench.case import Case
from lnbench.numerics.rules import Arithmetic, Rules
from lnbench.verify import arrays
from lnbench.verify.bound import judge, reference
from lnbench.verify.effective import _smallest


@pytest.mark.parametrize("law", ["normal", "offset", "near_epsilon", "one_spike"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_it_is_the_smallest_constant_whose_bound_holds_the_error(law: str, share: float) -> None:
    case = Case(shape=(7, 200), law=law, passes="forward")
    t = dict(laws.draw(case))
    got = reference(case, "forward", t)
    problem, rules = arrays.problem_of(case, "forward", t, Facts()), arrays.rules_for(case, "forward", Facts())

    def bounds(a: Rules) -> dict[str, np.ndarray]:
        return {n: e.bound for n, e in problem.evaluate(Arithmetic.of(a, 7), slice(0, 7), list(got)).items()}

    loose, exact = (
        bounds(rules.replace(constant=150)),
        problem.evaluate(Arithmetic.of(rules, 7), slice(0, 7), list(got)),
    )
    for name in got:
        # One row is wrong by a share of what 150 roundings may do.
        got[name][3] = (exact[name].value[3] + share * loose[name][3]).astype(np.float32)
    for name, j in judge(case, "forward", t, got, Facts(), unsystematic=False, grade=True).items():
        assert j.worst_index is not None and j.tier is not None and j.expected is not None
        row, col = (*j.worst_index, 0)[:2]
        error = abs(float(got[name].reshape(7, -1)[row, col]) - float(exact[name].value[row, col]))
        plain = next(a for a in range(200) if error <= bounds(rules.replace(constant=a))[name][row, col])
        assert j.effective_a == plain, name


@pytest.mark.parametrize("n", [1, 2, 3, 50, 1000])
def test_the_search_agrees_with_a_plain_one_from_any_guess(n: int) -> None:
    for least in range(n + 2):
        for guess in {0, 1, least - 1, least, least + 3, n - 1, 10**9}:
            want = least if least <= max(n - 1, 0) else None
            assert _smallest(lambda a, least=least: a >= least, max(guess, 0), n) == want  # type: ignore[misc]


def test_for_a_sum_over_rows_it_is_the_constant_of_that_sum() -> None:
    case = Case(shape=(300, 3))
    t = dict(laws.draw(case))
    got = reference(case, "backward", t)
    magnitude = np.abs(t["dy"].astype(np.float64)).sum(axis=0)
    exact = t["dy"].astype(np.float64).sum(axis=0)
    unit = 2.0**-24
    got["dbeta"] = (exact + 20.5 * unit * magnitude).astype(np.float32)
    j = judge(case, "backward", t, got, Facts(), unsystematic=False, grade=True)["dbeta"]
    assert j.effective_a is not None and abs(j.effective_a - 21) <= 1
