"""`lnbench list`: what there is to choose from - backends, operators, cases, laws, layouts, suites."""

from __future__ import annotations

from typing import Any

import click

from lnbench.cli._output import color_option, print_json, print_table
from lnbench.errors import Exit, UsageError

Row = dict[str, Any]


@click.command("list")
@click.argument("what", type=click.Choice(["backends", "operators", "cases", "checks", "laws", "layouts", "suites"]))
@click.argument("configs", nargs=-1, metavar="[SUITE|FILE]...")
@click.option("-k", "expression", metavar="EXPRESSION", help="Only cases whose words match.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@color_option
def command(what: str, configs: tuple[str, ...], expression: str | None, as_json: bool, color: str) -> int:
    """List backends, operators, cases of a suite, checks, laws, layouts or suites."""
    if configs and what != "cases":
        raise UsageError(f"`list {what}` takes no file; write `lnbench list cases {' '.join(configs)}`")
    rows = _cases(configs, expression) if what == "cases" else _LISTS[what]()
    if as_json:
        print_json(rows)
    elif rows:
        columns = [c for c in rows[0] if any(r[c] not in ("", None) for r in rows)]
        print_table(columns, [[_cell(row[c]) for c in columns] for row in rows], color)
    return Exit.OK


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{k}={v}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def _backends() -> list[Row]:
    from lnbench import machine

    return [
        {
            "backend": b.name,
            "state": b.state,
            "version": b.described.get("version", ""),
            "facts": {k: v for k, v in b.described.items() if k != "version"},
            "reason": b.reason,
        }
        for b in machine.backends()
    ]


def _operators() -> list[Row]:
    from lnbench.operators import registry

    found = [registry.get(name) for name in registry.names()]
    return [{"operator": o.name, "forward": o.signature("forward"), "title": o.title} for o in found]


def _cases(configs: tuple[str, ...], expression: str | None) -> list[Row]:
    from lnbench.cli._options import cases_of

    return [
        {
            "case": c.label,
            "op": c.op,
            "shape": list(c.shape),
            "axis": c.axis if isinstance(c.axis, int) else list(c.axis),
            "dtype": c.dtype,
            "law": c.law if isinstance(c.law, str) else dict(c.law),
            "layout": c.layout,
            "passes": c.passes,
            "source": c.source,
            "key": c.key,
        }
        for c in cases_of(configs, (), expression, {}, "ci")
    ]


def _checks() -> list[Row]:
    from lnbench.verify.check import all_checks

    return [{"check": c.name, "reveals": c.reveals} for c in all_checks()]


def _laws() -> list[Row]:
    from lnbench import laws

    found = [laws.get(name) for name in laws.names()]
    return [{"law": law.name, "tensors": list(law.tensors), "reveals": law.reveals} for law in found]


def _layouts() -> list[Row]:
    from lnbench import layouts

    found = [layouts.get(name) for name in layouts.names()]
    return [{"layout": layout.name, "tensors": list(layout.suits), "reveals": layout.reveals} for layout in found]


def _suites() -> list[Row]:
    from lnbench import config

    rows = []
    for name in config.suites():
        cases = config.load(name, {})
        rows.append({"suite": name, "cases": len(cases), "operators": sorted({c.op for c in cases})})
    return rows


_LISTS = {
    "backends": _backends,
    "operators": _operators,
    "checks": _checks,
    "laws": _laws,
    "layouts": _layouts,
    "suites": _suites,
}
