"""Several examiners in processes of their own share the small cases of a run: each asks for the next when it is done.

Python runs one thread of the interpreter at a time, and judging hundreds of small cases is mostly interpreter work. A shard
is started with subprocess and speaks pickles over a socket pair with this process; both ends are lnbench, never a backend.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import lnbench
from lnbench.case import Case
from lnbench.errors import LnbenchError
from lnbench.verify.differences import Differences
from lnbench.verify.examiner import Examiner, Options
from lnbench.verify.sessions import Tally
from lnbench.verify.verdict import Verdict

Work = tuple[int, Case, Sequence[str]]

_START = "import sys; sys.path.insert(0, sys.argv[1]); from lnbench.verify.shards import serve; serve(int(sys.argv[2]))"
_CLOSE_SECONDS = 5.0


def run(
    work: Sequence[Work],
    backends: Sequence[str],
    options: Options,
    jobs: int,
    emit: Callable[[int, Sequence[Verdict]], bool],
    on_case: Callable[[Case, str], None],
    differences: Differences,
) -> bool:
    """Examines `work` (number, case, backends to leave out) in `jobs` processes; True when `emit` asked to stop.

    Raises what loading a backend raises.
    """
    parent = _Parent(deque(work), emit, on_case, differences)
    with _shards(backends, options, work[0][1], jobs) as connections:
        waiting = set(connections)
        while waiting:
            for ready in wait(list(waiting)):
                assert isinstance(ready, Connection)
                if not parent.serve(ready):
                    waiting.discard(ready)
            if parent.stopped:
                return True
    return False


class _Parent:
    """What this process keeps while shards work: the cases left, the tallies of all shards together."""

    def __init__(
        self,
        left: deque[Work],
        emit: Callable[[int, Sequence[Verdict]], bool],
        on_case: Callable[[Case, str], None],
        differences: Differences,
    ):
        self.left, self.emit, self.on_case, self.differences = left, emit, on_case, differences
        self.tallies: dict[str, Tally] = {}
        self.stopped = self.has_loaded = False

    def serve(self, shard: Connection) -> bool:
        """Answers one message of a shard; False when the shard is done."""
        try:
            kind, *content = shard.recv()
        except (EOFError, OSError) as error:
            raise LnbenchError("a verifying process ended before its work was done; run again with --jobs 1") from error
        return bool(getattr(self, f"on_{kind}")(shard, *content))

    def on_error(self, shard: Connection, error: BaseException) -> bool:
        raise error

    def on_loaded(self, shard: Connection, broken: Sequence[Verdict]) -> bool:
        # Every shard finds the same backends broken; it is told once.
        if not self.has_loaded:
            self.stopped |= self.emit(self.left[0][0], broken)
            self.has_loaded = True
        return self._next(shard)

    def on_case_starts(self, shard: Connection, case: Case, backend: str) -> bool:
        self.on_case(case, backend)
        return True

    def on_verdicts(self, shard: Connection, number: int, verdicts: Sequence[Verdict]) -> bool:
        self.stopped |= self.emit(number, verdicts)
        return True

    def on_done(self, shard: Connection, deaths: dict[str, Tally]) -> bool:
        for backend, tally in deaths.items():
            total = self.tallies.setdefault(backend, Tally())
            total.hangs += tally.hangs
            total.crashes += tally.crashes
        return self._next(shard)

    def on_end(self, shard: Connection, differences: Differences) -> bool:
        self.differences.merge(differences)
        return False

    def _next(self, shard: Connection) -> bool:
        shard.send((self.left.popleft() if self.left else None, self.tallies))
        return True


@contextmanager
def _shards(backends: Sequence[str], options: Options, first: Case, jobs: int) -> Iterator[list[Connection]]:
    """Started shards; ended one way or the other when the block is left."""
    processes, connections = [], []
    root = str(Path(lnbench.__file__).parent.parent)
    try:
        for _ in range(jobs):
            ours, theirs = socket.socketpair()
            command = [sys.executable, "-P", "-c", _START, root, str(theirs.fileno())]
            processes.append(subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL))
            theirs.close()
            connections.append(Connection(ours.detach()))
            connections[-1].send((list(backends), options, first))
        yield connections
    finally:
        for connection in connections:
            connection.close()
        for process in processes:
            try:
                process.wait(_CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def serve(fd: int) -> None:
    """The shard's side: examines what it is given until there is nothing more, or until the parent is gone."""
    parent: Connection[Any, Any] = Connection(fd)
    try:
        backends, options, first = parent.recv()
        with Examiner.of(backends, options) as examiner:
            try:
                _examine(parent, examiner, first)
            except (EOFError, OSError, KeyboardInterrupt):
                raise
            except Exception as error:
                error.add_note(traceback.format_exc())  # pickling keeps notes, not tracebacks
                parent.send(("error", error))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _examine(parent: Connection, examiner: Examiner, first: Case) -> None:
    parent.send(("loaded", examiner.load(first)))
    while True:
        work, tallies = parent.recv()
        if work is None:
            break
        number, case, skipped = work
        before = {b: examiner.sessions.tally(b).replaced_by(tallies.get(b)) for b in examiner.loaded}
        for _, verdicts in examiner.examine(case, skipped, lambda c, b: parent.send(("case_starts", c, b))):
            parent.send(("verdicts", number, verdicts))
        parent.send(("done", {b: examiner.sessions.tally(b).since(t) for b, t in before.items()}))
    parent.send(("end", examiner.differences))
