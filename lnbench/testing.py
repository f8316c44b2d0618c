"""For tests of kernel authors: `assert_correct` inside pytest, and `check_conformance` for a whole backend.

Both raise AssertionError with the sentences that the command line would print.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnbench.backend import FunctionBackend
from lnbench.case import DTYPES, Case
from lnbench.errors import UsageError

if TYPE_CHECKING:
    from lnbench.verify.verdict import Verdict

__all__ = ["assert_correct", "check_conformance"]

Function = Callable[..., Any]


def assert_correct(
    *,
    forward: Function | None = None,
    backward: Function | None = None,
    operator: str = "layer_norm",
    cases: str | Path | Case | Iterable[Case] | None = None,
    dtypes: Sequence[str] = DTYPES,
    facts: Mapping[str, str] | None = None,
    require: str = "stable",
    name: str | None = None,
) -> list[Verdict]:
    """Verifies functions as `lnbench verify` does; returns the verdicts, or raises AssertionError with the report.

    forward, backward: functions as `FunctionBackend` takes them (`lnbench show OPERATOR` prints their signatures); one
    of them may be left out. They run in this process, on guarded memory: a crash ends the test run.
    cases: a suite, a case file, one case as JSON, `Case` objects; by default the suite `ci`. Only those of `operator`
    are taken. dtypes: those that the functions support. facts: what they promise (docs/backends.md).
    require: tier2, tier1, stable or any. name: how the report calls them, by default the name of the function.
    It is an AssertionError as well when nothing was verified. Raises UsageError and ConfigError.
    """
    from lnbench import api

    given = [f for f in (forward, backward) if f is not None]
    if not given:
        raise UsageError("assert_correct needs a forward or a backward function; pass at least one")
    backend = FunctionBackend(name or _name_of(given[0]), dtypes=list(dtypes), facts=dict(facts or {}))
    if forward is not None:
        backend.forward(operator)(forward)
    if backward is not None:
        backend.backward(operator)(backward)
    start = time.perf_counter()
    verdicts = api.verify(backend, _chosen(cases, operator), require=require)
    _raise_unless_good(verdicts, time.perf_counter() - start, _call(forward, backward, operator))
    return verdicts


def check_conformance(backend: str | Path, *, operator: str = "layer_norm", timeout: float = 120.0) -> None:
    """Raises AssertionError listing every rule of the backend contract that `backend` breaks.

    backend: named as on the command line; it runs in worker processes. operator: whose calls are tried. It looks at
    behaviour (descriptions, reasons, several calls at once, fresh data, threads), not at rounding: verify does that.
    Raises UnknownBackend, Unavailable, BackendBroken and UsageError when the backend cannot be started.
    """
    from lnbench.conformance import breaches

    found = breaches(str(backend), operator=operator, timeout=timeout)
    if found:
        raise AssertionError(f"{backend} breaks the backend contract:\n" + "\n".join(f"- {f}" for f in found))


def _chosen(cases: str | Path | Case | Iterable[Case] | None, operator: str) -> list[Case]:
    """The cases of the operator. Raises UsageError when there is none."""
    from lnbench import api, config

    if isinstance(cases, str) and cases.lstrip().startswith("{"):
        found = config.inline(cases)
    elif cases is None or isinstance(cases, (str, Path)):
        found = api.load_cases(cases or "ci")
    else:
        found = [cases] if isinstance(cases, Case) else list(cases)
    taken = [case for case in found if case.op == operator]
    if not taken:
        raise UsageError(f"none of the {len(found)} cases is of {operator}; pass cases of that operator")
    return taken


def _raise_unless_good(verdicts: Sequence[Verdict], seconds: float, call: str) -> None:
    from lnbench.verify.verdict import Status

    judged = [v for v in verdicts if v.status is not Status.SKIPPED]
    if judged and all(v.accepted for v in judged):
        return
    from lnbench.report.console import make
    from lnbench.report.terminal import print_report

    def repro(verdict: Verdict) -> str:
        return call.format(cases=json.dumps(verdict.case.inline()))

    text = StringIO()
    print_report(make(text, "never"), verdicts, repro=repro, seconds=seconds, matrix={})
    why = "" if judged else "nothing was verified: every case was skipped\n"
    raise AssertionError(f"{why}{text.getvalue().rstrip()}")


def _call(forward: Function | None, backward: Function | None, operator: str) -> str:
    """The Python that runs one case again, with `{cases}` where the case goes."""
    functions = [f"{word}={_path_of(f)}" for word, f in (("forward", forward), ("backward", backward)) if f is not None]
    return f'assert_correct({", ".join(functions)}, operator="{operator}", cases={{cases}})'


def _name_of(function: Function) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _path_of(function: Function) -> str:
    return f"{getattr(function, '__module__', '')}.{_name_of(function)}".lstrip(".")
