"""The folder of one run: created, gone on with, read. Owns its files and refuses what a newer lnbench wrote."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lnbench.case import Case
from lnbench.errors import ResultsError
from lnbench.results.columns import SCHEMA
from lnbench.results.table import Table, json_value, unwritable, whole_lines, write_whole

ENVIRONMENT = "environment.json"
CASES = "cases.yaml"
TABLES = ("verdicts.csv", "timings.csv", "samples.csv")


@dataclass(slots=True)
class Folder:
    """The folder of one run."""

    path: Path
    environment: dict[str, Any]
    _tables: dict[str, Table] = field(default_factory=dict)

    def table(self, name: str, columns: Iterable[str]) -> Table:
        """The growing table `name`, opened when it is first asked for."""
        if name not in self._tables:
            self._tables[name] = Table(self.path / name, tuple(columns)).open()
        return self._tables[name]

    def update(self, **facts: Any) -> None:
        """Adds facts to environment.json."""
        self.environment |= facts
        write_whole(self.path / ENVIRONMENT, json.dumps(json_value(self.environment), indent=2) + "\n")

    def finish(self, exit_code: int) -> None:
        """Notes that the run came to its end, and closes the tables."""
        self.update(finished=now(), exit_code=int(exit_code))
        self.close()

    def close(self) -> None:
        for table in self._tables.values():
            table.close()

    def cases(self) -> list[Case]:
        """The resolved cases of the run."""
        from lnbench import config

        path = self.path / CASES
        if not path.is_file():
            raise ResultsError(f"{self.path} holds no {CASES}; name the folder of a run of lnbench")
        return list(config.load(str(path), {}))


def now() -> str:
    """The present time, UTC, as ISO 8601 to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def create(
    command: str, cases: Sequence[Case], *, output: Path | None = None, facts: Mapping[str, Any] | None = None
) -> Folder:
    """A new folder, `output` or results/<UTC time>-<command>, with cases.yaml and environment.json in it.

    Raises ResultsError when it cannot be written or already holds a run.
    """
    path = _fresh(command) if output is None else output
    check_fresh(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    folder = Folder(path, {})
    write_whole(path / CASES, cases_text(cases))
    folder.update(schema=SCHEMA, command=command, started=now(), **(facts or {}))
    return folder


def cases_text(cases: Sequence[Case]) -> str:
    """Resolved cases as a case file."""
    import yaml

    return yaml.safe_dump(
        {"version": 1, "cases": [c.to_mapping() for c in cases]}, sort_keys=False, default_flow_style=None, width=200
    )


def _fresh(command: str) -> Path:
    stem = f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-{command}"
    names = (stem if n == 1 else f"{stem}-{n}" for n in range(1, 1000))
    return next(Path("results", name) for name in names if not Path("results", name).exists())


def check_fresh(path: Path) -> None:
    """Raises ResultsError when the folder already holds a run."""
    held = [name for name in TABLES if (path / name).exists()]
    if held:
        raise ResultsError(
            f"{path} already holds a run ({held[0]}); choose another --output, or go on with --resume {path}"
        )


def reopen(path: Path, command: str | None = None) -> Folder:
    """The folder of an earlier run, of `command` where that matters, to go on with. Raises ResultsError."""
    file = path / ENVIRONMENT
    try:
        environment = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise ResultsError(
            f"{path} is not the folder of a run: {file.name} cannot be read ({why}); name a folder that lnbench wrote"
        ) from error
    if not isinstance(environment, dict):
        raise ResultsError(f"{file} holds no facts of a run; name a folder that lnbench wrote")
    _check_schema(path, environment.get("schema"))
    held = environment.get("command")
    if command not in (None, held):
        raise ResultsError(f"{path} holds a run of {held!r}, not of {command!r}; name a folder of lnbench {command}")
    return Folder(path, environment)


def read(path: Path, name: str | None = None, *, needed: Iterable[str] = ()) -> list[dict[str, str]]:
    """Rows of a CSV file, or of table `name` in a folder (the one there is when None), as text by column.

    needed: columns that must be there. A last line that was cut off is left out. Raises ResultsError for what is no
    table, lacks a column, or comes from a newer lnbench.
    """
    file = path if path.is_file() else _table_in(path, name)
    try:
        text = file.read_bytes()[: whole_lines(file)].decode()
    except (OSError, UnicodeDecodeError) as error:
        raise ResultsError(f"cannot read {file}: {error}") from error
    rows = list(csv.DictReader(io.StringIO(text)))
    if "schema" not in text.split("\n", 1)[0].split(","):
        raise ResultsError(
            f"{file} has no column 'schema'; name a folder of lnbench, or its verdicts.csv or timings.csv"
        )
    for schema in {row["schema"] for row in rows}:
        _check_schema(file, schema)
    missing = [c for c in needed if rows and c not in rows[0]]
    if missing or any(None in row.values() for row in rows):
        what = f"has no column {missing[0]!r}" if missing else "has rows that are too short"
        raise ResultsError(f"{file} {what}; it was changed after lnbench wrote it")
    return rows


def _table_in(folder: Path, name: str | None) -> Path:
    for candidate in (name,) if name else TABLES:
        if (folder / candidate).is_file():
            return folder / candidate
    wanted = name or " or ".join(TABLES[:2])
    what = "holds no" if folder.is_dir() else "does not exist, so there is no"
    raise ResultsError(f"{folder} {what} {wanted}; name the folder of a run of lnbench, or a CSV file")


def _check_schema(path: Path, found: Any) -> None:
    try:
        number = int(found)
    except (TypeError, ValueError):
        raise ResultsError(f"{path} has no schema number ({found!r}); it was not written by lnbench") from None
    if number > SCHEMA:
        raise ResultsError(
            f"{path} was written by a newer lnbench (schema {number}, this one reads up to {SCHEMA}); update lnbench"
        )
