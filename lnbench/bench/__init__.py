"""Benchmarking: samples, schedule, statistics, verdicts; no correctness. Calling it is `lnbench.api.bench`."""

from lnbench.callable_module import make_callable

make_callable(__name__, "lnbench.api:bench")
