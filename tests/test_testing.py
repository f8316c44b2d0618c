"""`assert_correct`: passes for right functions, and fails with the words of the command line for wrong ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lnbench import Case, Status, errors
from lnbench.testing import assert_correct

Array = np.ndarray[Any, Any]


def layer_norm(x: Array, gamma: Array | None, beta: Array | None, *, axis: Any, epsilon: float) -> dict[str, Array]:
    axes = axis if isinstance(axis, tuple) else tuple(range(axis % x.ndim, x.ndim))
    mean = x.mean(axes, keepdims=True)
    rstd = 1 / np.sqrt(np.square(x - mean).mean(axes, keepdims=True) + x.dtype.type(epsilon))
    y = (x - mean) * rstd
    if gamma is not None:
        y = y * gamma
    if beta is not None:
        y = y + beta
    return {"y": y, "mean": mean, "rstd": rstd}


def without_epsilon(x: Array, gamma: Array, beta: Array, *, axis: Any, epsilon: float) -> dict[str, Array]:
    return layer_norm(x, gamma, beta, axis=axis, epsilon=0.0)


def layer_norm_grad(
    dy: Array, x: Array, gamma: Array | None, mean: Array, rstd: Array, *, axis: Any, epsilon: float
) -> dict[str, Array]:
    axes = axis if isinstance(axis, tuple) else tuple(range(axis % x.ndim, x.ndim))
    xhat = (x - mean) * rstd
    g = dy if gamma is None else dy * gamma
    dx = rstd * (g - g.mean(axes, keepdims=True) - xhat * (g * xhat).mean(axes, keepdims=True))
    others = tuple(a for a in range(x.ndim) if a % x.ndim not in axes)
    return {"dx": dx, "dgamma": (dy * xhat).sum(others), "dbeta": dy.sum(others)}


CASES = [
    Case(shape=(7, 5), epsilon=0.5, name="large-epsilon"),
    Case(shape=(4, 33), epsilon=1e-5, dtype="float64", law="offset", name="offset"),
]


def test_right_functions_return_their_verdicts() -> None:
    verdicts = assert_correct(forward=layer_norm, backward=layer_norm_grad, cases=CASES, dtypes=["float32", "float64"])
    assert {v.output for v in verdicts} >= {"y", "mean", "rstd", "dx", "dgamma", "dbeta"}
    assert {v.status for v in verdicts} == {Status.PASSED}
    assert {v.backend for v in verdicts} == {"layer_norm"}


def test_a_forward_alone_is_enough() -> None:
    verdicts = assert_correct(forward=layer_norm, cases=CASES[0])
    assert {v.pass_ for v in verdicts if v.status is Status.PASSED} == {"forward"}


def test_a_wrong_function_fails_with_the_report() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_correct(forward=without_epsilon, cases=CASES[0])
    text = str(caught.value)
    assert "FAILED large-epsilon on without_epsilon" in text
    assert re.search(r"forward bound: (y|rstd)\[.*\]: expected .*, got .*, budget", text)
    assert (
        text.splitlines()[-1].startswith(text.splitlines()[-1].split(" ")[0])
        and "not accepted" in text.splitlines()[-1]
    )
    assert f'again: assert_correct(forward={__name__}.without_epsilon, operator="layer_norm", cases=' in text


def test_the_words_are_those_of_the_command_line(tmp_path: Path) -> None:
    source = Path(__file__).read_text().split("CASES = [")[0].replace("from lnbench.testing import assert_correct", "")
    file = tmp_path / "mine.py"
    file.write_text(
        source.replace("import pytest\n", "")
        + "from lnbench import FunctionBackend\nbackend = FunctionBackend('without_epsilon')\n"
        + "backend.forward('layer_norm')(without_epsilon)\n"
    )
    case = CASES[0].inline()
    done = subprocess.run(
        [sys.executable, "-m", "lnbench", "verify", "--case", case, "--backend", f"{file}:backend", "--in-process"],
        capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == errors.Exit.FAILED, done.stderr
    with pytest.raises(AssertionError) as caught:
        assert_correct(forward=without_epsilon, cases=case)
    told = [line for line in str(caught.value).splitlines() if line.startswith(("  forward", "    "))]
    assert told and all(line in done.stderr + done.stdout for line in told)


def test_the_repro_runs_the_case_again() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_correct(forward=without_epsilon, cases=CASES[0])
    line = next(x for x in str(caught.value).splitlines() if x.startswith("  again: "))
    call = line.partition("again: ")[2].replace(f"{__name__}.", "")
    with pytest.raises(AssertionError, match="large-epsilon"):
        eval(call)  # the line is what a person would paste


def test_nothing_verified_is_a_failure() -> None:
    with pytest.raises(AssertionError, match="nothing was verified"):
        assert_correct(forward=layer_norm, cases=CASES[0], dtypes=["float64"])


def test_a_fact_that_does_not_hold_is_found() -> None:
    count = iter(range(1000))

    def restless(x: Array, gamma: Array, beta: Array, *, axis: Any, epsilon: float) -> dict[str, Array]:
        return {
            "y": layer_norm(x, gamma, beta, axis=axis, epsilon=epsilon)["y"]
            * x.dtype.type(1 + 1e-7 * (next(count) % 3))
        }

    with pytest.raises(AssertionError, match="declared"):
        assert_correct(forward=restless, cases=CASES[0], facts={"deterministic": "yes"})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "needs a forward or a backward"),
        ({"forward": layer_norm, "operator": "layernorm"}, "did you mean 'layer_norm'"),
        ({"forward": layer_norm, "facts": {"determinstic": "yes"}}, "did you mean 'deterministic'"),
        ({"forward": layer_norm, "operator": "rms_norm", "cases": CASES}, "none of the 2 cases is of rms_norm"),
        ({"forward": layer_norm, "cases": "no-such-suite"}, "no-such-suite"),
    ],
)
def test_wrong_arguments_are_usage_errors(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.UsageError, match=words):
        assert_correct(**arguments)
