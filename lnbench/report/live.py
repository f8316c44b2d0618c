"""The table of a running benchmark: fills row by row, on a terminal only, redrawn between rounds and seldom."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from lnbench.bench.outcome import Progress
from lnbench.bench.record import Row
from lnbench.report import timings

SECONDS = 0.5  # between two drawings; drawing costs processor time that a measurement would feel


class LiveTable:
    """`row` takes in a row, `progress` draws when it is time. No thread draws by itself. A context manager."""

    def __init__(self, console: Console, *, wanted: bool = True):
        self._console = console
        self._rows: dict[tuple[tuple[str, str, str], str], Row] = {}
        self._drawn = 0.0
        self.is_on = wanted and console.file.isatty() and console.is_terminal
        self._live = Live(console=console, auto_refresh=False, transient=True) if self.is_on else None

    def row(self, row: Row) -> None:
        """A row as it stands now; the newest are shown last."""
        key = row.item.key, row.backend
        self._rows.pop(key, None)
        self._rows[key] = row

    def progress(self, progress: Progress) -> None:
        """Where the run is; called between rounds."""
        now = time.monotonic()
        if self._live is None or now - self._drawn < SECONDS:
            return
        self._drawn = now
        space = max(4, self._console.size.height - 4)
        shown = list(self._rows.values())[-space:]
        self._live.update(Group(timings.as_table(shown), Text(line(progress), style="dim")), refresh=True)

    def __enter__(self) -> LiveTable:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


def line(progress: Progress) -> str:
    """Progress in words."""
    left = "" if progress.left in (0.0, float("inf")) else f", about {progress.left:.0f} s left"
    share = f"{progress.done} of {progress.planned} measurements" if progress.planned else ""
    return f"{progress.doing}, epoch {progress.epoch + 1}: {share}{left}"
