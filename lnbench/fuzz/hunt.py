"""Looks for a case that a backend fails, and makes it small: hypothesis draws and shrinks, `lnbench.verify` judges.

State lives in a folder: hypothesis's database of failing examples, and which rounds are done, so that a stopped hunt
goes on where it was. Needs the extra `fuzz`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lnbench.case import Case
from lnbench.errors import EnvironmentUnfit, UsageError
from lnbench.fuzz.space import MAX_ELEMENTS, T, draw_case
from lnbench.verify.examiner import Examiner, Options
from lnbench.verify.verdict import Status, Verdict

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy

ROUND = 100  # examples a round; a round is what is not repeated after a stop
SHRINK_SECONDS = 30.0  # at most, beyond the time budget
STATE = "state.json"
# Nothing was decided, or nothing was run: no failure of the backend.
NO_FAILURE = (Status.EMPTY, Status.SKIPPED)


@dataclass(frozen=True, slots=True)
class Hunt:
    """What to hunt for.

    seconds: time budget for drawing; shrinking may add SHRINK_SECONDS. folder: where the state is kept.
    """

    backend: str
    seconds: float
    seed: int
    folder: Path
    ops: tuple[str, ...] = ("layer_norm",)
    max_elements: int = MAX_ELEMENTS
    options: Options = field(default_factory=Options)

    @property
    def state(self) -> Path:
        """A folder of its own for each backend, seed and kind of case."""
        words = f"{self.backend}/{self.seed}/{','.join(self.ops)}/{self.max_elements}"
        return self.folder / hashlib.sha256(words.encode()).hexdigest()[:12]


@dataclass(slots=True)
class Outcome:
    """What a hunt found.

    cases: examined now, undecided: of them, those that were skipped or decided nothing. rounds: done now and before.
    seconds: since the start. failure: the verdict on the smallest failing case, or None.
    """

    cases: int = 0
    seconds: float = 0.0
    undecided: int = 0
    rounds: int = 0
    failure: Verdict | None = None


class _Failing(AssertionError):
    """The example fails; hypothesis shrinks it."""


class _DrawChooser:
    """Choices that hypothesis makes, and makes simpler."""

    def __init__(self, draw: Callable[[SearchStrategy[Any]], Any]):
        self._draw = draw

    def one_of(self, options: Sequence[T]) -> T:
        from hypothesis import strategies

        chosen: T = self._draw(strategies.sampled_from(list(options)))
        return chosen

    def between(self, low: int, high: int) -> int:
        from hypothesis import strategies

        return int(self._draw(strategies.integers(low, high)))


def hunt(what: Hunt, *, on_case: Callable[[Outcome], None] = lambda outcome: None) -> Outcome:
    """Examines random cases until one fails or the time is over. Raises EnvironmentUnfit without hypothesis.

    Raises UnknownBackend, Unavailable or BackendBroken when the backend cannot start.
    """
    try:
        import hypothesis  # noqa: F401
    except ImportError:
        raise EnvironmentUnfit(
            "lnbench fuzz needs hypothesis, which is not installed; install it with: pip install 'lnbench[fuzz]'"
        ) from None
    with Examiner.of([what.backend], what.options) as examiner:
        return _Hunter(what, examiner, on_case).run()


class _Hunter:
    def __init__(self, what: Hunt, examiner: Examiner, on_case: Callable[[Outcome], None]):
        self._what, self._examiner, self._on_case = what, examiner, on_case
        self._start = time.monotonic()
        self._end = self._start + what.seconds
        self._outcome = Outcome()

    def run(self) -> Outcome:
        outcome = self._outcome
        outcome.rounds = self._rounds_done()
        while outcome.failure is None and time.monotonic() < self._end:
            self._round(outcome.rounds)
            if outcome.failure is None and time.monotonic() < self._end:
                outcome.rounds += 1
                self._remember(outcome.rounds)
        return outcome

    def _round(self, number: int) -> None:
        from hypothesis import HealthCheck, Phase, given, seed, settings
        from hypothesis.database import DirectoryBasedExampleDatabase
        from hypothesis.errors import Flaky
        from hypothesis.strategies import composite

        what = self._what

        @composite
        def cases(draw: Callable[[SearchStrategy[Any]], Any]) -> Case:
            return draw_case(_DrawChooser(draw), what.ops, what.max_elements)

        # `seed` switches the database off; `settings` outside of it switches it on again.
        @settings(
            max_examples=ROUND,
            database=DirectoryBasedExampleDatabase(what.state / "examples"),
            deadline=None,
            phases=(Phase.reuse, Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            print_blob=False,
        )
        @seed(int(hashlib.sha256(f"{what.seed}/{number}".encode()).hexdigest()[:12], 16))
        @given(cases())
        def examine(case: Case) -> None:
            self._examine(case)

        try:
            examine()
        except _Failing:
            return
        except Flaky:
            # The time for shrinking ran out, or the failure comes and goes: the smallest one seen is what there is.
            return

    def _examine(self, case: Case) -> None:
        outcome = self._outcome
        limit = self._end if outcome.failure is None else self._end + SHRINK_SECONDS
        if time.monotonic() > limit:
            return
        if not self._examiner.loaded:
            broken = self._examiner.load(case)
            if broken:
                outcome.failure = broken[0]
                raise _Failing(broken[0].reason)
        verdicts = [v for _, vs in self._examiner.examine(case, (), lambda case, backend: None) for v in vs]
        outcome.cases += 1
        outcome.seconds = time.monotonic() - self._start
        wrong = [v for v in verdicts if not v.accepted and v.status not in NO_FAILURE]
        outcome.undecided += not wrong and all(v.status in NO_FAILURE for v in verdicts)
        self._on_case(outcome)
        if wrong:
            outcome.failure = wrong[0]
            raise _Failing(wrong[0].reason)

    def _rounds_done(self) -> int:
        path = self._what.state / STATE
        if not path.is_file():
            return 0
        try:
            return int(json.loads(path.read_text(encoding="utf-8"))["rounds"])
        except (ValueError, KeyError, TypeError):
            raise UsageError(f"{path} is not the state of a hunt; remove it, and the hunt starts again") from None

    def _remember(self, rounds: int) -> None:
        self._what.state.mkdir(parents=True, exist_ok=True)
        path = self._what.state / STATE
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"rounds": rounds, "backend": self._what.backend, "seed": self._what.seed}) + "\n")
        fresh.replace(path)
