"""`lnbench bench`: which cases on which backends, for how long, against what; rows to terminal, folder, exports."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lnbench.cli import _exports
from lnbench.cli._options import case_options, cases_of, integers, overrides_of
from lnbench.cli._output import color_option, say, stderr
from lnbench.cli._units import duration, share
from lnbench.errors import Exit, UsageError, nearest, worst

if TYPE_CHECKING:
    from lnbench.bench.outcome import Outcome
    from lnbench.bench.record import Block, Contender, Item, Row
    from lnbench.bench.verdicts import Rules
    from lnbench.case import Case
    from lnbench.results import Folder

DEFAULT_BACKENDS = ("numpy", "native")
QUICK_EPOCHS, QUICK_SECONDS = 3, 50.0


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
@click.option("--baseline", metavar="B", help="The backend that ratios are to (default: the first).")
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
    type=click.Choice(["hot", "cold"]),
    default="hot",
    help="State of the caches before each call (default: hot).",
)
@click.option("--threads", metavar="N,N", help="Run every case with each of these thread counts.")
@click.option(
    "--require",
    type=click.Choice(["tier2", "tier1", "stable", "any"]),
    default="stable",
    help="How right a result must be to be timed (default: stable).",
)
@click.option("--timeout", callback=duration, default="60s", metavar="TIME", help="For one call (default: 60s).")
@click.option("--freeze", is_flag=True, help="Stop the other workers while one is measured.")
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
    from lnbench.bench.record import Item

    targets = {f: given[f"export_{f}"] for f in _exports.FORMATS}
    _exports.check(targets)
    folder = results.reopen(given["resume"]) if given["resume"] else None
    cases = _cases(given) if folder is None else folder.cases()
    if folder is not None:
        given = {**given, **folder.environment.get("settings", {})}
    items = [Item(case, pass_, given["cache"]) for case in cases for pass_ in case.pass_names]
    if given["listing"]:
        for item in items:
            click.echo(f"{item.label} {item.case.dtype} {item.case.key}")
        return Exit.OK
    return _Run(given, cases, items, folder, targets).go()


def _cases(given: Mapping[str, Any]) -> list[Case]:
    overrides = overrides_of(given["settings"], dict(given))
    cases = cases_of(given["configs"], given["inline"], given["expression"], overrides, "models")
    counts = integers(given["threads"], "--threads") if given["threads"] else ()
    if given["threads"] and (not counts or min(counts) < 1):
        raise UsageError(f"--threads {given['threads']!r} must hold counts of 1 or more, such as --threads 1,2")
    return [case.replace(threads=n) for case in cases for n in counts] if counts else cases


# What a resumed run takes from the earlier one, always: samples of other plans cannot be joined.
_KEPT = (
    "backends",
    "baseline",
    "margin",
    "quick",
    "epochs",
    "rounds",
    "cache",
    "timeout",
    "freeze",
    "allocator",
    "require",
)


class _Run:
    """One run: blocks to the folder as they come, rows to the terminal, then the reports."""

    def __init__(
        self,
        given: Mapping[str, Any],
        cases: list[Case],
        items: list[Item],
        folder: Folder | None,
        targets: Mapping[str, str | None],
    ):
        from lnbench import pool

        self._given, self._cases, self._items, self._folder, self._targets = given, cases, items, folder, targets
        self._resumed = folder is not None
        self._console = stderr(given["color"])
        specs = given["backends"] or DEFAULT_BACKENDS
        self._names = list(dict.fromkeys(n for spec in specs for n in pool.expand(spec)))
        self._baseline = given["baseline"] or self._names[0]
        if self._baseline not in self._names:
            if given["baseline"] and given["backends"]:
                hint = nearest(self._baseline, self._names)
                raise UsageError(
                    f"--baseline {self._baseline!r} is no backend of this run{hint}: {', '.join(self._names)}"
                )
            self._names.insert(0, self._baseline)

    def go(self) -> int:
        from lnbench.report.progress import Bar

        with Bar(self._console, 1, wanted=not self._given["quiet"]) as bar:
            outcome = self._measure(bar)
        code = worst(outcome.exit_codes(self._given["fail_on"]))
        self._report(outcome, code)
        return code

    def _measure(self, bar: Any) -> Outcome:
        from lnbench.bench import runner
        from lnbench.bench.outcome import Listener
        from lnbench.bench.world import World
        from lnbench.verify.right import Right

        listener = Listener(
            on_block=self._keep,
            on_row=self._show,
            on_progress=lambda p: bar.to(p.doing and f"{p.doing}, epoch {p.epoch + 1}", p.done, p.planned),
        )
        return runner.run(
            self._items,
            self._contenders,
            self._rules,
            self._how,
            World(Right(self._given["require"])),
            listener=listener,
            done=self._done(),
        )

    @property
    def _contenders(self) -> list[Contender]:
        from lnbench.bench.record import Contender

        return [Contender(name, name) for name in self._names]

    @property
    def _rules(self) -> Rules:
        from lnbench import api
        from lnbench.bench.stopping import Plan

        given = self._given
        quick = given["quick"]
        pilot = given["epochs"] or (QUICK_EPOCHS if quick else Plan().pilot)
        most = pilot if quick or given["epochs"] else Plan().most_epochs
        plan = Plan(
            pilot=pilot,
            most_epochs=most,
            margin=given["margin"],
            budget=given["budget"] or (QUICK_SECONDS if quick else None),
            rounds=given["rounds"],
        )
        return api.rules(plan, self._baseline, gate="slower" in given["fail_on"])

    @property
    def _how(self) -> Any:
        from lnbench import machine
        from lnbench.bench.epoch import Circumstances

        given = self._given
        return Circumstances(
            timeout=given["timeout"],
            freeze=given["freeze"],
            allocator=given["allocator"],
            cold_bytes=3 * machine.last_level_cache(),
        )

    def _done(self) -> list[Block]:
        from lnbench import results
        from lnbench.bench.record import blocks_of

        if self._folder is None or not (self._folder.path / "samples.csv").exists():
            return []
        return blocks_of(results.read(self._folder.path, "samples.csv"), self._items)

    def _keep(self, block: Block) -> None:
        """Appends the samples of a finished block; the folder is made with the first."""
        from lnbench import results
        from lnbench.bench.record import SAMPLE_COLUMNS, sample_cells

        table = self._open().table("samples.csv", ("schema", *SAMPLE_COLUMNS))
        table.append({"schema": results.SCHEMA, **cells} for cells in sample_cells(block))

    def _open(self) -> Folder:
        from lnbench import machine, results

        if self._folder is None:
            settings = {name: self._given[name] for name in _KEPT} | {"backends": self._names}
            facts = {"settings": settings, "machine": machine.environment()}
            self._folder = results.create("bench", self._cases, output=self._given["output"], facts=facts)
        return self._folder

    def _show(self, row: Row) -> None:
        if self._given["verbose"]:
            from lnbench.report.timings import as_line

            self._console.print(as_line(row), soft_wrap=True)

    def _report(self, outcome: Outcome, code: Exit) -> None:
        from lnbench.report import timings
        from lnbench.results import write_whole

        rows = outcome.rows
        folder = self._open()
        write_whole(folder.path / "timings.csv", timings.csv(rows))
        texts: dict[str, Callable[[], str]] = {
            "csv": lambda: timings.csv(rows),
            "json": lambda: timings.as_json(
                rows, exit_code=code, seconds=outcome.seconds, environment=folder.environment
            ),
            "markdown": lambda: timings.as_markdown(rows, outcome.seconds),
        }
        _exports.write(self._targets, texts)
        if not self._given["quiet"]:
            self._console.print(timings.as_table(rows))
            for line in timings.notes(rows):
                self._console.print(line, soft_wrap=True)
        if outcome.unfit:
            self._console.print(f"This machine cannot be trusted now: {outcome.unfit}", soft_wrap=True)
        self._console.print(timings.sentence(rows, outcome.seconds), soft_wrap=True)
        if outcome.is_interrupted:
            folder.close()
            say(f"Interrupted; finished epochs are in {folder.path}: lnbench bench --resume {folder.path}")
        else:
            folder.finish(code)
