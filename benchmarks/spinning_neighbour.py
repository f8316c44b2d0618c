"""Does a backend whose threads spin between calls slow its neighbour? Its time beside a spinner against that without.

    python benchmarks/spinning_neighbour.py --spinner torch --pairs 10

Each pair is two whole benchmarks of the neighbour and its twin, one with the spinner as a third backend; compared is
the neighbour's time. Chance is in the interval; pairs alternate in order.
"""

from __future__ import annotations

import argparse
import math

from lnbench.bench import statistics
from lnbench.bench.crew import Circumstances
from lnbench.bench.lock import machine_lock
from lnbench.bench.record import Contender, Item
from lnbench.bench.runner import run
from lnbench.bench.stopping import Plan
from lnbench.bench.verdicts import Rules
from lnbench.bench.world import World
from lnbench.case import Case
from lnbench.verify.right import Right


def seconds(args: argparse.Namespace, seed: int, *, beside: bool) -> float:
    """The neighbour's time of a call, with or without the spinner in the same rounds."""
    sides = [Contender("neighbour", args.neighbour), Contender("twin", args.neighbour)]
    if beside:
        sides.append(Contender("spinner", args.spinner))
    case = Case(shape=(1000, 128), passes="forward", threads=args.threads)
    plan = Plan(pilot=4, most_epochs=4, rounds=12)
    how = Circumstances(seed=seed, freeze=args.freeze, audit=False)
    rows = run([Item(case, "forward")], sides, Rules(plan=plan, baseline="neighbour"), how, World(Right())).rows
    found = rows[0].seconds
    if found is None:
        raise SystemExit(f"the neighbour has no timing: {rows[0].reason}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spinner", default="torch")
    parser.add_argument("--neighbour", default="native")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--freeze", action="store_true")
    args = parser.parse_args()
    ratios = []
    with machine_lock():
        for number in range(args.pairs):
            order = (True, False) if number % 2 else (False, True)
            time = {beside: seconds(args, number, beside=beside) for beside in order}
            ratios.append(math.log(time[True] / time[False]))
            print(f"pair {number}: {100 * math.expm1(ratios[-1]):+.2f} %", flush=True)
    e = statistics.estimate(ratios)
    low, high = (100 * math.expm1(v) for v in (e.low, e.high))
    change = f"{100 * (e.ratio - 1):+.2f} % ({low:+.2f} to {high:+.2f} %)"
    print(f"{args.spinner} changes the time of {args.neighbour} by {change}")


if __name__ == "__main__":
    main()
