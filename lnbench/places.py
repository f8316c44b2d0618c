"""On which processors a process may run: what is allowed, how to draw a few of them, how to go there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_TOPOLOGY = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"


def allowed() -> tuple[int, ...]:
    """Numbers of the processors that this process may use; counted from 0 where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def cores(processors: Sequence[int]) -> list[tuple[int, ...]]:
    """The processors by core, those that share one together; each a core of its own where the system does not tell."""
    found: dict[str, list[int]] = {}
    for number in processors:
        try:
            siblings = Path(_TOPOLOGY.format(number)).read_text().strip()
        except OSError:
            siblings = str(number)
        found.setdefault(siblings, []).append(number)
    return [tuple(group) for group in found.values()]


def draw(count: int, rng: np.random.Generator) -> tuple[int, ...] | None:
    """`count` processors drawn at random: neighbouring cores, one of each; None where there is nothing to choose.

    Cores are shared only when there are fewer of them than processors wanted.
    """
    processors = allowed()
    if not hasattr(os, "sched_setaffinity") or count >= len(processors):
        return None
    groups = cores(processors)
    start = int(rng.integers(len(groups)))
    turned = groups[start:] + groups[:start]
    first = [group[int(rng.integers(len(group)))] for group in turned]
    rest = [p for group, taken in zip(turned, first, strict=True) for p in group if p != taken]
    return tuple(sorted((first + rest)[:count]))


def move(processors: Sequence[int]) -> None:
    """Puts all threads of this process on these processors; what they start later stays there too."""
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(ProcessLookupError):  # it ended meanwhile
            os.sched_setaffinity(int(task), processors)
