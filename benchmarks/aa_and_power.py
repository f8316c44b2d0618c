"""How often does `lnbench bench` cry wolf, and how often does it miss? A/A runs and planted slowdowns, also under load.

    python benchmarks/aa_and_power.py --runs 400 --load 0 --load 2 --output results/aa
    python benchmarks/aa_and_power.py --report --output results/aa       # only the table

Every run is a whole benchmark of one backend against itself: fresh processes per epoch, one side normalises
(1 + delta) times the rows. Rows go to OUTPUT/trials.csv as they are known; started again, the script goes on where it
stopped. OUTPUT/table.md holds the table of docs/measurement.md.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

from lnbench import machine
from lnbench.bench.lock import machine_lock
from lnbench.bench.selfcheck import CASE, PLAN, Summary, Trial, summarise, trial
from lnbench.bench.world import World
from lnbench.verify.right import Right

COLUMNS = ("load", "backend", *(f.name for f in fields(Trial)))
HEAD = (
    "busy processes", "backend", "planted", "runs", "interval excludes 1", "beyond the 2 % margin", "found slower",
    "interval holds the truth", "bias", "timed a side", "a run",
)  # fmt: skip
_BUSY = "x = 1.0\nwhile True:\n    x = x * 1.0000001 % 7"


@contextmanager
def busy(count: int) -> Iterator[None]:
    """`count` processes that compute without end, meanwhile."""
    started = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(count)]
    try:
        if count:
            time.sleep(0.5)
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def finished(path: Path) -> list[dict[str, str]]:
    """The rows of an earlier run of this script."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row.get("seconds")]


def measure(args: argparse.Namespace, path: Path) -> None:
    """Runs what is missing, the deltas in turn, so that an interrupted experiment is balanced."""
    done = {(int(r["load"]), r["backend"], float(r["delta"]), int(r["seed"])) for r in finished(path)}
    deltas = [0.0, *args.plant]
    world = World(Right())
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        for load in args.load:
            with busy(load):
                for seed in range(args.runs):
                    for delta in deltas:
                        enough = delta > 0 and seed >= args.planted_runs
                        if enough or (load, args.backend, delta, seed) in done:
                            continue
                        found = trial(world, args.backend, delta, seed)
                        writer.writerow({"load": load, "backend": args.backend, **asdict(found)})
                        file.flush()
                        print(
                            f"load {load} delta {delta:g} seed {seed}: {found.low:.4f} to {found.high:.4f}", flush=True
                        )


def summaries(rows: Iterable[dict[str, str]]) -> list[tuple[int, str, Summary]]:
    """One summary for every load, backend and delta."""
    groups: dict[tuple[int, str, float], list[Trial]] = {}
    for row in rows:
        values = {f.name: row[f.name] for f in fields(Trial)}
        one = Trial(
            delta=float(values["delta"]), seed=int(values["seed"]), verdict=values["verdict"],
            **{n: float(values[n]) for n in ("ratio", "low", "high", "measured", "seconds")},
        )  # fmt: skip
        groups.setdefault((int(row["load"]), row["backend"], one.delta), []).append(one)
    return [(load, backend, summarise(group, delta)) for (load, backend, delta), group in sorted(groups.items())]


def table(rows: Iterable[dict[str, str]]) -> str:
    """The table in Markdown, under a line that says on which machine."""
    facts = f"{machine.environment().get('cpu_model', '')}, {os.cpu_count()} processors".lstrip(", ")
    shape = "x".join(map(str, CASE.shape))
    lines = [
        f"Machine: {facts}. Case: {CASE.op} {shape} {CASE.dtype}, {PLAN.pilot} epochs of {PLAN.rounds} rounds.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + " --- |" * len(HEAD),
    ]  # fmt: skip
    for load, backend, s in summaries(rows):
        bias = "" if math.isnan(s.bias) else f"{100 * s.bias:+.2f} %"
        rates = [str(r) for r in (s.different, s.claims, s.slower, s.covered)]
        cells = [
            load,
            backend,
            f"{100 * s.delta:g} %",
            s.different.trials,
            *rates,
            bias,
            f"{s.measured:.2f} s",
            f"{s.seconds:.1f} s",
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="A/A runs at each load")
    parser.add_argument("--planted-runs", type=int, default=100, help="runs for each planted slowdown at each load")
    parser.add_argument("--plant", type=float, nargs="*", default=[0.01, 0.03, 0.05], help="planted slowdowns")
    parser.add_argument(
        "--load", type=int, action="append", help="busy processes beside it; may be repeated (default 0, 2)"
    )
    parser.add_argument("--backend", default="native")
    parser.add_argument("--output", type=Path, default=Path("results/aa"))
    parser.add_argument("--report", action="store_true", help="write the table from what is there and stop")
    args = parser.parse_args()
    args.load = args.load or [0, 2]
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "trials.csv"
    try:
        if not args.report:
            with machine_lock():
                measure(args, path)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
    text = table(finished(path))
    (args.output / "table.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
