"""What may be claimed from which intervals, and what many comparisons take away. Built from blocks; nothing runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from lnbench.bench import verdicts
from lnbench.bench.outcome import Outcome
from lnbench.bench.record import (
    RETEST,
    SCREEN,
    Block,
    Contender,
    Fault,
    Item,
    Row,
    Timing,
    Word,
    blocks_of,
    sample_cells,
    timing_cells,
)
from lnbench.bench.stopping import Plan, epochs_wanted, first_rounds, rounds_for
from lnbench.bench.verdicts import Evidence, Rules, claim
from lnbench.case import Case
from lnbench.errors import Exit, worst

L = math.log(1.02)
ITEM = Item(Case(shape=(4, 8)), "forward")


def block(epoch: int, ratios: dict[str, float], *, item: Item = ITEM, stage: int = SCREEN, rounds: int = 4) -> Block:
    """One epoch in which every backend takes 1 ms times its ratio, without noise inside."""
    timings = [
        Timing(name, r, slot, 10, round(1e7 * ratio), 10, 0, 10) for r in range(rounds)
        for slot, (name, ratio) in enumerate(ratios.items())
    ]  # fmt: skip
    return Block(item, stage, epoch, rounds, tuple(ratios), tuple(timings))


def evidence(
    ratios: Sequence[float] | np.ndarray, *, item: Item = ITEM, stage: int = SCREEN, into: Evidence | None = None
) -> Evidence:
    """Epochs in which backend b takes so much longer than a."""
    found = into or Evidence()
    for epoch, ratio in enumerate(ratios):
        found.add(block(epoch, {"a": 1.0, "b": ratio}, item=item, stage=stage))
    return found


def row(found: Evidence, **changes: object) -> Row:
    return verdicts.row_of(ITEM, "b", found, Rules(plan=Plan(), baseline="a", **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.03, 0.05, Word.SLOWER), (-0.05, -0.03, Word.FASTER), (-0.01, 0.01, Word.SAME), (0.005, 0.015, Word.SAME),
        (0.01, 0.03, Word.UNRESOLVED), (-0.05, 0.05, Word.UNRESOLVED), (-math.inf, math.inf, Word.UNRESOLVED),
    ],
)  # fmt: skip
def test_a_claim_needs_the_whole_interval(low: float, high: float, word: Word) -> None:
    assert claim(low, high, L) is word
    mirrored = {Word.SLOWER: Word.FASTER, Word.FASTER: Word.SLOWER}.get(word, word)
    assert claim(-high, -low, L) is mirrored


def test_a_claim_that_the_sign_flips_do_not_support_is_fragile() -> None:
    assert not row(evidence([1.10, 1.11, 1.09, 1.10, 1.10, 1.11, 1.09, 1.10])).fragile
    few = row(evidence([1.10, 1.11, 1.09, 1.10]))
    assert few.verdict is Word.SLOWER and few.fragile and "6 are needed" in few.reason


def test_a_difference_near_the_margin_is_unresolved_however_narrow_the_interval() -> None:
    found = row(evidence([1.019, 1.021, 1.020, 1.0205, 1.0195, 1.02, 1.0202, 1.0198]))
    assert found.verdict is Word.UNRESOLVED and "too close to the margin" in found.reason


def test_one_epoch_claims_nothing_and_writes_no_infinite_number() -> None:
    found = row(evidence([1.5]))
    assert found.verdict is Word.UNRESOLVED and "at least two" in found.reason
    assert all(not isinstance(v, float) or math.isfinite(v) for v in timing_cells(found).values())


def test_many_comparisons_need_more_than_one_lucky_interval() -> None:
    rng = np.random.default_rng(1)
    items = [Item(Case(shape=(4, 8), seed=s), "forward") for s in range(40)]
    found = Evidence()
    for item in items[1:]:
        evidence(np.exp(rng.normal(0, 0.001, 8)), item=item, into=found)
    weak = np.exp(np.array([0.0, 0.06, 0.03, 0.07, 0.05, 0.09, 0.05, 0.04]))
    evidence(weak, item=items[0], into=found)
    rules = Rules(plan=Plan(), baseline="a")
    contenders = [Contender("a", "a"), Contender("b", "b")]
    alone = verdicts.row_of(items[0], "b", found, rules)
    among = next(r for r in verdicts.judge(items, contenders, found, rules) if r.item == items[0] and r.backend == "b")
    assert alone.verdict is Word.SLOWER
    assert among.verdict is Word.UNRESOLVED and "among 40 comparisons" in among.reason
    assert verdicts.judge(items[:1], contenders, found, rules)[1].verdict is Word.SLOWER


def test_stage_two_alone_decides_about_suspects() -> None:
    sides = [Contender("a", "a"), Contender("b", "b")]
    rules = Rules(plan=Plan(), baseline="a", gate=True)
    looks_slow = [1.10, 1.11, 1.09, 1.10, 1.10, 1.11, 1.09, 1.10]
    found = evidence(looks_slow)
    waiting = verdicts.judge([ITEM], sides, found, rules)[1]
    assert waiting.verdict is Word.UNRESOLVED and "before a second measurement" in waiting.reason
    cleared = verdicts.judge([ITEM], sides, evidence([1.0, 1.001] * 4, stage=RETEST, into=evidence(looks_slow)), rules)
    assert cleared[1].verdict is Word.SAME
    kept = verdicts.judge([ITEM], sides, evidence([1.1, 1.101] * 4, stage=RETEST, into=evidence(looks_slow)), rules)
    assert kept[1].verdict is Word.SLOWER and kept[1].ratio == pytest.approx(1.1005, abs=1e-3)


def test_holm_over_the_suspects_may_clear_the_weakest() -> None:
    items = [Item(Case(shape=(4, 8), seed=s), "forward") for s in range(10)]
    found = Evidence()
    weak = np.exp(np.array([0.0, 0.06, 0.03, 0.07, 0.05, 0.09, 0.05, 0.04]))
    for item in items:
        evidence([1.1, 1.101] * 4, item=item, into=found)
        evidence(weak if item is items[0] else [1.1, 1.101] * 4, item=item, stage=RETEST, into=found)
    rules = Rules(plan=Plan(), baseline="a", gate=True)
    rows = verdicts.judge(items, [Contender("a", "a"), Contender("b", "b")], found, rules)
    words = {r.item.case.seed: r.verdict for r in rows if r.backend == "b"}
    # The weak one has p of about 0.04: as the last of ten in Holm's order it is compared with 5 % and stays.
    assert list(words.values()).count(Word.SLOWER) >= 9


def test_a_twin_that_differs_makes_the_machine_unfit_and_nothing_is_slower() -> None:
    rules = Rules(plan=Plan(), baseline="a")
    assert verdicts.unfit([ITEM], "b", evidence([1.0, 1.001, 0.999, 1.0] * 2), rules) is None
    reason = verdicts.unfit([ITEM], "b", evidence([1.1, 1.101] * 4), rules)
    assert reason is not None and "differs from its own copy by +10" in reason
    slow = row(evidence([1.1, 1.101] * 4))
    assert verdicts.without_slower([slow], reason)[0].verdict is Word.UNRESOLVED


def test_samples_survive_the_file_and_half_written_blocks_are_left_out() -> None:
    whole = block(0, {"a": 1.0, "path with spaces.py:b": 1.1})
    text = [{k: str(v) for k, v in cells.items()} for cells in sample_cells(whole)]
    [again] = blocks_of(text, [ITEM])
    assert again.timings == whole.timings and again.backends == whole.backends and again.rounds == 4
    assert blocks_of(text[:-1], [ITEM]) == []
    assert blocks_of([t for t in text if t["backend"] == "a"], [ITEM]) == []
    assert blocks_of(text, [Item(Case(shape=(9, 9)), "forward")]) == []


@pytest.mark.parametrize(
    ("rows", "fail_on", "code"),
    [
        ([Word.SAME], ["slower", "unresolved"], Exit.OK),
        ([Word.SLOWER], [], Exit.OK),
        ([Word.SLOWER], ["slower"], Exit.SLOWER),
        ([Word.UNRESOLVED], [], Exit.OK),
        ([Word.UNRESOLVED], ["unresolved"], Exit.UNRESOLVED),
        ([Word.SUSPECT], ["unresolved"], Exit.UNRESOLVED),
        ([Word.UNRESOLVED, Word.SLOWER], ["slower", "unresolved"], Exit.SLOWER),
        ([Word.INVALID, Word.SLOWER], ["slower"], Exit.FAILED),
        ([Word.SKIPPED], [], Exit.NOTHING_RUN),
        ([], [], Exit.NOTHING_RUN),
    ],
)
def test_exit_codes(rows: list[Word], fail_on: list[str], code: Exit) -> None:
    made = [Row(case=ITEM.case, pass_="forward", backend="b", baseline="a", verdict=word) for word in rows]
    assert worst(Outcome(made).exit_codes(fail_on)) is code


def test_a_crash_outranks_a_wrong_answer() -> None:
    common = {"case": ITEM.case, "pass_": "forward", "backend": "b", "baseline": "a", "verdict": Word.INVALID}
    made = [Row(**common, crashed=True), Row(**common)]  # type: ignore[arg-type]
    assert worst(Outcome(made).exit_codes()) is Exit.CRASHED


def test_a_fault_is_a_row_with_its_reason() -> None:
    found = Evidence(faults={(ITEM.key, "b"): Fault("was killed by SIGSEGV", crashed=True)})
    assert (row(found).verdict, row(found).crashed) == (Word.INVALID, True)


def test_epochs_follow_the_worst_spread_and_rounds_stay_whole_squares() -> None:
    plan = Plan()
    assert epochs_wanted([0.001], plan) == 8
    assert epochs_wanted([0.001, 0.03], plan) == epochs_wanted([0.03], plan) > 8
    assert epochs_wanted([], plan) == 8
    assert [first_rounds(n, plan) for n in (1, 2, 3, 5, 11)] == [8, 8, 9, 10, 11]
    assert first_rounds(2, plan, cost=10.0) == 2
    blocks = [block(e, {"a": 1.0, "b": 1.0 + 0.01 * e}) for e in range(4)]
    assert rounds_for(blocks, "a", [0.01], 2, plan, fixed=1.0, cost=0.001)[1] % 2 == 0
