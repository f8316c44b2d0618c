"""What verification found in other people's implementations, why, and a short program without lnbench that shows it.

Data for peer_verdicts.py, which runs the demonstrations and writes docs/peers.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from textwrap import dedent

from lnbench import Status, Verdict


@dataclass(frozen=True, slots=True)
class Finding:
    """One weakness: which verdicts it explains, the explanation, and a demonstration.

    matches: patterns by attribute of the verdict (`op`, `dtype`, `output`, `reason`, `law`, `layout`, `case`, `what`), all
    of which must be found; a SKIPPED verdict is explained only where `status` asks for it. demo: a short program that prints
    what is wrong, run with the interpreter that ran the verification.
    """

    title: str
    backends: tuple[str, ...]
    matches: dict[str, str]
    why: str
    demo: str
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def program(self) -> str:
        return dedent(self.demo).strip()

    @property
    def sentences(self) -> str:
        return dedent(self.why).strip()

    def explains(self, verdict: Verdict) -> bool:
        case = verdict.case
        seen = {
            "op": case.op, "dtype": case.dtype, "output": verdict.output, "reason": verdict.reason,
            "law": str(case.law), "case": case.label, "pass": verdict.pass_, "status": str(verdict.status),
            "layout": f"{case.layout} {case.dy_layout} {case.out_layout}",
            "what": f"{case.dtype} {verdict.output} {verdict.status}",
        }  # fmt: skip
        if verdict.status is Status.SKIPPED and "status" not in self.matches:
            return False
        return verdict.backend in self.backends and all(re.search(p, seen[k]) for k, p in self.matches.items())


FINDINGS = (
    Finding(
        "PyTorch saves 1/sqrt(var + epsilon) in float16, where it overflows",
        ("torch",),
        {"dtype": "float16", "output": "dx|dgamma", "law": "constant"},
        """
        The saved statistics have the type of the parameters. On a constant row with epsilon 1e-12 the reciprocal is 1e6,
        beyond float16: it becomes infinite, and the gradient of a row whose output is right becomes NaN.
        """,
        """
        import torch
        x = torch.ones(1, 4, dtype=torch.half, requires_grad=True)
        torch.nn.functional.layer_norm(x, [4], eps=1e-12).backward(torch.ones(1, 4).half())
        print(x.grad, "for a gradient of 0")
        """,
    ),
    Finding(
        "PyTorch adds dgamma and dbeta up in the half type",
        ("torch",),
        {"dtype": "float16", "output": "dgamma|dbeta"},
        """
        On the CPU, gradients of the parameters come from buffers of the data's type, also where the parameters themselves
        are float32: every added row rounds to 8 (bfloat16) or 11 (float16) bits. A thousand ones add up to 256 in bfloat16,
        because 256 + 1 rounds to 256.
        """,
        """
        import torch
        for dtype in torch.bfloat16, torch.float32:
            w, b = (torch.ones(8, dtype=dtype, requires_grad=True) for _ in "wb")
            torch.nn.functional.layer_norm(torch.randn(1000, 8).bfloat16(), [8], w, b).sum().backward()
            print(b.grad[0].item(), "for the sum of 1000 ones, parameters", dtype)
        """,
    ),
    Finding(
        "Keras computes float64 in float32",
        ("keras",),
        {"dtype": "float64"},
        """
        The layers compute in `result_type(x.dtype, "float32")`, which Keras on jax and on torch defines as float32 for
        float64 data, and cast the result back: it has the type of float64 and the error of float32, although JAX was told
        to use float64. On TensorFlow the same line gives float64.
        """,
        """
        import jax, numpy as np
        jax.config.update("jax_enable_x64", True)
        import keras
        x = np.random.default_rng(0).normal(size=(3, 5))
        y = keras.layers.LayerNormalization(epsilon=1e-3, dtype="float64")(x)
        print(y.dtype, abs(y - (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-3)).max())
        """,
        {"KERAS_BACKEND": "jax"},
    ),
    Finding(
        "Automatic differentiation of 1/sqrt underflows for large inputs",
        ("jax", "keras", "tensorflow", "tensorflow-keras"),
        {"dtype": "^float(32|64)$", "output": "^dx$", "law": "huge"},
        """
        The derivative of rsqrt is -r**3/2. For |x| above about 1e13 in float32 (1e103 in float64) r**3 is smaller than any
        normal number, and XLA sets it to zero: dx loses the term with xhat, a fifth of its size here, although y is right
        and dx itself is well within range. PyTorch's hand-written gradient keeps it.
        """,
        """
        import jax, numpy as np
        def layer_norm(x):
            d = x - x.mean()
            return d * jax.lax.rsqrt((d * d).mean() + 1e-5)
        x, dy = np.random.default_rng(0).normal(size=(2, 8)).astype("float32")
        for scale in 1.0, 1e14:
            print(scale * jax.vjp(layer_norm, scale * jax.numpy.array(x))[1](dy)[0][:4], "times 1 /", scale)
        """,
    ),
    Finding(
        "Keras folds the affine step, which does not cancel on constant rows",
        ("keras", "tensorflow-keras"),
        {"reason": "folded affine|UNSTABLE"},
        """
        Keras computes x * inv + (beta - mean * inv). Where x equals the mean, the two products are rounded apart, and
        their difference is not beta. It is small unless epsilon is, and within the bound of that order of evaluation.
        """,
        """
        import keras, numpy as np
        print(keras.layers.LayerNormalization(epsilon=1e-6)(np.full((1, 3), 14.1, "float32")), "for zeros")
        """,
        {"KERAS_BACKEND": "jax"},
    ),
    Finding(
        "TensorFlow's graph optimizer breaks the formula in float64",
        ("tensorflow",),
        {"dtype": "float64", "status": "SKIPPED", "reason": "_MklLayerNorm"},
        """
        The same fusion is applied to float64, for which _MklLayerNorm does not exist: the graph cannot be run at all.
        """,
        """
        import tensorflow as tf
        def layer_norm(x, gamma, beta):
            mean, variance = tf.nn.moments(x, [1], keepdims=True)
            return (x - mean) / tf.sqrt(variance + 1e-5) * gamma + beta
        tf.function(layer_norm)(tf.ones([2, 4], "float64"), tf.ones(4, "float64"), tf.zeros(4, "float64"))
        """,
    ),
    Finding(
        "TensorFlow's graph optimizer puts an operator with another epsilon in place of the formula",
        ("tensorflow",),
        {"what": "^float32 y?|^bfloat16 y FAILED"},
        """
        With oneDNN enabled, as by default on x86, grappler recognizes the formula inside `tf.function` and fuses it into
        _MklLayerNorm, without handing epsilon on: 0.001 is used, whatever the formula says. Run eagerly, or with
        TF_ENABLE_ONEDNN_OPTS=0, the same formula is right.
        """,
        """
        import tensorflow as tf
        def layer_norm(x, gamma, beta):
            mean, variance = tf.nn.moments(x, [1], keepdims=True)
            return (x - mean) / tf.sqrt(variance + 0.5) * gamma + beta
        given = tf.constant([[1.0, 2.0, 3.0, 4.0]]), tf.ones(4), tf.zeros(4)
        print(layer_norm(*given).numpy(), "eagerly,", tf.function(layer_norm)(*given).numpy(), "as a graph")
        """,
    ),
    Finding(
        "The plain TensorFlow formula rounds every step in a half type",
        ("tensorflow",),
        {"dtype": "float16"},
        """
        tf.nn.moments computes in float32, but returns mean and variance in the half type, and every step after it rounds to
        the half type, in the gradient too; float16 squares overflow beyond 255. It is the formula that is weak, not an operator:
        cast to float32 first.
        """,
        """
        import numpy as np, tensorflow as tf
        x = (100 + np.random.default_rng(0).normal(size=(1, 1000))).astype("float16")
        mean, variance = tf.nn.moments(tf.constant(x), [1])
        print(mean.numpy(), "for a mean of", x.astype("float64").mean(), "and a deviation of", x.astype("float64").std())
        """,
    ),
    Finding(
        "Keras' RMSNormalization rounds gamma and its gradient under a mixed policy, on TensorFlow",
        ("tensorflow-keras",),
        {"op": "rms_norm", "dtype": "float16"},
        """
        LayerNormalization turns the casting of variables off; RMSNormalization does not. Under a mixed policy gamma, kept in
        float32, is rounded to the half type before use, and so is its gradient. Through `stateless_call` on jax it is not.
        """,
        """
        import keras, tensorflow as tf
        for kind in keras.layers.RMSNormalization, keras.layers.LayerNormalization:
            layer = kind(epsilon=1e-6, dtype="mixed_bfloat16")
            layer.build((1, 4))
            with tf.GradientTape() as tape:
                y = layer(tf.constant([[1.0, 2.0, 3.0, 4.0]]))
            print(kind.__name__, tape.gradient(y, layer.trainable_variables[0]).numpy()[0])
        print("1 / sqrt(7.5) is 0.36514837")
        """,
        {"KERAS_BACKEND": "tensorflow"},
    ),
    Finding(
        "oneDNN 3.2 ignores the distance between rows",
        ("onednn",),
        {"layout": "row_padded|sparse_rows"},
        """
        The primitive accepts a memory descriptor whose rows lie farther apart than their length, and then steps by the
        length: it reads the padding, and writes it. The demonstration uses only the adapter, which makes the C calls.
        """,
        """
        import numpy as np
        from lnbench import Case, Tensors
        from lnbench_backends.onednn_backend import OneDnnBackend
        x = np.full((3, 6), np.nan, "float32")[:, :4]
        x[:] = 1
        out = {n: np.empty((3, c), "float32") for n, c in (("y", 4), ("mean", 1), ("var", 1))}
        call = OneDnnBackend().prepare(Case(shape=(3, 4), gamma=False, beta=False), "forward", Tensors({"x": x}, out), 1)
        call.run()
        print("means of rows of ones:", call.outputs()["mean"].ravel())
        """,
    ),
    Finding(
        "Caffe2 subtracts mean(x)**2 from mean(x*x)",
        ("caffe2",),
        {},
        """
        The variance of the operator cancels where the mean is large beside the deviation, and nothing keeps it from
        becoming negative: rows become NaN, or are wrong by any factor. The gradient has further cancellations.
        """,
        """
        import numpy as np
        x = (1000 + 0.01 * np.random.default_rng(0).normal(size=(4, 256))).astype("float32")
        print((x * x).mean(1) - x.mean(1) ** 2, "for a variance of 1e-4")
        """,
    ),
)
