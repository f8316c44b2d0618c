"""`lnbench compare`: two stored runs, row by row, with what else was different."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lnbench.cli import _exports
from lnbench.cli._output import color_option, stderr, stdout
from lnbench.cli._units import share
from lnbench.errors import Exit, UsageError, worst

if TYPE_CHECKING:
    from lnbench.bench.compare import Change, Comparison, Run

_HEAD = ["case", "pass", "backend", "before", "after", "ratio", "interval", "verdict"]
_COLUMNS = (
    "case", "pass", "cache", "backend", "before", "after", "ratio", "low", "high", "verdict", "relative", "reason",
)  # fmt: skip


@click.command("compare")
@click.argument("before", type=click.Path(path_type=Path), metavar="A")
@click.argument("after", type=click.Path(path_type=Path), metavar="B")
@click.option(
    "--margin", callback=share, default="2%", metavar="SHARE", help="The difference that matters (default: 2%)."
)
@click.option("--backends", metavar="X,Y", help="Compare backend X of A with backend Y of B.")
@click.option(
    "--fail-on", type=click.Choice(["slower", "unresolved"]), multiple=True, help="Exit 3 or 4 for such a row."
)
@click.option("--trust-stored", "trust", is_flag=True, help="Let --fail-on slower act on stored numbers.")
@_exports.export_options
@click.option("-q", "--quiet", is_flag=True, help="Only the last sentence.")
@color_option
def command(**given: Any) -> int:
    """Compare two stored runs of `bench` (folders, or files with the columns of timings.csv).

    Intervals need samples.csv on both sides. Times of two moments are compared by way of a common baseline where both
    runs have one; otherwise the machine itself may have changed, and the margin is wider.
    """  # fmt: skip
    from lnbench.bench.compare import compare

    targets = {f: given[f"export_{f}"] for f in _exports.FORMATS}
    _exports.check(targets)
    if "slower" in given["fail_on"] and not given["trust"]:
        raise UsageError(
            "stored numbers only advise; run the old backend again (bench --baseline @NAME --fail-on slower), "
            "or give --trust-stored"
        )
    found = compare(_run(given["before"]), _run(given["after"]), given["margin"], _pair(given["backends"]))
    code = worst(_codes(found, given["fail_on"]))
    _exports.write(targets, {
        "csv": lambda: _csv(found.changes),
        "json": lambda: _json(found, code),
        "markdown": lambda: _markdown(found),
    })  # fmt: skip
    _print(found, given)
    return code


def _pair(text: str | None) -> tuple[str, str] | None:
    if text is None:
        return None
    parts = [p.strip() for p in text.split(",")]
    if len(parts) != 2 or not all(parts):
        raise UsageError(f"--backends {text!r} does not name two backends; write for example --backends old,new")
    return parts[0], parts[1]


def _run(path: Path) -> Run:
    from lnbench import results
    from lnbench.bench.compare import Run

    rows = results.read(path, "timings.csv")
    folder = path if path.is_dir() else path.parent
    is_whole = path.is_dir() or path.name == "timings.csv"
    samples = results.read(folder, "samples.csv") if is_whole and (folder / "samples.csv").is_file() else []
    known = is_whole and (folder / results.ENVIRONMENT).is_file()
    return Run(rows, samples, results.reopen(folder).environment if known else {})


def _codes(found: Comparison, fail_on: Sequence[str]) -> set[Exit]:
    words = {c.verdict for c in found.changes}
    codes = {Exit.SLOWER} if "SLOWER" in words and "slower" in fail_on else set()
    return codes | ({Exit.UNRESOLVED} if "UNRESOLVED" in words and "unresolved" in fail_on else set())


def _cells(c: Change) -> dict[str, Any]:
    return {name: getattr(c, {"pass": "pass_"}.get(name, name)) for name in _COLUMNS}


def _line(c: Change) -> list[Any]:
    from lnbench.report.console import styled
    from lnbench.report.timings import duration

    interval = "" if c.low is None or c.high is None else f"{c.low:.3f}-{c.high:.3f}"
    case = c.case + ("" if c.cache == "hot" else f" ({c.cache})")
    times = [duration(c.before), duration(c.after), f"{c.ratio:.3f}"]
    return [case, c.pass_, c.backend, *times, interval, styled(str(c.verdict))]


def _csv(changes: Sequence[Change]) -> str:
    from lnbench import results

    return results.csv_text(_COLUMNS, map(_cells, changes))


def _json(found: Comparison, code: Exit) -> str:
    import json

    from lnbench import results

    document = {
        "schema": results.SCHEMA,
        "command": "compare",
        "exit_code": int(code),
        "changes": [_cells(c) for c in found.changes],
        "only_before": found.only_before,
        "only_after": found.only_after,
        "environment": {k: {"before": a, "after": b} for k, (a, b) in found.environment.items()},
    }
    return json.dumps(results.json_value(document), indent=2) + "\n"


def _markdown(found: Comparison) -> str:
    from lnbench.report import markdown

    lines = [[str(w) for w in _line(c)] for c in found.changes]
    notes = [f"- {line}" for line in _differences(found)]
    return "\n\n".join(["## lnbench compare", markdown.table(_HEAD, lines), "\n".join(notes), _sentence(found)]) + "\n"


def _print(found: Comparison, given: dict[str, Any]) -> None:
    from lnbench.report.console import table

    console = stderr(given["color"])
    if not given["quiet"]:
        right = ("before", "after", "ratio")
        stdout_is_free = "-" not in [given[f"export_{f}"] for f in _exports.FORMATS]
        (stdout(given["color"]) if stdout_is_free else console).print(
            table(_HEAD, [_line(c) for c in found.changes], right=right)
        )
        for line in _differences(found):
            console.print(line, soft_wrap=True)
    console.print(_sentence(found), soft_wrap=True)


def _differences(found: Comparison) -> list[str]:
    """What was not compared, and what the machines do not have in common, as sentences."""
    lines = [f"Only in A: {label}" for label in found.only_before]
    lines += [f"Only in B: {label}" for label in found.only_after]
    return lines + [f"The machines differ: {key} was {a!r}, is {b!r}" for key, (a, b) in found.environment.items()]


def _sentence(found: Comparison) -> str:
    from collections import Counter

    counts = Counter(str(c.verdict) for c in found.changes)
    plain = sum(not c.relative for c in found.changes)
    said = ", ".join(f"{n} {word}" for word, n in counts.items())
    how = f" {plain} of them compare plain times of two moments." if plain else ""
    return f"{len(found.changes)} rows of stored numbers (historical): {said}.{how}"
