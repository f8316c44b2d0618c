"""Tensors too large to be held twice: memory of all processes together, and that nothing else changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from lnbench import laws
from lnbench.case import Case
from lnbench.verify import runner, subject
from lnbench.verify.verdict import Status

MIB = 1 << 20


class Peak:
    """The most memory that this process and its descendants held while the block ran, shared pages counted once."""

    def __init__(self) -> None:
        self._end, self._thread = threading.Event(), threading.Thread(target=self._watch)

    def __enter__(self) -> Peak:
        self.bytes = self.before = self._held()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._end.wait(0.02):
            self.bytes = max(self.bytes, self._held())

    @staticmethod
    def _held() -> int:
        # Proportional set sizes read one after the other count a page that is just being mapped twice: shared memory is
        # counted at its file instead.
        here, total = psutil.Process(), 0
        for process in (here, *here.children(recursive=True)):
            try:
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii")
            except OSError:  # it just ended
                continue
            total += 1024 * int(rollup.partition("Pss_Anon:")[2].split()[0])
        shared = {}
        for link in Path("/proc/self/fd").iterdir():
            try:
                if "/memfd:lnbench" in str(link.readlink()):
                    found = link.stat()
                    shared[found.st_ino] = 512 * found.st_blocks
            except OSError:
                continue
        return total + sum(shared.values())


@pytest.mark.skipif(not psutil.LINUX, reason="asks /proc")
@pytest.mark.slow
@pytest.mark.parametrize(("passes", "rows", "tensors"), [("forward", 20 << 10, 2), ("forward_backward", 9 << 10, 3)])
def test_memory_beyond_inputs_and_outputs_stays_under_256_mib_and_16_rows(passes: str, rows: int, tensors: int) -> None:
    # The inputs are larger than what the rule allows beyond them: held twice they would break it.
    case = Case(shape=(rows, 4096), passes=passes, threads=2)
    with Peak() as peak:
        verdicts = runner.run([case], ["native"], runner.Options(checks=("bound", "memory")))
    assert all(v.accepted for v in verdicts), [v.reason for v in verdicts]
    beyond = peak.bytes - peak.before - tensors * 4 * case.elements
    assert beyond < 256 * MIB + 16 * 8 * 4096, f"{beyond / MIB:.0f} MiB beyond inputs and outputs"


@pytest.fixture
def all_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor with a row counts as large, and its outputs as too large to be copied."""
    monkeypatch.setattr(subject, "HOLD_BYTES", 1 << 10)
    monkeypatch.setattr(subject, "KEEP_BYTES", 1 << 10)


LARGE = (
    Case(shape=(40, 70)),
    Case(shape=(40, 70), law="offset", layout="row_padded", dy_layout="transposed", out_layout="offset"),
    Case(shape=(40, 70), dy_layout="broadcast"),
    Case(shape=(5, 70, 8), axis=(1,), dtype="float64"),
    Case(op="batch_norm", shape=(6, 4, 30), axis=1, attributes=(("momentum", 0.1), ("training", True))),
)


@pytest.mark.parametrize("case", LARGE, ids=lambda c: c.label)
def test_large_tensors_get_the_verdicts_of_small_ones(case: Case, request: pytest.FixtureRequest) -> None:
    def numbers() -> list[tuple[object, ...]]:
        found = runner.run(
            [case], ["numpy", "native"], runner.Options(checks=("bound", "memory", "statistics", "alias"))
        )
        return [(v.backend, v.pass_, v.check, v.output, v.status, v.compared, v.budget, v.effective_a) for v in found]

    usual = numbers()
    request.getfixturevalue("all_large")
    assert numbers() == usual


@pytest.mark.parametrize(
    ("edit", "check"),
    [("x = x + (x > 0)", "bound"), ("x = x + (x > 0) if x.ctypes.data % 4096 == 0 else x", "memory")],
)
def test_a_wrong_kernel_is_found_on_large_tensors(
    edit: str, check: str, plugin: Callable[..., str], all_large: None
) -> None:
    signature = "def forward(x, gamma, beta, *, axis, epsilon):\n"
    path = plugin((signature, f"{signature}    {edit}\n"))
    verdicts = runner.run([Case(shape=(40, 70), passes="forward")], [path], runner.Options(checks=("bound", "memory")))
    assert check in {v.check for v in verdicts if v.status is Status.FAILED}


UNPROTECT = """
import ctypes
def strike(x):
    page = x.ctypes.data // 4096 * 4096
    ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), ctypes.c_size_t(4096), 3)
    ctypes.c_float.from_address(x.ctypes.data).value = 5.0
"""


def test_a_changed_large_input_is_told_and_not_judged_by(
    plugin: Callable[..., str], all_large: None, tmp_path: Path
) -> None:
    path = plugin(
        ("import numpy as np\n", "import numpy as np\n" + UNPROTECT),
        ('    return {"y": y,', '    strike(x)\n    return {"y": y,'),
    )
    verdicts = runner.run([Case(shape=(40, 70), passes="forward")], [path], runner.Options(checks=("bound", "memory")))
    assert all(v.accepted for v in verdicts if v.check == "bound")
    assert "changed the input x" in {v.reason for v in verdicts if v.check == "memory"}


@pytest.mark.parametrize("case", LARGE, ids=lambda c: c.label)
def test_inputs_drawn_into_given_arrays_are_those_drawn_at_once(case: Case) -> None:
    whole = laws.draw(case)
    targets = {n: np.empty((*a.shape, 2), a.dtype)[..., 0] for n, a in whole.items()}
    for names in (["x"], [n for n in whole if n != "x"]):
        laws.draw_into(case, {n: targets[n] for n in names}, targets)
    for name, array in whole.items():
        assert np.array_equal(targets[name], array), name
