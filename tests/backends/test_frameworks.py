"""Backends of frameworks: cheap until they are used, clear when something is missing, right where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lnbench
from lnbench import Case, Status, errors, pool
from lnbench.backend import FACTS
from lnbench_backends import _frameworks as frameworks

PEERS = {p.name: p.value for p in entry_points(group="lnbench.backends") if p.name not in ("numpy", "native", "caffe2")}
MODULES = ("torch", "jax", "onnxruntime", "onnx", "keras", "tensorflow")


def describe(name: str) -> pool.Description:
    """The description of an installed peer; skips the test where it is not."""
    try:
        with pool.Session(PEERS[name]) as session:
            return session.description
    except errors.Unavailable as missing:
        pytest.skip(str(missing))


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("name", PEERS)
def test_creating_a_backend_imports_no_framework(name: str) -> None:
    module, _, attribute = PEERS[name].partition(":")
    done = run(
        f"import sys\nfrom {module} import {attribute}\nbackend = {attribute}()\n"
        f"assert backend.name == {name!r}\nassert not {set(MODULES)!r} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PEERS)
def test_a_missing_framework_is_said_with_the_command_that_installs_it(name: str) -> None:
    module, _, attribute = PEERS[name].partition(":")
    done = run(
        f"import sys\nfrom {module} import {attribute}\nfrom lnbench.errors import Unavailable\n"
        f"sys.modules.update(dict.fromkeys({MODULES!r}))\n"
        "import lnbench_backends._onednn_library as library\nlibrary._candidates = lambda: iter(['/nowhere/libdnnl.so'])\n"
        "import lnbench_backends.keras_backend as keras\nkeras.find_spec = lambda name: None\n"
        f"try:\n    {attribute}().describe()\nexcept Unavailable as error:\n    print(error)"
    )
    extra = "[torch]" if name.startswith("torch") else name.partition("-")[0]
    assert "pip install 'lnbench[" in done.stdout and extra.strip("[]") in done.stdout, done.stdout + done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("name", ["numpy", "native"])
def test_verifying_another_backend_imports_no_framework(name: str) -> None:
    done = run(
        "import sys, lnbench\nfrom lnbench import Case\n"
        f"verdicts = lnbench.verify({name!r}, [Case(shape=(3, 4))])\nassert verdicts\n"
        f"assert not {set(MODULES)!r} & set(sys.modules)\nassert 'lnbench_backends' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [["list", "backends"], ["doctor"]])
def test_what_is_missing_is_listed_with_the_command_that_installs_it(command: list[str], tmp_path: Path) -> None:
    for module in MODULES:
        (tmp_path / f"{module}.py").write_text("raise ImportError('not here')")
    done = subprocess.run(
        [sys.executable, "-m", "lnbench", *command],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "COLUMNS": "400"},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = " ".join((done.stdout + done.stderr).split())
    for extra in ("torch", "jax", "onnxruntime", "tensorflow"):
        assert f"pip install 'lnbench[{extra}" in said, said


def test_the_parent_does_not_import_the_framework_that_it_verifies() -> None:
    describe("onnxruntime")
    done = run(
        "import sys, lnbench\nfrom lnbench import Case\n"
        f"assert lnbench.verify({PEERS['onnxruntime']!r}, [Case(shape=(3, 4))])\n"
        f"assert not {set(MODULES)!r} & set(sys.modules)"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", PEERS)
def test_a_description_names_version_device_and_statistics(name: str) -> None:
    said = describe(name)
    assert said.name == name
    assert {"version", "device", "call", "statistics", "threads"} <= set(said.described)
    assert said.described["statistics"] in FACTS["statistics"]


# Peers that are right on the whole suite; what is wrong with the others is told in docs/peers.md.
@pytest.mark.parametrize("name", ["torch", "onnxruntime", "onednn", pytest.param("jax", marks=pytest.mark.slow)])
def test_a_sound_peer_is_not_accused(name: str) -> None:
    describe(name)
    verdicts = lnbench.verify(PEERS[name], "smoke")
    bad = [(v.case.label, v.pass_, v.check, v.output, v.status, v.reason) for v in verdicts if not v.accepted]
    assert not bad
    assert sum(v.status is Status.PASSED for v in verdicts) > 40


@pytest.mark.parametrize(("name", "op"), [("torch", "rms_norm"), ("torch", "batch_norm"), ("onnxruntime", "rms_norm")])
def test_other_operators_are_right_too(name: str, op: str) -> None:
    describe(name)
    shape = {"axis": 1} if op == "batch_norm" else {"beta": False}
    cases = [Case(op=op, shape=(4, 6, 5), epsilon=0.25, dtype=d, **shape) for d in ("float32", "float64")]
    verdicts = lnbench.verify(PEERS[name], cases)
    assert {v.status for v in verdicts} <= {Status.PASSED, Status.SKIPPED}
    assert any(v.status is Status.PASSED and v.output == "y" for v in verdicts)


def test_torch_adds_parameter_gradients_in_the_storage_type_and_is_told_so() -> None:
    describe("torch")
    case = Case(shape=(1000, 8), dtype="bfloat16", passes="backward")
    verdicts = lnbench.verify(PEERS["torch"], case)
    (found,) = [v for v in verdicts if v.check == "bound" and v.output == "dbeta"]
    assert found.status is Status.UNSTABLE and "storage type" in found.reason


@pytest.mark.parametrize("name", ["torch", "onednn"])
def test_a_call_changes_its_thread_count_in_one_process(name: str) -> None:
    describe(name)
    cases = [Case(shape=(64, 64), threads=t) for t in (1, 3, 2)]
    assert {v.status for v in lnbench.verify(PEERS[name], cases)} == {Status.PASSED}


# Helpers


@pytest.mark.parametrize(
    ("axis", "trailing"), [(-1, 1), (0, 3), ((1, 2), 2), ((2, 1), 2), ((0,), None), ((0, 2), None), ((-1,), 1)]
)
def test_trailing_axes_are_counted(axis: int | tuple[int, ...], trailing: int | None) -> None:
    case = Case(shape=(2, 3, 4), axis=axis)
    assert frameworks.trailing_count(case) == trailing
    assert (frameworks.needs_trailing_axes(case, "it") is None) == (trailing is not None)


def test_epsilon_that_float32_cannot_hold_matters_in_float64_only() -> None:
    assert frameworks.float32_epsilon(Case(shape=(2, 3), dtype="float64", epsilon=1e-5), "it")
    assert frameworks.float32_epsilon(Case(shape=(2, 3), dtype="float64", epsilon=0.25), "it") is None
    assert frameworks.float32_epsilon(Case(shape=(2, 3), epsilon=1e-5), "it") is None


def test_staged_copies_follow_their_source() -> None:
    source = np.arange(12.0).reshape(3, 4)
    staged = frameworks.Staged({"whole": source, "turned": source.T})
    assert staged.arrays["whole"] is source
    place = staged.arrays["turned"].ctypes.data
    source *= 2
    assert not np.array_equal(staged.arrays["turned"], source.T)
    staged.load()
    assert np.array_equal(staged.arrays["turned"], source.T) and staged.arrays["turned"].ctypes.data == place


def test_threads_of_a_process_cannot_be_changed_by_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    frameworks.check_process_threads("it", 3)
    with pytest.raises(errors.Unsupported, match="has 3, not 2"):
        frameworks.check_process_threads("it", 2)


@pytest.mark.parametrize("mixed", [(), ("float32",)])
def test_pairs_of_types_are_refused_by_name(mixed: tuple[str, ...]) -> None:
    def reason(**words: Any) -> str | None:
        return frameworks.needs_affine_dtype(Case(shape=(2, 3), **words), "it", mixed=mixed)

    assert reason(dtype="bfloat16") is None
    assert (reason(dtype="bfloat16", affine_dtype="float32") is None) == bool(mixed)
    assert reason(dtype="float64", affine_dtype="float32") == "it does not take float32 parameters beside float64 data"
    assert reason(dtype="float64", affine_dtype="float32", gamma=False, beta=False) is None
