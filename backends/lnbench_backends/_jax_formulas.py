"""The operators as a JAX user writes them: plain formulas of one dictionary of arrays, without `jit`.

Half types are computed in float32 and rounded at the end; the variance is the mean of the squares of centred values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lnbench.case import Case
from lnbench_backends._frameworks import batch_norm_attributes, normalized_axes

Values = Mapping[str, Any]
Formula = Callable[[Values], dict[str, Any]]


def formula(jax: Any, case: Case) -> Formula:
    """The forward formula of the case's operator: from inputs to outputs, by name."""
    if case.op == "batch_norm":
        return partial(_batch_norm, jax, case=case)
    kind = {"layer_norm": _layer_norm, "rms_norm": _rms_norm}[case.op]
    return partial(kind, jax, axes=normalized_axes(case), epsilon=case.epsilon)


def gradient(jax: Any, forward: Formula, t: Values) -> dict[str, Any]:
    """Cotangents of x, gamma and beta for the cotangent dy of y, through `jax.vjp`."""
    wanted = {n: v for n, v in t.items() if n in ("x", "gamma", "beta")}
    given = {n: v for n, v in t.items() if n not in wanted and n != "dy"}
    _, pull = jax.vjp(lambda inputs: forward({**inputs, **given})["y"], wanted)
    return {f"d{n}": v for n, v in pull(t["dy"])[0].items()}


def _wide(jax: Any, x: Any) -> Any:
    return x.astype(jax.numpy.promote_types(x.dtype, jax.numpy.float32))


def _affine(y: Any, t: Values, shape: list[int]) -> Any:
    if "gamma" in t:
        y = y * t["gamma"].reshape(shape)
    if "beta" in t:
        y = y + t["beta"].reshape(shape)
    return y.astype(t["x"].dtype)


def _layer_norm(jax: Any, t: Values, *, axes: tuple[int, ...], epsilon: float) -> dict[str, Any]:
    np_, x = jax.numpy, _wide(jax, t["x"])
    mean = np_.mean(x, axes, keepdims=True)
    centred = x - mean
    rstd = jax.lax.rsqrt(np_.mean(np_.square(centred), axes, keepdims=True) + epsilon)
    shape = [n if a in axes else 1 for a, n in enumerate(x.shape)]
    return {"y": _affine(centred * rstd, t, shape), "mean": mean, "rstd": rstd}


def _rms_norm(jax: Any, t: Values, *, axes: tuple[int, ...], epsilon: float) -> dict[str, Any]:
    np_, x = jax.numpy, _wide(jax, t["x"])
    rstd = jax.lax.rsqrt(np_.mean(np_.square(x), axes, keepdims=True) + epsilon)
    shape = [n if a in axes else 1 for a, n in enumerate(x.shape)]
    return {"y": _affine(x * rstd, t, shape), "rstd": rstd}


def _batch_norm(jax: Any, t: Values, *, case: Case) -> dict[str, Any]:
    np_, x = jax.numpy, _wide(jax, t["x"])
    assert isinstance(case.axis, int)
    training, momentum = batch_norm_attributes(case)
    channel = case.axis % x.ndim
    shape = [n if a == channel else 1 for a, n in enumerate(x.shape)]
    if not training:
        rstd = jax.lax.rsqrt(t["running_var"].reshape(shape) + case.epsilon)
        return {"y": _affine((x - t["running_mean"].reshape(shape)) * rstd, t, shape)}
    axes = tuple(a for a in range(x.ndim) if a != channel)
    mean = np_.mean(x, axes, keepdims=True)
    centred = x - mean
    variance = np_.mean(np_.square(centred), axes, keepdims=True)
    rstd = jax.lax.rsqrt(variance + case.epsilon)
    found = {"y": _affine(centred * rstd, t, shape), "mean": mean.reshape(-1), "rstd": rstd.reshape(-1)}
    count = x.size // x.shape[channel] if x.size else 0
    unbiased = variance.reshape(-1) * (count / (count - 1) if count > 1 else 1.0)
    for name, batch in (("running_mean", mean.reshape(-1)), ("running_var", unbiased)):
        # An empty batch leaves the state as it was; backward is not given the state's later values.
        found[f"{name}_out"] = t[name] * (1 - momentum) + batch * momentum if count else t[name]
    return found
