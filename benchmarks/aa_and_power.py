"""How often does `lnbench bench` cry wolf, and how often does it miss? A/A runs and planted slowdowns, also under load.

    python benchmarks/aa_and_power.py --load 0 --load 2 --output results/aa      # 400 A/A, 200 of 3 %, 200 of 5 %, twice
    python benchmarks/aa_and_power.py --load 0 --minutes 10 --output results/aa  # as far as ten minutes go
    python benchmarks/aa_and_power.py --report --output results/aa

A run is a whole benchmark of one backend against itself: fresh processes in each epoch, half of the four sides normalise
(1 + delta) times the rows. It gives two trials of identical sides and two of different ones; the two of a kind share no
process. Trials go to OUTPUT/trials.csv as they are known; started again, the script goes on where it stopped. The table
goes to docs/measurement.md.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path

import pages

from lnbench import machine
from lnbench.bench.lock import machine_lock
from lnbench.bench.selfcheck import CASE, PLAN, Rate, Summary, Trial, quartet, summarise
from lnbench.bench.world import World
from lnbench.verify.right import Right

Rows = list[dict[str, str]]
PLACE = ("load", "backend", "planted", "seed", "delta", "pair")
COLUMNS = (*PLACE, *(f.name for f in fields(Trial) if f.name not in PLACE))
HEAD = (
    "busy processes", "planted", "trials", "interval excludes 1", "found slower", "beyond the 2 % margin",
    "interval holds the truth", "bias", "timed a side", "time a trial",
)  # fmt: skip
# What is promised: (planted, what is counted, the least or most share allowed, limit of the exact interval for A/A).
MOST_FALSE, MOST_FALSE_LIMIT = 0.05, 0.08
FOUND = {0.03: 0.90, 0.05: 0.99}
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


def finished(path: Path) -> Rows:
    """The rows of an earlier run of this script, each trial once; a last line that was cut off is left out."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("seconds")]
    return list({tuple(row[n] for n in PLACE): row for row in rows}.values())


def plan(args: argparse.Namespace) -> list[tuple[float, int]]:
    """(delta, seed) of every run, the deltas in turn, so that an interrupted experiment is balanced."""
    runs = max(math.ceil(args.planted / 2), math.ceil(args.aa / 2 / len(args.plant)))
    return [(delta, seed) for seed in range(runs) for delta in args.plant]


def measure(args: argparse.Namespace, path: Path) -> None:
    """Runs what is missing, at most for the minutes given, which the loads share."""
    done = Counter((int(r["load"]), r["backend"], float(r["planted"]), int(r["seed"])) for r in finished(path))
    world, began, is_new = World(Right()), time.monotonic(), not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if is_new:
            writer.writeheader()
        for number, load in enumerate(args.load, 1):
            end = began + 60 * args.minutes * number / len(args.load)
            with busy(load):
                for delta, seed in plan(args):
                    if done[load, args.backend, delta, seed] == 4:
                        continue
                    if time.monotonic() > end:
                        break
                    found = quartet(world, args.backend, delta, seed)
                    place = {"load": load, "backend": args.backend, "planted": delta}
                    writer.writerows({**place, "pair": i % 2, **asdict(t)} for i, t in enumerate(found))
                    file.flush()
                    took = sum(t.seconds for t in found)
                    words = " ".join(f"{t.delta:g}:{t.low:.3f}-{t.high:.3f}" for t in found)
                    print(f"load {load} planted {delta:g} seed {seed}: {words} in {took:.1f} s", flush=True)


def summaries(rows: Rows) -> list[tuple[int, Summary]]:
    """One summary for every load and delta."""
    groups: dict[tuple[int, float], list[Trial]] = {}
    for row in rows:
        numbers = {n: float(row[n]) for n in ("delta", "ratio", "low", "high", "measured", "seconds")}
        one = Trial(seed=int(row["seed"]), verdict=row["verdict"], **numbers)
        groups.setdefault((int(row["load"]), one.delta), []).append(one)
    return [(load, summarise(group, delta)) for (load, delta), group in sorted(groups.items())]


def kept(s: Summary) -> str:
    """Whether what is promised about a rate holds, in words; empty where nothing is promised."""
    if s.delta == 0:
        limit = s.different.interval[1]
        holds = s.different.value <= MOST_FALSE and limit <= MOST_FALSE_LIMIT
        return f"at most 5 % false alarms, upper limit at most 8 %: {'yes' if holds else 'no'}"
    wanted = FOUND.get(s.delta)
    return (
        "" if wanted is None else f"at least {100 * wanted:.0f} % found: {'yes' if s.slower.value >= wanted else 'no'}"
    )


def table(rows: Rows) -> str:
    """The table in Markdown, under a line that says on which machine, and what of the promises holds."""
    facts = machine.environment()
    shape = "x".join(map(str, CASE.shape))
    backends = ", ".join(sorted({r["backend"] for r in rows}))
    lines = [
        f"Machine: {facts['cpu']}, {facts['processors']} processors{', virtual' if facts['virtual'] else ''}. Backend "
        f"{backends}, {CASE.op} {shape} {CASE.dtype}, {PLAN.pilot} epochs of {PLAN.rounds} rounds.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + " --- |" * len(HEAD),
    ]  # fmt: skip
    found = summaries(rows)
    for load, s in found:
        bias = "" if math.isnan(s.bias) else f"{100 * s.bias:+.2f} %"
        rates: list[Rate] = [s.different, s.slower, s.claims, s.covered]
        cells = [load, f"{100 * s.delta:g} %", s.different.trials, *rates]
        cells += [bias, f"{s.measured:.2f} s", f"{s.seconds:.1f} s"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    promises = [
        f"- {load} busy processes, planted {100 * s.delta:g} %: {text}" for load, s in found if (text := kept(s))
    ]
    return "\n".join([*lines, "", *promises]) + "\n"


def arguments() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aa", type=int, default=400, help="trials of identical sides at each load (default: 400)")
    parser.add_argument("--planted", type=int, default=200, help="trials of each slowdown at each load (default: 200)")
    parser.add_argument("--plant", type=float, nargs="+", default=[0.03, 0.05], help="slowdowns (default: 0.03 0.05)")
    parser.add_argument(
        "--load", type=int, action="append", help="busy processes beside it; repeatable (default: 0, 2)"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after so many minutes, all loads together"
    )
    parser.add_argument("--backend", default="native")
    parser.add_argument("--output", type=Path, default=Path("results/aa"))
    parser.add_argument("--report", action="store_true", help="write the table from what is there and stop")
    args = parser.parse_args()
    args.load = args.load or [0, 2]
    return args


def main() -> None:
    args = arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "trials.csv"
    # Workers start in half the time when compiled modules are kept, wherever the environment forbids it.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    try:
        if not args.report:
            with machine_lock():
                measure(args, path)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
    text = table(finished(path))
    print(text)
    pages.put(pages.DOCS / "measurement.md", "error rates", text)


if __name__ == "__main__":
    main()
