"""A Triton kernel as a backend: `lnbench verify --backend docs/examples/triton_backend.py`.

Forward and dx are kernels, one program per row; dgamma and dbeta are left to torch. On a machine without a GPU it runs
in Triton's interpreter: TRITON_INTERPRET=1 lnbench verify smoke --backend docs/examples/triton_backend.py
"""

from __future__ import annotations

import os
import warnings

import numpy as np

from lnbench import Unavailable, Unsupported


class TritonBackend:
    name = "triton-example"

    def _modules(self):
        """torch, triton and the device. Imported here, in the worker, because creating a backend must be cheap."""
        try:
            import torch
            import triton
        except ImportError as error:
            raise Unavailable(f"{error.name} is not installed; install it with: pip install torch triton") from error
        if torch.cuda.is_available():
            return torch, triton, "cuda"
        if os.environ.get("TRITON_INTERPRET") == "1":
            return torch, triton, "cpu"
        raise Unavailable("there is no GPU; set TRITON_INTERPRET=1 to run the kernels in Triton's interpreter")

    def describe(self):
        _, triton, device = self._modules()
        return {"version": triton.__version__, "device": device, "statistics": "rstd", "threads": "ignored"}

    def supports(self, case):
        if case.op != "layer_norm":
            return "the example has layer_norm only"
        if case.dtype not in ("float32", "float16") or case.affine_dtype != case.dtype:
            return "the example takes float32 and float16, gamma and beta in the same type"
        if case.axis not in (-1, len(case.shape) - 1) or case.elements == 0:
            return "the example normalizes the last axis of tensors that are not empty"
        return None

    def prepare(self, case, pass_, tensors, threads):
        torch, triton, device = self._modules()
        return (Forward if pass_ == "forward" else Backward)(torch, triton, device, case, tensors)


class Call:
    """What both passes share. The constructor and `load` are not timed; `run` is, so it waits for the device."""

    def __init__(self, torch, triton, device, case, tensors):
        self.torch, self.case, self.out = torch, case, tensors.out
        self.kernels = kernels(triton)
        self.sources = tensors.inputs
        self.inputs = {
            n: torch.empty(a.shape, dtype=getattr(torch, a.dtype.name), device=device) for n, a in self.sources.items()
        }
        self.results = {
            n: torch.empty(a.shape, dtype=getattr(torch, a.dtype.name), device=device) for n, a in self.out.items()
        }
        self.cols = case.shape[-1]
        self.rows = case.elements // self.cols
        self.block = triton.next_power_of_2(self.cols)
        if self.block > 65536:
            raise Unsupported("the example keeps a whole row in one block, at most 65536 elements")
        self.load()

    def load(self):
        """Copies the inputs' present content to the device; called after every change of the arrays."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns that it could write to arrays that are read-only
            for name, source in self.sources.items():
                self.inputs[name].copy_(self.torch.from_numpy(np.ascontiguousarray(source)))

    def synchronize(self):
        if self.torch.cuda.is_available():
            self.torch.cuda.synchronize()

    def outputs(self):
        """NumPy arrays, copied back; not timed."""
        return {name: result.cpu().numpy() for name, result in self.results.items()}


class Forward(Call):
    def run(self):
        i, o = self.inputs, self.results
        gamma, beta = i.get("gamma"), i.get("beta")
        self.kernels["forward"][(self.rows,)](
            i["x"], gamma if gamma is not None else i["x"], beta if beta is not None else i["x"],
            o["y"], o["mean"], o["rstd"], self.cols, self.case.epsilon,
            HAS_GAMMA=gamma is not None, HAS_BETA=beta is not None, BLOCK=self.block,
        )  # fmt: skip
        self.synchronize()


class Backward(Call):
    def run(self):
        i, o = self.inputs, self.results
        gamma = i.get("gamma")
        self.kernels["backward"][(self.rows,)](
            i["dy"], i["x"], gamma if gamma is not None else i["x"], i["mean"], i["rstd"], o["dx"], self.cols,
            HAS_GAMMA=gamma is not None, BLOCK=self.block,
        )  # fmt: skip
        dy, x = i["dy"].view(self.rows, self.cols).float(), i["x"].view(self.rows, self.cols).float()
        if "dgamma" in o:
            xhat = (x - i["mean"].view(-1, 1)) * i["rstd"].view(-1, 1)
            o["dgamma"].copy_((dy * xhat).sum(0))
        if "dbeta" in o:
            o["dbeta"].copy_(dy.sum(0))
        self.synchronize()


def kernels(triton):
    """The two kernels. Defined when triton is there, so that this file can be imported without it."""
    global tl
    import triton.language as tl

    @triton.jit
    def forward(
        x,
        gamma,
        beta,
        y,
        mean,
        rstd,
        cols,
        epsilon,
        HAS_GAMMA: tl.constexpr,
        HAS_BETA: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        row = tl.program_id(0)
        at = tl.arange(0, BLOCK)
        inside = at < cols
        values = tl.load(x + row * cols + at, mask=inside, other=0.0).to(tl.float32)
        m = tl.sum(values, 0) / cols
        d = tl.where(inside, values - m, 0.0)  # the padding lanes must not count as -mean
        r = 1.0 / tl.sqrt(tl.sum(d * d, 0) / cols + epsilon)
        out = d * r
        if HAS_GAMMA:
            out *= tl.load(gamma + at, mask=inside, other=0.0).to(tl.float32)
        if HAS_BETA:
            out += tl.load(beta + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(y + row * cols + at, out.to(y.dtype.element_ty), mask=inside)
        tl.store(mean + row, m)
        tl.store(rstd + row, r)

    @triton.jit
    def backward(dy, x, gamma, mean, rstd, dx, cols, HAS_GAMMA: tl.constexpr, BLOCK: tl.constexpr):
        row = tl.program_id(0)
        at = tl.arange(0, BLOCK)
        inside = at < cols
        g = tl.load(dy + row * cols + at, mask=inside, other=0.0).to(tl.float32)
        if HAS_GAMMA:
            g *= tl.load(gamma + at, mask=inside, other=0.0).to(tl.float32)
        m, r = tl.load(mean + row), tl.load(rstd + row)
        xhat = tl.where(inside, (tl.load(x + row * cols + at, mask=inside, other=0.0).to(tl.float32) - m) * r, 0.0)
        out = r * (g - tl.sum(g, 0) / cols - xhat * (tl.sum(g * xhat, 0) / cols))
        tl.store(dx + row * cols + at, out.to(dx.dtype.element_ty), mask=inside)

    return {"forward": forward, "backward": backward}


backend = TritonBackend()
