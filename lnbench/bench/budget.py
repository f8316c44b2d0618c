"""The clock of a run: what things have cost, which epochs still fit into the time, how much of it samples may take.

Learns costs as the run goes and foretells those of items that were not met yet. Pure: the runner asks and obeys.
Leaves how many epochs and rounds an item wants to `stopping.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

Key = tuple[str, str, str]  # of an item

SMALL = 1 << 16  # bytes below which all items cost about the same
NEIGHBOURS = 3  # items of similar size that foretell what another one costs
REMEMBERED = 3  # epochs that foretell the next one
SAFETY = 0.9  # share of the time left that may be promised: costs waver
FIRST_EPOCHS = 0.75  # share of the time left for an item's first epoch while others want theirs


@dataclass(frozen=True, slots=True)
class Spent:
    """What one item took in one epoch, in seconds.

    once: what is not done again (the audit, the search for the inner count). judged: drawing inputs and judging
    outputs, which is spared where the same bits come again. sampling: all rounds. fixed: the rest.
    """

    once: float = 0.0
    judged: float = 0.0
    fixed: float = 0.0
    sampling: float = 0.0
    rounds: int = 0
    lanes: int = 1

    @property
    def round(self) -> float:
        """Seconds of one round."""
        return self.sampling / max(self.rounds, 1)

    @property
    def total(self) -> float:
        return self.once + self.judged + self.fixed + self.sampling


@dataclass(frozen=True, slots=True)
class Need:
    """What an item still wants. size: bytes that tell what it costs. epochs: how many more. done: how many it has had.

    least and wanted: rounds in each of them, at least and at best.
    """

    key: Key
    size: int
    epochs: int
    done: int = 0
    least: int = 1
    wanted: int = 1


@dataclass(slots=True)
class Budget:
    """seconds: of the whole run, or None. started: on the world's clock. limit: seconds of it that may be used now.

    Where it matters whether something still fits, costs are the longest of the last few epochs: to stop late breaks a
    promise and to stop early breaks none.
    """

    seconds: float | None
    started: float
    limit: float = math.inf
    _starts: list[float] = field(default_factory=list, repr=False)
    _spent: dict[Key, list[Spent]] = field(default_factory=dict, repr=False)
    _firsts: dict[Key, tuple[int, float]] = field(default_factory=dict, repr=False)

    @property
    def full(self) -> float:
        """All seconds there are."""
        return math.inf if self.seconds is None else self.seconds

    @property
    def deadline(self) -> float:
        """The end, on the world's clock."""
        return self.started + min(self.limit, self.full)

    def left(self, now: float) -> float:
        """Seconds until the end."""
        return self.deadline - now

    # What things have cost

    def note_start(self, seconds: float) -> None:
        """Remembers that starting and ending all workers took so long."""
        self._starts.append(seconds)

    def note(self, key: Key, size: int, spent: Spent) -> None:
        """Remembers what an item took in one epoch."""
        self._firsts.setdefault(key, (size, spent.total))
        self._spent.setdefault(key, []).append(spent)

    def is_known(self, key: Key) -> bool:
        """Whether the item has been measured in this run."""
        return key in self._spent

    @property
    def start(self) -> float:
        """Seconds that a set of workers costs."""
        return max(self._starts[-REMEMBERED:], default=0.0)

    def fixed(self, key: Key) -> float:
        """Seconds of an item in one more epoch, without its rounds; 0 for one that is not known."""
        recent = self._spent.get(key, [])[-REMEMBERED:]
        again = min((s.judged for s in recent), default=0.0) if len(recent) > 1 else 0.0
        return again + max((s.fixed for s in recent), default=0.0)

    def round(self, key: Key, unknown: float = 0.0) -> float:
        """Seconds of one round of an item."""
        recent = [s for s in self._spent.get(key, []) if s.rounds][-REMEMBERED:]
        return sum(s.round for s in recent) / len(recent) if recent else unknown

    def longest(self, key: Key, size: int) -> float:
        """Seconds that one more epoch of an item may take, with as few rounds as there can be."""
        recent = self._spent.get(key, [])[-REMEMBERED:]
        if not recent:
            return self._foretold(key, size)
        return max(s.judged + s.fixed + s.lanes * s.round for s in recent)

    def _foretold(self, key: Key, size: int) -> float:
        """An item's first epoch, from those of the items nearest in size; as if all of it grew with the size."""
        size = max(size, SMALL)
        alike = [seen for other, seen in self._firsts.items() if other[1:] == key[1:]]  # same pass and cache state
        seen = [(max(other, SMALL), cost) for other, cost in alike or self._firsts.values()]
        near = sorted(seen, key=lambda found: (abs(math.log(size / found[0])), -found[1]))[:NEIGHBOURS]
        return max((cost * max(1.0, size / other) for other, cost in near), default=0.0)

    # What still fits

    def _least(self, need: Need) -> float:
        """Seconds of one epoch with the fewest rounds that are worth it."""
        return self.fixed(need.key) + need.least * self.round(need.key)

    def promised(self, needs: Iterable[Need]) -> float:
        """Seconds for all epochs of the known items among `needs`, with few rounds."""
        known = [n for n in needs if self.is_known(n.key)]
        return sum(n.epochs * self._least(n) for n in known) + self.start * max((n.epochs for n in known), default=0)

    def fits(self, key: Key, size: int, promised: float, left: float) -> bool:
        """Whether an epoch of an item may begin; a first one is not to take all the time of the others."""
        kept = 0.0 if self.is_known(key) else min(promised, (1 - FIRST_EPOCHS) * left)
        return self.longest(key, size) + kept <= left

    def choose(self, needs: Sequence[Need], left: float) -> list[Need]:
        """Those who take part in the next epoch, with the epochs that are promised to them.

        As many as possible shall have all their epochs, so the cheapest are promised theirs first. What is left goes to
        first epochs, then to further ones of the dear items, those with the fewest before the others.
        """
        if left == math.inf:
            return list(needs)
        chosen, dear = self._affordable([n for n in needs if self.is_known(n.key)], SAFETY * left)
        promised, more = self.promised(chosen), self.start if not chosen else 0.0
        for need in sorted((n for n in needs if not self.is_known(n.key)), key=lambda n: n.size):
            if self.fits(need.key, need.size, promised, left - more):
                chosen.append(need)
                more += self.longest(need.key, need.size)
        for need in sorted(dear, key=lambda n: (n.done, self._least(n))):
            cost = self.longest(need.key, need.size)
            if promised + more + cost <= left:
                chosen.append(replace(need, epochs=1))
                more += cost
        return chosen

    def _affordable(self, needs: Sequence[Need], room: float) -> tuple[list[Need], list[Need]]:
        """The most items that can have all their epochs within `room` seconds, and the others."""
        chosen: list[Need] = []
        ordered = sorted(needs, key=lambda n: n.epochs * self._least(n))
        while ordered and self.promised([*chosen, ordered[0]]) <= room:
            chosen.append(ordered.pop(0))
        return chosen, ordered

    def in_order(self, needs: Iterable[Need], left: float) -> list[Need]:
        """As many of `needs` as fit into one epoch, the first ones first."""
        chosen, used = [], self.start
        for need in needs:
            cost = self.longest(need.key, need.size)
            if used + cost <= left:
                chosen.append(replace(need, epochs=1))
                used += cost
        return chosen

    def first_rounds(self, wanted: int, cost: float, share: float, lanes: int) -> int:
        """Rounds in an item's first epoch, which may use `share` of the time for samples. cost: seconds of a round."""
        fair = share * min(self.limit, self.full)
        return wanted if cost * wanted <= fair else max(lanes, int(fair / cost / lanes) * lanes)

    def rounds(self, need: Need, needs: Iterable[Need], left: float, lanes: int) -> int:
        """Rounds of an item in its next epoch: between the least and the wanted, the same share for all `needs`."""
        if left == math.inf:
            return need.wanted
        known = [n for n in needs if self.is_known(n.key)]
        spare = SAFETY * left - self.promised(known)
        wish = sum(n.epochs * max(0, n.wanted - n.least) * self.round(n.key) for n in known)
        share = 1.0 if wish <= max(spare, 0.0) else max(0.0, spare / wish)
        more = math.floor(share * max(0, need.wanted - need.least) / lanes)
        return need.least + more * lanes
