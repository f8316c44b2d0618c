"""From blocks of samples to rows with verdicts: what may be said, and what may not.

FASTER, SAME and SLOWER are claims that the interval must carry; everything else is UNRESOLVED with its reason.
Measures nothing and asks no clock.
"""

from __future__ import annotations

import math
import statistics as plain
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from lnbench.bench import statistics as st
from lnbench.bench.record import RETEST, SCREEN, Block, Contender, Fault, Item, Row, Word
from lnbench.bench.stopping import Plan, epochs_wanted, needs_seconds

# How far above the machine's own measured bandwidth a timing may lie before it is not believed.
CEILING_SLACK = 1.05
# Epochs whose spread is known well enough to say how many more are needed.
FORETELLING = 4

Key = tuple[str, str, str]
Ceiling = Callable[[Item], float | None]
Traffic = Callable[[Item], float]


@dataclass(slots=True)
class Evidence:
    """Everything that a run has seen so far.

    faults and suspicions: by item key and backend name. epoch_seconds: what one more epoch of an item costs, by key.
    first_seconds: what the first epoch of an item that was not measured would have taken.
    """

    blocks: dict[tuple[Key, int], list[Block]] = field(default_factory=dict)
    faults: dict[tuple[Key, str], Fault] = field(default_factory=dict)
    suspicions: dict[tuple[Key, str], str] = field(default_factory=dict)
    epoch_seconds: dict[Key, float] = field(default_factory=dict)
    first_seconds: dict[Key, float] = field(default_factory=dict)
    _ratios: dict[tuple[Key, int, int, str, str, str], float] = field(default_factory=dict, repr=False)

    def of(self, item: Item, stage: int) -> list[Block]:
        """The blocks of one item and stage, by epoch."""
        return self.blocks.get((item.key, stage), [])

    def add(self, block: Block) -> None:
        """Takes in one finished block."""
        held = self.blocks.setdefault((block.item.key, block.stage), [])
        held.append(block)
        held.sort(key=lambda b: b.epoch)

    def differences(self, item: Item, stage: int, name: str, rules: Rules) -> list[float]:
        """Log ratios of one backend to the baseline, one per epoch in which both were measured."""
        both = [b for b in self.of(item, stage) if name in b.backends and rules.baseline in b.backends]
        return [self._ratio(b, name, rules.baseline, rules.statistic) for b in both]

    def _ratio(self, block: Block, name: str, baseline: str, statistic: str) -> float:
        key = block.item.key, block.stage, block.epoch, name, baseline, statistic
        if key not in self._ratios:
            self._ratios[key] = st.log_ratio(block.times(name), block.times(baseline), statistic)
        return self._ratios[key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How rows are judged. gate: only what a second, independent measurement confirms is SLOWER.

    traffic: minimal bytes of one call of an item. ceiling: GB/s that the machine can move for an item, or None where it
    is not known. believe_below: traffic in bytes under which a timing above the ceiling is believed (the smaller caches
    are not measured well enough). baseline: the name of the contender that ratios are to. statistic: what the times of an
    epoch come to, one of `statistics.STATISTICS`.
    """

    plan: Plan
    baseline: str
    statistic: str = st.PAIRED
    gate: bool = False
    traffic: Traffic = lambda item: 0.0
    ceiling: Ceiling = lambda item: None
    believe_below: float = 0.0


def claim(low: float, high: float, log_margin: float) -> Word:
    """The verdict that an interval (logarithms) carries. SAME is a claim of its own, not a difference not found."""
    if low > log_margin:
        return Word.SLOWER
    if high < -log_margin:
        return Word.FASTER
    return Word.SAME if -log_margin <= low and high <= log_margin else Word.UNRESOLVED


def is_fragile(word: Word, differences: Sequence[float], log_margin: float, alpha: float = st.ALPHA) -> bool:
    """Whether the sign-flip test, which assumes no distribution, does not support the claim that the interval makes."""
    against = {Word.SLOWER: (log_margin,), Word.FASTER: (-log_margin,), Word.SAME: (log_margin, -log_margin)}
    return any(st.sign_flips([d - b for d in differences]) > alpha for b in against.get(word, ()))


def judge(items: Sequence[Item], contenders: Sequence[Contender], evidence: Evidence, rules: Rules) -> list[Row]:
    """One row per item and contender that is not hidden, in order."""
    shown = [c.name for c in contenders if not c.hidden]
    rows = [row_of(item, name, evidence, rules) for item in items for name in shown]
    rows = _retested(rows, evidence, rules) if rules.gate else rows
    return _not_by_chance(rows, rules)


def row_of(item: Item, name: str, evidence: Evidence, rules: Rules, stage: int = SCREEN) -> Row:
    """The row of one backend on one item from the samples of one stage, on its own (no other row is looked at)."""
    row = Row(case=item.case, pass_=item.pass_, cache=item.cache, backend=name, baseline=rules.baseline)
    fault = evidence.faults.get((item.key, name))
    if fault is not None:
        word = Word.SKIPPED if fault.skipped else Word.INVALID
        return replace(row, verdict=word, reason=fault.reason, crashed=fault.crashed)
    row = _timed(row, evidence, rules, stage)
    if row.seconds is None:
        needed = evidence.first_seconds.get(item.key) or None
        more = f", which takes about {math.ceil(needed)} s" if needed else ""
        return replace(row, reason=f"not measured: the run ended before its first epoch{more}", needs_seconds=needed)
    if name == rules.baseline:
        row = replace(row, verdict=Word.BASELINE, ratio=1.0)
    else:
        row = _compared(row, evidence, rules, stage)
    return _believed(row, evidence, rules)


def _timed(row: Row, evidence: Evidence, rules: Rules, stage: int) -> Row:
    mine = [b for b in evidence.of(row.item, stage) if row.backend in b.backends]
    if not mine:
        return row
    seconds = plain.median(plain.median(b.times(row.backend)) for b in mine)
    gb_per_s = rules.traffic(row.item) / max(seconds, 1e-12) * 1e-9
    peak = rules.ceiling(row.item)
    return replace(
        row,
        seconds=seconds,
        gb_per_s=gb_per_s,
        ceiling=gb_per_s / peak if peak else None,
        epochs=len(mine),
        rounds=max(b.rounds for b in mine),
        inner=max(t.inner for b in mine for t in b.timings),
    )


def _compared(row: Row, evidence: Evidence, rules: Rules, stage: int) -> Row:
    plan = rules.plan
    differences = evidence.differences(row.item, stage, row.backend, rules)
    if not differences:
        fault = evidence.faults.get((row.item.key, rules.baseline))
        why = (
            f"the baseline has no timing ({fault.reason})" if fault else "never measured in one epoch with the baseline"
        )
        return replace(row, verdict=Word.UNRESOLVED, reason=why)
    e = st.estimate(differences, plan.alpha, pilot=plan.pilot if stage == SCREEN else None)
    word = claim(e.low, e.high, plan.log_margin)
    boundary = math.copysign(plan.log_margin, e.theta)
    mde = st.resolution(e.spread, e.epochs, plan.alpha)
    row = replace(
        row,
        verdict=word,
        epochs=e.epochs,
        ratio=e.ratio,
        low=math.exp(e.low) if e.epochs > 1 else None,
        high=math.exp(e.high) if e.epochs > 1 else None,
        resolution=math.expm1(min(mde, 50.0)) if e.epochs > 1 else None,
        fragile=is_fragile(word, differences, plan.log_margin, plan.alpha),
        p_value=e.p_value(boundary) if word in (Word.SLOWER, Word.FASTER) else None,
    )
    if row.fragile and not st.flips_can_fire(e.epochs, plan.alpha):
        row = replace(row, reason=f"with {e.epochs} epochs the sign-flip test could not have agreed; 6 are needed")
    return _explained(row, differences, e, evidence, plan) if word is Word.UNRESOLVED else row


def _explained(row: Row, differences: list[float], e: st.Estimate, evidence: Evidence, plan: Plan) -> Row:
    """Says why a row is unresolved and what it would take."""
    if e.epochs < 2:
        return replace(row, reason="one epoch says nothing of the spread between processes; at least two are needed")
    cost = evidence.epoch_seconds.get(row.item.key, 0.0)
    percent = 100 * math.expm1(e.half_width)
    if e.half_width > plan.half_width:
        pilot = differences[: plan.pilot]
        spread = plain.stdev(pilot) if len(pilot) > 1 else e.spread
        wanted = max(epochs_wanted([spread], replace(plan, pilot=len(pilot))), e.epochs + 1)
        why = f"the interval of +-{percent:.2g} % is too wide for a margin of {100 * plan.margin:.2g} %"
    else:
        gap = abs(abs(e.theta) - plan.log_margin)
        wanted = min(math.ceil(e.epochs * (e.half_width / max(gap, 1e-6)) ** 2) + 1, 10_000)
        why = (
            f"the difference of {100 * (e.ratio - 1):+.2g} % lies too close to the margin of {100 * plan.margin:.2g} %"
        )
    seconds = needs_seconds(e.epochs, wanted, cost)
    if e.epochs < FORETELLING:
        return replace(row, reason=f"{why}; {e.epochs} epochs cannot tell how much more it takes")
    more = f"; about {seconds:.0f} s more would decide" if seconds else ""
    return replace(row, reason=why + more, needs_seconds=seconds)


def _believed(row: Row, evidence: Evidence, rules: Rules) -> Row:
    """SUSPECT for what cannot be true or was not earned; nothing is compared with a suspect baseline."""
    reason = _doubt(row, evidence, rules)
    if reason is not None:
        return replace(row, verdict=Word.SUSPECT, reason=reason, p_value=None, needs_seconds=None)
    base = _doubt(_timed(replace(row, backend=rules.baseline), evidence, rules, SCREEN), evidence, rules)
    if base is not None and row.verdict in (Word.SLOWER, Word.FASTER, Word.SAME):
        return replace(row, verdict=Word.UNRESOLVED, p_value=None, reason=f"the baseline is suspect: {base}")
    return row


def _doubt(row: Row, evidence: Evidence, rules: Rules) -> str | None:
    reason = evidence.suspicions.get((row.item.key, row.backend))
    is_large = rules.traffic(row.item) >= rules.believe_below
    if reason is None and is_large and row.ceiling is not None and row.ceiling > CEILING_SLACK:
        return f"{row.gb_per_s:.4g} GB/s is {row.ceiling:.2f} times what this machine can move at that size"
    return reason


def suspects(items: Sequence[Item], contenders: Sequence[Contender], evidence: Evidence, rules: Rules) -> list[Row]:
    """The rows that look SLOWER after the first stage: those that a gate measures again."""
    named = [c.name for c in contenders if not c.hidden]
    rows = [row_of(item, name, evidence, rules) for item in items for name in named]
    return [row for row in rows if row.verdict is Word.SLOWER]


def _retested(rows: list[Row], evidence: Evidence, rules: Rules) -> list[Row]:
    """Stage two alone decides about rows that looked slower, with Holm's correction over all of them."""
    slower = [i for i, row in enumerate(rows) if row.verdict is Word.SLOWER]
    again = {i: row_of(rows[i].item, rows[i].backend, evidence, rules, RETEST) for i in slower}
    p_values = [again[i].p_value if again[i].verdict is Word.SLOWER else 1.0 for i in slower]
    confirmed = dict(zip(slower, st.holm([1.0 if p is None else p for p in p_values], rules.plan.alpha), strict=True))
    out = list(rows)
    for i in slower:
        row = again[i]
        if row.seconds is None or row.epochs < 2:
            reason = "looked slower, but the time was up before a second measurement could confirm it"
            needed = rules.plan.pilot * evidence.epoch_seconds.get(rows[i].item.key, 0.0)
            out[i] = replace(
                rows[i], verdict=Word.UNRESOLVED, reason=reason, needs_seconds=needed or None, p_value=None
            )
        elif row.verdict is Word.SLOWER and not confirmed[i]:
            reason = f"slower in both measurements, but one of {len(slower)} suspects may be so by chance"
            out[i] = replace(row, verdict=Word.UNRESOLVED, reason=reason)
        else:
            out[i] = row
    return out


def _not_by_chance(rows: list[Row], rules: Rules) -> list[Row]:
    """Benjamini-Hochberg over all comparisons; rows that a gate has confirmed have had Holm's correction already."""
    compared = [i for i, r in enumerate(rows) if r.ratio is not None and r.verdict is not Word.BASELINE]
    open_ = [i for i in compared if not (rules.gate and rows[i].verdict is Word.SLOWER)]
    p_values = [1.0 if (p := rows[i].p_value) is None else p for i in open_]
    kept = dict(zip(open_, st.benjamini_hochberg(p_values, rules.plan.alpha), strict=True))
    out = list(rows)
    for i, holds in kept.items():
        if rows[i].verdict in (Word.FASTER, Word.SLOWER) and not holds:
            reason = (
                f"{rows[i].verdict.lower()} by its own interval, but among {len(open_)} comparisons that may be chance"
            )
            out[i] = replace(rows[i], verdict=Word.UNRESOLVED, reason=reason)
    return out


def unfit(items: Sequence[Item], twin: str, evidence: Evidence, rules: Rules) -> str | None:
    """Why the machine cannot be trusted: the baseline measured against its own twin shows differences; None if not."""
    rows = [row for item in items if (row := row_of(item, twin, evidence, rules)).low is not None]
    differ = sum(1 for r in rows if r.low is not None and r.high is not None and not r.low <= 1.0 <= r.high)
    beyond = [r for r in rows if r.verdict in (Word.SLOWER, Word.FASTER)]
    if beyond:
        worst = beyond[0]
        return (
            f"the baseline differs from its own copy by {100 * (worst.ratio or 1) - 100:+.1f} % on {worst.item.label}"
        )
    allowed = st.binomial_most(len(rows), rules.plan.alpha)
    if differ > allowed:
        return f"the baseline differs from its own copy on {differ} of {len(rows)} items; chance allows {allowed}"
    return None


def without_slower(rows: Sequence[Row], reason: str) -> list[Row]:
    """The rows of an unfit machine: nothing is SLOWER."""
    text = f"the machine is unfit: {reason}"
    return [replace(r, verdict=Word.UNRESOLVED, reason=text) if r.verdict is Word.SLOWER else r for r in rows]


def spreads(item: Item, names: Mapping[str, object] | Sequence[str], evidence: Evidence, rules: Rules) -> list[float]:
    """The spread between epochs of every comparison of one item, from the pilot's epochs alone."""
    found = []
    for name in names:
        differences = evidence.differences(item, SCREEN, name, rules)[: rules.plan.pilot]
        if name != rules.baseline and len(differences) > 1:
            found.append(plain.stdev(differences))
    return found
