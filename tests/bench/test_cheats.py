"""Plug-in files that cheat with the clock, in real workers: every one is caught or gains nothing; honest ones pass."""

from __future__ import annotations

import pytest

from lnbench.bench.crew import Circumstances
from lnbench.bench.record import Contender, Item, Row, Word
from lnbench.bench.runner import run
from lnbench.bench.stopping import Plan
from lnbench.bench.verdicts import Rules
from lnbench.bench.world import World
from lnbench.case import Case
from lnbench.verify.right import Right

HONEST = """
import numpy as np
from lnbench.backend import FunctionBackend

def norm(x, gamma, beta, epsilon):
    x = np.asarray(x)
    centred = x - x.mean(axis=-1, keepdims=True)
    rstd = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(epsilon))
    return centred * rstd * gamma + beta

backend = FunctionBackend("plain", facts={"statistics": "none"})

@backend.forward("layer_norm")
def layer_norm(x, gamma, beta, *, axis, epsilon):
    return {"y": norm(x, gamma, beta, epsilon)}
"""

FUNCTION = """
@backend.forward("layer_norm")
def layer_norm(x, gamma, beta, *, axis, epsilon):
"""

CALL = """
class Cheat:
    name = "cheat"

    def describe(self):
        return {"statistics": "none"}

    def supports(self, case):
        return None

    def prepare(self, case, pass_, tensors, threads):
        return Call(case, tensors)

class Call:
    def __init__(self, case, tensors):
        self.epsilon, self.given, self.y = case.epsilon, tensors.inputs, None

    def compute(self, x):
        self.y = norm(x, self.given["gamma"], self.given["beta"], self.epsilon)
"""

CHEATS = {
    "by_pointer": HONEST + "answers = {}\n" + FUNCTION + """
    key = x.ctypes.data
    if key not in answers:
        answers[key] = norm(x, gamma, beta, epsilon)
    return {"y": answers[key]}
""",
    "by_content": HONEST + "answers = {}\n" + FUNCTION + """
    key = x[:, 0].tobytes()
    if key not in answers:
        answers[key] = norm(x, gamma, beta, epsilon)
    return {"y": answers[key]}
""",
    "lazy": HONEST + CALL + """
    def run(self):
        pass

    def outputs(self):
        self.compute(self.given["x"])
        return {"y": self.y}

backend = Cheat()
""",
    "lazy_with_copies": HONEST + CALL + """
    def run(self):
        self.copies = {n: np.array(a) for n, a in self.given.items()}

    def outputs(self):
        self.given, given = self.copies, self.given
        self.compute(self.given["x"])
        self.given = given
        return {"y": self.y}

backend = Cheat()
""",
    "thread": HONEST + CALL + """
    def run(self):
        self.later = pool.submit(self.compute, self.given["x"])

    def outputs(self):
        self.later.result()
        return {"y": self.y}

from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1)
backend = Cheat()
""",
    "thread_with_copies": HONEST + CALL + """
    def run(self):
        self.later = pool.submit(self.from_copies, {n: np.array(a) for n, a in self.given.items()})

    def from_copies(self, given):
        self.y = norm(given["x"], given["gamma"], given["beta"], self.epsilon)

    def outputs(self):
        self.later.result()
        return {"y": self.y}

from concurrent.futures import ThreadPoolExecutor
pool = ThreadPoolExecutor(1)
backend = Cheat()
""",
    "clock": HONEST + """
import sys, time

def slow(real):
    return lambda: real() // 3

time.perf_counter_ns = slow(time.perf_counter_ns)
time.perf_counter = slow(time.perf_counter)
sys.modules["lnbench.worker"].perf_counter_ns = slow(sys.modules["lnbench.worker"].perf_counter_ns)
""",
}  # fmt: skip


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Row]:
    """One run of all cheats beside two honest copies; the fewest epochs, because only honesty is asked."""
    folder = tmp_path_factory.mktemp("cheats")
    sides = []
    for name, text in {"honest": HONEST, "twin": HONEST, **CHEATS}.items():
        (folder / f"{name}.py").write_text(text)
        sides.append(Contender(name, str(folder / f"{name}.py")))
    item = Item(Case(shape=(256, 1024), law="normal"), "forward")
    plan = Plan(pilot=2, most_epochs=2, rounds=1)
    found = run([item], sides, Rules(plan=plan, baseline="honest"), Circumstances(seed=3), World(Right()))
    return {row.backend: row for row in found.rows}


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_caught_or_gains_nothing(rows: dict[str, Row], name: str) -> None:
    assert rows[name].verdict in (Word.INVALID, Word.SUSPECT), rows[name]
    assert rows[name].reason


def test_honest_plugins_are_not_accused(rows: dict[str, Row]) -> None:
    assert rows["honest"].verdict is Word.BASELINE, rows["honest"].reason
    assert rows["twin"].verdict in (Word.SAME, Word.UNRESOLVED), rows["twin"].reason
