"""A progress bar for what lasts longer than two seconds, on a terminal only."""

from __future__ import annotations

from threading import Timer
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

DELAY = 2.0


class Bar:
    """`step` says what is being done, `advance` that it is done. A context manager; appears after `DELAY` seconds."""

    def __init__(self, console: Console, total: int, *, wanted: bool = True):
        self._progress: Progress | None = None
        if not (wanted and console.file.isatty()):
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        progress = Progress(*columns, console=console, transient=True, refresh_per_second=2)
        self._progress = progress
        self._task = progress.add_task("", total=total)
        self._timer = Timer(DELAY, progress.start)
        self._timer.daemon = True

    def step(self, what: str) -> None:
        if self._progress is not None:
            self._progress.update(self._task, description=what)

    def advance(self, count: int = 1) -> None:
        if self._progress is not None:
            self._progress.advance(self._task, count)

    def to(self, what: str, done: int, total: int) -> None:
        """Where a run is whose length changes on the way."""
        if self._progress is not None:
            self._progress.update(self._task, description=what, completed=done, total=total)

    def __enter__(self) -> Bar:
        if self._progress is not None:
            self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._timer.cancel()
            self._timer.join()
            self._progress.stop()
