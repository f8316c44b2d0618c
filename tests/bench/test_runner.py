"""Whole runs on fake backends with a fake clock: verdicts, cheats, budgets, interruptions. Nothing is timed."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lnbench.bench.crew import Circumstances, Crew
from lnbench.bench.outcome import Listener, Outcome
from lnbench.bench.record import RETEST, SCREEN, Block, Contender, Item, Row, Word
from lnbench.bench.runner import TWIN, run
from lnbench.bench.stopping import Plan
from lnbench.bench.verdicts import Rules
from lnbench.case import Case
from lnbench.errors import Exit, Unavailable

Lab = Callable[..., Any]
Make = Callable[..., Any]
ITEM = Item(Case(shape=(64, 8)), "forward")


def items(count: int) -> list[Item]:
    return [Item(Case(shape=(64, 8), seed=s, name=f"case-{s}"), "forward") for s in range(count)]


def go(lab: Any, problem: list[Item] | None = None, *, names: list[str] | None = None, **changes: Any) -> Outcome:
    """Runs all scripts of the laboratory; the first is the baseline unless `baseline` says otherwise."""
    names = names or list(lab.scripts)
    rules = Rules(
        plan=changes.pop("plan", Plan()),
        baseline=changes.pop("baseline", names[0]),
        gate=changes.pop("gate", False),
        traffic=lambda item: 2.0 * item.case.bytes,
        ceiling=changes.pop("ceiling", lambda item: None),
    )
    how = Circumstances(
        seed=changes.pop("seed", 1), freeze=changes.pop("freeze", False), is_placed=changes.pop("is_placed", True)
    )
    return run(problem or [ITEM], [Contender(n, n) for n in names], rules, how, lab.world, **changes)


def word(outcome: Outcome, backend: str) -> Word:
    return row(outcome, backend).verdict


def row(outcome: Outcome, backend: str) -> Row:
    return next(r for r in outcome.rows if r.backend == backend)


def test_differences_beyond_the_margin_are_claimed_and_equal_backends_are_the_same(lab: Lab, script: Make) -> None:
    noisy = {"process": 0.002, "noise": 0.01}
    found = go(
        lab(base=script(**noisy), twin=script(**noisy), slow=script(11_000, **noisy), fast=script(9_000, **noisy))
    )
    assert [r.verdict for r in found.rows] == [Word.BASELINE, Word.SAME, Word.SLOWER, Word.FASTER]
    slow = row(found, "slow")
    assert slow.ratio == pytest.approx(1.1, rel=0.01) and slow.low is not None and slow.high is not None
    assert slow.low < 1.1 < slow.high and slow.resolution is not None and slow.resolution < 0.02
    assert slow.seconds == pytest.approx(11e-6, rel=0.03) and slow.epochs == 8
    assert slow.seconds is not None and slow.gb_per_s == pytest.approx(2 * ITEM.case.bytes / slow.seconds * 1e-9)


def test_all_workers_of_an_epoch_run_on_the_same_processors_and_other_epochs_on_others(lab: Lab, script: Make) -> None:
    made = lab(a=script(), b=script(), c=script())
    go(made)
    epochs = [made.places[i : i + 3] for i in range(0, len(made.places), 3)]
    assert all(len(set(places)) == 1 and len(places[0]) == 1 for places in epochs)
    assert len({places[0] for places in epochs}) > 1
    free = lab(a=script(), b=script())
    go(free, is_placed=False)
    assert set(free.places) == {None}


def test_too_much_noise_is_unresolved_and_says_what_it_would_take(lab: Lab, script: Make) -> None:
    found = go(lab(a=script(process=0.2), b=script(process=0.2)), plan=Plan(most_epochs=8))
    unresolved = row(found, "b")
    assert unresolved.verdict is Word.UNRESOLVED
    assert "too wide for a margin of 2 %" in unresolved.reason and "s more would decide" in unresolved.reason
    assert unresolved.needs_seconds is not None and unresolved.needs_seconds > 0


def test_a_wider_spread_gets_more_epochs_up_to_the_most(lab: Lab, script: Make) -> None:
    quiet = go(lab(a=script(process=0.001), b=script(process=0.001)))
    loud = go(lab(a=script(process=0.012), b=script(process=0.012)))
    assert row(quiet, "b").epochs == 8
    assert 8 < row(loud, "b").epochs <= 24


def test_every_epoch_starts_fresh_workers_with_other_environments(lab: Lab, script: Make) -> None:
    made = lab(a=script(), b=script())
    go(made)
    assert len(made.sessions) == 16 and all(s.is_closed and s.open_handles == 0 for s in made.sessions)
    assert len({len(s.environment["LNBENCH_PADDING"]) for s in made.sessions}) > 10


@pytest.mark.parametrize(
    ("cheat", "word_", "says"),
    [
        ({"wrong": True}, Word.INVALID, "is wrong"),
        ({"stale": True}, Word.INVALID, "although its first call was right"),
        ({"lazy": True}, Word.INVALID, "although its first call was right"),
        ({"remembers": 20.0}, Word.SUSPECT, "answers are remembered"),
        ({"afterwards": 1.0, "call_ns": 5_000}, Word.SUSPECT, "work goes on after a call has ended"),
        ({"clock": 0.5}, Word.SUSPECT, "clock showed"),
        ({"collects": 0.001}, Word.SUSPECT, "work is left until then"),
        ({"processors": 2.0}, Word.SUSPECT, "2.0 processors"),
    ],
)
def test_no_cheat_wins(lab: Lab, script: Make, cheat: dict[str, Any], word_: Word, says: str) -> None:
    found = go(lab(honest=script(noise=0.01), cheat=script(**cheat)))
    assert word(found, "cheat") is word_
    assert says in row(found, "cheat").reason


def test_a_backend_that_declares_to_ignore_threads_is_not_suspected_of_using_them(lab: Lab, script: Make) -> None:
    from lnbench.backend import Facts

    found = go(lab(a=script(), b=script(processors=2.0, facts=Facts(threads="ignored"))))
    assert word(found, "b") is Word.SAME


def test_nothing_is_compared_with_a_suspect_baseline(lab: Lab, script: Make) -> None:
    found = go(lab(a=script(clock=0.5), b=script()))
    assert word(found, "a") is Word.SUSPECT and word(found, "b") is Word.UNRESOLVED
    assert "the baseline is suspect" in row(found, "b").reason


def test_a_timing_above_the_machines_ceiling_cannot_win(lab: Lab, script: Make) -> None:
    peak = 2 * ITEM.case.bytes / 8_000  # GB/s: what a call of 8 microseconds moves
    found = go(lab(a=script(10_000), b=script(7_000)), ceiling=lambda item: peak)
    assert word(found, "b") is Word.SUSPECT and "1.14 times what this machine can move" in row(found, "b").reason
    assert row(found, "a").ceiling == pytest.approx(0.8, rel=0.01)


def test_a_wrong_baseline_leaves_the_others_unresolved(lab: Lab, script: Make) -> None:
    found = go(lab(a=script(wrong=True), b=script()))
    assert word(found, "a") is Word.INVALID and word(found, "b") is Word.UNRESOLVED
    assert "the baseline has no timing" in row(found, "b").reason
    assert Exit.FAILED in found.exit_codes()


def test_crashes_hurt_nobody_else(lab: Lab, script: Make) -> None:
    made = lab(a=script(), dies=script(crash_after=20), b=script(), never=script(broken=True))
    found = go(made, items(3))
    assert {r.verdict for r in found.rows if r.backend in ("a", "b")} == {Word.BASELINE, Word.SAME}
    assert {r.verdict for r in found.rows if r.backend in ("dies", "never")} == {Word.INVALID}
    assert found.exit_codes() == {Exit.CRASHED}


def test_a_backend_that_is_not_installed_stops_the_run_before_anything_is_measured(lab: Lab, script: Make) -> None:
    made = lab(a=script(), b=script(unavailable=True))
    with pytest.raises(Unavailable):
        go(made)
    assert made.order == [] and all(s.is_closed for s in made.sessions)


def test_what_a_backend_cannot_do_is_skipped_with_its_reason(lab: Lab, script: Make) -> None:
    found = go(lab(a=script(), b=script(skips="no float64 here")))
    assert word(found, "b") is Word.SKIPPED and row(found, "b").reason == "no float64 here"
    assert found.exit_codes() == set()


def test_one_backend_alone_is_timed_without_a_ratio_to_others(lab: Lab, script: Make) -> None:
    found = go(lab(a=script()))
    assert [r.verdict for r in found.rows] == [Word.BASELINE] and row(found, "a").epochs == 8


def test_backward_runs_after_forward_of_the_same_backend(lab: Lab, script: Make) -> None:
    found = go(lab(a=script(), b=script(12_000)), [Item(Case(shape=(64, 8)), "backward")])
    assert word(found, "b") is Word.SLOWER


def test_a_spinning_neighbour_is_waited_for_or_stopped(lab: Lab, script: Make) -> None:
    for spins in (0.2, 50.0):
        made = lab(spinner=script(spins=spins), base=script(), other=script())
        found = go(made, baseline="base")
        assert word(found, "other") is Word.SAME
        assert row(found, "other").seconds == pytest.approx(10e-6, rel=0.005)


def test_freeze_stops_every_worker_between_samples(lab: Lab, script: Make) -> None:
    made = lab(spinner=script(spins=0.2), base=script())
    seconds = go(made, baseline="base", freeze=True).seconds
    assert seconds < go(lab(spinner=script(spins=0.2), base=script()), baseline="base").seconds / 3


def test_rounds_interleave_the_backends(lab: Lab, script: Make) -> None:
    made = lab(a=script(), b=script(), c=script())
    blocks: list[Block] = []
    go(made, listener=Listener(on_block=blocks.append))
    for block in blocks:
        for number in range(block.rounds):
            mine = [t.backend for t in block.timings if t.round == number]
            assert sorted(mine) == ["a", "b", "c"]
    orders = {tuple(t.backend for t in b.timings if t.round == 0) for b in blocks}
    assert len(orders) > 2


def test_all_backends_of_an_item_share_one_inner_count(lab: Lab, script: Make) -> None:
    blocks: list[Block] = []
    go(lab(a=script(2_000), b=script(40_000)), listener=Listener(on_block=blocks.append))
    counts = {t.inner for b in blocks for t in b.timings}
    assert len(counts) == 1 and counts.pop() >= 100


def test_swapping_names_and_order_changes_no_verdict(lab: Lab, script: Make) -> None:
    """Four known speeds under every order of names: the verdict follows the speed, not the name or the place."""
    speeds = [10_000, 10_050, 11_000, 9_000]
    wanted = {10_000: Word.BASELINE, 10_050: Word.SAME, 11_000: Word.SLOWER, 9_000: Word.FASTER}
    for number, order in list(enumerate(itertools.permutations(speeds)))[::3]:
        scripts = {n: script(ns, process=0.002, noise=0.005) for n, ns in zip("abcd", order, strict=True)}
        base = "abcd"[order.index(10_000)]
        found = go(lab(seed=number, **scripts), baseline=base, seed=number)
        assert [r.verdict for r in found.rows] == [wanted[ns] for ns in order]


def test_swapping_the_baseline_turns_slower_into_faster(lab: Lab, script: Make) -> None:
    forth = row(go(lab(a=script(process=0.003), b=script(11_000, process=0.003))), "b")
    back = row(go(lab(a=script(process=0.003), b=script(11_000, process=0.003)), baseline="b"), "a")
    assert (forth.verdict, back.verdict) == (Word.SLOWER, Word.FASTER)
    assert forth.ratio is not None and back.ratio is not None
    assert forth.ratio * back.ratio == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("count", [1, 12])
@pytest.mark.parametrize("budget", [6.0, 20.0])
def test_the_time_budget_is_kept_and_what_is_missing_is_unresolved(
    lab: Lab, script: Make, budget: float, count: int
) -> None:
    noisy = {"process": 0.05, "call_ns": 400_000, "start": 0.1}
    made = lab(a=script(**noisy), b=script(**noisy), c=script(**noisy), d=script(**noisy))
    found = go(made, items(count), plan=Plan(budget=budget, most_epochs=500))
    assert 0.6 * budget < found.seconds <= 1.1 * budget
    assert Word.UNRESOLVED in {r.verdict for r in found.rows}
    assert all(r.reason for r in found.rows if r.verdict is Word.UNRESOLVED)


def test_a_budget_too_small_for_anything_passes_nothing(lab: Lab, script: Make) -> None:
    found = go(lab(a=script(start=1.0), b=script(start=1.0)), items(3), plan=Plan(budget=0.5))
    assert Word.SAME not in {r.verdict for r in found.rows}
    assert found.exit_codes(["unresolved"]) == {Exit.UNRESOLVED}


def test_a_gate_measures_suspects_again_and_only_the_second_measurement_decides(lab: Lab, script: Make) -> None:
    blocks: list[Block] = []
    noisy = {"process": 0.003}
    made = lab(a=script(**noisy), b=script(**noisy), slow=script(11_000, **noisy))
    found = go(made, items(2), gate=True, listener=Listener(on_block=blocks.append))
    assert {r.verdict for r in found.rows if r.backend == "slow"} == {Word.SLOWER}
    again = [b for b in blocks if b.stage == RETEST]
    assert {b.item.case.name for b in again} == {"case-0", "case-1"}
    assert {n for b in again for n in b.backends} == {"a", "slow"}
    assert found.exit_codes(["slower"]) == {Exit.SLOWER} and found.exit_codes() == set()


def test_a_gate_keeps_time_for_the_second_measurement(lab: Lab, script: Make) -> None:
    noisy = {"process": 0.003, "call_ns": 100_000}
    made = lab(a=script(**noisy), slow=script(**{**noisy, "call_ns": 120_000}))
    found = go(made, items(6), gate=True, plan=Plan(budget=20.0))
    assert {r.verdict for r in found.rows if r.backend == "slow"} == {Word.SLOWER}
    assert found.seconds <= 22


def test_a_gate_on_identical_backends_almost_never_fires(lab: Lab, script: Make) -> None:
    """Twelve gates over five items each, with 1 % luck per process and hardly a margin."""
    sides, plan = {"a": script(process=0.01), "b": script(process=0.01)}, Plan(margin=0.001, most_epochs=8)
    found = [go(lab(seed=s, **sides), items(5), gate=True, plan=plan, seed=s) for s in range(12)]
    fired = sum(Word.SLOWER in {r.verdict for r in o.rows} for o in found)
    assert fired <= 1


def test_the_null_control_finds_a_machine_on_which_a_backend_differs_from_itself(
    lab: Lab, script: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine = go(lab(a=script(process=0.003), b=script(11_000)), null_control=True)
    assert fine.unfit is None and word(fine, "b") is Word.SLOWER and len(fine.rows) == 2

    honest = Crew.start

    def biased(*given: Any) -> Crew:
        crew = honest(*given)
        twin: Any = crew.lanes[TWIN].session
        twin.luck = 1.05
        return crew

    monkeypatch.setattr(Crew, "start", biased)
    found = go(lab(a=script(), b=script(11_000)), null_control=True)
    assert found.unfit is not None and Word.SLOWER not in {r.verdict for r in found.rows}
    assert Exit.ENVIRONMENT in found.exit_codes(["slower"])


def test_ctrl_c_keeps_finished_epochs_and_a_resumed_run_measures_none_of_them_twice(lab: Lab, script: Make) -> None:
    scripts = {"a": script(process=0.003), "b": script(11_000, process=0.003)}
    blocks: list[Block] = []

    def stop(block: Block) -> None:
        blocks.append(block)
        if len(blocks) == 5:
            raise KeyboardInterrupt

    made = lab(**scripts)
    found = go(made, listener=Listener(on_block=stop))
    assert found.is_interrupted and Exit.INTERRUPTED in found.exit_codes()
    assert row(found, "b").epochs == 5 and row(found, "b").seconds is not None
    assert all(s.is_closed for s in made.sessions)

    rest: list[Block] = []
    found = go(lab(**scripts), done=blocks, listener=Listener(on_block=rest.append))
    assert [b.epoch for b in rest] == [5, 6, 7] and row(found, "b").epochs == 8
    assert {t.inner for b in rest for t in b.timings} == {blocks[0].timings[0].inner}
    assert go(lab(**scripts), done=[*blocks, *rest]).rows == found.rows


def test_planted_work_is_work(lab: Lab, script: Make) -> None:
    made = lab(a=script(process=0.002))
    rules = Rules(plan=Plan(), baseline="base")
    sides = [Contender("base", "a"), Contender("planted", "a", more_rows=0.25)]
    found = run([ITEM], sides, rules, Circumstances(seed=1), made.world)
    assert row(found, "planted").ratio == pytest.approx(1.25, rel=0.01)


def test_cold_items_rotate_over_more_than_the_caches_and_tiny_ones_are_refused(lab: Lab, script: Make) -> None:
    cold = replace(ITEM, cache="cold")
    rules = Rules(plan=Plan(), baseline="a")
    made = lab(a=script(), b=script(12_000))
    sides = [Contender("a", "a"), Contender("b", "b")]
    found = run([cold], sides, rules, Circumstances(seed=1, cold_bytes=64 * 8 * 4 * 10), made.world)
    assert word(found, "b") is Word.SLOWER
    found = run([cold], sides, rules, Circumstances(seed=1, cold_bytes=1 << 30), made.world)
    assert {r.verdict for r in found.rows} == {Word.SKIPPED} and "too small to be kept cold" in found.rows[0].reason
    assert found.exit_codes() == {Exit.NOTHING_RUN}


def test_right_outputs_are_judged_once_and_recognised_by_their_bits_afterwards(lab: Lab, script: Make) -> None:
    made = lab(a=script(), b=script())
    go(made)
    assert made.truth.asked == 4  # two backends, two sets of inputs; not 16 workers


def test_a_single_failing_sample_does_not_spoil_the_others_block(lab: Lab, script: Make) -> None:
    blocks: list[Block] = []
    go(lab(a=script(), b=script(), dies=script(crash_after=60)), listener=Listener(on_block=blocks.append))
    assert len(blocks) == 8 and all(b.is_complete and {"a", "b"} <= set(b.backends) for b in blocks)
    assert all(b.stage == SCREEN for b in blocks)


def test_false_alarms_of_whole_runs_stay_rare(lab: Lab, script: Make) -> None:
    """30 runs of identical backends with 1 % luck per process: none may be called different beyond the margin."""
    words = [
        word(go(lab(seed=s, a=script(process=0.01), b=script(process=0.01)), seed=s, plan=Plan(most_epochs=8)), "b")
        for s in range(30)
    ]
    assert Word.SLOWER not in words and Word.FASTER not in words
    assert np.mean([w is Word.SAME for w in words]) > 0.5
