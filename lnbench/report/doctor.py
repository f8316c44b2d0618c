"""What `lnbench doctor` shows: the machine, its memory ceilings as table and chart, its noise, its backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from lnbench.machine import Ceilings, Installed
from lnbench.machine.bandwidth import Measurement
from lnbench.report.console import styled, table

BAR = 40
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def facts(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and value of what describes the machine; what is unknown is left out."""
    shared = [
        f"L{c['level']} {size(c['bytes'])}" + (f" for {c['shared']}" if c["shared"] > 1 else "")
        for c in environment["caches"]
    ]
    quota, limit = environment["cpu_quota"], environment["memory_limit_bytes"]
    limits = [f"{quota:g} processors"] if quota else []
    limits += [size(limit)] if limit else []
    rows = [
        ("processor", environment["cpu"]),
        ("processors", f"{environment['processors']} usable, {environment['cores'] or '?'} cores"),
        ("instruction sets", " ".join(environment["isa"])),
        ("caches", ", ".join(shared)),
        ("memory", f"{size(environment['memory_bytes'])}, {size(environment['memory_available_bytes'])} available"),
        ("container limits", ", ".join(limits)),
        ("governor", environment["governor"]),
        ("turbo", {True: "on", False: "off"}.get(environment["turbo"])),
        ("kind", " ".join(w for w in ("virtual machine", "container") if environment[w.split()[0]])),
        ("system", environment["os"]),
        ("load", ", ".join(f"{v:.2f}" for v in environment["load"])),
        ("versions", ", ".join(f"{k} {v}" for k, v in environment["versions"].items())),
    ]  # fmt: skip
    return [(name, str(value)) for name, value in rows if value]


def size(count: float) -> str:
    """Bytes for people: 32 KiB, 1.5 GiB."""
    value, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while value >= 1024 and len(units) > 1:
        value /= 1024
        units.pop(0)
    return f"{value:.4g} {units[0]}"


def ceilings_table(found: Ceilings) -> RenderableType:
    """GB/s by working set and threads, one column per operation and kind of stores."""
    kinds = list(dict.fromkeys((p.operation, p.stores) for p in found.points))
    values = {(p.threads, p.bytes, p.operation, p.stores): p.gb_per_s for p in found.points}
    places = list(dict.fromkeys((p.threads, p.bytes) for p in found.points))
    columns = ["threads", "working set", *[f"{o}, {s}" for o, s in kinds]]
    rows = [[str(t), size(b), *[_gb(values.get((t, b, o, s))) for o, s in kinds]] for t, b in places]
    return table(columns, rows, right=columns, title="memory ceilings, GB/s (reads and writes counted)")


def _gb(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def ceilings_chart(found: Ceilings) -> list[str]:
    """A bar per working set and thread count: the better stores of the copy."""
    best: dict[tuple[int, int], Measurement] = {}
    for p in found.points:
        if p.operation == "copy" and p.gb_per_s > (
            best[p.threads, p.bytes].gb_per_s if (p.threads, p.bytes) in best else 0
        ):
            best[p.threads, p.bytes] = p
    most = max((p.gb_per_s for p in best.values()), default=1.0)
    heads = [f"copy, {p.threads} thread{'s' * (p.threads > 1)}, {size(p.bytes)}" for p in best.values()]
    width = max(map(len, heads), default=0)
    return [
        f"{head:<{width}}  {bar(p.gb_per_s / most)} {p.gb_per_s:.0f} GB/s"
        for head, p in zip(heads, best.values(), strict=True)
    ]


def bar(share: float, width: int = BAR) -> str:
    """A bar of `width` characters filled to `share`, in eighths of a character."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return (_EIGHTHS[8] * full + (_EIGHTHS[rest] if rest else "")).ljust(width)


def backends_table(found: Sequence[Installed]) -> RenderableType:
    """Name, state, version, and what is missing with the command that installs it."""
    style = {"installed": "PASSED", "missing": "SKIPPED", "broken": "FAILED"}
    rows = []
    for b in found:
        state = styled(b.state)
        state.stylize(styled(style[b.state]).style or "")
        rows.append([b.name, state, b.described.get("version", ""), b.reason or b.described.get("device", "")])
    return table(["backend", "state", "version", "about"], rows)
