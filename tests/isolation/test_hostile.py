"""Backends that do their worst: each ends as a reply, and the next request is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import indent

import numpy as np
import pytest

from lnbench.case import Case
from lnbench.pool import Request, Session

Start = Callable[..., Session]
Write = Callable[..., str]
Make = Callable[..., Request]
Right = Callable[[np.ndarray, Request], bool]

CASE = Case(shape=(4, 16))
TOP = """
import ctypes, os, signal, socket, sys, threading, time
class Rude(Exception):
    def __str__(self): raise RuntimeError
class Odd(BaseException): pass
def garbage(word):
    for fd in range(3, 64):
        try:
            socket.socket(fileno=os.dup(fd)).send(word)
        except OSError:
            pass
"""
DEEDS = [
    ("os._exit(0)", "CRASHED", "exited with status 0 while running"),
    ("os._exit(77)", "CRASHED", "exited with status 77"),
    ("sys.exit()", "CRASHED", "exited with status 0"),
    ("sys.exit('bye')", "CRASHED", "exited with status 1"),
    ("ctypes.string_at(0)", "CRASHED", "killed by SIGSEGV"),
    ("os.abort()", "CRASHED", "killed by SIGABRT"),
    ("os.kill(os.getpid(), signal.SIGKILL)", "CRASHED", "killed by SIGKILL"),
    ("os.kill(os.getpid(), signal.SIGTERM)", "CRASHED", "killed by SIGTERM"),
    ("signal.alarm(1); time.sleep(9)", "CRASHED", "killed by SIGALRM"),
    ("time.sleep(99)", "TIMEOUT", "did not finish within 1 s while running"),
    ("os.kill(os.getpid(), signal.SIGSTOP)", "TIMEOUT", "did not finish"),
    ("signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(99)", "TIMEOUT", "did not finish"),
    ("raise ValueError('no such row')", "ERROR", "ValueError: no such row"),
    ("raise KeyboardInterrupt", "ERROR", "KeyboardInterrupt"),
    ("raise Odd", "ERROR", "Odd"),
    ("raise Rude", "ERROR", "Rude: (its text raised RuntimeError)"),
    ("def f(): f()\nf()", "ERROR", "RecursionError"),
    ("return 7", "ERROR", "TypeError"),
    ("return {'y': 'a string'}", "OK", ""),
    ("return {'y': object()}", "OK", ""),
    ("os.closerange(3, 256)", "CRASHED", "closed its connection"),
    ("garbage(b'x' * 64)", "CRASHED", "answered nonsense"),
    ("garbage(b'\\x02' + bytes(7) + b'[]')", "CRASHED", "answered nonsense"),
    ("os.fork() or time.sleep(99)", "OK", ""),
    ("os.fork()", "OK", ""),
    ("os.fork() and os._exit(3)\ntime.sleep(99)", "CRASHED", "exited with status 3"),
    ("os.chdir('/'); os.environ.clear()", "OK", ""),
    ("os.close(0); os.close(1); os.close(2)", "OK", ""),
    ("sys.stdout.close()", "OK", ""),
    ("sys.stdout = sys.stderr = None", "OK", ""),
    ("threading.Thread(target=time.sleep, args=(99,)).start()", "OK", ""),
    ("print('x' * 5_000_000)", "OK", ""),
    ("np.seterr(all='raise'); import gc; gc.disable(); sys.setrecursionlimit(60)", "OK", ""),
]


@pytest.fixture(scope="module")
def rude(tmp_path_factory: pytest.TempPathFactory, write_to: Write) -> Iterator[Session]:
    """One session for all deeds: deed number n is done when the case's seed is n + 1."""
    lines = [f"if case.seed == {n + 1}:\n" + indent(deed, "    ") for n, (deed, *_) in enumerate(DEEDS)]
    path = write_to(tmp_path_factory.mktemp("rude"), "\n".join(lines), top=TOP)
    with Session(path) as one:
        yield one


@pytest.mark.parametrize("number", range(len(DEEDS)), ids=[d[0].partition("\n")[0][:40] for d in DEEDS])
def test_a_deed_is_a_reply_and_the_next_request_is_served(
    rude: Session, request_of: Make, right: Right, number: int
) -> None:
    _, status, words = DEEDS[number]
    rude.timeout = 1.0 if status == "TIMEOUT" else 20.0
    bad = rude.run(request_of(CASE.replace(seed=number + 1)))
    assert (bad.status, words in bad.reason) == (status, True), bad.reason
    rude.timeout = 20.0
    good = request_of(CASE)
    assert right(rude.run(good).outputs["y"], good)


def test_prints_go_to_the_log_and_nowhere_else(
    session: Start, request_of: Make, capfd: pytest.CaptureFixture[str]
) -> None:
    body = "print('to stdout'); import os; os.write(2, b'to stderr'); os.system('echo from a child')"
    reply = session(body).run(request_of(CASE))
    assert all(words in reply.log for words in ("to stdout", "to stderr", "from a child"))
    assert capfd.readouterr() == ("", "")


def test_a_flood_is_cut_to_its_end(session: Start, request_of: Make) -> None:
    reply = session("print('x' * 1_000_000); print('the end')").run(request_of(CASE))
    assert len(reply.log) <= 1 << 16 and reply.log.endswith("the end\n")


def test_memory_without_end_meets_its_limit(session: Start, request_of: Make) -> None:
    one = session("hoard = [np.ones(1 << 20) for _ in range(1 << 20)]", memory_limit=400 << 20)
    reply = one.run(request_of(CASE))
    assert reply.status == "ERROR" and "MemoryError" in reply.reason


def test_a_stack_overflow_in_c_is_a_crash_with_its_signal(session: Start, request_of: Make) -> None:
    deep = "nest = []\nfor _ in range(200_000): nest = [nest]\nsys.setrecursionlimit(10**9)\nrepr(nest)"
    reply = session(deep, top="import sys").run(request_of(CASE))
    assert reply.status in ("CRASHED", "ERROR")
    assert "SIGSEGV" in reply.reason or "RecursionError" in reply.reason


def test_a_thread_that_crashes_takes_the_worker_and_is_named(session: Start, request_of: Make) -> None:
    body = "import threading, ctypes\nt = threading.Thread(target=ctypes.string_at, args=(8,))\nt.start()\nt.join()"
    reply = session(body).run(request_of(CASE))
    assert reply.status == "CRASHED" and "SIGSEGV" in reply.reason


def test_supports_that_fails_is_a_reply_for_a_run_and_an_error_when_asked(session: Start, request_of: Make) -> None:
    from lnbench.errors import BackendBroken

    one = session(top="class F(FunctionBackend):\n    def supports(self, case): return 1 / 0\nFunctionBackend = F")
    reply = one.run(request_of(CASE))
    assert reply.status == "ERROR" and "ZeroDivisionError" in reply.reason
    with pytest.raises(BackendBroken, match="ZeroDivisionError"):
        one.supports(CASE)
