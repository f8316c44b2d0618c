"""The functions behind `lnbench.verify(...)`, `lnbench.bench(...)` and `lnbench.load_cases(...)`.

They run what the commands of the same names run, and return rows instead of printing; nothing is written to disk.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.machinery import ModuleSpec
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lnbench import config
from lnbench.case import Case
from lnbench.errors import EnvironmentUnfit, UsageError

if TYPE_CHECKING:
    from lnbench.backend import Backend
    from lnbench.bench.record import Item, Row
    from lnbench.bench.stopping import Plan
    from lnbench.bench.verdicts import Rules
    from lnbench.machine import Ceilings, Measurement
    from lnbench.verify.verdict import Verdict

_numbers = count()


def load_cases(*names: str | Path, **overrides: Any) -> list[Case]:
    """The cases of packaged suites (`"ci"`) or YAML files; keywords override keys of every case.

    Raises ConfigError with file, line and key.
    """
    return [case for name in names or ("ci",) for case in config.load(str(name), overrides)]


def verify(
    backend: str | Path | Backend | Sequence[str | Path | Backend],
    cases: str | Path | Case | Iterable[Case] = "ci",
    *,
    require: str = "stable",
    checks: Iterable[str] | None = None,
    timeout: float = 60.0,
    in_process: bool = False,
    dump: str | Path | None = None,
    stop_on_first: bool = False,
) -> list[Verdict]:
    """Verifies backends on cases and returns every verdict; `all(v.accepted for v in ...)` is the command's exit 0.

    backend: a name, path, module or library as on the command line, or an object; several as a sequence. Names run in a
    worker process of their own. An object runs in this process, where nothing can stop a crash or a hang.
    cases: a suite, a file, a `Case` or several cases.
    require: tier2, tier1, stable or any. timeout: seconds for one call. dump: a folder for the tensors of failures.
    Raises UnknownBackend, Unavailable, ConfigError and UsageError.
    """
    from lnbench.verify import runner
    from lnbench.verify.verdict import REQUIREMENTS

    if require not in REQUIREMENTS:
        raise UsageError(f"require={require!r} is not one of {', '.join(REQUIREMENTS)}")
    options = runner.Options(
        require=require,
        timeout=timeout,
        in_process=in_process,
        checks=None if checks is None else tuple(checks),
        dump=None if dump is None else Path(dump),
        stop_on_first=stop_on_first,
    )
    chosen = _cases(cases)
    with _specs(_several(backend)) as (names, objects):
        found = runner.run(chosen, names, options) if names else []
        local = replace(options, in_process=True)
        more = runner.run(chosen, list(objects), local) if objects else []
        return found + [replace(v, backend=objects[v.backend]) for v in more]


def bench(
    backends: str | Path | Sequence[str | Path],
    cases: str | Path | Case | Iterable[Case] = "models",
    *,
    baseline: str | None = None,
    margin: float = 0.02,
    time_budget: float | None = None,
    epochs: int | None = None,
    rounds: int | None = None,
    cache: str = "hot",
    timeout: float = 60.0,
) -> list[Row]:
    """Measures backends against each other and returns one row per backend, case and pass.

    backends: names, paths, modules or libraries; objects cannot be measured, because every epoch starts new processes.
    baseline: what ratios are to, by default the first. margin: the difference that matters, 0.02 is 2 %. time_budget:
    seconds for all. cache: hot or cold. Raises UnknownBackend, Unavailable, ConfigError and UsageError.
    """
    from lnbench import machine, pool
    from lnbench.bench import runner
    from lnbench.bench.crew import Circumstances
    from lnbench.bench.record import CACHES, Contender, Item
    from lnbench.bench.stopping import plan_of
    from lnbench.bench.world import World
    from lnbench.verify.right import Right

    given = [backends] if isinstance(backends, (str, Path)) else list(backends)
    names = list(dict.fromkeys(name for b in given for name in pool.expand(str(b))))
    if cache not in CACHES or (baseline or names[0]) not in names:
        raise UsageError(f"cache is one of {', '.join(CACHES)}, and baseline one of {', '.join(names)}")
    plan = plan_of(epochs=epochs, margin=margin, budget=time_budget, rounds=rounds)
    items = [Item(case, pass_, cache) for case in _cases(cases) for pass_ in case.pass_names]
    how = Circumstances(timeout=timeout, cold_bytes=3 * machine.last_level_cache())
    contenders = [Contender(name, name) for name in names]
    world = World(Right(), kept_bytes=machine.spare_memory())
    return runner.run(items, contenders, rules(plan, baseline or names[0], ceilings=ceilings()), how, world).rows


def rules(
    plan: Plan, baseline: str, *, gate: bool = False, ceilings: Ceilings | None, statistic: str = "paired"
) -> Rules:
    """How timings are judged on this machine: by the operators' traffic and the machine's ceilings, where known."""
    from lnbench import machine
    from lnbench.bench.verdicts import Rules
    from lnbench.operators import registry

    def traffic(item: Item) -> float:
        return registry.get(item.case.op).cost(item.case, item.pass_).bytes

    second = next((c.bytes for c in machine.caches() if c.level == 2), 0)
    return Rules(
        plan=plan,
        baseline=baseline,
        gate=gate,
        statistic=statistic,
        traffic=traffic,
        ceiling=_ceiling(traffic, ceilings),
        believe_below=second,
    )


def ceilings(on_point: Callable[[Measurement], None] = lambda point: None) -> Ceilings | None:
    """The machine's ceilings, measured now unless they are stored; None where that cannot be done."""
    from lnbench import machine

    try:
        return machine.ceilings(on_point=on_point)
    except EnvironmentUnfit:
        return None


def _ceiling(traffic: Callable[[Item], float], found: Ceilings | None) -> Callable[[Item], float | None]:
    """What the machine moves for an item in GB/s; None where that was not measured or may be too low."""
    if found is None or found.is_doubtful:  # nobody is to be suspected because something else was running
        return lambda item: None

    def ceiling(item: Item) -> float | None:
        size, operation = int(traffic(item)), "copy" if item.pass_ == "forward" else "triad"
        return found.best(operation, item.case.threads, size)

    return ceiling


def _several(backend: Any) -> list[Any]:
    from lnbench.backend import is_backend

    return [backend] if isinstance(backend, (str, Path)) or is_backend(backend) else list(backend)


def _cases(cases: str | Path | Case | Iterable[Case]) -> list[Case]:
    if isinstance(cases, (str, Path)):
        return load_cases(cases)
    return [cases] if isinstance(cases, Case) else list(cases)


@contextmanager
def _specs(backends: Sequence[Any]) -> Iterator[tuple[list[str], dict[str, str]]]:
    """(names, objects): words that name backends, those of objects with the name that each object has."""
    from lnbench import pool
    from lnbench.backend import is_backend

    module = ModuleType(f"lnbench_objects_{next(_numbers)}")
    module.__spec__ = ModuleSpec(module.__name__, None)
    names: list[str] = []
    objects: dict[str, str] = {}
    for backend in backends:
        if isinstance(backend, (str, Path)):
            names += pool.expand(str(backend))
        elif is_backend(backend):
            attribute = f"backend_{len(objects)}"
            setattr(module, attribute, backend)
            objects[f"{module.__name__}:{attribute}"] = backend.name
        else:
            raise UsageError(f"{backend!r} is no backend; give a name, a path, or an object of the Backend protocol")
    sys.modules[module.__name__] = module
    try:
        yield names, objects
    finally:
        del sys.modules[module.__name__]
