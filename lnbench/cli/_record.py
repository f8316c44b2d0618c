"""The memory of a verification: verdicts as they come, written to the run's folder group by group, and read back."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lnbench import results
from lnbench.case import Case
from lnbench.errors import ResultsError
from lnbench.verify.verdict import Verdict

TABLE = "verdicts.csv"


def again(case: Case, backend: str, settings: Mapping[str, Any]) -> str:
    """The command that runs this case on this backend again; where the case comes from does not matter to that."""
    words = ["--target", settings["target"]] if settings.get("target") else []
    words += ["--require", settings["require"]] if settings.get("require", "stable") != "stable" else []
    return " ".join([case.replace(source="").repro(backend), *map(shlex.quote, words)])


class Record:
    """Verdicts of one run. The folder is made with the first case, so that a refused command leaves nothing behind.

    All verdicts of one case on one backend are written at once: a killed run holds whole pairs, and a resumed one runs
    the others.
    """

    def __init__(self, command: str, cases: list[Case], output: Path | None, settings: Mapping[str, Any]):
        self.cases = cases
        self.settings = dict(settings)
        self.verdicts: list[Verdict] = []
        self._command, self._output = command, output
        self._folder: results.Folder | None = None
        self._done: set[tuple[str, str]] = set()
        self._pending: list[Verdict] = []

    @classmethod
    def resume(cls, command: str, path: Path) -> Record:
        """The record of an earlier run, to go on with. Raises ResultsError."""
        folder = results.reopen(path, command)
        record = cls(command, folder.cases(), path, folder.environment.get("settings", {}))
        record._folder = folder
        by_key = {case.key: case for case in record.cases}
        rows = results.read(path, TABLE, needed=results.VERDICT_COLUMNS) if (path / TABLE).exists() else []
        try:
            record.verdicts += [results.verdict_of(r, by_key[r["key"]]) for r in rows if r["key"] in by_key]
        except ValueError as error:
            raise ResultsError(f"{path / TABLE} was changed after lnbench wrote it ({error}); run again") from error
        record._done = {(v.case.key, v.backend) for v in record.verdicts}
        return record

    @property
    def path(self) -> Path | None:
        """The folder, once there is one."""
        return None if self._folder is None else self._folder.path

    @property
    def environment(self) -> Mapping[str, Any]:
        """What environment.json holds."""
        return {} if self._folder is None else self._folder.environment

    def is_done(self, case: Case, backend: str) -> bool:
        """Whether the earlier run finished this case on this backend."""
        return (case.key, backend) in self._done

    def begin(self, case: Case, backend: str) -> int:
        """Notes that a case begins on a backend; returns how many pairs that finishes (0 or 1)."""
        self._open()
        return self.flush()

    def add(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        self._pending.append(verdict)

    def flush(self) -> int:
        """Writes the verdicts of the pair that has ended."""
        if not self._pending:
            return 0
        table = self._open().table(TABLE, results.VERDICT_COLUMNS)
        table.append(results.verdict_cells(v) for v in self._pending)
        self._pending = []
        return 1

    def finish(self, code: int) -> None:
        if self._folder is not None:
            self._folder.finish(code)

    def _open(self) -> results.Folder:
        if self._folder is None:
            from lnbench import machine

            facts = {"settings": self.settings, "machine": machine.environment()}
            self._folder = results.create(self._command, self.cases, output=self._output, facts=facts)
        return self._folder
