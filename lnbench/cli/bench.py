"""`lnbench bench`: which cases on which backends, for how long, against what; rows to terminal, folder, exports."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lnbench.cli import _exports
from lnbench.cli._options import case_options, cases_of, integers, overrides_of
from lnbench.cli._output import color_option
from lnbench.cli._units import duration, share
from lnbench.errors import Exit, UsageError

if TYPE_CHECKING:
    from lnbench.case import Case

QUICK_EPOCHS, QUICK_SECONDS = 3, 54.0


@click.command("bench")
@case_options
@click.option(
    "-b",
    "--backend",
    "backends",
    multiple=True,
    metavar="B",
    help="A name, file.py[:attribute], module:attribute or lib.so.",
)
@click.option(
    "--baseline", metavar="B|@NAME", help="What ratios are to: a backend (default: the first) or a stored baseline."
)
@click.option(
    "--save-baseline", metavar="NAME", help="Store the first backend: how to start it again, and its numbers."
)
@click.option("--baseline-lenient", "lenient", is_flag=True, help="Go on when the stored baseline is missing or gone.")
@click.option(
    "--trust-stored", "trust", is_flag=True, help="Let stored numbers alone decide where nothing else is left."
)
@click.option(
    "--margin", callback=share, default="2%", metavar="SHARE", help="The difference that matters (default: 2%)."
)
@click.option("--time-budget", "budget", callback=duration, metavar="TIME", help="The whole run's time, such as 60s.")
@click.option(
    "--quick",
    is_flag=True,
    help=f"{QUICK_EPOCHS} epochs and {QUICK_SECONDS:.0f} s unless given otherwise: a look, not a claim.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=2),
    metavar="N",
    help="Sets of fresh worker processes (default: 8, then as many as needed).",
)
@click.option(
    "--rounds", type=click.IntRange(min=1), metavar="N", help="Samples of each backend per epoch (default: chosen)."
)
@click.option(
    "--cache",
    type=click.Choice(["hot", "cold", "both"]),
    default="hot",
    help="State of the caches before each call (default: hot); each state is a row of its own.",
)
@click.option("--threads", metavar="N,N", help="Run every case with each of these thread counts.")
@click.option(
    "--require",
    type=click.Choice(["tier2", "tier1", "stable", "any"]),
    default="stable",
    help="How right a result must be to be timed (default: stable).",
)
@click.option("--timeout", callback=duration, default="60s", metavar="TIME", help="For one call (default: 60s).")
@click.option(
    "--null-control",
    "--ci",
    "control",
    is_flag=True,
    help="Also measure a copy of the baseline; where it differs, the machine is unfit (exit 5).",
)
@click.option(
    "--order-seed", type=click.IntRange(min=0), default=0, metavar="N", help="Draws orders and addresses (default: 0)."
)
@click.option("--no-lock", is_flag=True, help="Measure although another lnbench does.")
@click.option("--freeze", is_flag=True, help="Stop the other workers while one is measured.")
@click.option(
    "--statistic",
    type=click.Choice(["paired", "q25", "median", "min"]),
    default="paired",
    help="What an epoch's times come to: the median ratio of its rounds, or a quantile of each side (default: paired).",
)
@click.option(
    "--affinity",
    type=click.Choice(["drawn", "any"]),
    default="drawn",
    help="Workers share processors drawn for each epoch, as many as threads, or run anywhere (default: drawn).",
)
@click.option(
    "--allocator",
    type=click.Choice(["keep", "system"]),
    default="keep",
    help="Whether workers keep freed memory (default: keep).",
)
@click.option(
    "--fail-on",
    type=click.Choice(["slower", "unresolved"]),
    multiple=True,
    help="Exit 3 or 4 when such a row is there.",
)
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="DIR", help="The run's folder (default: results/<time>-bench)."
)
@click.option("--resume", type=click.Path(path_type=Path), metavar="DIR", help="Go on with an interrupted run.")
@click.option("--list", "--dry-run", "listing", is_flag=True, help="Only print what would be measured.")
@_exports.export_options
@click.option("-q", "--quiet", is_flag=True, help="Only the last sentence.")
@click.option("-v", "--verbose", is_flag=True, help="Every row as it changes.")
@color_option
def command(**given: Any) -> int:
    """Measure and compare backends; each result is verified before and after it is timed.

    CONFIG is a suite (`lnbench list suites`) or a YAML file; with nothing: suite `models`, backends numpy and native.
    """  # fmt: skip
    from lnbench import results
    from lnbench.bench.record import CACHES, Item
    from lnbench.cli._bench import BenchRun

    targets = {f: given[f"export_{f}"] for f in _exports.FORMATS}
    _refuse(given, targets)
    folder = results.reopen(given["resume"], "bench") if given["resume"] else None
    cases = _cases(given) if folder is None else folder.cases()
    if folder is not None:
        given = {**given, **folder.environment.get("settings", {})}
    caches = CACHES if given["cache"] == "both" else (given["cache"],)
    items = [Item(case, pass_, cache) for case in cases for pass_ in case.pass_names for cache in caches]
    if given["listing"]:
        for item in items:
            click.echo(f"{item.label} {item.case.dtype} {item.case.key}")
        return Exit.OK
    if given["quick"]:
        given |= {"epochs": given["epochs"] or QUICK_EPOCHS, "budget": given["budget"] or QUICK_SECONDS}
    return BenchRun(given, cases, items, folder, targets).go()


def _refuse(given: Mapping[str, Any], targets: Mapping[str, str | None]) -> None:
    """Refuses, before anything is measured, what could not be written or read afterwards."""
    from lnbench import results
    from lnbench.bench import baselines

    _exports.check(targets)
    _exports.check_folder(given["output"], "--output")
    if given["output"] is not None:
        results.check_fresh(given["output"])
    if given["save_baseline"] is not None:
        _exports.check_folder(baselines.path_of(given["save_baseline"]).parent, "--save-baseline")
    selects = ("configs", "inline", "expression", "settings", "threads", "output")
    if given["resume"] and (any(given[name] for name in selects) or overrides_of((), dict(given))):
        raise UsageError("--resume takes the cases and the folder of the earlier run; leave out what selects others")


def _cases(given: Mapping[str, Any]) -> list[Case]:
    overrides = overrides_of(given["settings"], dict(given))
    cases = cases_of(given["configs"], given["inline"], given["expression"], overrides, "models")
    counts = integers(given["threads"], "--threads") if given["threads"] else ()
    if given["threads"] and (not counts or min(counts) < 1):
        raise UsageError(f"--threads {given['threads']!r} must hold counts of 1 or more, such as --threads 1,2")
    return [case.replace(threads=n) for case in cases for n in counts] if counts else cases
