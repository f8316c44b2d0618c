"""Who is measured when: orders, counts of inner calls, and the random circumstances of an epoch.

All of it is drawn from a seeded generator and none of it from a clock, so that a plan can be tested and recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

FLOOR_NS = 200_000  # a sample shorter than this measures the clock and the interruptions
CLOCK_TICKS = 1000
CEILING_NS = 100_000_000
MOST_INNER = 1 << 20
LINE = 64  # bytes of a cache line
OFFSETS = 64  # different starts within one page
LONGEST_VARIABLE = 4096


def generator(seed: int, *place: int) -> np.random.Generator:
    """The generator of one place (stage, epoch, item) of a run: the same when resumed, different everywhere else."""
    return np.random.default_rng([seed, *place])


def latin_rounds(lanes: int, rounds: int, rng: np.random.Generator) -> list[tuple[int, ...]]:
    """The order of the lanes in each round: randomised cyclic Latin squares, drawn anew for every `lanes` rounds.

    Within a square every lane holds every slot once; over squares every lane follows every other equally often, so
    that neither the slot nor the neighbour favours anyone. rounds is a multiple of lanes.
    """
    order: list[tuple[int, ...]] = []
    for _ in range(rounds // lanes):
        names = rng.permutation(lanes)
        for shift in rng.permutation(lanes):
            order.append(tuple(int(names[(shift + slot) % lanes]) for slot in range(lanes)))
    return order


def shuffled(count: int, rng: np.random.Generator) -> list[int]:
    """The numbers 0 to count - 1 in random order."""
    return [int(i) for i in rng.permutation(count)]


def random_environment(rng: np.random.Generator) -> dict[str, str]:
    """A variable of random length: it shifts the stack of a new process, whose address favours some code by luck."""
    return {"LNBENCH_PADDING": "x" * int(rng.integers(0, LONGEST_VARIABLE))}


def random_offset(rng: np.random.Generator) -> int:
    """Bytes by which buffers are moved within their page: a multiple of a cache line, so that alignment is kept."""
    return LINE * int(rng.integers(0, OFFSETS))


def floor_ns(tick_ns: int) -> int:
    """The shortest sample worth taking with a clock that advances in steps of `tick_ns`."""
    return max(FLOOR_NS, CLOCK_TICKS * tick_ns)


@dataclass(slots=True)
class InnerCount:
    """Finds the number of calls in one sample, the same for all backends of an item: doubles until it is long enough.

    The fastest backend's sample shall last at least `floor` ns and the slowest's at most `ceiling` ns (the ceiling
    wins). A count is believed only after two readings in a row, because the first is often slow (cold code).
    """

    floor: int = FLOOR_NS
    ceiling: int = CEILING_NS
    inner: int = 1
    _agreed: int = field(default=0, repr=False)

    @property
    def is_settled(self) -> bool:
        """Whether `inner` is final."""
        return self._agreed >= 2

    def read(self, wall_ns: Sequence[int]) -> None:
        """One reading: the samples of all backends with the present count."""
        fastest, slowest = min(wall_ns), max(wall_ns)
        too_long = 2 * slowest > self.ceiling
        if fastest >= self.floor or too_long or self.inner >= MOST_INNER:
            self._agreed += 1
            if slowest > self.ceiling and self.inner > 1:
                self.inner, self._agreed = max(1, self.inner // 2), 2
            return
        self._agreed = 0
        missing = self.floor / max(fastest, 1)
        room = self.ceiling / max(slowest, 1)
        jump = 1
        while jump < missing and 2 * jump <= room and self.inner * jump < MOST_INNER:
            jump *= 2
        self.inner *= max(2, min(jump, 64))


def find_inner(measure: Callable[[int], Sequence[int]], count: InnerCount, most_readings: int = 40) -> int:
    """Runs the rule to its end; `measure(inner)` returns the wall times in ns of every backend's sample."""
    for _ in range(most_readings):
        if count.is_settled:
            break
        count.read(measure(count.inner))
    return count.inner
