"""Family J: state that survives a call, results that vary, promises of repeatability that are broken.

The state lives as long as the worker process, as that of a real plug-in does.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from lnbench.selftest import kernel, sums
from lnbench.selftest.kernel import Array, Function, Job, Results
from lnbench.selftest.mutants._plant import plant

Key = Callable[..., Hashable]


def _pointer(x: Array, **call: Any) -> Hashable:
    return x.ctypes.data, x.shape


def _shape(x: Array, **call: Any) -> Hashable:
    return x.shape, x.dtype


def _fingerprint(x: Array, **call: Any) -> Hashable:
    return x.shape, zlib.crc32(np.ascontiguousarray(x.reshape(-1)[:1]).tobytes())


def _cached(key: Key) -> Callable[[Function], Function]:
    """Results of an earlier call with the same key are returned again."""

    def around(inner: Function) -> Function:
        memory: dict[Hashable, Results] = {}

        def run(first: Array, *arrays: Any, **call: Any) -> Results:
            place = key(first)
            if place not in memory:
                memory[place] = inner(first, *arrays, **call)
            return dict(memory[place])

        return run

    return around


def _first_kept(position: int) -> Callable[[Function], Function]:
    """The argument at `position` of the first call of a shape is used in all later ones."""

    def around(inner: Function) -> Function:
        memory: dict[Hashable, Any] = {}

        def run(*arrays: Any, **call: Any) -> Results:
            given = arrays[position]
            first = memory.setdefault(_shape(arrays[0]), None if given is None else given.copy())
            return inner(*arrays[:position], first, *arrays[position + 1 :], **call)

        return run

    return around


def _first_epsilon(inner: Function) -> Function:
    memory: dict[Hashable, float] = {}

    def run(x: Array, *arrays: Any, epsilon: float, **call: Any) -> Results:
        return inner(x, *arrays, epsilon=memory.setdefault(_shape(x), epsilon), **call)

    return run


def _accumulating(*names: str) -> Callable[[Function], Function]:
    """Results are added to those of earlier calls of the same shape."""

    def around(inner: Function) -> Function:
        memory: dict[Hashable, Results] = {}

        def run(first: Array, *arrays: Any, **call: Any) -> Results:
            found = inner(first, *arrays, **call)
            before = memory.get(_shape(first), {})
            for name in names:
                if name in before and before[name].shape == found[name].shape:
                    found[name] = found[name] + before[name]
            memory[_shape(first)] = {n: found[n].copy() for n in names}
            return found

        return run

    return around


def _added_to_out(*names: str) -> Callable[[Function], Function]:
    """Results are added to what the output buffers hold, which the caller has not cleared."""

    def around(inner: Function) -> Function:
        def run(*arrays: Any, out: dict[str, Array], **call: Any) -> Results:
            found = inner(*arrays, out=out, **call)
            return found | {n: out[n] + found[n] for n in names if n in out}

        return run

    return around


def _sometimes(every: int, change: Callable[[Results], None]) -> Callable[[Function], Function]:
    """Every so many calls the result is wrong: a race that is rarely lost."""

    def around(inner: Function) -> Function:
        calls = [0]

        def run(*arrays: Any, **call: Any) -> Results:
            found = inner(*arrays, **call)
            calls[0] += 1
            if calls[0] % every == 0:
                change(found)
            return found

        return run

    return around


def _lose_row(name: str) -> Callable[[Results], None]:
    def change(found: Results) -> None:
        if found[name].size:
            found[name] = found[name].copy()
            found[name][-1] = 0

    return change


def _first_call_only(inner: Function) -> Function:
    """Right at the first call of a shape; later ones reuse scratch that was not cleared."""
    seen: set[Hashable] = set()

    def run(dy: Array, *arrays: Any, **call: Any) -> Results:
        found = inner(dy, *arrays, **call)
        if _shape(dy) in seen and dy.size:
            found["dgamma"] = found["dgamma"] * np.asarray(2, found["dgamma"].dtype)
        seen.add(_shape(dy))
        return found

    return run


class _SavedInput:
    """Backward uses the x of the last forward call of that shape instead of the one it is given."""

    def __init__(self) -> None:
        self.last: dict[Hashable, Array] = {}

    def forward(self, inner: Function) -> Function:
        def run(x: Array, *arrays: Any, **call: Any) -> Results:
            self.last[_shape(x)] = x.copy()
            return inner(x, *arrays, **call)

        return run

    def backward(self, inner: Function) -> Function:
        def run(dy: Array, x: Array, *arrays: Any, **call: Any) -> Results:
            return inner(dy, self.last.get(_shape(x), x), *arrays, **call)

        return run


def _blended_mean() -> Callable[[Job, Array], Array]:
    before: dict[tuple[int, ...], Array] = {}

    def mean(job: Job, x: Array) -> Array:
        own = kernel.mean(job, x)
        last = before.get(x.shape, own)
        before[x.shape] = own
        return job.number(0.99) * own + job.number(0.01) * last

    return mean


_ORDER = np.random.default_rng(7)


def _shuffled(job: Job, a: Array) -> Array:
    return sums.sequential(a[:, _ORDER.permutation(a.shape[1])])


def _shuffled_columns(job: Job, a: Array) -> Array:
    return sums.sequential(a[_ORDER.permutation(a.shape[0])].T).T


def _by_threads(job: Job, a: Array) -> Array:
    return sums.blocks(a.T, max(-(-job.rows // job.threads), 1)).T


def _by_batch(job: Job, a: Array) -> Array:
    """The number of lanes follows the number of rows."""
    return sums.lanes(a, 16) if job.rows < 8 else sums.lanes(a, 4)


plant("cached_by_pointer", "J", "y of an earlier call returned when x has the same address", forward=_cached(_pointer))
plant(
    "cached_by_shape",
    "J",
    "y of an earlier call returned for the same shape",
    like="tile-ai/TileOPs#2078",
    forward=_cached(_shape),
)
plant(
    "cached_by_fingerprint",
    "J",
    "y of an earlier call returned when x begins with the same value",
    forward=_cached(_fingerprint),
)
plant(
    "gradients_cached_by_shape",
    "J",
    "gradients of an earlier call returned for the same shape",
    backward=_cached(_shape),
)
plant("first_epsilon_kept", "J", "epsilon of the first call of a shape used for ever", forward=_first_epsilon)
plant("first_gamma_kept", "J", "gamma of the first call of a shape used for ever", forward=_first_kept(1))
plant(
    "first_beta_kept",
    "J",
    "beta of the first call of a shape used for ever, also when it is absent later",
    forward=_first_kept(2),
)
plant("stale_gamma_in_backward", "J", "backward keeps the gamma of its first call", backward=_first_kept(2))
plant(
    "sums_not_cleared",
    "J",
    "dgamma and dbeta added to those of earlier calls",
    like="torch/nn#318",
    backward=_accumulating("dgamma", "dbeta"),
)
plant(
    "added_to_out",
    "J",
    "dgamma and dbeta added into buffers that are not cleared",
    like="paiml/trueno#178",
    backward=_added_to_out("dgamma", "dbeta"),
)
plant("y_added_to_out", "J", "y added into its buffer", forward=_added_to_out("y"))
plant(
    "third_call_loses_row",
    "J",
    "every third call loses the last row of y",
    like="PaddlePaddle/Paddle#56435",
    forward=_sometimes(3, _lose_row("y")),
)
plant(
    "fourth_call_loses_dgamma",
    "J",
    "every fourth call loses the last dgamma",
    like="meta-pytorch/tritonbench#1266",
    backward=_sometimes(4, _lose_row("dgamma")),
)
plant("right_once", "J", "dgamma right at the first call of a shape only", backward=_first_call_only)
_saved = _SavedInput()
plant(
    "saved_x_in_backward",
    "J",
    "backward uses the x of the last forward call",
    forward=_saved.forward,
    backward=_saved.backward,
    passes="backward",
)
plant("mean_remembers", "J", "one percent of the mean of the call before", mean=_blended_mean())
plant(
    "order_varies",
    "J",
    "promises repeatable bits, sums in an order that changes",
    facts={"deterministic": "yes"},
    total=_shuffled,
)
plant(
    "column_order_varies",
    "J",
    "promises repeatable bits, dgamma summed in an order that changes",
    like="pytorch/pytorch#64486",
    facts={"deterministic": "yes"},
    columns=_shuffled_columns,
)
plant(
    "bits_by_threads",
    "J",
    "promises repeatable bits, partial sums follow the thread count",
    facts={"deterministic": "yes"},
    columns=_by_threads,
)
plant(
    "bits_by_batch",
    "J",
    "promises bits that do not depend on other rows, lanes follow the batch size",
    like="vllm-project/vllm#48391",
    facts={"batch_invariant": "yes"},
    total=_by_batch,
)
