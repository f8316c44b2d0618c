"""Which backends a benchmark has and what it compares them with: a backend of the run, or a stored baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lnbench.errors import EnvironmentUnfit, ResultsError, UsageError, nearest

if TYPE_CHECKING:
    from lnbench.bench.baselines import Recipe
    from lnbench.bench.record import Contender, Row

DEFAULT_BACKENDS = ("numpy", "native")


@dataclass(frozen=True, slots=True)
class Sides:
    """The contenders of a run. names: of the backends that were asked for. baseline: name of what ratios are to.

    recipe: a stored baseline that cannot be run again, whose numbers may advise. trust: whether they may decide.
    """

    names: list[str]
    contenders: list[Contender]
    baseline: str
    notes: list[str] = field(default_factory=list)
    recipe: Recipe | None = None
    trust: bool = False

    def adjusted(self, rows: list[Row], margin: float) -> list[Row]:
        """The rows against stored numbers where nothing else is left to compare with."""
        from lnbench.bench import baselines

        return rows if self.recipe is None else baselines.historical(rows, self.recipe, margin, trust=self.trust)


def sides(given: Mapping[str, Any]) -> Sides:
    """Reads the options. Raises UsageError for a baseline that is no backend, EnvironmentUnfit for one that is gone."""
    from lnbench import pool
    from lnbench.bench.record import Contender

    specs = given["backends"] or DEFAULT_BACKENDS
    names = list(dict.fromkeys(name for spec in specs for name in pool.expand(spec)))
    wanted = given["baseline"]
    if wanted is not None and wanted.startswith("@"):
        return _stored(wanted[1:], names, given)
    baseline = wanted or names[0]
    if baseline not in names:
        if given["backends"]:
            raise UsageError(
                f"--baseline {baseline!r} is no backend of this run{nearest(baseline, names)}: {', '.join(names)}"
            )
        names.insert(0, baseline)
    return Sides(names, [Contender(name, name) for name in names], baseline)


def _stored(name: str, names: list[str], given: Mapping[str, Any]) -> Sides:
    from lnbench.bench import baselines
    from lnbench.bench.record import Contender

    plain = [Contender(n, n) for n in names]
    try:
        recipe = baselines.load(name)
    except ResultsError:
        raise
    except UsageError as error:
        if not given["lenient"]:
            raise
        return Sides(names, plain, names[0], [f"Note: {error}; nothing is compared with it"])
    try:
        again = baselines.restart(recipe)
    except EnvironmentUnfit as error:
        if not (given["trust"] or given["lenient"]):
            raise
        return Sides(names, plain, names[0], [f"Note: {error}"], recipe, given["trust"])
    label = f"@{name}"
    old = Contender(label, again.spec, tuple(sorted(recipe.environment.items())))
    return Sides(names, [old, *plain], label, [f"Note: {again.note}"] if again.note else [])
