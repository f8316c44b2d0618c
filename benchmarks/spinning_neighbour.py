"""Does a backend whose threads spin after a call slow what is measured next? Samples right after it against others.

    python benchmarks/spinning_neighbour.py                               # benchmarks/spinner.py, one thread
    python benchmarks/spinning_neighbour.py --unprotected --epochs 8      # the harm without the wait for silence
    python benchmarks/spinning_neighbour.py --spinner torch --threads 2

Two copies of a neighbour are measured in rounds with the spinner, whose thread pool spins for some milliseconds after each
call (OpenMP's is told to). A copy's samples that come right after the spinner's are compared with those after the other
copy's, in the same process and the same rounds; the interval is over epochs. `--unprotected` leaves out the wait for
silence.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

from lnbench.bench import quiet, statistics
from lnbench.bench.crew import Circumstances
from lnbench.bench.lock import machine_lock
from lnbench.bench.outcome import Listener
from lnbench.bench.record import Block, Contender, Item
from lnbench.bench.runner import run
from lnbench.bench.stopping import Plan
from lnbench.bench.verdicts import Rules
from lnbench.bench.world import World
from lnbench.case import Case
from lnbench.verify.right import Right

COPIES = ("neighbour", "twin")
# Longer than a sample and shorter than a round: what comes right after the spinner is hit and the rest is not.
SPINNING = {"OMP_WAIT_POLICY": "active", "GOMP_SPINCOUNT": "1000000", "KMP_BLOCKTIME": "3"}


def measure(args: argparse.Namespace) -> list[Block]:
    """All blocks of a benchmark of the spinner beside two copies of the neighbour."""
    blocks: list[Block] = []
    sides = [*(Contender(name, args.neighbour) for name in COPIES)]
    sides.append(Contender("spinner", args.spinner, tuple(SPINNING.items())))
    # Two threads of torch share a tensor of more than 32768 elements.
    case = Case(shape=(1000, 32 if args.threads == 1 else 128), passes="forward", threads=args.threads)
    plan = Plan(pilot=args.epochs, most_epochs=args.epochs, rounds=args.rounds)
    how = Circumstances(seed=args.seed, freeze=args.freeze, audit=False)
    rules, heard = Rules(plan=plan, baseline=COPIES[0]), Listener(on_block=blocks.append)
    rows = run([Item(case, "forward")], sides, rules, how, World(Right()), listener=heard).rows
    for row in rows:
        if row.seconds is None:
            raise SystemExit(f"{row.backend} has no timing: {row.reason}")
    return blocks


def slowdowns(blocks: Iterable[Block]) -> list[float]:
    """For each epoch, how much longer (log) a copy's samples take after the spinner's than after the other copy's."""
    found = []
    for block in blocks:
        order = sorted(block.timings, key=lambda t: (t.round, t.slot))
        for name in COPIES:
            after: dict[bool, list[float]] = {True: [], False: []}
            for before, timing in pairwise(order):
                if timing.backend == name and before.backend != name:
                    after[before.backend == "spinner"].append(timing.seconds)
            found.append(statistics.log_quantile(after[True], 0.5) - statistics.log_quantile(after[False], 0.5))
    return [(one + other) / 2 for one, other in zip(found[::2], found[1::2], strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spinner", default=str(Path(__file__).with_name("spinner.py")))
    parser.add_argument("--neighbour", default="native")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--freeze", action="store_true")
    parser.add_argument("--unprotected", action="store_true")
    args = parser.parse_args()
    if args.unprotected:
        quiet.settle = lambda lane, world, patience=0.0: None
    with machine_lock():
        e = statistics.estimate(slowdowns(measure(args)))
    low, high = (100 * math.expm1(v) for v in (e.low, e.high))
    change = f"{100 * (e.ratio - 1):+.2f} % ({low:+.2f} to {high:+.2f} %, {e.epochs} epochs)"
    print(f"samples of {args.neighbour} right after {Path(args.spinner).name} take {change} longer than others")


if __name__ == "__main__":
    main()
