"""Options that several commands share, and what they mean: which cases, with which keys overridden."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from lnbench.errors import NothingRun, UsageError

if TYPE_CHECKING:
    from lnbench.case import Case

F = TypeVar("F", bound=Callable[..., Any])
Override = tuple[str, Any]

# Keys of a case that have an option of their own; every key can be given with --set.
_COMMON = {
    "dtype": "Element type: float32, float64, float16 or bfloat16.",
    "axis": "Normalized axes: an int (from it to the end) or a list, for example '[1, 3]'.",
    "epsilon": "The epsilon of every case.",
    "law": "How inputs are drawn (see `lnbench list laws`).",
    "layout": "How x lies in memory (see `lnbench list layouts`).",
    "passes": "forward, backward or forward_backward.",
    "seed": "Seed of the inputs.",
}


def _setting(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[Override, ...]:
    return tuple(_parsed(text) for text in given)


def _parsed(text: str) -> Override:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text!r} is not of the form KEY=VALUE; write for example --set gamma=false")
    return key.strip(), _value(value, f"--set {key.strip()}")


def _value(text: str, option: str) -> Any:
    """A value as YAML reads it, and numbers such as 1e-5 as well."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(f"{option}: {text!r} is not a YAML value; quote it or write a plain number or word") from None
    if isinstance(value, str):
        try:
            return float(value) if any(c.isdigit() for c in value) else value
        except ValueError:
            return value
    return value


def problem_options(function: F) -> F:
    """`--set KEY=VALUE` and an option for each of the common keys; read them with `overrides_of`."""
    for key, text in reversed(_COMMON.items()):
        function = click.option(f"--{key}", metavar="VALUE", help=text)(function)
    return click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_setting,
        help="Override any key of every case; the value is YAML.",
    )(function)


def overrides_of(settings: tuple[Override, ...], named: dict[str, Any]) -> dict[str, Any]:
    """What the command line overrides, by key: `--set` first, then the options of their own."""
    own = {k: _value(named[k], f"--{k}") for k in _COMMON if named.get(k) is not None}
    return {**dict(settings), **own}


def case_options(function: F) -> F:
    """Arguments and options that select cases; read them with `cases_of`."""
    function = click.option(
        "-k", "expression", metavar="EXPRESSION", help="Only cases whose words match, e.g. 'bert and not float64'."
    )(function)
    function = click.option(
        "--case", "inline", multiple=True, metavar="YAML", help="A case given inline, as repro lines do."
    )(function)
    function = problem_options(function)
    return click.argument("configs", nargs=-1, metavar="[CONFIG]...")(function)


def cases_of(
    configs: tuple[str, ...], inline: tuple[str, ...], expression: str | None, overrides: dict[str, Any], default: str
) -> list[Case]:
    """The selected cases, each once, in order. Raises NothingRun when `-k` leaves none, UsageError for wrong files."""
    from lnbench import config, laws
    from lnbench.cli._select import matcher

    cases: list[Case] = []
    for name in configs or (() if inline else (default,)):
        cases += config.load(name, overrides)
    for text in inline:
        cases += config.inline(text, overrides)
    matches = matcher(expression)
    kept = [c for c in _once(cases) if matches(words_of(c))]
    if not kept:
        found = f"none of {len(cases)} cases matches -k {expression!r}" if cases else "the files hold no case"
        shows = f"; `lnbench list cases {' '.join(configs) or default}` shows what there is"
        raise NothingRun(found + (f"; its words are: {words_of(cases[0])}" if inline and cases else shows))
    for case in kept:
        if case.inputs:
            laws.draw(case)  # a file that does not fit the case is said before anything runs
    return kept


def _once(cases: Iterable[Case]) -> list[Case]:
    return list(dict.fromkeys(cases))


def words_of(case: Case) -> str:
    """What `-k` looks into: name, key, operator, dtype, laws, layouts, passes and attributes of a case."""
    laws = [case.law] if isinstance(case.law, str) else [f"{k}={v}" for k, v in case.law]
    layouts = {case.layout, case.dy_layout, case.gamma_layout, case.out_layout}
    own = [f"{k}={v}" for k, v in case.attributes]
    more = [case.passes, f"epsilon={case.epsilon:g}", f"axis={case.axis}", f"threads={case.threads}", case.alias or ""]
    return " ".join([case.name, case.key, case.op, case.dtype, case.affine_dtype, *laws, *sorted(layouts), *own, *more])


def integers(text: str, option: str) -> tuple[int, ...]:
    """ "1,2,8" as a tuple."""
    try:
        return tuple(int(part) for part in text.replace("x", ",").strip("[]()").split(",") if part.strip())
    except ValueError:
        raise UsageError(f"{option} {text!r} is not a list of integers; write for example {option} 1,2") from None
