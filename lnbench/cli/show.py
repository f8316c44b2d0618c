"""`lnbench show OPERATOR`: its schema, signatures, formulas, and the tensors of one shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lnbench.cli._options import Override, overrides_of, problem_options
from lnbench.cli._output import print_json, print_table

if TYPE_CHECKING:
    from lnbench.case import Case
    from lnbench.operators.schema import Operator


@click.command("show")
@click.argument("operator")
@click.option(
    "--shape", metavar="N,N,...", help="Also infer the tensors of an input of this shape, for example 8,512,768."
)
@problem_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(operator: str, shape: str | None, as_json: bool, settings: tuple[Override, ...], **named: Any) -> None:
    """Show an operator: attributes, function signatures, formula, gradient, output shapes."""
    from lnbench.operators import registry

    found = registry.get(operator)
    case = None if shape is None else _case(operator, shape, overrides_of(settings, named))
    if as_json:
        print_json(_described(found, case))
    else:
        _print(found, case)


def _case(operator: str, shape: str, overrides: dict[str, Any]) -> Case:
    import json

    from lnbench import config
    from lnbench.cli._options import integers

    text = json.dumps({"op": operator, "shape": list(integers(shape, "--shape"))})
    return config.inline(text, overrides)[0]


def _described(operator: Operator, case: Case | None) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": operator.name,
        "title": operator.title,
        "forward": operator.signature("forward"),
        "backward": operator.signature("backward"),
        "formula": operator.formula,
        "gradient": operator.gradient,
        "source": operator.source,
        "attributes": [
            {"name": a.name, "type": a.type.__name__, "default": a.default, "allowed": a.allowed, "doc": a.doc}
            for a in operator.attributes
        ],
        "defaults": dict(operator.defaults),
    }
    if case is not None:
        described["tensors"] = [
            {
                "name": n,
                "shape": list(t.shape),
                "dtype": t.dtype,
                "role": t.role,
                "passes": passes,
                "required": t.required,
            }
            for n, t, passes in _tensors(operator, case)
        ]
        described["cost"] = {
            p: {"bytes": operator.cost(case, p).bytes, "flops": operator.cost(case, p).flops} for p in case.pass_names
        }
    return described


def _tensors(operator: Operator, case: Case) -> list[tuple[str, Any, str]]:
    """(name, tensor, where it takes part), in the order in which the operator names them."""
    takes = {"forward": operator.forward_inputs, "backward": operator.backward_inputs}
    rows = []
    for name, tensor in operator.tensors(case).items():
        words = []
        for pass_ in case.pass_names:
            alias = {name, "stat"} if name == "rstd" else {name}
            words += [f"input of {pass_}"] if alias & set(takes[pass_]) else []
            words += [f"output of {pass_}"] if alias & set(operator.outputs(case, pass_)) else []
        rows.append((name, tensor, ", ".join(words)))
    return rows


def _print(operator: Operator, case: Case | None) -> None:
    click.echo(f"{operator.name}: {operator.title}\n")
    for title, text in (("formula", operator.formula), ("gradient", operator.gradient)):
        click.echo(f"{title}\n{_indented(text)}\n")
    click.echo("functions of a plug-in (gamma and beta may be None; return a mapping)")
    click.echo(f"    {operator.signature('forward')}\n    {operator.signature('backward')}\n")
    attributes = [
        ("axis", "int or list", "", "int: from it to the end; list: exactly these"),
        ("epsilon", "float", "", ""),
    ]
    attributes = [(n, t, operator.defaults.get(n, ""), d) for n, t, _, d in attributes]
    own = [(a.name, a.type.__name__, a.default, f"{a.doc} {a.allowed}".strip()) for a in operator.attributes]
    print_table(["attribute", "type", "default", "meaning"], [*attributes, *own])
    if case is not None:
        click.echo(f"\ntensors for shape {list(case.shape)}, axis {case.axis}, {case.dtype}")
        print_table(
            ["tensor", "shape", "dtype", "part"],
            [(n, list(t.shape), t.dtype, part) for n, t, part in _tensors(operator, case)],
        )
    click.echo(f"\nsource: {operator.source}")


def _indented(text: str) -> str:
    from textwrap import dedent, indent

    return indent(dedent(text).strip(), "    ")
