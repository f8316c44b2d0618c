"""What `lnbench doctor` shows: the machine, its memory ceilings as table and chart, its noise, its backends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from lnbench.machine import Ceilings, Installed
from lnbench.report.console import styled, table

# Of a column of the chart: lines, and characters with the two that keep columns apart.
HEIGHT, WIDTH = 5, 5
_EIGHTHS = " ▁▂▃▄▅▆▇█"


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
    columns = ["threads", "working set", *[o if o == "read" else f"{o}, {s}" for o, s in kinds]]
    rows = [[str(t), size(b), *[_gb(values.get((t, b, o, s))) for o, s in kinds]] for t, b in places]
    return table(columns, rows, right=columns, title="memory ceilings, GB/s (reads and writes counted)")


def _gb(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def ceilings_chart(found: Ceilings) -> list[str]:
    """For each thread count, a column per working set as high as its copy with the better stores; one scale for all."""
    best: dict[int, dict[int, float]] = {}
    for p in found.points:
        if p.operation == "copy":
            of_count = best.setdefault(p.threads, {})
            of_count[p.bytes] = max(p.gb_per_s, of_count.get(p.bytes, 0.0))
    most = max((speed for of_count in best.values() for speed in of_count.values()), default=1.0)
    lines: list[str] = []
    for threads, of_count in sorted(best.items()):
        lines += ["", f"copy, {threads} thread{'s' * (threads > 1)}, GB/s by working set"]
        lines += _columns([of_count[b] / most for b in sorted(of_count)])
        lines += ["".join(f"{of_count[b]:>{WIDTH}.{'0' if of_count[b] >= 10 else '1'}f}" for b in sorted(of_count))]
        lines += ["".join(f"{_short(b):>{WIDTH}}" for b in sorted(of_count))]
    return lines[1:]


def _columns(shares: Sequence[float]) -> list[str]:
    """Columns of HEIGHT lines, each filled from below to its share in eighths of a line; the top line first."""
    heights = [max(1, round(share * HEIGHT * 8)) for share in shares]
    return [
        "".join(f"{_EIGHTHS[max(0, min(8, height - 8 * line))] * (WIDTH - 2):>{WIDTH}}" for height in heights).rstrip()
        for line in reversed(range(HEIGHT))
    ]


def _short(count: int) -> str:
    """Bytes in few letters: 32K, 2M."""
    return size(count).replace(" ", "").removesuffix("iB")


def backends_table(found: Sequence[Installed]) -> RenderableType:
    """Name, state, version, and what is missing with the command that installs it."""
    style = {"installed": "PASSED", "missing": "SKIPPED", "broken": "FAILED"}
    rows = []
    for b in found:
        state = styled(b.state)
        state.stylize(styled(style[b.state]).style or "")
        rows.append([b.name, state, b.described.get("version", ""), b.reason or b.described.get("device", "")])
    return table(["backend", "state", "version", "about"], rows)
