"""The Python face: packages that can be called, objects and paths as backends, lazily loaded names."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import lnbench
from lnbench import Case, FunctionBackend, Status
from lnbench.errors import UnknownBackend, UsageError

CASE = Case(shape=(3, 8), passes="forward")
FILE = """
import numpy as np
from lnbench import FunctionBackend

backend = FunctionBackend("mine")

@backend.forward("layer_norm")
def layer_norm(x, gamma, beta, *, axis, epsilon):
    mean = x.mean(-1, keepdims=True)
    return {"y": (x - mean) / np.sqrt(x.var(-1, keepdims=True) + x.dtype.type(epsilon)) * gamma + beta}
"""


def test_a_file_is_verified_in_a_worker(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text(FILE)
    verdicts = lnbench.verify(tmp_path / "elsewhere.py", cases=CASE, checks=["bound"])
    assert [v.status for v in verdicts] == [Status.PASSED]
    assert "lnbench_user_elsewhere" not in sys.modules


def test_an_object_is_verified_here_under_its_own_name() -> None:
    backend = FunctionBackend("wrong")
    backend.forward("layer_norm")(lambda x, gamma, beta, *, axis, epsilon: {"y": x})
    [verdict] = lnbench.verify(backend, cases=[CASE], checks=["bound"])
    assert (verdict.backend, verdict.status, verdict.accepted) == ("wrong", Status.FAILED, False)
    assert not [name for name in sys.modules if name.startswith("lnbench_objects")]


def test_a_package_stays_callable_after_its_modules_were_imported() -> None:
    import lnbench.bench.runner
    import lnbench.verify.runner

    assert callable(lnbench.verify) and callable(lnbench.bench)
    assert lnbench.verify.runner.run is not None  # type: ignore[attr-defined]


def test_a_benchmark_returns_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("lnbench.machine.bandwidth.measure", lambda *what: 1e6)
    (tmp_path / "mine.py").write_text(FILE)
    [row] = lnbench.bench(tmp_path / "mine.py", CASE, epochs=2, rounds=1)
    assert row.verdict == "BASELINE" and row.seconds is not None and row.seconds > 0


def test_cases_are_loaded_with_overrides(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("version: 1\ncases: [{op: layer_norm, shape: [2, 4]}]\n")
    assert [c.dtype for c in lnbench.load_cases(tmp_path / "c.yaml", dtype="float64")] == ["float64"]


@pytest.mark.parametrize(
    ("backend", "more", "error"),
    [
        (42, {}, TypeError),
        ([42], {}, UsageError),
        ("nosuch", {}, UnknownBackend),
        ("numpy", {"require": "all"}, UsageError),
    ],
)
def test_what_cannot_be_verified_is_refused(backend: object, more: dict[str, str], error: type[Exception]) -> None:
    with pytest.raises(error):
        lnbench.verify(backend, cases=CASE, **more)  # type: ignore[arg-type]
