"""`lnbench verify`: which cases, which backends, how strictly; the verdicts to the terminal, a folder and exports."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lnbench.cli import _exports
from lnbench.cli._options import case_options, cases_of, integers, overrides_of
from lnbench.cli._output import color_option, say, stderr
from lnbench.cli._units import duration
from lnbench.errors import Exit, UsageError, worst

if TYPE_CHECKING:
    from lnbench.case import Case
    from lnbench.cli._record import Record
    from lnbench.verify.runner import Options
    from lnbench.verify.verdict import Verdict

DEFAULT_BACKENDS = ("numpy", "native")
TARGETS = ("baseline", "avx2", "avx512", "neon")
# Settings that a resumed run takes from the earlier one unless they are given again.
_KEPT = ("backends", "require", "timeout", "checks", "in_process", "target")


@click.command("verify")
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
    "--require",
    type=click.Choice(["tier2", "tier1", "stable", "any"]),
    default="stable",
    help="What passes (default: stable).",
)
@click.option("--threads", metavar="N,N", help="Run every case with each of these thread counts.")
@click.option("--check", "checks", multiple=True, metavar="NAME", help="Only these checks (see `lnbench list checks`).")
@click.option(
    "--timeout",
    callback=duration,
    default="60s",
    metavar="TIME",
    help="For one call, such as 5s (default: 60s).",
)
@click.option("--fail-on", type=click.Choice(["skipped"]), help="Also fail when something was skipped.")
@click.option("-x", "--stop-on-first-error", "stop", is_flag=True, help="Stop after the first case that fails.")
@click.option("--jobs", type=click.IntRange(0), default=0, metavar="N", help="Processes that share many small cases.")
@click.option("--in-process", is_flag=True, help="Run without a worker process, for gdb, sanitizers and profilers.")
@click.option("--target", type=click.Choice(TARGETS), help="Instruction set of the native backend (default: the best).")
@click.option("--dump", type=click.Path(path_type=Path), metavar="DIR", help="Write the tensors of failing cases.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The run's folder (default: results/<time>-verify).",
)
@click.option("--resume", type=click.Path(path_type=Path), metavar="DIR", help="Go on with an interrupted run.")
@click.option(
    "--list", "--dry-run", "listing", is_flag=True, help="Only print the cases that would run, with their commands."
)
@click.option("--junit", metavar="FILE", help="Write JUnit XML.")
@_exports.export_options
@click.option("-q", "--quiet", is_flag=True, help="Only failures and the last sentence.")
@click.option("-v", "--verbose", is_flag=True, help="Every verdict, and each case's command before it runs.")
@color_option
@click.pass_context
def command(ctx: click.Context, /, **given: Any) -> int:
    """Verify backends: is every output within the rounding error that a sound program may make?

    CONFIG is a suite (`lnbench list suites`) or a YAML file. With nothing: suite `ci`, backends numpy and native.
    """  # fmt: skip
    from lnbench import pool
    from lnbench.cli._record import Record

    targets = {"junit": given["junit"], **{f: given[f"export_{f}"] for f in _exports.FORMATS}}
    _exports.check(targets)
    _exports.check_folder(given["dump"], "--dump")
    record = Record.resume("verify", given["resume"]) if given["resume"] else None
    if record is not None:
        _restore(ctx, given, record)
    cases = _cases(given) if record is None else record.cases
    if given["listing"]:
        return _list(cases, given["backends"] or DEFAULT_BACKENDS)
    specs = given["backends"] or DEFAULT_BACKENDS
    backends = tuple(dict.fromkeys(name for spec in specs for name in pool.expand(spec)))
    if record is None:
        settings = {name: given[name] for name in _KEPT} | {"backends": list(backends)}
        record = Record("verify", cases, given["output"], settings)
    return _Run(given, cases, backends, record, targets).go()


def _restore(ctx: click.Context, given: dict[str, Any], record: Record) -> None:
    """Settings of the earlier run, where the command line gives none; its cases, always."""
    selects = ("configs", "inline", "expression", "settings", "threads", "output")
    if any(given[name] for name in selects) or overrides_of((), given):
        raise UsageError("--resume takes the cases and the folder of the earlier run; leave out what selects others")
    for name in _KEPT:
        if ctx.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE and name in record.settings:
            given[name] = record.settings[name]


def _cases(given: Mapping[str, Any]) -> list[Case]:
    overrides = overrides_of(given["settings"], dict(given))
    cases = cases_of(given["configs"], given["inline"], given["expression"], overrides, "ci")
    if given["threads"] is None:
        return cases
    counts = integers(given["threads"], "--threads")
    if not counts or min(counts) < 1:
        raise UsageError(f"--threads {given['threads']!r} must hold counts of 1 or more, such as --threads 1,2")
    return [case.replace(threads=n) for case in cases for n in counts]


def _list(cases: list[Case], backends: tuple[str, ...]) -> int:
    for case in cases:
        for backend in backends:
            click.echo(case.repro(backend))
    return Exit.OK


class _Run:
    """One run: the runner's events to the record and the terminal, then the reports."""

    def __init__(
        self,
        given: Mapping[str, Any],
        cases: list[Case],
        backends: tuple[str, ...],
        record: Record,
        targets: Mapping[str, str | None],
    ):
        from lnbench.verify.differences import Differences

        self._given, self._cases, self._backends, self._record, self._targets = given, cases, backends, record, targets
        self._console = stderr(given["color"])
        self._differences = Differences()
        self._begun = time.monotonic()

    def go(self) -> int:
        interrupted = False
        try:
            self._verify()
            self._record.flush()
        except KeyboardInterrupt:
            interrupted = True
        verdicts = self._record.verdicts
        code = Exit.INTERRUPTED if interrupted else self._code(verdicts)
        self._report(verdicts, code)
        if not interrupted:
            self._record.finish(code)
        elif self._record.path is not None:
            say(
                f"Interrupted; what was finished is in {self._record.path}: lnbench verify --resume {self._record.path}"
            )
        return code

    def _verify(self) -> None:
        from lnbench.report.progress import Bar
        from lnbench.verify import runner

        record, done = self._record, self._record.is_done
        total = sum(not done(c, b) for c in self._cases for b in self._backends)
        with Bar(self._console, total, wanted=not self._given["quiet"]) as bar:

            def on_case(case: Case, backend: str) -> None:
                bar.advance(record.begin(case, backend))
                bar.step(f"{case.label} on {backend}")
                if self._given["verbose"]:
                    self._console.print(self._command(case, backend), style="dim", soft_wrap=True)

            def on_verdict(verdict: Verdict) -> None:
                record.add(verdict)
                if self._given["verbose"]:
                    from lnbench.report.terminal import verdict_line

                    self._console.print(verdict_line(verdict), soft_wrap=True)

            runner.run(
                self._cases,
                self._backends,
                self._options,
                on_verdict=on_verdict,
                on_case=on_case,
                skip=done,
                differences=self._differences,
            )

    @property
    def _options(self) -> Options:
        from lnbench.verify.runner import Options

        given = self._given
        return Options(
            require=given["require"],
            timeout=given["timeout"],
            in_process=given["in_process"],
            checks=tuple(given["checks"]) or None,
            dump=given["dump"],
            environment={"LNBENCH_TARGET": given["target"]} if given["target"] else {},
            stop_on_first=given["stop"],
            jobs=given["jobs"],
        )

    def _code(self, verdicts: list[Verdict]) -> Exit:
        from lnbench.verify.verdict import exit_codes

        return worst(exit_codes(verdicts, fail_on_skipped=self._given["fail_on"] == "skipped"))

    def _repro(self, verdict: Verdict) -> str:
        return self._command(verdict.case, verdict.backend)

    def _command(self, case: Case, backend: str) -> str:
        from lnbench.cli._record import again

        return again(case, backend, self._given)

    def _report(self, verdicts: list[Verdict], code: Exit) -> None:
        from lnbench.report import data, github, junit, markdown, terminal

        seconds = time.monotonic() - self._begun
        matrix, repro = self._differences.matrix, self._repro
        texts: dict[str, Callable[[], str]] = {
            "junit": lambda: junit.text(verdicts, repro),
            "csv": lambda: data.csv(verdicts),
            "json": lambda: data.as_json(
                verdicts,
                repro=repro,
                seconds=seconds,
                exit_code=code,
                matrix=matrix,
                environment=self._record.environment,
            ),
            "markdown": lambda: markdown.text(verdicts, repro=repro, seconds=seconds, matrix=matrix),
        }
        _exports.write(self._targets, texts)
        if os.environ.get("GITHUB_ACTIONS"):
            for line in github.lines(verdicts, repro):
                say(line)
        terminal.print_report(
            self._console,
            verdicts,
            repro=repro,
            seconds=seconds,
            matrix=matrix,
            quiet=self._given["quiet"],
            verbose=self._given["verbose"],
        )
