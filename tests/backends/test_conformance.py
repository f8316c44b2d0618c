"""Every installed backend against the rules of the contract, and the rules against backends that break them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lnbench import errors, registry
from lnbench.conformance import breaches
from lnbench.testing import check_conformance

SLOW = ("torch-compile", "tensorflow", "tensorflow-keras", "keras", "jax")

BACKENDS = [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in registry.names()]


@pytest.mark.parametrize("name", BACKENDS)
def test_every_installed_backend_keeps_the_contract(name: str) -> None:
    try:
        check_conformance(name)
    except errors.Unavailable as missing:
        assert "install" in str(missing)
        pytest.skip(str(missing))


HEAD = """
import os, threading, time
import numpy as np

class Call:
    def __init__(self, owner, tensors):
        self.owner, self.inputs, self.out = owner, tensors.inputs, tensors.out
        self.prepare()
    def prepare(self):
        pass
    def run(self):
        for name, out in self.out.items():
            source = self.inputs["dy" if "dy" in self.inputs else "x"]
            out[...] = np.resize(self.values(source), out.shape)
    def values(self, source):
        return np.array(source)
    def outputs(self):
        return self.out

class Plain:
    name = "plain"
    call = Call
    def describe(self):
        return {"threads": "ignored", "deterministic": "yes"}
    def supports(self, case):
        return None if case.op == "layer_norm" and case.dtype == "float32" else "it takes float32 layer_norm only"
    def prepare(self, case, pass_, tensors, threads):
        return self.call(self, tensors)
"""

BREACHES = {
    "class Backend(Plain):\n    pass\n": "",
    """
class Backend(Plain):
    def supports(self, case):
        return None
""": "an operator that does not exist",
    """
class Backend(Plain):
    def supports(self, case):
        return "no" if case.op != "layer_norm" else None
""": "the reason is a sentence",
    """
class Backend(Plain):
    def supports(self, case):
        return "it takes nothing at all"
""": "refuses every plain case",
    """
class Keeps(Call):
    def prepare(self):
        self.kept = {n: np.array(a) for n, a in self.inputs.items()}
    def values(self, source):
        return self.kept["dy" if "dy" in self.kept else "x"]
class Backend(Plain):
    call = Keeps
""": "after load() of other data",
    """
class Shares(Call):
    def prepare(self):
        self.owner.latest = self
    def values(self, source):
        return np.array(self.owner.latest.inputs["dy" if "dy" in self.inputs else "x"])
class Backend(Plain):
    call = Shares
""": "other data give the same outputs",
    """
class Counts(Call):
    count = 0
    def values(self, source):
        self.count += 1
        return source + self.count
class Backend(Plain):
    call = Counts
""": "run again",
    """
class Constant(Call):
    def values(self, source):
        return np.zeros(1, "float32")
class Backend(Plain):
    call = Constant
""": "the inputs are not read",
    """
class Lacks(Call):
    def outputs(self):
        return {}
class Backend(Plain):
    call = Lacks
""": "outputs() lacks y",
    """
class Once(Call):
    def prepare(self):
        if getattr(self.owner, "busy", False):
            raise RuntimeError("only one call at a time")
        self.owner.busy = True
class Backend(Plain):
    call = Once
""": "a second call cannot be prepared",
    """
class Busy(Call):
    def run(self):
        super().run()
        def burn():
            for _ in range(20):
                self.inputs["x"].sum()
        helpers = [threading.Thread(target=burn) for _ in range(3)]
        if self.inputs["x"].size > 10000:
            [h.start() for h in helpers]
            [h.join() for h in helpers]
class Backend(Plain):
    call = Busy
    def describe(self):
        return {"threads": "call", "deterministic": "yes"}
""": "run at the same time",
    """
class Backend(Plain):
    def describe(self):
        return {"version": "two\\nlines"}
""": "words or sentences on one line",
}


@pytest.mark.parametrize(("source", "word"), BREACHES.items(), ids=range(len(BREACHES)))
def test_each_rule_is_seen_when_it_is_broken(source: str, word: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(HEAD + source + "\nbackend = Backend()\n")
    found = breaches(f"{file}:backend")
    assert any(word in sentence for sentence in found) if word else found == []


def test_the_assertion_lists_every_breach(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(HEAD + list(BREACHES)[2] + "\nbackend = Backend()\n")
    with pytest.raises(AssertionError, match=r"breaks the backend contract:\n- supports\(\)"):
        check_conformance(f"{file}:backend")


def test_a_backend_that_is_not_there_says_so() -> None:
    with pytest.raises(errors.UnknownBackend, match="nativ"):
        check_conformance("nativ")
