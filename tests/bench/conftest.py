"""Simulated machines with known truth, and sessions that take the time their script says. No clock is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from lnbench.backend import Facts
from lnbench.bench.world import World
from lnbench.case import Case
from lnbench.errors import BackendBroken, Unavailable
from lnbench.protocol import Description, Reply, Request, Sample

PROCESSORS = 4


@dataclass(frozen=True)
class SimulatedMachine:
    """Times of `lanes` backends with known log ratios on a machine that disturbs them.

    process: luck of each process start. drift: slow wandering shared by neighbours in time. step: sudden changes of
    frequency. burst: share of samples hit by another program. slot: what the place within a round costs. noise: rest.
    """

    process: float = 0.01
    drift: float = 0.02
    step: float = 0.03
    burst: float = 0.05
    slot: float = 0.004
    noise: float = 0.01

    def log_times(
        self, runs: int, epochs: int, rounds: int, truth: tuple[float, ...], seed: int, *, in_blocks: bool = False
    ) -> np.ndarray:
        """ln of times, shape (runs, lanes, epochs, rounds); `in_blocks` measures one backend after the other."""
        rng = np.random.default_rng(seed)
        lanes = len(truth)
        slots = _slots(rng, runs, epochs, rounds, lanes)
        length = lanes * epochs * rounds
        moment = np.arange(epochs * rounds).reshape(1, 1, epochs, rounds) * lanes + slots
        if in_blocks:
            lane = np.arange(lanes).reshape(1, lanes, 1, 1)
            moment = np.broadcast_to(
                lane * epochs * rounds + np.arange(epochs * rounds).reshape(1, 1, epochs, rounds), slots.shape
            )
        phase = rng.random((runs, 1)) * length
        weather = self.drift * np.sin((np.arange(length) + phase) / 37)
        jumps = np.where(rng.random((runs, length)) < 0.02, rng.normal(0, self.step, (runs, length)), 0).cumsum(axis=1)
        times = np.take_along_axis(weather + jumps, moment.reshape(runs, -1), axis=1).reshape(slots.shape)
        times += np.asarray(truth).reshape(1, lanes, 1, 1) + self.slot * slots
        times += rng.normal(0, self.process, (runs, lanes, epochs, 1)) if not in_blocks else 0
        times += np.abs(rng.normal(0, self.noise, slots.shape))
        times += np.where(rng.random(slots.shape) < self.burst, rng.exponential(0.5, slots.shape), 0)
        return times


def _slots(rng: np.random.Generator, runs: int, epochs: int, rounds: int, lanes: int) -> np.ndarray:
    squares = rounds // lanes
    shape = (runs, 1, epochs, squares, 1)
    place = rng.random((*shape, lanes)).argsort(axis=-1).reshape(runs, epochs, squares, lanes).transpose(0, 3, 1, 2)
    shift = rng.random((*shape, lanes)).argsort(axis=-1).reshape(runs, 1, epochs, squares, lanes)
    return ((place[..., None] - shift) % lanes).reshape(runs, lanes, epochs, rounds)


@pytest.fixture
def simulated() -> Callable[..., SimulatedMachine]:
    """Makes a simulated machine; the defaults are a bad one (1 % process luck, drift, steps, 5 % bursts)."""
    return SimulatedMachine


@dataclass
class FakeClock:
    """Time that passes only when somebody says so."""

    seconds: float = 1000.0

    def now(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass
class Script:
    """What a fake backend does.

    call_ns: time of one call, at `process` luck per start and `noise` per sample. start: seconds to start a worker.
    wrong: outputs are wrong. crash_after, broken, skips: how it fails. remembers: calls on known content are so much
    quicker. afterwards: share of its time that is used after the call. clock: what its own clock shows of it.
    lazy: results are computed when asked for. stale: the first results are returned for ever. spins: seconds that its
    threads spin after a call. processors: how many it uses. collects: seconds that asking for outputs takes.
    """

    call_ns: float = 10_000.0
    process: float = 0.0
    noise: float = 0.0
    start: float = 0.05
    wrong: bool = False
    crash_after: int | None = None
    broken: bool = False
    unavailable: bool = False
    skips: str | None = None
    remembers: float = 1.0
    afterwards: float = 0.0
    clock: float = 1.0
    lazy: bool = False
    stale: bool = False
    spins: float = 0.0
    processors: float = 1.0
    collects: float = 0.0
    facts: Facts = field(default_factory=Facts)


class FakeHandle:
    def __init__(self, session: FakeSession, request: Request):
        self.session, self.request = session, request
        self.arrays = {n: np.array(a) for n, a in request.inputs.items()}
        self.out: dict[str, np.ndarray] = {}
        self.timed: dict[str, np.ndarray] = {}

    def load(self, inputs: Mapping[str, np.ndarray]) -> Reply | None:
        for name, array in inputs.items():
            self.arrays[name][...] = array
        return None

    def _call(self) -> float:
        script, session = self.session.script, self.session
        if not (script.stale and self.out):
            self.out = session.outputs(self.request, self.arrays)
        content = b"".join(self.arrays[n].tobytes() for n in sorted(self.arrays))
        known = content in session.known
        session.known.add(content)
        rows = self.request.case.shape[0]
        return script.call_ns * rows / 64 / (script.remembers if known else 1.0)

    def run(self) -> Reply:
        self.session.advance(self._call())
        return self.collect()

    def collect(self) -> Reply:
        if self.session.script.lazy:
            self.out = self.session.outputs(self.request, self.arrays)
        return Reply(
            "OK", outputs={n: a.copy() for n, a in self.out.items()}, collect_seconds=self.session.script.collects
        )

    def sample(self, inner: int, untimed: int = 1) -> Sample | Reply:
        return self.session.sample([self], inner, untimed)

    def close(self) -> None:
        self.session.open_handles -= 1


class FakeSession:
    """A worker that takes the time that its script says, on the fake clock."""

    def __init__(self, lab: FakeLab, spec: str, threads: int, environment: Mapping[str, str]):
        self.lab, self.spec, self.script, self.threads = lab, spec, lab.scripts[spec], threads
        self.environment = dict(environment)
        self.rng = np.random.default_rng(lab.rng.integers(1 << 32))
        self.luck = float(np.exp(self.rng.normal(0, self.script.process)))
        self.known: set[bytes] = set()
        self.used = 0.0
        self.spinning = (0.0, 0.0)
        self.samples = self.open_handles = self.freezes = 0
        self.is_started = self.is_closed = False
        self.pid = 1

    @property
    def description(self) -> Description:
        if not self.is_started:
            self.lab.clock.sleep(self.script.start)
            self.is_started = True
            if self.script.broken:
                raise BackendBroken(f"backend {self.spec!r} was killed by SIGSEGV while it was started")
            if self.script.unavailable:
                raise Unavailable(f"backend {self.spec!r} is not installed; pip install it")
        return Description(self.spec, self.script.facts, {})

    def supports(self, case: Case) -> str | None:
        return self.script.skips

    def outputs(self, request: Request, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        shift = 1.0 if self.script.wrong else 0.0
        main = arrays["x"] if request.pass_ == "forward" else arrays["dy"]
        return {n: np.full(t.shape, np.sum(main, dtype=np.float64) + shift) for n, t in request.outputs.items()}

    def run(self, request: Request) -> Reply:
        return FakeHandle(self, request).run()

    def open(self, request: Request) -> FakeHandle | Reply:
        self.lab.clock.sleep(1e-3 + self.lab.preparing * request.case.bytes)
        self.open_handles += 1
        return FakeHandle(self, request)

    def advance(self, ns: float) -> None:
        self.lab.clock.sleep(ns * 1e-9)
        self.used += ns * 1e-9 * self.script.processors

    def sample(self, handles: Sequence[Any], inner: int, untimed: int = 1) -> Sample | Reply:
        script = self.script
        self.samples += 1
        self.lab.order.append(self.spec)
        if script.crash_after is not None and self.samples > script.crash_after:
            return Reply("CRASHED", "was killed by SIGSEGV")
        noise = float(np.exp(abs(self.rng.normal(0, script.noise))))
        before = sum(h._call() for h in handles for _ in range(untimed))
        per_call = handles[0]._call()
        ns = per_call * self.luck * noise * inner
        neighbours = [s for s in self.lab.sessions if s is not self and s.spinning_now() and not s.is_closed]
        ns *= 1.5 ** len(neighbours)
        self.advance(before + ns)
        self.spinning = (self.lab.clock.seconds, script.spins)
        self.pending = script.afterwards * ns * 1e-9
        wall = round(ns * script.clock)
        self.lab.clock.sleep(50e-6)
        return Sample(wall, round(ns * script.processors), 0, inner, 0, round(before + ns + 50_000))

    pending = 0.0

    def spinning_now(self) -> bool:
        return self.freezes == 0 and self.lab.clock.seconds < sum(self.spinning)

    def cpu_seconds(self) -> float:
        spun = min(max(0.0, self.lab.clock.seconds - self.spinning[0]), self.spinning[1])
        late = min(self.pending, max(0.0, self.lab.clock.seconds - self.spinning[0]))
        return self.used + spun + late

    def threads_now(self) -> int:
        return 2 if self.script.spins or self.script.afterwards else 1

    def freeze(self) -> None:
        self.freezes = 1

    def thaw(self) -> None:
        self.freezes = 0

    def close(self) -> None:
        self.is_closed = True


class FakeTruth:
    """Right is: every output is the sum of x (of dy for backward)."""

    def __init__(self, lab: FakeLab) -> None:
        self.lab, self.asked = lab, 0

    def is_right(self, case: Case, pass_: str, inputs: Any, outputs: Any, facts: Facts) -> str | None:
        self.asked += 1
        self.lab.clock.sleep(self.lab.judging * case.bytes)
        wanted = np.sum(inputs["x" if pass_ == "forward" else "dy"], dtype=np.float64)
        bad = [n for n, a in outputs.items() if not np.all(a == wanted)]
        return f"{bad[0]} is wrong" if bad else None

    def statistics(self, case: Case, inputs: Any, facts: Facts) -> Any:
        return {}


@dataclass
class FakeLab:
    """Scripts by backend name, and everything that was done to their sessions.

    preparing, judging, drawing: seconds per byte of x.
    """

    scripts: dict[str, Script]
    seed: int = 0
    preparing: float = 0.0
    judging: float = 0.0
    drawing: float = 0.0
    clock: FakeClock = field(default_factory=FakeClock)
    truth: FakeTruth = field(init=False)
    sessions: list[FakeSession] = field(default_factory=list)
    order: list[str] = field(default_factory=list)
    places: list[Sequence[int] | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)
        self.truth = FakeTruth(self)

    def open_session(
        self,
        spec: str,
        *,
        threads: int,
        timeout: float,
        environment: Mapping[str, str],
        allocator: str,
        processors: Sequence[int] | None,
    ) -> Any:
        self.places.append(processors)
        self.sessions.append(FakeSession(self, spec, threads, environment))
        return self.sessions[-1]

    def draw(self, case: Case, *, variant: int = 0) -> dict[str, np.ndarray]:
        self.clock.sleep(self.drawing * case.bytes)
        values = np.random.default_rng([case.seed, variant]).normal(size=case.shape).astype(np.float32)
        return {"x": values, "dy": -values}

    @property
    def world(self) -> World:
        return World(
            self.truth,
            self.open_session,
            self.draw,
            self.clock.now,
            self.clock.sleep,
            is_runnable=lambda pid: False,
            place=lambda count, rng: tuple(rng.permutation(PROCESSORS)[:count].tolist()),
        )


@pytest.fixture
def lab() -> Callable[..., FakeLab]:
    """Makes a laboratory of fake backends: `lab(a=Script(...), b=Script(...), seed=1)`."""

    def make(seed: int = 0, **scripts: Script) -> FakeLab:
        return FakeLab(scripts, seed)

    return make


@pytest.fixture
def script() -> type[Script]:
    """The class of scripts."""
    return Script
