"""HTML as text that is safe by construction: a string becomes markup only here, and only escaped. Owns the style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

# Colours of statuses and verdicts: the words always stand beside them.
COLORS = {
    "PASSED": "#1a7f37",
    "UNSTABLE": "#9a6700",
    "FAILED": "#cf222e",
    "SKIPPED": "#6e7781",
    "CRASHED": "#8250df",
    "TIMEOUT": "#8250df",
    "ERROR": "#cf222e",
    "EMPTY": "#9a6700",
    "BASELINE": "#6e7781",
    "FASTER": "#1a7f37",
    "SAME": "#0550ae",
    "SLOWER": "#cf222e",
    "UNRESOLVED": "#9a6700",
    "SUSPECT": "#bc4c00",
    "INVALID": "#cf222e",
}

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2328; background: #fff; margin: 2rem auto; max-width: 80rem;
       padding: 0 1.5rem; }
h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; }
p.lead { font-size: 1.05rem; } p.note, td.note { color: #59636e; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th { text-align: left; font-weight: 600; border-bottom: 2px solid #d1d9e0; }
th, td { padding: .25rem .75rem .25rem 0; vertical-align: middle; white-space: nowrap; }
.facts td { white-space: normal; overflow-wrap: anywhere; } .none { color: #afb8c1; }
td { border-bottom: 1px solid #eff2f5; } tr.first td { border-top: 1px solid #d1d9e0; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
.word { font-weight: 600; font-size: .82rem; white-space: nowrap; }
.failure { border-left: 4px solid #cf222e; background: #f6f8fa; padding: .6rem 1rem; margin: .8rem 0; }
.failure p { margin: .2rem 0; overflow-wrap: anywhere; } .failure details { margin: .3rem 0; }
.failure summary { font-weight: 400; color: #59636e; }
pre { background: #eaeef2; padding: .5rem .7rem; margin: .5rem 0 .2rem; font-size: .82rem; white-space: pre-wrap;
      overflow-wrap: anywhere; }
svg { display: block; } svg text { font: 12px system-ui, sans-serif; fill: #1f2328; } svg text.axis { fill: #59636e; }
details { margin: 1rem 0; } summary { cursor: pointer; font-weight: 600; }
.legend span { margin-right: 1.2rem; white-space: nowrap; }
.legend b { display: inline-block; width: .75em; height: .75em; border-radius: 50%; margin-right: .35em; }
"""


class Markup(str):
    """Text that is HTML already."""


Child = Any  # a Markup, or anything else whose text is escaped; None is nothing


def element(name: str, *children: Child, **attributes: Any) -> Markup:
    """An element; `_` at the end of an attribute's name is dropped and within it becomes `-`, None leaves it out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{given}>{joined(children)}</{name}>")


def joined(children: Iterable[Child]) -> Markup:
    """Children one after the other."""
    return Markup("".join(c if isinstance(c, Markup) else escape(str(c)) for c in children if c is not None))


def word(status: str, text: str | None = None) -> Markup:
    """A status or verdict in its colour."""
    return element("span", text or status, class_="word", style=f"color:{COLORS.get(status, '#1f2328')}")


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    right: Iterable[str] = (),
    first: Iterable[int] = (),
) -> Markup:
    """A table. right: columns of numbers. first: numbers of the rows that begin a group."""
    numbers, begins = {i for i, c in enumerate(columns) if c in set(right)}, set(first)

    def cells(kind: str, line: Sequence[Child]) -> Markup:
        return joined(element(kind, c, class_="number" if i in numbers else None) for i, c in enumerate(line))

    head = element("thead", element("tr", cells("th", columns)))
    lines = [element("tr", cells("td", r), class_="first" if n in begins else None) for n, r in enumerate(rows)]
    return element("div", element("table", head, element("tbody", joined(lines))), class_="scroll")


def legend(colors: Mapping[str, str]) -> Markup:
    """What the colours of a plot mean."""
    return element("p", *[element("span", dot(color), name) for name, color in colors.items()], class_="legend")


def dot(color: str) -> Markup:
    return element("b", style=f"background:{color}")


def section(title: str, *children: Child) -> Markup:
    return joined([element("h2", title), *children, "\n"])


def details(title: str, *children: Child, is_open: bool = False) -> Markup:
    """Something that a person may want to unfold."""
    return element("details", element("summary", title), *children, open="" if is_open else None)


def facts(environment: Mapping[str, Any]) -> Markup:
    """How a run was made: settings and machine, folded."""
    parts = {k: v for k, v in environment.items() if not isinstance(v, Mapping)}
    for name in ("settings", "machine", "overhead"):
        own = environment.get(name)
        parts |= {f"{name}: {k}": v for k, v in own.items()} if isinstance(own, Mapping) else {}
    rows = [(k, _plain(v)) for k, v in parts.items() if v not in (None, "", [], {})]
    return details("Settings and machine", element("div", table(["", ""], rows), class_="facts"))


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, (list, tuple)) else str(value)


def page(title: str, *children: Child) -> str:
    """The whole document."""
    head = joined([
        Markup('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'),
        element("title", title),
        Markup(f"<style>{_STYLE}</style>"),
    ])  # fmt: skip
    body = element("html", element("head", head), "\n", element("body", *children), lang="en")
    return f"<!DOCTYPE html>\n{body}\n"
