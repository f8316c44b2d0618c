"""Time budgets on a fake clock: kept, spent where something is left to find, and shared between small and large items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from lnbench.bench.budget import Budget, Need, Spent
from lnbench.bench.crew import Circumstances
from lnbench.bench.outcome import Listener, Outcome
from lnbench.bench.record import Block, Contender, Item, Word
from lnbench.bench.runner import run
from lnbench.bench.stopping import Plan, least_rounds, plan_of
from lnbench.bench.verdicts import Rules
from lnbench.case import Case

Make = Callable[..., Any]
SIZES = (1, 4, 16, 64, 256)  # KiB of x; what they cost is the laboratory's to say
A, B = ("a", "forward", "hot"), ("b", "forward", "hot")


def ladder(sizes: Sequence[int] = SIZES, passes: Sequence[str] = ("forward", "backward")) -> list[Item]:
    return [Item(Case(shape=(n * 8, 32), name=f"rows-{n}"), p) for n in sizes for p in passes]


def go(lab: Any, problem: Sequence[Item], plan: Plan, *, gate: bool = False) -> tuple[Outcome, list[Block]]:
    blocks: list[Block] = []
    names = list(lab.scripts)
    rules = Rules(plan=plan, baseline=names[0], gate=gate)
    sides = [Contender(n, n) for n in names]
    found = run(problem, sides, rules, Circumstances(seed=1), lab.world, listener=Listener(on_block=blocks.append))
    return found, blocks


def costly(lab: Any) -> Any:
    """A laboratory in which an epoch of the largest item takes a second and its first one three."""
    largest = SIZES[-1] << 10
    lab.preparing, lab.judging, lab.drawing = 0.4 / largest, 0.5 / largest, 0.3 / largest
    return lab


def not_measured(found: Outcome) -> list[str]:
    return [r.item.label for r in found.rows if r.seconds is None]


@pytest.mark.parametrize("sides", [1, 2, 4])
def test_small_and_large_items_all_get_their_epochs_where_the_budget_suffices(
    lab: Make, script: Make, sides: int
) -> None:
    scripts = {name: script(process=0.001, noise=0.01) for name in "abcd"[:sides]}
    budget = 60.0 * sides
    found, blocks = go(costly(lab(**scripts)), ladder(), plan_of(epochs=None, margin=0.02, budget=budget, rounds=None))
    assert not_measured(found) == [] and min(r.epochs for r in found.rows) >= 8
    assert not [r for r in found.rows if r.verdict is Word.UNRESOLVED and "time" in r.reason]
    assert found.seconds <= 1.1 * budget
    assert min(b.rounds for b in blocks) >= 2


def test_costs_of_small_items_do_not_keep_large_ones_from_being_measured(lab: Make, script: Make) -> None:
    """A start and an audit of 0.2 s for an item of 1 KiB must not foretell minutes for a large one."""
    made = costly(lab(a=script(start=1.0, call_ns=300_000)))
    found, _ = go(made, ladder(), plan_of(epochs=3, margin=0.02, budget=40.0, rounds=None))
    assert not_measured(found) == [] and {r.epochs for r in found.rows} == {3}


@pytest.mark.parametrize("budget", [10.0, 25.0])
@pytest.mark.parametrize("gate", [False, True])
def test_an_unresolved_run_spends_its_budget_and_no_more_than_a_tenth_beyond(
    lab: Make, script: Make, budget: float, gate: bool
) -> None:
    noisy = {"process": 0.05, "noise": 0.02}
    made = costly(lab(a=script(**noisy), b=script(**noisy), c=script(**noisy)))
    found, _ = go(made, ladder(), plan_of(epochs=None, margin=0.02, budget=budget, rounds=None), gate=gate)
    assert Word.UNRESOLVED in {r.verdict for r in found.rows}
    assert 0.85 * budget <= found.seconds <= 1.1 * budget


def test_where_not_all_can_have_all_epochs_the_cheap_items_have_theirs(lab: Make, script: Make) -> None:
    noisy = {"process": 0.001, "noise": 0.01}
    made = costly(lab(a=script(**noisy), b=script(**noisy)))
    found, _ = go(made, ladder(), plan_of(epochs=None, margin=0.02, budget=20.0, rounds=None))
    epochs = {r.item.label: r.epochs for r in found.rows}
    assert min(n for label, n in epochs.items() if label.split()[0] in ("rows-1", "rows-4", "rows-16", "rows-64")) >= 8
    assert not_measured(found) == [] and found.seconds <= 22


def test_an_epoch_takes_as_many_rounds_as_its_price_is_worth(lab: Make, script: Make) -> None:
    made = lab(a=script(noise=0.01, start=0.2), b=script(noise=0.01, start=0.2))
    _, blocks = go(made, ladder((1,)), plan_of(epochs=8, margin=0.02, budget=None, rounds=None))
    assert min(b.rounds for b in blocks if b.epoch > 0) >= 16
    made = lab(a=script(noise=0.01, start=0.2))
    _, alone = go(made, ladder((1, 4)), plan_of(epochs=None, margin=0.02, budget=5.0, rounds=None))
    assert min(b.rounds for b in alone) >= 8


def test_the_fewest_rounds_are_whole_squares_and_a_share_of_the_price() -> None:
    assert least_rounds(2, cost=0.001, fixed=0.040) == 10
    assert least_rounds(3, cost=1.0, fixed=0.1) == 3
    assert least_rounds(2, cost=0.0, fixed=0.1) == 2


def test_a_number_of_epochs_that_was_asked_for_is_kept_and_a_budget_allows_more_than_none() -> None:
    assert plan_of(epochs=5, margin=0.02, budget=60.0, rounds=None).most_epochs == 5
    free, bound = (plan_of(epochs=None, margin=0.02, budget=b, rounds=None).most_epochs for b in (None, 60.0))
    assert free < bound


def test_an_unknown_item_is_foretold_by_those_of_its_size() -> None:
    budget = Budget(60.0, 0.0)
    budget.note(A, 1 << 10, Spent(once=0.2, fixed=0.1))
    budget.note(("c", "forward", "hot"), 1 << 20, Spent(once=0.4, fixed=0.6))
    assert budget.longest(B, 1 << 10) == pytest.approx(1.0)  # the longest of its neighbours
    for number in range(3):
        budget.note((f"small-{number}", "forward", "hot"), 1 << 12, Spent(fixed=0.2))
    assert budget.longest(B, 1 << 12) == pytest.approx(0.3)
    assert budget.longest(B, 1 << 22) == pytest.approx(64 * 0.3)  # two of the nearest are small
    budget.note(("d", "backward", "hot"), 1 << 22, Spent(fixed=9.0))
    assert budget.longest(B, 1 << 22) == pytest.approx(64 * 0.3)  # another pass says nothing
    assert budget.longest(("e", "backward", "hot"), 1 << 22) == pytest.approx(9.0)


def test_judging_counts_once_unless_it_comes_again() -> None:
    budget = Budget(60.0, 0.0)
    budget.note(A, 1 << 20, Spent(judged=5.0, fixed=1.0))
    assert budget.fixed(A) == 1.0 and budget.longest(A, 1 << 20) == 6.0
    budget.note(A, 1 << 20, Spent(judged=4.0, fixed=1.0))
    assert budget.fixed(A) == 5.0


def test_rounds_shrink_for_all_alike_when_the_time_is_short() -> None:
    budget = Budget(10.0, 0.0)
    for key in (A, B):
        budget.note(key, 1 << 20, Spent(fixed=0.1, sampling=0.1, rounds=10))
    needs = [Need(A, 1 << 20, 8, least=2, wanted=32), Need(B, 1 << 20, 8, least=2, wanted=32)]
    assert budget.rounds(needs[0], needs, 100.0, 2) == 32
    assert budget.rounds(needs[0], needs, 4.0, 2) == 12
    assert budget.rounds(needs[0], needs, 1.0, 2) == 2
