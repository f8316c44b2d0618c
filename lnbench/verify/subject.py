"""`Subject`: one case on one backend, as the checks see it: run a pass, judge a reply, remember what memory showed.

Owns how inputs and statistics are put together for a pass. Leaves verdicts to the checks.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from lnbench import digest, laws, memory
from lnbench.backend import Facts
from lnbench.case import PASSES, Case
from lnbench.numerics import dtypes
from lnbench.operators import registry
from lnbench.operators.schema import Operator, Tensor
from lnbench.pool import Handle, Reply, Request, Session, Violation
from lnbench.verify.bound import judge, reference
from lnbench.verify.sessions import Sessions
from lnbench.verify.verdict import Judgement, Status

Arrays = Mapping[str, np.ndarray]

# Outputs up to this size are copied out of shared memory, so that later runs can be compared with them bit by bit.
KEEP_BYTES = 64 << 20
# Inputs beyond this size are held once, in the memory shared with a worker: drawn there, and read from there to judge.
HOLD_BYTES = 64 << 20


class Problem:
    """A case with its inputs, drawn once and shared by all backends; large ones are drawn for every run.

    large: names of the large inputs, which `inputs` only stands for, with a NaN of their shape and dtype.
    """

    def __init__(self, case: Case):
        self.case = case
        self._drawn: dict[int, Arrays] = {}
        sizes = {n: (t.shape, dtypes.numpy(t.dtype)) for n, t in laws.inputs_of(case).items()}
        self._large = {
            n: np.broadcast_to(np.array(np.nan, dtype), shape)
            for n, (shape, dtype) in sizes.items()
            if case.inputs is None and math.prod(shape) * dtype.itemsize > HOLD_BYTES
        }
        self.large = frozenset(self._large)

    def inputs(self, variant: int = 0) -> Arrays:
        """All tensors that either pass takes, apart from statistics, by name: logical shape, read-only."""
        if variant not in self._drawn:
            if len(self._drawn) > 2:
                self._drawn = {k: v for k, v in self._drawn.items() if k == 0}
            drawn = dict(laws.draw(self.case, variant=variant)) if not self.large else self._small(variant)
            for array in drawn.values():
                array.flags.writeable = False
            self._drawn[variant] = drawn
        return self._drawn[variant]

    def _small(self, variant: int) -> dict[str, np.ndarray]:
        small = {n: np.empty(t.shape, dtypes.numpy(t.dtype)) for n, t in laws.inputs_of(self.case).items()}
        small = {n: a for n, a in small.items() if n not in self.large}
        laws.draw_into(self.case, small, {}, variant=variant)
        return {**self._large, **small}

    def draw(self, targets: Arrays, known: Arrays) -> None:
        """Draws large inputs into arrays of their shape; known: other inputs that are there."""
        laws.draw_into(self.case, targets, known)

    def drawn(self, names: Collection[str], known: Arrays) -> Arrays:
        """Large inputs in memory of their own."""
        found = {n: np.empty(self._large[n].shape, self._large[n].dtype) for n in names}
        self.draw(found, known)
        return found


@dataclass(slots=True)
class Subject:
    """One case on one backend with one thread count.

    violations: what instrumented memory saw since the memory check last asked.
    judgements: what the main check said, by pass and output.
    """

    problem: Problem
    backend: str
    sessions: Sessions
    case: Case
    facts: Facts
    session: Session
    violations: list[Violation] = field(default_factory=list)
    judgements: dict[str, dict[str, Judgement]] = field(default_factory=lambda: {p: {} for p in PASSES})
    _forward: Reply | None = None
    _kept: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    _digests: dict[str, dict[str, bytes]] = field(default_factory=dict)
    _reference: Arrays | None = None

    @classmethod
    def of(cls, problem: Problem, backend: str, sessions: Sessions) -> Subject:
        case = problem.case
        session = sessions.get(backend, case.threads)
        return cls(problem, backend, sessions, case, session.description.facts, session)

    @property
    def operator(self) -> Operator:
        return registry.get(self.case.op)

    def tensors(self, case: Case | None = None) -> Mapping[str, Tensor]:
        """Every tensor of the case, with the statistic's kind and dtype as the backend declares them."""
        case = case or self.case
        stat_dtype = case.dtype if self.facts.statistics_dtype == "storage" else None
        return self.operator.tensors(case, self.facts.statistics, stat_dtype)

    def _name(self, name: str) -> str:
        return self.facts.statistics if name == "stat" else name

    def input_names(self, pass_: str, case: Case | None = None) -> list[str]:
        """Names of the inputs of a pass that exist in this case, statistics by the declared kind."""
        order = self.operator.forward_inputs if pass_ == "forward" else self.operator.backward_inputs
        tensors = self.tensors(case)
        return [self._name(n) for n in order if self._name(n) in tensors]

    def output_tensors(self, pass_: str, case: Case | None = None) -> dict[str, Tensor]:
        """Outputs of a pass that exist in this case, by name."""
        case = case or self.case
        tensors = self.tensors(case)
        names = [self._name(n) for n in self.operator.outputs(case, pass_)]
        return {n: tensors[n] for n in names if n in tensors}

    def request(
        self,
        pass_: str,
        *,
        case: Case | None = None,
        inputs: Arrays | None = None,
        statistics: Arrays | None = None,
        threads: int | None = None,
        placement: str = "end",
        alias: str | None = None,
    ) -> Request:
        """A request for one pass; `statistics` are the mean and statistic that backward is given."""
        case = case or self.case
        large = self.problem.large if inputs is None else frozenset()
        inputs = self.problem.inputs() if inputs is None else inputs
        everything = {**inputs, **(statistics or {})}
        given = {n: everything[n] for n in self.input_names(pass_, case) if n in everything}
        return Request(
            case=case,
            pass_=pass_,
            inputs=given,
            outputs=self.output_tensors(pass_, case),
            threads=threads or case.threads,
            placement=placement,
            alias=alias,
            drawn=large & given.keys(),
            draw=self.problem.draw,
        )

    def run(self, request: Request) -> Reply:
        """Runs a request once in the backend's worker and notes what instrumented memory saw."""
        return self.note(self.session.run(request))

    def open(self, request: Request) -> Handle | Reply:
        """A prepared call that stays open, or the reply that says why there is none."""
        opened = self.session.open(request)
        return self.note(opened) if isinstance(opened, Reply) else opened

    def note(self, reply: Reply) -> Reply:
        self.violations.extend(reply.violations)
        if not reply.violations:
            self.sessions.tally(self.backend).count(reply.status)
        return reply

    def judge(
        self,
        pass_: str,
        reply: Reply,
        *,
        case: Case | None = None,
        inputs: Arrays | None = None,
        grade: bool = False,
    ) -> dict[str, Judgement]:
        """Judges the outputs of a reply by the rounding-error bound of exactly this problem; `grade` adds effective A."""
        case = case or self.case
        found = judge(
            case,
            pass_,
            self._judged_inputs(pass_, reply) if inputs is None else inputs,
            reply.outputs,
            self.facts,
            unsystematic=laws.is_unsystematic(self.case, pass_),
            grade=grade,
            forward=self.judgements["forward"] if pass_ == "backward" else None,
        )
        # What came back in a wrong dtype or size never became an output; the pool says why.
        return found | {n: Judgement(status=Status.FAILED, reason=why) for n, why in reply.wrong.items()}

    def _judged_inputs(self, pass_: str, reply: Reply) -> Arrays:
        """The inputs of a run: large ones where the worker saw them, or drawn again if an output was written over them."""
        inputs = {**self.problem.inputs(), **reply.inputs}
        lost = self.problem.large.intersection(self.input_names(pass_)) - reply.inputs.keys()
        return inputs | dict(self.problem.drawn(lost, inputs)) if lost else inputs

    def forward(self) -> Reply:
        """The base forward run (first placement); run once, its small outputs kept."""
        if self._forward is None:
            reply = self.run(self.request("forward"))
            self.keep("forward", reply)
            self._forward = reply
        return self._forward

    def keep(self, what: str, reply: Reply) -> None:
        """Copies the outputs of `reply` under `what`, statistics always, others when they are small."""
        if reply.status != "OK":
            return
        size = sum(a.nbytes for a in reply.outputs.values())
        roles = {n: t.role for n, t in self.tensors().items()}
        self._kept[what] = {
            n: a.copy() for n, a in reply.outputs.items() if size <= KEEP_BYTES or roles.get(n) == "statistic"
        }
        self._digests[what] = {n: digest.of(a) for n, a in reply.outputs.items() if n not in self._kept[what]}

    def kept(self, what: str) -> Arrays:
        """The outputs of a base run as far as they were copied."""
        return self._kept.get(what, {})

    def changed(self, pass_: str, reply: Reply) -> list[str] | None:
        """Outputs whose bits are not those of the base run of this pass; None where the two cannot be compared.

        Without any, what was said of the base run holds of this one, too.
        """
        kept, digests = self._kept.get(pass_, {}), self._digests.get(pass_, {})
        if reply.wrong or not kept | digests or reply.outputs.keys() != kept.keys() | digests.keys():
            return None
        return [
            n
            for n, a in reply.outputs.items()
            if not (memory.is_same(kept[n], a) if n in kept else digest.of(a) == digests[n])
        ]

    def release(self) -> None:
        """Gives back the shared memory of the last run."""
        self._forward = None
        self.session.retire()

    def own_statistics(self) -> Arrays | None:
        """mean and statistic as the backend's own forward returned them, or None when it returned none."""
        if not self.statistic_names or self.forward().status != "OK":
            return None
        kept = self.kept("forward")
        return {n: kept[n] for n in self.statistic_names} if all(n in kept for n in self.statistic_names) else None

    def reference_statistics(self, case: Case | None = None, inputs: Arrays | None = None) -> Arrays:
        """mean and statistic of the reference, rounded to the dtype that the backend keeps them in."""
        if not self.statistic_names:
            return {}
        if inputs is None and self.problem.large:
            if self._reference is None:
                self.session.retire()  # leaves room for the large inputs
                inputs = self.problem.inputs()
                x = self.problem.drawn(self.problem.large.intersection(self.operator.forward_inputs), inputs)
                self._reference = self.reference_statistics(inputs={**inputs, **x})
            return self._reference
        stat_dtype = self.case.dtype if self.facts.statistics_dtype == "storage" else None
        expected = reference(
            case or self.case,
            "forward",
            self.problem.inputs() if inputs is None else inputs,
            kind=self.facts.statistics,
            stat_dtype=stat_dtype,
            only=self.statistic_names,
        )
        return {n: expected[n] for n in self.statistic_names}

    @property
    def statistic_names(self) -> tuple[str, ...]:
        """Names of the statistics that backward is given, in order."""
        tensors = self.tensors()
        return tuple(n for n in self.input_names("backward") if tensors[n].role == "statistic")

    def backward_request(self, **changes: object) -> Request:
        """A request for backward with the backend's own statistics, or the reference's when it has none."""
        own = self.own_statistics()
        statistics = self.reference_statistics() if own is None else own
        return self.request("backward", statistics=statistics, **changes)  # type: ignore[arg-type]

    def base_request(self, pass_: str, **changes: object) -> Request:
        """The request of the base run of a pass with some arguments changed."""
        if pass_ == "forward":
            return self.request("forward", **changes)  # type: ignore[arg-type]
        return self.backward_request(**changes)
