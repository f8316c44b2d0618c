"""Whether a backend keeps the rules of the contract: what it says of itself, and how its calls behave side by side.

Owns the rules; whether the numbers are right is for `lnbench.verify`. `lnbench.testing.check_conformance` is the face.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np

from lnbench.case import Case
from lnbench.pool import Handle, Reply
from lnbench.verify.sessions import Sessions
from lnbench.verify.subject import Arrays, Problem, Subject

# Small calls for what is about behaviour; one that keeps a thread pool busy for what is about threads.
SHAPES = ((6, 40), (3, 4, 8))
BUSY = (512, 4096)
BUSY_SECONDS, LOOK_SECONDS = 0.4, 0.002
# On average at most so many threads per thread asked for: one hands over to another, and on a busy machine threads that
# are about to sleep still wait for a processor.
SLACK = 1.5
# Two runs on the same data may differ by rounding where determinism is not declared; other data differ by far more.
CLOSE = {"float64": 1e-10, "float32": 1e-3, "float16": 3e-2, "bfloat16": 1e-1}


def breaches(spec: str, *, operator: str = "layer_norm", timeout: float = 120.0) -> list[str]:
    """Every rule that the backend named by `spec` breaks, as a sentence; empty when it keeps them all.

    Raises UnknownBackend, Unavailable, BackendBroken (it cannot be started) and UsageError (an undefined fact).
    """
    with Sessions(timeout) as sessions:
        found = list(_description(spec, sessions)) + list(_refusals(spec, sessions))
        subjects = [Subject.of(Problem(c), spec, sessions) for c in cases(operator)]
        taken = [s for s in subjects if s.session.supports(s.case) is None]
        if not taken:
            return [
                *found,
                f"supports() refuses every plain case of {operator}: {subjects[0].session.supports(subjects[0].case)}",
            ]
        for subject in taken:
            for pass_ in subject.case.pass_names:
                found += _calls(subject, pass_)
        if subject.facts.threads != "ignored":
            found += _threads(spec, [s.case for s in taken], sessions)
    return list(dict.fromkeys(found))


def cases(operator: str) -> list[Case]:
    """Plain cases: every dtype, two shapes."""
    extra = {"axis": 1} if operator == "batch_norm" else {"beta": False} if operator == "rms_norm" else {}
    return [Case(op=operator, shape=shape, dtype=d, epsilon=0.125, **extra) for d in CLOSE for shape in SHAPES]


def _description(spec: str, sessions: Sessions) -> Iterator[str]:
    """describe() and name. Undefined facts raise while the backend is started."""
    description = sessions.describe(spec)
    if not description.name.strip():
        yield "name is empty"
    for key, value in description.described.items():
        if not key or not value or "\n" in value:
            yield f"describe() has {key!r}: {value!r}; keys and values are words or sentences on one line"


def _refusals(spec: str, sessions: Sessions) -> Iterator[str]:
    """A case that no backend can take must be refused with a reason, not with an exception."""
    case = Case(op="no_such_operator", shape=(2, 3))
    reason = sessions.get(spec, 1).supports(case)
    if reason is None:
        yield "supports() takes an operator that does not exist; it returns None only for what can be run"
    elif len(reason.split()) < 2:
        yield f"supports() refuses an operator that does not exist with {reason!r}; the reason is a sentence"


def _calls(subject: Subject, pass_: str) -> list[str]:
    """The life of calls of one pass: run, run again, load, a second call in between."""
    where = f"{subject.case.op} {pass_}, {subject.case.dtype}, {list(subject.case.shape)}"
    other = _shifted(subject, pass_)
    first = subject.open(subject.base_request(pass_))
    if isinstance(first, Reply):
        return [] if first.status == "SKIPPED" else [f"{where}: prepare() ended with {first.status}: {first.reason}"]
    second = subject.open(subject.request(pass_, inputs=other))
    if isinstance(second, Reply):
        first.close()
        return [f"{where}: a second call cannot be prepared while one is open: {second.status}: {second.reason}"]
    with _closing(first, second):
        return [f"{where}: {sentence}" for sentence in _life(subject, pass_, first, second)]


def _life(subject: Subject, pass_: str, first: Handle, second: Handle) -> Iterator[str]:
    same = _comparison(subject)
    one = _run(first)
    if isinstance(one, str):
        yield f"the first run {one}"
        return
    missing = [n for n, t in subject.output_tensors(pass_).items() if t.required and n not in one]
    if missing:
        yield f"outputs() lacks {', '.join(missing)}"
    steps: tuple[tuple[str, Callable[[], Reply | None], Handle, Arrays | None], ...] = (
        ("run again", lambda: None, first, one),
        ("a second call with other data", lambda: None, second, None),
        ("the first call after another one ran", lambda: None, first, one),
        ("after load() of other data", lambda: first.load(dict(second.request.inputs)), first, None),
        ("after load() of the first data", lambda: first.load(dict(first.request.inputs)), first, one),
    )
    elsewhere: Arrays = {}
    for what, prepare, handle, expected in steps:
        prepare()
        got = _run(handle)
        if isinstance(got, str):
            yield f"{what} {got}"
            return
        if expected is None:
            expected, elsewhere = elsewhere or got, got
        for name in expected:
            if name not in got or not same(expected[name], got[name]):
                yield f"{what}, {name} is not what the same inputs gave before"
    if elsewhere and all(same(one[n], elsewhere[n]) for n in one if n in elsewhere):
        yield "other data give the same outputs: the inputs are not read"


def _comparison(subject: Subject) -> Callable[[np.ndarray, np.ndarray], bool]:
    """Whether two results of the same inputs are the same: to the bit where that is declared."""
    if subject.facts.deterministic == "yes":
        return lambda a, b: a.tobytes() == b.tobytes()
    limit = CLOSE[subject.case.dtype]

    def close(a: np.ndarray, b: np.ndarray) -> bool:
        x, y = a.astype(np.float64), b.astype(np.float64)
        return bool(np.allclose(x, y, rtol=limit, atol=limit * float(np.max(np.abs(x), initial=0.0)), equal_nan=True))

    return close


def _run(handle: Handle) -> dict[str, np.ndarray] | str:
    """Copies of the outputs of one run, or what went wrong as the end of a sentence."""
    reply = handle.run()
    if reply.status != "OK":
        return f"ended with {reply.status}: {reply.reason}"
    if reply.violations:
        return "; ".join(v.sentence for v in reply.violations)
    if reply.wrong:
        return "; ".join(reply.wrong.values())
    return {n: a.copy() for n, a in reply.outputs.items()}


def _shifted(subject: Subject, pass_: str) -> Arrays:
    """Other inputs of the same shapes, and the statistics that belong to them."""
    drawn = subject.problem.inputs(1)
    statistics = subject.reference_statistics(None, drawn) if pass_ == "backward" else {}
    return {**drawn, **statistics}


class _closing:
    def __init__(self, *handles: Handle):
        self._handles = handles

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.close()


def _threads(spec: str, plain: Sequence[Case], sessions: Sessions) -> Iterator[str]:
    """The threads of the worker that want a processor at the same time, against the number that was asked for."""
    if not Path("/proc/self/task").is_dir():
        return
    for threads in (1, 2):
        for case in plain:
            busy = replace(case, shape=BUSY, axis=1, threads=threads)
            subject = Subject.of(Problem(busy), spec, sessions)
            handle = subject.open(subject.request("forward"))
            if not (isinstance(handle, Reply) and handle.status == "SKIPPED"):
                break  # a call may be refused when it is prepared: then the next one, of another dtype
        if isinstance(handle, Reply):
            yield f"forward of {list(BUSY)} with {threads} threads ended with {handle.status}: {handle.reason}"
            continue
        with _closing(handle):
            seen = _running(subject, handle)
        if mean(seen) > threads * SLACK:
            yield f"asked for {threads} threads, {mean(seen):.1f} of its threads run at the same time on average"


def _running(subject: Subject, handle: Handle) -> list[int]:
    """How many threads of the worker were running or ready to run, looked at again and again while calls run."""
    handle.sample(1)
    pid, seen, done = subject.session.pid, [], threading.Event()

    def look() -> None:
        while not done.wait(LOOK_SECONDS):
            seen.append(_runnable(pid))

    watcher = threading.Thread(target=look)
    watcher.start()
    start = time.perf_counter()
    try:
        while time.perf_counter() - start < BUSY_SECONDS:
            handle.sample(3, 0)
    finally:
        done.set()
        watcher.join()
    return seen or [0]


def _runnable(pid: int | None) -> int:
    """Threads of a process in state R, which is also the state of those that wait for a processor."""
    states = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # the thread has ended meanwhile
            states.append(task.joinpath("stat").read_bytes().rpartition(b")")[2].split()[0])
    return states.count(b"R")
