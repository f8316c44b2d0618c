"""The backend's backward against its own forward: a directional derivative by central differences, in float64.

Independent of the reference's backward: were that wrong, this check would show it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from lnbench.verify.check import is_small, not_run, prefixed, verdict
from lnbench.verify.subject import Arrays, Subject
from lnbench.verify.verdict import Status, Verdict

# The step is this part of each row's sqrt(var + epsilon): the difference quotient is then off by about STEP**2, and its
# rounding by u/STEP times the row's mean over its deviation. The tolerance leaves a factor of 100 to both.
STEP = 1e-5
TOLERANCE = 1e-6
WRONG = "the gradients are not the derivative of the backend's own forward along a random direction"
FLUSHED = (
    "1/sqrt(var + epsilon)**3 is subnormal here, which the backend declares to flush to zero, and the term that it scales "
    "is lost; multiply by 1/sqrt(var + epsilon) three times instead"
)


class Gradient:
    name = "gradient"
    reveals = "a backward that is not the derivative of its forward"
    order = 80

    def run(self, subject: Subject, pass_: str) -> Iterator[Verdict]:
        case = subject.case
        if pass_ != "backward" or case.dtype != "float64" or case.affine_dtype != "float64":
            return
        inputs = subject.problem.inputs()
        if (
            not is_small(subject, 1 << 16)
            or case.elements == 0
            or not all(np.isfinite(a).all() for a in inputs.values())
        ):
            return
        direction = self._direction(subject)
        if direction is None or not self._is_settled(subject):
            return
        sides = [
            self._y(subject, {n: a + sign * direction[n] if n in direction else a for n, a in inputs.items()})
            for sign in (1, -1)
        ]
        for side in sides:
            if isinstance(side, Verdict):
                yield side
                return
        yield self._compare(subject, direction, sides[0], sides[1])  # type: ignore[arg-type]

    def _is_settled(self, subject: Subject) -> bool:
        """Whether what the main check said leaves something to compare.

        Differences of a y that misses its bound, which has been said, are no derivative; nor can a sum be right with
        elements of dx that may be anything, because an intermediate leaves the range.
        """
        y, dx = subject.judgements["forward"].get("y"), subject.judgements["backward"].get("dx")
        return (y is None or y.status is Status.PASSED) and (dx is None or not dx.undecided + dx.out_of_domain)

    def _direction(self, subject: Subject) -> dict[str, np.ndarray] | None:
        """A random step for every input that has a gradient; None where a row cannot carry a step."""
        inputs, gradients = subject.problem.inputs(), subject.output_tensors("backward")
        rng = np.random.default_rng(subject.case.seed + 11)
        fold = subject.operator.fold(subject.case)
        x = fold.to_rows(inputs["x"].reshape(subject.case.shape))
        with np.errstate(over="ignore"):
            scale = np.sqrt(x.var(axis=1, keepdims=True) + subject.case.epsilon)
        if (scale < 1e-4 * np.abs(x).max(initial=0.0)).any() or not ((scale > 0) & np.isfinite(scale)).all():
            return None
        step = fold.from_rows(STEP * scale * rng.standard_normal(x.shape))
        found = {"x": step.reshape(inputs["x"].shape)}
        for name in ("gamma", "beta"):
            if name in inputs and f"d{name}" in gradients:
                found[name] = STEP * rng.standard_normal(inputs[name].shape)
        return found

    def _y(self, subject: Subject, inputs: Arrays) -> np.ndarray | Verdict:
        reply = subject.run(subject.request("forward", inputs=inputs))
        if reply.status == "OK":
            return reply.outputs["y"].astype(np.float64, copy=True)
        return prefixed(not_run(subject, "backward", self.name, reply), "forward for the difference quotient")

    def _compare(self, subject: Subject, direction: Arrays, above: np.ndarray, below: np.ndarray) -> Verdict:
        dy = subject.problem.inputs()["dy"].reshape(above.shape)
        terms = dy * (above - below) / 2
        backward = subject.kept("backward")
        parts = [backward[f"d{n}"].reshape(v.shape) * v for n, v in direction.items() if f"d{n}" in backward]
        quotient, product = float(terms.sum()), float(sum(p.sum() for p in parts))
        # Where the step hardly moves y (rows of two elements), what is left is its rounding: the last term is the change
        # of a y that moves as much as its inputs.
        size = float(np.abs(terms).sum() + sum(np.abs(p).sum() for p in parts) + STEP * np.abs(dy * above).sum())
        # Every product may lose a smallest subnormal.
        limit = TOLERANCE * size + 8 * above.size * np.finfo(np.float64).smallest_subnormal
        error = abs(quotient - product)
        status, reason = Status.PASSED, ""
        if not error <= limit:
            status, reason = Status.FAILED, WRONG
            if subject.facts.subnormals == "flush" and self._cube_vanishes(subject):
                status, reason = Status.UNSTABLE, f"{WRONG}; {FLUSHED}"
        return verdict(
            subject, "backward", self.name, status, compared=1, output="dx", expected=quotient, got=product,
            bound=float(limit), max_abs=error, budget=float(error / limit) if limit > 0 else None, reason=reason,
        )  # fmt: skip

    def _cube_vanishes(self, subject: Subject) -> bool:
        """Whether 1/sqrt(var + epsilon)**3, which differentiating 1/sqrt gives, is a subnormal number in some row."""
        fold = subject.operator.fold(subject.case)
        x = fold.to_rows(subject.problem.inputs()["x"].reshape(subject.case.shape))
        scale = np.sqrt(x.var(axis=1) + subject.case.epsilon)
        return bool((scale.max(initial=0.0) ** -1.0) ** 3 < np.finfo(np.float64).tiny)


CHECK = Gradient()
