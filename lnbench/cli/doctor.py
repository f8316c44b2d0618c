"""`lnbench doctor`: the machine, its ceilings and its noise, and which backends are there."""

from __future__ import annotations

from typing import Any

import click

from lnbench.cli._output import color_option, print_json, say, stderr, stdout
from lnbench.errors import EnvironmentUnfit, Exit


@click.command("doctor")
@click.option("--fresh", is_flag=True, help="Measure the memory ceilings again instead of using stored ones.")
@click.option("--no-ceilings", is_flag=True, help="Leave the memory ceilings out.")
@click.option("--no-backends", is_flag=True, help="Do not start the backends.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@color_option
def command(fresh: bool, no_ceilings: bool, no_backends: bool, as_json: bool, color: str) -> int:
    """Examine the machine: facts, noise, memory ceilings, backends.

    Only reads and advises. The first time it measures the ceilings, which takes some seconds.
    """
    from lnbench import machine

    environment, warnings = machine.environment(), machine.warnings(machine.processors())
    found, why = (None, "") if no_ceilings else _ceilings(fresh, color)
    backends = [] if no_backends else machine.backends()
    if as_json:
        print_json(_document(environment, warnings, found, backends))
    else:
        _print(environment, warnings, found, why, backends, color)
    return Exit.OK


def _ceilings(fresh: bool, color: str) -> tuple[Any, str]:
    """(ceilings, "") or (None, why there are none)."""
    from lnbench import machine
    from lnbench.report.progress import Bar

    try:
        with Bar(stderr(color), len(machine.plan())) as bar:
            bar.step("measuring memory bandwidth")
            return machine.ceilings(fresh=fresh, on_point=lambda _: bar.advance()), ""
    except EnvironmentUnfit as error:
        return None, str(error)


def _document(environment: Any, warnings: Any, found: Any, backends: Any) -> dict[str, Any]:
    import json

    return {
        "machine": environment,
        "warnings": warnings,
        "ceilings": None if found is None else json.loads(found.to_json())["points"],
        "backends": [
            {"name": b.name, "state": b.state, "described": dict(b.described), "reason": b.reason} for b in backends
        ],
    }


def _print(environment: Any, warnings: Any, found: Any, why: str, backends: Any, color: str) -> None:
    from lnbench.report import doctor
    from lnbench.report.console import table

    console = stdout(color)
    console.print(table(["machine", ""], doctor.facts(environment)))
    console.print()
    if found is not None:
        console.print(doctor.ceilings_table(found))
        console.print()
        for line in doctor.ceilings_chart(found):
            console.print(line)
        console.print()
        if found.is_doubtful:
            busy = f"the memory ceilings were measured at load {found.load:.1f} per processor and may be too low"
            warnings = [*warnings, f"{busy}: `lnbench doctor --fresh` on a quiet machine"]
    if backends:
        console.print(doctor.backends_table(backends))
        console.print()
    for sentence in warnings:
        console.print(f"! {sentence}", soft_wrap=True)
    if why:
        say(f"lnbench: note: no memory ceilings: {why}")
    console.print("Nothing disturbs measurements." if not warnings else f"Warnings: {len(warnings)}.")
