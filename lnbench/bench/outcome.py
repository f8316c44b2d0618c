"""What a caller of `runner.run` hears while it runs and gets when it ends, with the exit codes that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lnbench.bench.record import Block, Row
from lnbench.errors import Exit


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run is. left: expected seconds until its end."""

    doing: str
    epoch: int
    done: int
    planned: int
    left: float


@dataclass(slots=True)
class Outcome:
    """What a run found. unfit: why the machine cannot be trusted, None when it can or was not asked."""

    rows: list[Row] = field(default_factory=list)
    unfit: str | None = None
    is_interrupted: bool = False
    seconds: float = 0.0

    def exit_codes(self, fail_on: Iterable[str] = ()) -> set[Exit]:
        """All exit codes that the rows call for; `lnbench.errors.worst` picks one."""
        words, codes = {r.verdict for r in self.rows}, set[Exit]()
        if any(r.crashed for r in self.rows):
            codes.add(Exit.CRASHED)
        if any(r.verdict == "INVALID" and not r.crashed for r in self.rows):
            codes.add(Exit.FAILED)
        if self.unfit:
            codes.add(Exit.ENVIRONMENT)
        if "SLOWER" in words and "slower" in fail_on:
            codes.add(Exit.SLOWER)
        if words & {"UNRESOLVED", "SUSPECT"} and "unresolved" in fail_on:
            codes.add(Exit.UNRESOLVED)
        if self.is_interrupted:
            codes.add(Exit.INTERRUPTED)
        if words <= {"SKIPPED"}:
            codes.add(Exit.NOTHING_RUN)
        return codes


@dataclass(frozen=True, slots=True)
class Listener:
    """Who hears of a run: finished blocks (to be stored), rows as they change, and progress between rounds.

    on_rows: all rows as they stand, after each epoch and every few seconds of a long one.
    """

    on_block: Callable[[Block], None] = lambda block: None
    on_rows: Callable[[list[Row]], None] = lambda rows: None
    on_row: Callable[[Row], None] = lambda row: None
    on_progress: Callable[[Progress], None] = lambda progress: None
