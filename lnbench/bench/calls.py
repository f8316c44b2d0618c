"""One backend in one epoch: its worker, its prepared calls, and the proof that what is timed is what was right.

Every call object is run and checked before it is timed; its inputs change under the same addresses between samples; the
outputs of timed calls are checked again. Leaves the order of samples to `epoch.py` and dishonest timing to `audit.py`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace

import numpy as np

from lnbench.bench.record import Contender, Fault, Item
from lnbench.bench.world import Arrays, HandleLike, SessionLike, World
from lnbench.case import Case
from lnbench.operators import registry
from lnbench.operators.schema import Tensor
from lnbench.protocol import Reply, Request, Sample

VARIANTS = 2
UNSEEN = 1000  # variants above are drawn once, to be new to a backend
MOST_COLD = 1024  # buffers to rotate over; smaller calls cannot be kept cold this way


class Failed(Exception):
    """A call that cannot be timed (any more)."""

    def __init__(self, fault: Fault):
        super().__init__(fault.reason)
        self.fault = fault


def checked(reply: Reply) -> Reply:
    """The reply when it holds outputs. Raises Failed."""
    if reply.status != "OK":
        reason = reply.reason or "no reason was given"
        raise Failed(Fault(reason, reply.status in ("CRASHED", "TIMEOUT"), reply.status == "SKIPPED"))
    for sentence in reply.wrong.values():
        raise Failed(Fault(sentence))
    return reply


def case_for(contender: Contender, case: Case) -> Case:
    """The case that a contender is given: with planted work it has that share of rows more."""
    if not contender.more_rows:
        return case
    return case.replace(shape=(round(case.shape[0] * (1 + contender.more_rows)), *case.shape[1:]))


@dataclass(slots=True)
class Inputs:
    """Drawn inputs, shared by all backends and kept over epochs as far as memory allows. seconds: drawing took."""

    world: World
    seconds: float = 0.0
    _kept: dict[tuple[str, int], Arrays] = field(default_factory=dict)

    def get(self, case: Case, variant: int) -> Arrays:
        """All inputs of the case except statistics; other numbers for every variant."""
        key = case.key, variant
        if key not in self._kept:
            while self._kept and self._bytes() + 4 * case.bytes > self.world.kept_bytes:
                self._kept.pop(next(iter(self._kept)))
            before = self.world.now()
            self._kept[key] = self.world.draw(case, variant=variant)
            self.seconds += self.world.now() - before
        return self._kept[key]

    def forget(self, case: Case) -> None:
        """Drops what was drawn only to be new."""
        for key in [k for k in self._kept if k[0] == case.key and k[1] > UNSEEN]:
            del self._kept[key]

    def _bytes(self) -> int:
        return sum(a.nbytes for arrays in self._kept.values() for a in arrays.values())


@dataclass(slots=True)
class Checker:
    """Asks whether outputs are right, and remembers the bits that were: equal bits need not be judged again.

    seconds: judging took.
    """

    world: World
    seconds: float = 0.0
    _right: set[tuple[str, str, str, int, bytes]] = field(default_factory=set)

    def check(self, lane: Lane, case: Case, pass_: str, variant: int, inputs: Arrays, outputs: Arrays) -> None:
        """Raises Failed when the outputs are not those of `inputs`."""
        drawn = lane.inputs.get(case, variant)
        own = {n: a for n, a in inputs.items() if n not in drawn}  # statistics that the backend computed itself
        key = lane.contender.name, case.key, pass_, variant, _digest({**own, **outputs})
        if key in self._right:
            return
        before = self.world.now()
        reason = self.world.truth.is_right(case, pass_, inputs, outputs, lane.session.description.facts)
        self.seconds += self.world.now() - before
        if reason is not None:
            raise Failed(Fault(reason))
        self._right.add(key)


def _digest(arrays: Arrays) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.digest()


@dataclass(slots=True)
class Lane:
    """One contender's worker in one epoch. restless: its threads do not rest, so it is frozen between samples."""

    contender: Contender
    session: SessionLike
    world: World
    inputs: Inputs
    checker: Checker
    restless: bool = False

    def tensors(self, case: Case) -> dict[str, Tensor]:
        facts = self.session.description.facts
        stat_dtype = case.dtype if facts.statistics_dtype == "storage" else None
        return dict(registry.get(case.op).tensors(case, facts.statistics, stat_dtype))

    def request(self, case: Case, pass_: str, arrays: Arrays, seed: int) -> Request:
        """A request whose arrays lie in ordinary memory at random multiples of 64 bytes."""
        operator, tensors = registry.get(case.op), self.tensors(case)
        kind = self.session.description.facts.statistics
        names = operator.forward_inputs if pass_ == "forward" else operator.backward_inputs
        given = [kind if n == "stat" else n for n in names]
        wanted = [kind if n == "stat" else n for n in operator.outputs(case, pass_)]
        return Request(
            case=case,
            pass_=pass_,
            inputs={n: arrays[n] for n in given if n in tensors and n in arrays},
            outputs={n: tensors[n] for n in wanted if n in tensors},
            threads=case.threads,
            placement="private",
            alias=case.alias if case.alias == ("y=x" if pass_ == "forward" else "dx=dy") else None,
            seed=seed,
        )

    def prepare(self, item: Item, seed: int, cold_bytes: int) -> TimedCall:
        """The item's call, run once and found right. Raises Failed.

        cold_bytes: for cold items, how many bytes the buffers must span in all.
        """
        case = case_for(self.contender, item.case)
        reason = self.session.supports(case)
        if reason is not None:
            raise Failed(Fault(reason or "no reason was given", skipped=True))
        variants = [self._complete(case, item.pass_, v, seed) for v in range(VARIANTS)]
        call = TimedCall(self, replace(item, case=case), variants)
        count = 1 if item.cache == "hot" else _cold_count(variants[0], cold_bytes)
        try:
            for number in range(count):
                call.add(seed + number)
        except BaseException:
            call.close()
            raise
        return call

    def _complete(self, case: Case, pass_: str, variant: int, seed: int) -> Arrays:
        """The inputs of a pass; for backward with the statistics that this backend's own forward returned."""
        drawn = self.inputs.get(case, variant)
        if pass_ == "forward":
            return drawn
        names = [n for n, t in self.tensors(case).items() if t.role == "statistic"]
        reply = self.session.run(self.request(case, "forward", drawn, seed))
        if reply.status in ("CRASHED", "TIMEOUT"):
            checked(reply)
        own = {n: np.array(reply.outputs[n]) for n in names if n in reply.outputs}
        if len(own) < len(names):
            own = dict(self.world.truth.statistics(case, drawn, self.session.description.facts))
        return {**drawn, **own}


def _cold_count(arrays: Arrays, cold_bytes: int) -> int:
    traffic = max(1, sum(a.nbytes for a in arrays.values()))
    count = max(2, -(-cold_bytes // traffic))
    if count > MOST_COLD:
        reason = f"too small to be kept cold: {count} sets of buffers would fill the caches, {MOST_COLD} are allowed"
        raise Failed(Fault(reason, skipped=True))
    return count


@dataclass(slots=True)
class TimedCall:
    """One item prepared on one lane: a handle for hot caches, many to rotate over for cold ones. names: its inputs."""

    lane: Lane
    item: Item
    variants: list[Arrays]
    handles: list[HandleLike] = field(default_factory=list)
    names: tuple[str, ...] = ()
    loaded: int = 0
    unseen: int = UNSEEN  # number of the last variant that was drawn only to be new
    _turn: int = 0

    @property
    def is_in_place(self) -> bool:
        """Whether a run overwrites its own input, so that outputs of repeated runs are outputs of outputs."""
        return self.item.case.alias is not None

    def add(self, seed: int) -> None:
        """Opens one more handle, runs it once and checks the outputs."""
        request = self.lane.request(self.item.case, self.item.pass_, self.variants[0], seed)
        self.names = tuple(request.inputs)
        handle = self.lane.session.open(request)
        if isinstance(handle, Reply):
            checked(handle)
            raise Failed(Fault("the backend prepared nothing"))
        self.handles.append(handle)
        self._check(checked(handle.run()), 0)

    def sample(self, inner: int, untimed: int = 1) -> Sample:
        """One timing of `inner` calls. Raises Failed when the worker dies."""
        if len(self.handles) == 1:
            found = self.handles[0].sample(inner, untimed)
        else:
            turned = self.handles[self._turn :] + self.handles[: self._turn]
            self._turn = (self._turn + inner) % len(self.handles)
            found = self.lane.session.sample(turned, inner, 0)
        if isinstance(found, Reply):
            checked(found)
            raise Failed(Fault("the worker took no sample"))
        return found

    def change(self) -> None:
        """Puts other numbers under the same addresses (hot calls; cold buffers would be warmed by it)."""
        if len(self.handles) == 1:
            self.load((self.loaded + 1) % len(self.variants))

    def load(self, variant: int) -> None:
        """Loads one of the variants into the first handle. Raises Failed when the worker dies."""
        self.put(self.variants[variant])
        self.loaded = variant

    def put(self, arrays: Arrays) -> None:
        """Loads any inputs of the right shapes into the first handle. Raises Failed when the worker dies."""
        reply = self.handles[0].load({name: arrays[name] for name in self.names})
        if reply is not None:
            checked(reply)

    def recheck(self) -> None:
        """Checks the outputs that the last timed call left behind. Raises Failed.

        The inputs are overwritten first: results that are only computed when they are asked for, or by a thread that
        is still at work, come out wrong.
        """
        if self.is_in_place:
            return
        if len(self.handles) > 1:
            self.load((self.loaded + 1) % len(self.variants))
            self.handles[0].sample(1, 0)
        timed = self.loaded
        self.load((timed + 1) % len(self.variants))
        try:
            self._check(checked(self.handles[0].collect()), timed)
        except Failed as failed:
            if failed.fault.crashed:
                raise
            reason = f"the outputs of a timed call are wrong although its first call was right: {failed.fault.reason}"
            raise Failed(Fault(reason)) from failed

    def _check(self, reply: Reply, variant: int) -> None:
        item = self.item
        self.lane.checker.check(self.lane, item.case, item.pass_, variant, self.variants[variant], reply.outputs)

    def close(self) -> None:
        """Gives the worker's buffers back."""
        for handle in self.handles:
            handle.close()
        self.handles.clear()
