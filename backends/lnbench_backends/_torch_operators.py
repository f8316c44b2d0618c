"""The operators of PyTorch: per prepared call the names of the outputs, a function of tensors, and its tensors.

The function depends on the problem alone, so that calls of one problem can share what a compiler makes of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lnbench.case import Case
from lnbench.errors import Unsupported
from lnbench_backends._frameworks import (
    HALF,
    batch_norm_attributes,
    needs_affine_dtype,
    needs_trailing_axes,
    trailing_count,
)

Function = Callable[..., tuple[Any, ...]]
Built = tuple[tuple[str, ...], Function, tuple[Any, ...]]
Arguments = dict[str, Any]


def supports(case: Case) -> str | None:
    """None, or why PyTorch has no call for the case."""
    if case.op not in {op for op, _ in STEPS}:
        return f"the torch backend has no {case.op}"
    mixed = needs_affine_dtype(case, "torch", mixed=("float32",))
    if case.op == "batch_norm":
        rank = len(case.shape)
        if not (isinstance(case.axis, int) and rank > 1 and case.axis % rank == 1):
            return "torch's batch_norm takes the channels at axis 1"
        if case.elements == 0:
            return "torch's native_batch_norm takes no empty batch; F.batch_norm answers those without it"
        if case.dtype in HALF and (case.gamma or case.beta) and case.affine_dtype != "float32":
            return f"torch's batch_norm wants running statistics in the type of gamma, {case.affine_dtype}, not float32"
        return mixed
    return mixed or needs_trailing_axes(case, f"torch's {case.op}")


def match_statistics(torch: Any, case: Case, tensors: Arguments) -> None:
    """Statistics arrive in the declared dtype; beside float32 parameters torch's kernels want them in float32."""
    if case.dtype in HALF and "gamma" in tensors and tensors["gamma"].dtype is torch.float32:
        for name in ("mean", "rstd"):
            if name in tensors:
                tensors[name] = tensors[name].float()


def _layer_norm(torch: Any, t: Arguments, case: Case) -> Built:
    # Returns new tensors: with `out=` torch computes them just so, and then copies.
    operator, shape, epsilon = torch.native_layer_norm, _normalized_shape(case), case.epsilon

    def function(x: Any, gamma: Any, beta: Any) -> tuple[Any, ...]:
        return operator(x, shape, gamma, beta, epsilon)  # type: ignore[no-any-return]

    return ("y", "mean", "rstd"), function, (t["x"], t.get("gamma"), t.get("beta"))


def _layer_norm_grad(torch: Any, t: Arguments, case: Case) -> Built:
    backward = torch.ops.aten.native_layer_norm_backward.default
    if case.beta and not case.gamma and case.affine_dtype != case.dtype:
        raise Unsupported("torch's layer_norm backward wants a beta of the data's dtype when there is no gamma")
    shape, wanted = _normalized_shape(case), [True, case.gamma, case.beta]
    # The bias only says whether dbeta exists and which dtype it has.
    bias = torch.empty(shape, dtype=_affine_dtype(torch, case), device=t["x"].device) if case.beta else None

    def function(dy: Any, x: Any, gamma: Any, mean: Any, rstd: Any, bias: Any) -> tuple[Any, ...]:
        return backward(dy, x, shape, mean, rstd, gamma, bias, wanted)  # type: ignore[no-any-return]

    return ("dx", "dgamma", "dbeta"), function, (t["dy"], t["x"], t.get("gamma"), t["mean"], t["rstd"], bias)


def _rms_norm(torch: Any, t: Arguments, case: Case) -> Built:
    # The fused operator is what F.rms_norm calls; unlike it, it also returns 1/rms, which torch keeps in float32.
    fused = getattr(torch.ops.aten, "_fused_rms_norm", None)
    shape, epsilon, given = _normalized_shape(case), case.epsilon, (t["x"], t.get("gamma"))
    if fused is None:
        return ("y",), lambda x, gamma: (torch.nn.functional.rms_norm(x, shape, gamma, epsilon),), given
    return ("y", "rstd"), lambda x, gamma: tuple(fused.default(x, shape, gamma, epsilon)), given


def _rms_norm_grad(torch: Any, t: Arguments, case: Case) -> Built:
    """Autograd of F.rms_norm: the CPU has no fused backward. Forward runs inside, as only that saves its graph."""
    shape, epsilon = _normalized_shape(case), case.epsilon
    leaves = [t[n].detach().requires_grad_() for n in ("x", "gamma") if n in t]

    def function(dy: Any, *leaves: Any) -> tuple[Any, ...]:
        with torch.enable_grad():
            y = torch.nn.functional.rms_norm(leaves[0], shape, leaves[1] if len(leaves) > 1 else None, epsilon)
        return tuple(torch.autograd.grad(y, leaves, dy))

    return ("dx", "dgamma")[: len(leaves)], function, (t["dy"], *leaves)


def _batch_norm(torch: Any, t: Arguments, case: Case) -> Built:
    (training, momentum), epsilon = batch_norm_attributes(case), case.epsilon

    def function(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any) -> tuple[Any, ...]:
        if training:
            mean, variance = mean.clone(), variance.clone()  # updated in place
        y, *saved = torch.native_batch_norm(x, gamma, beta, mean, variance, training, momentum, epsilon)
        return (y, *saved, mean, variance)

    kept = ("mean", "rstd", "running_mean_out", "running_var_out")
    return ("y", *kept), function, (t["x"], t.get("gamma"), t.get("beta"), t["running_mean"], t["running_var"])


def _batch_norm_grad(torch: Any, t: Arguments, case: Case) -> Built:
    backward = torch.ops.aten.native_batch_norm_backward.default
    running, saved, wanted = ("running_mean", "running_var"), ("mean", "rstd"), [True, case.gamma, case.beta]
    (training, _), epsilon = batch_norm_attributes(case), case.epsilon

    def function(*given: Any) -> tuple[Any, ...]:
        return tuple(backward(*given, training, epsilon, wanted))

    given = (t["dy"], t["x"], t.get("gamma"), *(t[n] for n in running), *(t.get(n) for n in saved))
    return ("dx", "dgamma", "dbeta"), function, given


def _normalized_shape(case: Case) -> list[int]:
    count = trailing_count(case) or 0
    return list(case.shape[len(case.shape) - count :])


def _affine_dtype(torch: Any, case: Case) -> Any:
    return getattr(torch, case.affine_dtype)


STEPS: dict[tuple[str, str], Callable[[Any, Arguments, Case], Built]] = {
    ("layer_norm", "forward"): _layer_norm,
    ("layer_norm", "backward"): _layer_norm_grad,
    ("rms_norm", "forward"): _rms_norm,
    ("rms_norm", "backward"): _rms_norm_grad,
    ("batch_norm", "forward"): _batch_norm,
    ("batch_norm", "backward"): _batch_norm_grad,
}
