"""`lnbench fuzz`: random cases until one fails; the smallest failing case goes to a file that `lnbench verify` replays."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lnbench.cli import _exports
from lnbench.cli._output import color_option, say, stderr
from lnbench.cli._units import duration
from lnbench.errors import Exit, NothingRun, worst

if TYPE_CHECKING:
    from lnbench.fuzz.hunt import Hunt, Outcome
    from lnbench.verify.verdict import Verdict


@click.command("fuzz")
@click.option("-b", "--backend", default="native", metavar="B", help="What to fuzz (default: native).")
@click.option(
    "--time-budget",
    "seconds",
    callback=duration,
    default="60s",
    metavar="TIME",
    help="How long to draw cases (default: 60s); making a failure small comes on top.",
)
@click.option("--op", "ops", multiple=True, metavar="OPERATOR", help="Which operators (default: layer_norm).")
@click.option("--seed", type=int, default=0, metavar="S", help="Another seed draws other cases (default: 0).")
@click.option("--max-elements", type=click.IntRange(min=1), metavar="N", help="The largest case (default: 4096).")
@click.option("--check", "checks", multiple=True, metavar="NAME", help="Only these checks (see `lnbench list checks`).")
@click.option(
    "--require",
    type=click.Choice(["tier2", "tier1", "stable", "any"]),
    default="stable",
    help="What passes (default: stable).",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    metavar="S",
    help="Seconds for one call (default: 60).",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("results", "fuzz"),
    metavar="DIR",
    help="Where a stopped hunt goes on (default: results/fuzz).",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where the failing case goes (default: case.yaml in the state folder).",
)
@color_option
def command(**given: Any) -> int:
    """Look for a case that a backend fails: random shapes, axes, types, laws, layouts, threads and epsilons."""
    from lnbench import pool
    from lnbench.errors import UsageError
    from lnbench.fuzz.hunt import hunt
    from lnbench.report.progress import Bar

    _exports.check_folder(given["state"], "--state")
    _exports.check({"output": given["output"] and str(given["output"])})
    names = pool.expand(given["backend"])
    if len(names) != 1:
        raise UsageError(f"{given['backend']} holds several backends; name one of {', '.join(names)}")
    what = _hunt(given, names[0])
    with Bar(stderr(given["color"]), int(given["seconds"])) as bar:

        def on_case(outcome: Outcome) -> None:
            doing = "making a failure small" if outcome.failure is not None else "no failure yet"
            bar.to(
                f"{outcome.cases} cases, {doing}",
                min(int(outcome.seconds), int(given["seconds"])),
                int(given["seconds"]),
            )

        outcome = hunt(what, on_case=on_case)
    return _report(outcome, what, given["output"])


def _hunt(given: Mapping[str, Any], backend: str) -> Hunt:
    from lnbench.fuzz.hunt import Hunt
    from lnbench.fuzz.space import MAX_ELEMENTS
    from lnbench.operators import registry
    from lnbench.verify.examiner import Options

    for op in given["ops"]:
        registry.get(op)
    return Hunt(
        backend,
        given["seconds"],
        given["seed"],
        given["state"],
        given["ops"] or ("layer_norm",),
        given["max_elements"] or MAX_ELEMENTS,
        Options(require=given["require"], timeout=given["timeout"], checks=tuple(given["checks"]) or None),
    )


def _report(outcome: Outcome, what: Hunt, output: Path | None) -> int:
    if outcome.failure is None:
        if outcome.cases == outcome.undecided:
            raise NothingRun(
                f"none of {outcome.cases} random cases could be judged on {what.backend}; try --op or --check"
            )
        say(
            f"{outcome.cases} random cases on {what.backend}, none fails; a next run goes on after round {outcome.rounds}."
        )
        return Exit.OK
    failure = outcome.failure
    path = output or what.state / "case.yaml"
    _write(path, failure)
    where = " ".join(word for word in (failure.pass_, failure.check, failure.output) if word)
    say(f"{failure.status} by {where}: {failure.reason}")
    say(f"  {failure.case.inline()}")
    say(f"The smallest failing case of {outcome.cases} examined is in {path}; run it again with")
    say(f"  lnbench verify {shlex.quote(str(path))} --backend {shlex.quote(what.backend)}")
    return _code(failure)


def _code(failure: Verdict) -> int:
    from lnbench.verify.verdict import exit_codes

    return worst(exit_codes([failure]))


def _write(path: Path, failure: Verdict) -> None:
    """The case as a case file; the first line says what failed."""
    from lnbench import results

    path.parent.mkdir(parents=True, exist_ok=True)
    case = failure.case.replace(name="fuzz", source=f"lnbench fuzz on {failure.backend}")
    note = f"# {failure.status} by {failure.check}: {' '.join(failure.reason.split())}\n"
    path.write_text(note + results.cases_text([case]), encoding="utf-8")
