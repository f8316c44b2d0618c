"""`Handle`: one prepared call of a session, from arrays in logical shape to a `Reply`.

Owns what happens around one call: planning, filling, asking, inspecting, and reading the answer with distrust. The
session (`lnbench.pool`) owns the worker.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from lnbench import digest, memory, protocol
from lnbench.buffers import Arrangement
from lnbench.case import Case
from lnbench.operators import registry as operators
from lnbench.operators.schema import Tensor
from lnbench.protocol import Reply, Request, Sample, Violation

if TYPE_CHECKING:
    from lnbench.pool import Session

_OK = Reply("OK")


class Handle:
    """A call prepared in a worker. Several may be open and used in any order; each keeps its memory until closed.

    After a crash the next use prepares it again in the new worker, on the same memory.
    """

    def __init__(self, session: Session, request: Request):
        self._session, self.request = session, request
        self.arrangement: Arrangement | None = None
        self.number = session._register(self)
        self._generation = 0
        self._inputs = dict(request.inputs)
        self._drawn = set(request.drawn)
        self._digests: dict[str, bytes] = {}

    def load(self, inputs: Mapping[str, np.ndarray] | None = None) -> Reply:
        """Writes new inputs (some or all, by name) under the same addresses and lets the backend fetch them."""
        reply = self.prepare()
        if reply.is_ok:
            assert self.arrangement is not None
            self._inputs |= inputs or {}
            for name in inputs or ():
                self._drawn.discard(name)
                self._digests.pop(name, None)
            self._fill(self._inputs if inputs is None else inputs)
            answer = self._session._try("load", {"handle": self.number})
            reply = answer if isinstance(answer, Reply) else _OK
        return reply

    def run(self) -> Reply:
        """Fills the outputs with NaN, runs once, collects."""
        reply = self.prepare()
        if not reply.is_ok:
            return reply
        self._freshen()
        return self._read(self._session._try("run", {"handle": self.number, "is_fresh": True}))

    def collect(self) -> Reply:
        """The outputs as the last call left them, without running; a timed call is checked that way."""
        if self._generation != self._session.generation:
            return Reply("ERROR", "the worker was started anew since the last call, which left nothing to collect")
        return self._read(self._session._try("collect", {"handle": self.number}))

    def poison(self) -> Reply:
        """Fills the outputs with NaN, so that the next calls cannot live on old results."""
        reply = self.prepare()
        if reply.is_ok:
            self._freshen()
            answer = self._session._try("refresh", {"handle": self.number})
            reply = answer if isinstance(answer, Reply) else _OK
        return reply

    def sample(self, inner: int, untimed: int = 1) -> Sample | Reply:
        """Times `inner` calls after `untimed` ones."""
        return self._session.sample([self], inner, untimed)

    def close(self) -> None:
        """Releases the call and its memory."""
        self._session._unregister(self, is_prepared=self._generation == self._session.generation)
        if self.arrangement is not None:
            dropped = self.arrangement.release()
            if dropped is not None:
                self._session._dropped.append(dropped)
            self.arrangement = None

    # For the session

    def prepare(self) -> Reply:
        """Prepares the call in the present worker, unless it is."""
        self._session._start()
        if self._generation == self._session.generation:
            return _OK
        answer = self._session._try("prepare", self._fields())
        if isinstance(answer, Reply):
            return answer
        self._generation = self._session.generation
        return _OK

    def once(self) -> Reply:
        """Prepares, loads, runs, collects and releases in one exchange."""
        self._session._start()
        return self._read(self._session._try("once", self._fields()))

    def _fields(self) -> dict[str, Any]:
        request, session = self.request, self._session
        if self.arrangement is None:
            self.arrangement = self._arrange()
            self.arrangement.fill_canaries()
            self._fill([n for n in self._inputs if n != self._overwritten])
        self._freshen()
        dropped, session._dropped = tuple(session._dropped), []
        return {
            "handle": self.number,
            "case": request.case,
            "pass_": request.pass_,
            "threads": request.threads,
            "plan": self.arrangement.plan(),
            "dropped": dropped,
        }

    def _freshen(self) -> None:
        """Outputs to NaN; an input that the call overwrites (alias) back to its values."""
        assert self.arrangement is not None
        self.arrangement.poison()
        if self._overwritten:
            self._fill([self._overwritten])

    @property
    def _overwritten(self) -> str:
        """The input that the call writes its output over; empty for none."""
        assert self.arrangement is not None
        return "" if self.arrangement.alias is None else self.arrangement.alias[1]

    def _fill(self, names: Collection[str]) -> None:
        """Writes inputs into their buffers. Drawn ones are drawn there, and remembered by their digest."""
        assert self.arrangement is not None
        drawn = self._drawn.intersection(names)
        self.arrangement.load({n: self._inputs[n] for n in names if n not in drawn})
        if drawn:
            assert self.request.draw is not None
            views = {n: b.view for n, b in self.arrangement.inputs.items()}
            self.request.draw({n: views[n] for n in drawn}, {n: v for n, v in views.items() if n not in drawn})
            self._digests |= {n: digest.of(views[n]) for n in drawn - {self._overwritten}}

    def _arrange(self) -> Arrangement:
        request = self.request
        facts = self._session.description.facts
        known = operators.get(request.case.op).tensors(request.case, facts.statistics)
        inputs = {}
        for name, array in self._inputs.items():
            like = known.get(name, Tensor(name, array.shape, memory.dtype_name(array.dtype), "element", "data"))
            tensor = Tensor(name, array.shape, memory.dtype_name(array.dtype), like.along, like.role, like.layout)
            inputs[name] = (tensor, *_lies(request.case, tensor))
        outputs = {n: (t, *_lies(request.case, t)) for n, t in request.outputs.items()}
        out, _, source = (request.alias or "").partition("=")
        assert self._session._arena is not None
        return Arrangement(
            self._session._arena,
            inputs,
            outputs,
            placement=request.placement,
            alignment=facts.alignment_bytes,
            alias=(out, source) if out in outputs and source in inputs else None,
            seed=request.seed,
        )

    def _read(self, answer: dict[str, Any] | Reply) -> Reply:
        """The reply that an answer stands for; the answer comes from a process that a backend shares."""
        if isinstance(answer, Reply):
            return answer
        assert self.arrangement is not None
        outputs: dict[str, np.ndarray] = {}
        returned: list[str] = []
        wrong: dict[str, str] = {}
        try:
            for name, found in answer["outputs"].items():
                tensor = self.request.outputs[name]
                if found["in"] == "out":
                    outputs[name] = _read_only(self.arrangement.outputs[name].view)
                    continue
                if found.get("returned", True):
                    returned.append(name)
                fault = _mismatch(tensor, found)
                if fault:
                    wrong[name] = fault
                else:
                    outputs[name] = _read_only(self.arrangement.scratch[name])
            modified = [str(n) for n in answer["modified"]]
            seconds, late = int(answer.get("run_ns", 0)) / 1e9, int(answer["collect_ns"]) / 1e9
        except (KeyError, TypeError, ValueError, AttributeError):
            return Reply("CRASHED", protocol.NONSENSE, log=self._session._log())
        violations = (*self._violations(modified), *self._redrawn())
        inputs = {n: _read_only(self.arrangement.inputs[n].view) for n in self._digests}
        log = self._session._log()
        return Reply("OK", "", outputs, inputs, tuple(returned), wrong, violations, seconds, late, log)

    def _violations(self, modified: list[str]) -> tuple[Violation, ...]:
        if self.request.placement == "private":
            return tuple(Violation("input modified", n, "inside", f"changed the input {n}") for n in modified)
        assert self.arrangement is not None
        found = self.arrangement.violations()
        if found:
            self.arrangement.fill_canaries()
        return found

    def _redrawn(self) -> tuple[Violation, ...]:
        """Drawn inputs that the run changed, in spite of their protection; they are drawn once more."""
        assert self.arrangement is not None
        views = self.arrangement.inputs
        changed = [n for n, before in self._digests.items() if digest.of(views[n].view) != before]
        self._fill(changed)
        return tuple(Violation("input modified", n, "inside", f"changed the input {n}") for n in changed)


def _mismatch(tensor: Tensor, found: Mapping[str, Any]) -> str:
    """What is wrong with the dtype or shape of a returned output; empty when nothing is.

    A statistic may have any shape with the right number of elements.
    """
    shape = tuple(int(n) for n in found["shape"])
    dtype = str(found.get("dtype", tensor.dtype))
    if found["in"] == "nowhere" or (shape != tensor.shape and tensor.role != "statistic"):
        return f"{tensor.name} is {dtype} of shape {shape}; expected {tensor.dtype} of shape {tensor.shape}"
    return ""


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    view.flags.writeable = False
    return view


def _lies(case: Case, tensor: Tensor) -> tuple[str, int]:
    """The layout's name, and how many last axes make up a row: those that are reduced, where they are the last ones."""
    layout = str(getattr(case, tensor.layout, tensor.layout))
    if tensor.along != "element":
        return layout, len(tensor.shape)
    reduced = operators.get(case.op).fold(case).reduced
    first = len(case.shape) - len(reduced)
    return layout, len(reduced) if reduced == tuple(range(first, len(case.shape))) else 1
