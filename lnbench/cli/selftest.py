"""`lnbench selftest`: does the verifier find every planted bug, and does it leave correct kernels alone?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lnbench.cli._output import color_option, print_table, say, stderr
from lnbench.errors import Exit, NothingRun, UsageError

if TYPE_CHECKING:
    from lnbench.case import Case
    from lnbench.selftest.accusing import Trial
    from lnbench.selftest.killing import Kill, Target
    from lnbench.selftest.run import Summary

CASES = 10_000


@click.command("selftest")
@click.option("-k", "expression", metavar="EXPRESSION", help="Only bugs whose name, operator or sentence match.")
@click.option("--family", "letters", default="", metavar="LETTERS", help="Only bugs of these families, such as AC.")
@click.option("--suite", default="ci", metavar="CONFIG", help="The cases that must find the bugs (default: ci).")
@click.option(
    "--cases",
    "total",
    type=click.IntRange(min=0),
    default=CASES,
    metavar="N",
    help=f"Random cases for the correct kernels, in all (default: {CASES}).",
)
@click.option("--seed", type=int, default=0, metavar="S", help="Seed of the random cases (default: 0).")
@click.option("--jobs", type=click.IntRange(min=1), metavar="N", help="Processes (default: one per core).")
@click.option(
    "--matrix", is_flag=True, help="Do not stop at the first kill: which check finds which bug, on which case."
)
@click.option(
    "--export-csv", type=click.Path(dir_okay=False), metavar="FILE", help="Write the kills as CSV; - is stdout."
)
@click.option("--no-c", is_flag=True, help="Leave out the bugs that live in C (they need a compiler).")
@click.option("--list", "listing", is_flag=True, help="Only list what is planted.")
@click.option(
    "--aa",
    "repeats",
    type=click.IntRange(min=1),
    metavar="R",
    help="Instead: bench a backend against itself R times; count false differences.",
)
@click.option("--plant", metavar="1%,3%,5%", help="With --aa: also bench against planted slowdowns; count those found.")
@click.option("-b", "--backend", default="native", metavar="B", help="With --aa: the backend (default: native).")
@click.option("-v", "--verbose", is_flag=True, help="Every kill and every batch of random cases.")
@color_option
def command(**given: Any) -> int:
    """Verify the verifier: planted bugs must all be found, correct kernels never accused."""
    if given["repeats"] is not None or given["plant"]:
        from lnbench.cli._selfcheck import check_bench

        return check_bench(given["repeats"] or 1, _percentages(given["plant"] or ""), given["backend"])
    if given["listing"]:
        return _list(given)
    return _Run(given).go()


def _percentages(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part.strip().removesuffix("%")) / 100 for part in text.split(",") if part.strip())
    except ValueError:
        raise UsageError(f"--plant {text!r} is not a list of percentages; write for example --plant 1%,3%,5%") from None


def _matching(found: list[Target], expression: str | None, letters: str) -> list[Target]:
    from lnbench.cli._select import matcher

    matches = matcher(expression)
    kept = [
        t for t in found if matches(f"{t.name} {t.op} {t.sentence}") and (not letters or t.family in letters.upper())
    ]
    if not kept:
        raise NothingRun("no planted bug matches -k and --family; `lnbench selftest --list` shows them")
    return kept


def _list(given: Mapping[str, Any]) -> int:
    from lnbench.selftest import correct, native
    from lnbench.selftest.mutants import FAMILIES, MUTANTS
    from lnbench.selftest.native_patches import PATCHES

    rows = [(m.name, m.family, " ".join(m.passes), m.sentence, m.like) for m in MUTANTS.values()]
    rows += [(p.name, p.family, " ".join(p.passes), f"in C: {p.sentence}", p.like) for p in native.PLANTED]
    rows += [(p.name, p.family, " ".join(p.passes), f"in the native backend: {p.sentence}", p.like) for p in PATCHES]
    print_table(("planted bug", "family", "passes", "what is wrong", "seen in"), rows, given["color"])
    print_table(("family", "what it is"), list(FAMILIES.items()), given["color"])
    kinds = [(c.name, c.op, c.sentence, c.weak_on) for c in correct.KINDS.values()]
    print_table(("correct kernel", "operator", "how", "weaker on"), kinds, given["color"])
    return Exit.OK


class _Run:
    """Kills, then random cases for the correct kernels, then the numbers."""

    def __init__(self, given: Mapping[str, Any]):
        from lnbench import config
        from lnbench.selftest.run import Summary, jobs_here

        self._given = given
        self._console = stderr(given["color"])
        self._jobs: int = given["jobs"] or jobs_here()
        self._suite: list[Case] = config.load(given["suite"])
        self._summary: Summary = Summary()

    def go(self) -> int:
        with tempfile.TemporaryDirectory(prefix="lnbench-selftest-") as folder:
            self._kill(None if self._given["no_c"] else Path(folder))
        if self._given["total"] and not self._given["matrix"]:
            self._accuse()
        self._report()
        return Exit.OK if self._summary.is_good else Exit.FAILED

    def _kill(self, folder: Path | None) -> None:
        from lnbench.report.progress import Bar
        from lnbench.selftest import run

        found, self._summary.skipped = run.targets(folder)
        mutants = _matching(found, self._given["expression"], self._given["letters"])
        with Bar(self._console, len(mutants)) as bar:

            def on_kill(kill: Kill) -> None:
                bar.advance()
                bar.step(f"planted bugs: {kill.target.name}")
                if self._given["verbose"] or kill.survived:
                    say(kill_line(kill))

            self._summary.kills = run.kill_all(
                mutants, self._suite, self._jobs, matrix=self._given["matrix"], on_kill=on_kill
            )

    def _accuse(self) -> None:
        from lnbench.report.progress import Bar
        from lnbench.selftest import run

        with Bar(self._console, self._given["total"]) as bar:

            def on_trial(trial: Trial) -> None:
                bar.advance(trial.cases)
                bar.step(f"correct kernels: {trial.kind}")
                if self._given["verbose"]:
                    say(
                        f"{trial.kind}: {trial.cases} random cases, {len(trial.accusations)} accusations, "
                        f"largest budget {trial.budget:.2f}"
                    )
                for a in trial.accusations:
                    say(f"ACCUSED {a.kind}: {a.pass_} {a.check} {a.output} {a.status}: {a.reason}\n  {a.repro}")

            self._summary.trials = run.try_correct(
                self._given["total"], self._jobs, self._given["seed"], on_trial=on_trial
            )

    def _report(self) -> None:
        from lnbench.selftest import tables

        kills, summary = self._summary.kills, self._summary
        if self._given["matrix"]:
            print_table(*tables.matrix(kills), self._given["color"])
        else:
            print_table(*tables.families(kills), self._given["color"])
        if summary.trials:
            print_table(*tables.kinds(summary.trials), self._given["color"])
        if self._given["export_csv"]:
            _write(self._given["export_csv"], lambda: tables.csv(kills))
        if summary.skipped:
            say(f"Left out: {summary.skipped}.")
        for kill in summary.survivors:
            say(kill_line(kill))
        say(tables.sentence(summary))


def kill_line(kill: Kill) -> str:
    """One mutant in one line."""
    target = kill.target
    bug = f"{target.name} [{target.family}]"
    if kill.survived:
        hint = f" ({kill.problem})" if kill.problem else ""
        return f"SURVIVED {bug} after {kill.tried} cases: {target.sentence}{hint}"
    what = f"{kill.pass_} {kill.check} {kill.output}".strip()
    return f"killed {bug} by {what} on {kill.case}: {kill.status} ({kill.tried} cases, {kill.seconds:.1f} s)"


def _write(target: str, text: Callable[[], str]) -> None:
    if target == "-":
        click.echo(text(), nl=False)
    else:
        Path(target).write_text(text(), encoding="utf-8")
