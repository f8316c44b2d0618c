"""Tables of measurements in the pages of docs/: what stands between two marks is written by a script of this folder."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).resolve().parent.parent / "docs"


def put(document: Path, name: str, text: str) -> None:
    """Replaces what stands between the marks NAME: begin and NAME: end of a page."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = document.read_text(encoding="utf-8")
    if page.count(begin) != 1 or page.count(end) != 1:
        raise SystemExit(f"{document} needs one line {begin!r} and, below it, one line {end!r}")
    head, tail = page.split(begin)[0], page.split(end)[1]
    document.write_text(f"{head}{begin}\n\n{text.strip()}\n\n{end}{tail}", encoding="utf-8")
