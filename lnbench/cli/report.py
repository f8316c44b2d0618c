"""`lnbench report DIR`: a stored run as one HTML page."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lnbench.cli._output import say
from lnbench.errors import Exit, ResultsError

if TYPE_CHECKING:
    from lnbench.results import Folder


@click.command("report")
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--output", metavar="FILE", help="Where the page goes (default: DIR/report.html; - is standard output).")
def command(folder: Path, output: str | None) -> int:
    """Write the run in DIR as one HTML page with tables and plots; it needs nothing beside itself."""
    from lnbench import results

    run = results.reopen(folder)
    kind = run.environment.get("command")
    if kind not in _PAGES:
        raise ResultsError(f"{folder} holds a run of {kind!r}, not of {' or '.join(_PAGES)}; name another folder")
    try:
        text = _PAGES[kind](run)
    except ValueError as error:  # a cell that should be a number
        raise ResultsError(f"{folder} was changed after lnbench wrote it ({error}); run again") from error
    if output == "-":
        click.echo(text, nl=False)
        return Exit.OK
    target = folder / "report.html" if output is None else Path(output)
    results.write_whole(target, text)
    say(f"Written: {target}")
    return Exit.OK


def _verify(run: Folder) -> str:
    from lnbench.cli._record import Record, again
    from lnbench.report import html

    record = Record.resume("verify", run.path)
    if not record.verdicts:
        raise ResultsError(f"{run.path} holds no verdict yet; finish it with: lnbench verify --resume {run.path}")
    return html.verify_page(
        record.verdicts,
        run.environment,
        repro=lambda v: again(v.case, v.backend, record.settings),
        seconds=_seconds(run.environment, sum(v.seconds for v in record.verdicts)),
    )


def _seconds(environment: dict[str, Any], otherwise: float) -> float:
    """From start to end of the run where both are known."""
    try:
        begun, ended = (datetime.fromisoformat(environment[name]) for name in ("started", "finished"))
    except (KeyError, TypeError, ValueError):  # not finished
        return otherwise
    return (ended - begun).total_seconds()


def _bench(run: Folder) -> str:
    from lnbench import results
    from lnbench.bench.record import SAMPLE_COLUMNS
    from lnbench.report import html, timings

    if not (run.path / "timings.csv").is_file():
        raise ResultsError(f"{run.path} holds no timings yet; finish it with: lnbench bench --resume {run.path}")
    rows = results.read(run.path, "timings.csv", needed=timings.COLUMNS)
    has_samples = (run.path / "samples.csv").is_file()
    samples = results.read(run.path, "samples.csv", needed=SAMPLE_COLUMNS) if has_samples else []
    return html.bench_page(rows, samples, run.environment)


_PAGES = {"verify": _verify, "bench": _bench}
