"""Text of rows, and files that grow row by row or appear whole; knows no column by name."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lnbench.errors import ResultsError


def cell(value: Any) -> str:
    """A value as it is written in a table: empty for None, no line breaks, tuples joined by semicolons."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return repr(float(value))
    if isinstance(value, tuple):
        return ";".join(cell(v) for v in value)
    if isinstance(value, (list, dict)):
        return json.dumps(value)
    return " ".join(str(value).split())


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, header: bool = True) -> str:
    """Rows as CSV text; a column that a row lacks is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(columns)
    writer.writerows([cell(row.get(c)) for c in columns] for row in rows)
    return text.getvalue()


def json_value(value: Any) -> Any:
    """A value that JSON can hold: numbers that are not finite become words, tuples lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (tuple, list)):
        return [json_value(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): json_value(v) for k, v in value.items()}
    return value


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is there in full or not at all. Raises ResultsError."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ResultsError(f"cannot write {path}: {error.strerror or error}; choose another place") from error


@dataclass(slots=True)
class Table:
    """A CSV file that grows: every `append` is one write, so that a killed run leaves whole rows."""

    path: Path
    columns: tuple[str, ...]
    _descriptor: int = field(default=-1, repr=False)

    def open(self) -> Table:
        """Opens for appending; a last line that was cut off is removed first. Raises ResultsError."""
        try:
            whole = whole_lines(self.path)
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.ftruncate(self._descriptor, whole)
        except OSError as error:
            raise unwritable(self.path, error) from error
        if whole == 0:
            self._write(csv_text(self.columns, []))
        return self

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Adds rows. Raises ResultsError, for example on a full disk."""
        text = csv_text(self.columns, rows, header=False)
        if text:
            self._write(text)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, text: str) -> None:
        left = text.encode()
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError as error:
            raise unwritable(self.path, error) from error


def whole_lines(path: Path) -> int:
    """Bytes of a file up to its last line break; 0 when there is no file."""
    if not path.exists():
        return 0
    return path.read_bytes().rfind(b"\n") + 1


def unwritable(path: Path, error: OSError) -> ResultsError:
    return ResultsError(f"cannot write {path}: {error.strerror or error}; choose another folder with --output DIR")
