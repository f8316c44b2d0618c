"""Two stored runs: what is compared with what, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from lnbench.bench.compare import Run, compare
from lnbench.bench.record import Word
from lnbench.errors import UsageError


def run(
    *, day: float = 1.0, mine: float = 1.0, seed: int = 0, cells: dict[str, str] | None = None, epochs: int = 8
) -> Run:
    """A run of backends base and mine on a machine that is `day` times slower than usual."""
    rng = np.random.default_rng(seed)
    times = {"base": 1e-3 * day, "mine": 1e-3 * day * mine}
    common = {"key": "k", "case": "bert", "pass": "forward", "cache": "hot", "baseline": "base", **(cells or {})}
    timings = [{**common, "backend": b, "seconds": str(s)} for b, s in times.items()]
    samples = []
    for epoch in range(epochs):
        luck = float(np.exp(rng.normal(0, 0.01)))
        for backend, seconds in times.items():
            wall = round(seconds * luck * float(np.exp(rng.normal(0, 0.002))) * 1e10)
            samples.append(
                {
                    **common,
                    "stage": "1",
                    "epoch": str(epoch),
                    "round": "0",
                    "backend": backend,
                    "wall_ns": str(wall),
                    "inner": "10",
                }
            )
    return Run(timings, samples, {"machine": {"cpu": f"day {day}", "cores": 2}})


def test_a_slower_day_cancels_out_where_both_runs_have_the_same_baseline() -> None:
    found = compare(run(seed=1), run(day=1.3, seed=2), 0.02)
    change = {c.backend: c for c in found.changes}
    assert change["mine"].relative and change["mine"].verdict is Word.SAME
    assert not change["base"].relative and change["base"].verdict is Word.SLOWER
    assert found.environment == {"cpu": ("day 1.0", "day 1.3")}


def test_a_slower_backend_is_seen_and_swapping_the_runs_mirrors_it() -> None:
    forth = compare(run(seed=1), run(mine=1.2, seed=2), 0.02).changes[1]
    back = compare(run(mine=1.2, seed=2), run(seed=1), 0.02).changes[1]
    assert (forth.verdict, back.verdict) == (Word.SLOWER, Word.FASTER)
    assert forth.low is not None and back.high is not None
    assert forth.ratio * back.ratio == pytest.approx(1) and forth.low * back.high == pytest.approx(1)


def test_without_samples_nothing_is_claimed() -> None:
    plain = Run(run().timings)
    assert {c.verdict for c in compare(plain, plain, 0.02).changes} == {Word.UNRESOLVED}


@pytest.mark.parametrize(
    ("cells", "says"),
    [({"key": "other"}, "cases"), ({"pass": "backward"}, "passes"), ({"cache": "cold"}, "cache states")],
)
def test_unlike_things_are_refused_and_named(cells: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=f"nothing in common: their {says} differ"):
        compare(run(), run(cells=cells), 0.02)


def test_backends_of_other_names_are_compared_when_asked() -> None:
    found = compare(run(seed=1), run(mine=1.5, seed=2), 0.02, ("base", "mine"))
    assert [(c.backend, c.verdict) for c in found.changes] == [("mine", Word.SLOWER)]
    with pytest.raises(UsageError, match="nothing in common"):
        compare(run(), run(), 0.02, ("base", "none"))


def test_rows_of_one_side_only_are_listed() -> None:
    more = run()
    extra = {**more.timings[0], "key": "k2", "case": "gpt"}
    found = compare(more, Run([*more.timings, extra], more.samples), 0.02)
    assert found.only_after == ("gpt forward on base",) and found.only_before == ()
