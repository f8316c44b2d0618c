"""Layer normalizations that are right, each in another way: a verdict against one of them is a false accusation.

They differ in the order of summation, the formula of the variance, the order of the affine steps, where they round
and what they save. Every one is a plug-in of its own: `lnbench.selftest.correct:NAME`. Formulas: Chan, Golub and
LeVeque 1983 (merging), Welford 1962, Neumaier 1974 (compensation).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lnbench.backend import FunctionBackend
from lnbench.selftest import forms, kernel, sums
from lnbench.selftest.kernel import Array, Job, LayerNorm, Steps, edited
from lnbench.selftest.mutants.channels import BatchNorm
from lnbench.selftest.mutants.relatives import RmsNorm


@dataclass(frozen=True, slots=True)
class Correct:
    """One correct kind.

    weak_on: what it is legitimately weaker at (a named bound of the verifier, verdict UNSTABLE), or "".
    """

    name: str
    sentence: str
    norm: LayerNorm | RmsNorm | BatchNorm
    weak_on: str = ""
    op: str = "layer_norm"

    def backend(self) -> FunctionBackend:
        return kernel.backend(self.name, self.norm.forward, self.norm.backward, op=self.op, facts=self.facts)

    @property
    def facts(self) -> Mapping[str, str]:
        return self.norm.facts if isinstance(self.norm, LayerNorm) else {}


KINDS: dict[str, Correct] = {}


def _add(name: str, sentence: str, steps: Steps, weak_on: str = "", **facts: str) -> None:
    KINDS[name] = Correct(name, sentence, LayerNorm(steps, facts), weak_on)


def _summed(sum_: Callable[[Array], Array]) -> Steps:
    return edited(total=lambda job, a: sum_(a), columns=lambda job, a: sum_(a.T).T)


def _by_moments(moments: Callable[[Job, Array], tuple[Array, Array]]) -> Steps:
    return edited(mean=lambda job, x: moments(job, x)[0], variance=lambda job, x, mean: moments(job, x)[1])


_add("two_pass", "mean, then squared deviations; NumPy's pairwise sums", _summed(sums.numpy_))
_add("sequential", "every sum from the first element to the last", _summed(sums.sequential))
_add("reversed", "every sum from the last element to the first", _summed(sums.reversed_))
_add("pairwise", "every sum as a binary tree", _summed(sums.tree))
_add("lanes_and_tail", "sixteen vector lanes, a tree over them, the tail by elements", _summed(sums.lanes))
_add("compensated", "every sum with a running compensation", _summed(sums.compensated))
_add("blocked", "rows and columns in blocks whose sums are added in order", _summed(sums.blocks))
_add("wide", "sums in the next wider type, rounded once", _summed(sums.wide))
_add("wide_declared", "the same, declared: held to the tighter bound", forms.WIDE, accumulate="float64")
_add("welford", "one pass, mean and squared deviations updated by every element", _by_moments(forms.welford))
_add("merged_welford", "Welford over chunks of 64, merged in a tree", _by_moments(forms.merged_welford))
_add("corrected", "two passes, the mean corrected by the mean of the deviations", _by_moments(forms.corrected))
_add("fused_multiply_add", "products exact inside every sum and in the affine step", forms.FUSED)
_add("newton", "reciprocal root by Newton's iteration from a bit trick", edited(rstd=forms.newton))
_add("root_and_divide", "divides by the root instead of multiplying by its reciprocal", edited(output=forms.divided))
_add("row_affine", "each row as x * r + (-m * r), then gamma and beta", edited(output=forms.row_affine))
_add("gamma_first", "gamma joined with the reciprocal deviation before the product", edited(output=forms.gamma_first))
_add(
    "folded",
    "one scale and one shift per element: x * (r gamma) + (beta - m r gamma)",
    edited(output=forms.folded),
    weak_on="folded affine on constant rows",
)
_add(
    "affine_gradient",
    "dx as dy gamma r + x b + c from two sums (Caffe2's data flow)",
    edited(dx=forms.affine_gradient),
    statistics="std",
)
_add(
    "fused_gradient",
    "dx with xhat multiplied out: r (g - mean(g) - (x - m) r mean(g (x - m)) r)",
    edited(dx=forms.fused_gradient),
)
_add("recomputed", "saves no statistics; backward computes them again", kernel.STEPS, statistics="none")
_add("variance_saved", "saves the variance (oneDNN's convention)", kernel.STEPS, statistics="var")
_add("short_statistics", "statistics kept in the type of x, declared", kernel.STEPS, statistics_dtype="storage")
_add(
    "early_cast",
    "xhat rounded to the type of x before gamma and beta, declared",
    edited(output=forms.early_cast),
    cast="early",
)
_add(
    "threaded",
    "rows split over real threads, partial column sums added in order",
    forms.THREADED,
    deterministic="yes",
    batch_invariant="yes",
)
_add("flushing", "subnormal operands and results become zero, declared", forms.FLUSHING, subnormals="flush")
_add("in_place", "y may be x and dx may be dy, declared", kernel.STEPS, inplace="both")


def _add_relative(name: str, sentence: str, op: str, norm: RmsNorm | BatchNorm) -> None:
    KINDS[name] = Correct(name, sentence, norm, op=op)


_add_relative("rms_two_pass", "rms_norm: mean square, root, product", "rms_norm", RmsNorm())
_add_relative("batch_two_pass", "batch_norm: two passes per channel, running state", "batch_norm", BatchNorm())


def names() -> tuple[str, ...]:
    """Names of all correct kinds."""
    return tuple(KINDS)


def __getattr__(name: str) -> Any:
    if name in KINDS:
        return KINDS[name].backend()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
