"""Measures the native backend against its peers over the suite `ladder` and writes the tables of docs/native.md.

    python benchmarks/native_vs_peers.py --budget 120 --dtypes float32 --threads 1,2
    python benchmarks/native_vs_peers.py --budget 120 --dtypes float32 --part large --peers torch,onednn -- -k 8192x8192

Each group (dtype, threads, cache) is one run of `lnbench bench`: interleaved rounds, fresh processes, every result verified.
A group may be measured in parts, whose rows stand in one table. Peers that are not installed are left out and named.
`--report` writes the tables from the runs that are already there.
"""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path

import pages

ROOT = Path(__file__).resolve().parent.parent
PEERS = ("torch", "torch-compile", "onnxruntime", "jax", "onednn", "numpy")
Row = dict[str, str]


def installed(peers: Iterable[str]) -> list[str]:
    """The peers whose worker starts here."""
    from lnbench.errors import LnbenchError
    from lnbench.pool import Session

    found = []
    for peer in peers:
        try:
            with Session(peer) as session:
                print(f"{peer}: {dict(session.description.described).get('version', '?')}")
            found.append(peer)
        except LnbenchError as error:
            print(f"{peer}: left out, {error}")
    return found


def measure(folder: Path, backends: list[str], budget: int, rest: list[str]) -> None:
    """One run of `lnbench bench` into `folder`; what it measured stays whatever its exit code."""
    command = [sys.executable, "-m", "lnbench", "bench", "ladder", "--output", str(folder)]
    command += [word for b in backends for word in ("--backend", b)]
    command += ["--baseline", "native", "--time-budget", f"{budget}s", "--require", "any", *rest]
    print(" ".join(command[2:]), flush=True)
    subprocess.run(command, cwd=ROOT, check=False)


def rows_of(runs: Path) -> Iterator[tuple[str, Row]]:
    """(group, row) of every run below `runs`; parts of a group are one group."""
    for path in sorted(runs.glob("*/timings.csv")):
        with path.open(newline="") as file:
            yield from ((path.parent.name.partition("+")[0], row) for row in csv.DictReader(file))


def geomean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def tables(runs: Path) -> Iterator[str]:
    """Markdown tables: for each group and pass, native's time and how many times longer each peer takes, by size."""
    groups: dict[tuple[str, str], dict[str, dict[str, Row]]] = defaultdict(lambda: defaultdict(dict))
    for group, row in rows_of(runs):
        known = groups[group, row["pass"]][row["shape"]]
        if row.get("seconds") or row["backend"] not in known:  # a part without it must not hide one with it
            known[row["backend"]] = row
    for (group, pass_), shapes in groups.items():
        peers = [p for p in PEERS if any(p in row for row in shapes.values())]
        yield f"\n### {group.replace('-', ', ')}: {pass_}\n"
        yield "| shape | native | " + " | ".join(peers) + " |"
        yield "| --- |" + " ---: |" * (len(peers) + 1)
        for shape in sorted(shapes, key=_elements):
            yield _line(shape, shapes[shape], peers)
        means = [_geomean_of(shapes, p) for p in peers]
        yield "| **geomean** | | " + " | ".join(means) + " |"


def _elements(shape: str) -> int:
    return math.prod(map(int, shape.split("x")))


def _seconds(row: Row | None) -> float:
    return float(row["seconds"]) if row and row.get("seconds") else math.nan


def _ratio(row: Row | None) -> float:
    """How many times longer than native, over epochs; NaN where it was not measured."""
    return float(row["ratio"]) if row and row.get("ratio") else math.nan


def _line(shape: str, row: dict[str, Row], peers: list[str]) -> str:
    seconds = _seconds(row.get("native"))
    cells = [f"{seconds * 1e6:.3g} us" if seconds < 1e-3 else f"{seconds * 1e3:.3g} ms"]
    if math.isnan(seconds):
        cells = ["not measured"]
    cells += ["" if math.isnan(r) else f"{r:.2f}" for r in (_ratio(row.get(p)) for p in peers)]
    return f"| {shape} | " + " | ".join(cells) + " |"


def _geomean_of(shapes: dict[str, dict[str, Row]], peer: str) -> str:
    ratios = [r for r in (_ratio(row.get(peer)) for row in shapes.values()) if not math.isnan(r)]
    return f"**{geomean(ratios):.2f}**" if ratios else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=ROOT / "results" / "native-vs-peers", help="folder of the runs")
    parser.add_argument("--budget", type=int, default=300, help="seconds for each group")
    parser.add_argument("--dtypes", default="float32,float64,bfloat16,float16")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--caches", default="hot,cold")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--part", default="", help="names a part of each group, measured by a run of its own")
    parser.add_argument("--report", action="store_true", help="only write the tables of the runs that are there")
    parser.add_argument("rest", nargs="*", help="further options of `lnbench bench`, after --")
    given = parser.parse_args()
    if not given.report:
        backends = ["native", *installed(given.peers.split(","))]
        for dtype, threads, cache in product(
            given.dtypes.split(","), given.threads.split(","), given.caches.split(",")
        ):
            part = f"+{given.part}" if given.part else ""
            folder = given.runs / f"{dtype}-{threads} threads-{cache}{part}"
            if not folder.exists():
                options = ["--dtype", dtype, "--threads", threads, "--cache", cache, *given.rest]
                measure(folder, backends, given.budget, options)
    text = "\n".join(tables(given.runs))
    print(text)
    pages.put(pages.DOCS / "native.md", "measured", text)


if __name__ == "__main__":
    main()
