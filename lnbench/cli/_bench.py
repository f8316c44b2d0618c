"""One run of `lnbench bench`: blocks to the folder as they come, rows to the terminal, then the reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from lnbench.cli import _exports
from lnbench.cli._baseline import Sides, sides
from lnbench.cli._output import say, stderr
from lnbench.errors import Exit, worst

if TYPE_CHECKING:
    from lnbench.bench.outcome import Outcome
    from lnbench.bench.overhead import Overhead
    from lnbench.bench.record import Block, Item, Row
    from lnbench.bench.verdicts import Rules
    from lnbench.bench.world import World
    from lnbench.case import Case
    from lnbench.machine import Ceilings
    from lnbench.report.live import LiveTable
    from lnbench.results import Folder

# What a resumed run takes from the earlier one, always: samples of other plans cannot be joined.
_KEPT = (
    "baseline", "margin", "quick", "epochs", "rounds", "cache", "timeout", "freeze", "affinity", "allocator", "require",
    "order_seed", "statistic", "control", "lenient", "trust",
)  # fmt: skip

CEILINGS_FROM = 120.0  # seconds of budget from which ceilings that are not known are measured, which takes about 15


class BenchRun:
    """The command's options at work."""

    def __init__(
        self,
        given: Mapping[str, Any],
        cases: list[Case],
        items: list[Item],
        folder: Folder | None,
        targets: Mapping[str, str | None],
    ):
        self._given, self._cases, self._items, self._folder, self._targets = given, cases, items, folder, targets
        self._console = stderr(given["color"])
        self._sides: Sides = sides(given)
        self._overhead: Overhead | None = None
        self._ceilings: Ceilings | None = None
        self._began = time.perf_counter()

    def go(self) -> int:
        """Measures, reports, and says with which code to exit."""
        from lnbench.bench.lock import machine_lock
        from lnbench.report.live import LiveTable

        for note in self._sides.notes:
            say(note)
        with nullcontext() if self._given["no_lock"] else machine_lock():
            self._prepare()
            with LiveTable(self._console, wanted=not self._given["quiet"]) as live:
                outcome = self._measure(live)
        outcome.rows = self._sides.adjusted(outcome.rows, self._given["margin"])
        code = worst(outcome.exit_codes(self._given["fail_on"]))
        self._report(outcome, code)
        self._save(outcome.rows)
        return code

    def _prepare(self) -> None:
        """What should be known beforehand: what disturbs this machine, and what the harness costs."""
        from lnbench import machine
        from lnbench.bench import overhead

        self._ceilings = self._known_ceilings()
        if self._given["quiet"]:
            return
        for warning in machine.warnings(max(i.case.threads for i in self._items)):
            say(f"Note: {warning}")
        self._overhead = overhead.measure(self._world, self._given["timeout"])
        if self._overhead is not None:
            call, sample = self._overhead.call * 1e9, self._overhead.sample * 1e6
            say(f"The harness adds {call:.0f} ns to a call and needs {sample:.0f} us for a sample.")

    def _known_ceilings(self) -> Ceilings | None:
        """Stored ceilings, else measured now where the time allows it."""
        from lnbench import api, machine
        from lnbench.report.progress import Bar

        found, budget, is_said = machine.stored(), self._given["budget"], not self._given["quiet"]
        if found is not None:
            return found
        if budget is not None and budget < CEILINGS_FROM:
            if is_said:
                say("Note: what the memory of this machine can do is not known yet, so the column 'ceiling' stays empty; "
                    "`lnbench doctor` measures it once, in about 15 s")  # fmt: skip
            return None
        if is_said:
            say(f"Measuring what the memory of this machine can do, about 15 s; kept in {machine.cache_file()}")
        with Bar(self._console, len(machine.plan()), wanted=is_said) as bar:
            bar.step("measuring memory bandwidth")
            return api.ceilings(lambda _: bar.advance())

    def _measure(self, live: LiveTable) -> Outcome:
        from lnbench.bench import runner
        from lnbench.bench.outcome import Listener

        def show(row: Row) -> None:
            live.row(row)
            if self._given["verbose"] and not live.is_on:
                from lnbench.report.timings import as_line

                self._console.print(as_line(row), soft_wrap=True)

        return runner.run(
            self._items,
            self._sides.contenders,
            self._rules,
            self._how,
            self._world,
            null_control=self._given["control"],
            listener=Listener(on_block=self._keep, on_rows=self._stand, on_row=show, on_progress=live.progress),
            done=self._done(),
        )

    @property
    def _world(self) -> World:
        from lnbench import machine
        from lnbench.bench.world import World
        from lnbench.machine import noise
        from lnbench.verify.right import Right

        kept = machine.spare_memory()
        return World(Right(self._given["require"]), machine=noise.Watch().look, kept_bytes=kept)

    @property
    def _rules(self) -> Rules:
        from lnbench import api
        from lnbench.bench.stopping import plan_of

        given, budget = self._given, self._given["budget"]
        left = None if budget is None else max(0.0, budget - (time.perf_counter() - self._began))
        plan = plan_of(epochs=given["epochs"], margin=given["margin"], budget=left, rounds=given["rounds"])
        gate, statistic = "slower" in given["fail_on"], given["statistic"]
        return api.rules(plan, self._sides.baseline, gate=gate, ceilings=self._ceilings, statistic=statistic)

    @property
    def _how(self) -> Any:
        from lnbench import machine
        from lnbench.bench.crew import Circumstances

        given = self._given
        return Circumstances(
            seed=given["order_seed"],
            timeout=given["timeout"],
            freeze=given["freeze"],
            is_placed=given["affinity"] == "drawn",
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

    def _stand(self, rows: list[Row]) -> None:
        """Writes timings.csv with what is known so far: a run that is killed leaves it behind."""
        from lnbench.report import timings
        from lnbench.results import write_whole

        if self._folder is not None:
            rows = self._sides.adjusted(rows, self._given["margin"])
            write_whole(self._folder.path / "timings.csv", timings.csv(rows))

    def _open(self) -> Folder:
        from dataclasses import asdict

        from lnbench import machine, results

        if self._folder is None:
            settings = {name: self._given[name] for name in _KEPT} | {"backends": self._sides.names}
            facts: dict[str, Any] = {"settings": settings, "machine": machine.environment()}
            if self._overhead is not None:
                facts["overhead"] = asdict(self._overhead)
            self._folder = results.create("bench", self._cases, output=self._given["output"], facts=facts)
        return self._folder

    def _save(self, rows: list[Row]) -> None:
        """Stores the first backend as a baseline, when that is asked for."""
        from lnbench.bench import baselines
        from lnbench.pool import Session

        name, spec = self._given["save_baseline"], self._sides.names[0]
        if name is None:
            return
        with Session(spec, timeout=self._given["timeout"]) as session:
            described = session.description.described
        path = baselines.save(name, spec, rows, described=described)
        say(f"Stored {spec} as baseline {name!r} in {path.parent}; compare with --baseline @{name}")

    def _report(self, outcome: Outcome, code: Exit) -> None:
        from lnbench.report import timings
        from lnbench.results import write_whole

        rows, folder = outcome.rows, self._open()
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
