"""How each engine of Keras calls a layer and differentiates it: one class per engine, outputs as NumPy arrays.

Each `Call` copies its inputs in `load`, so that the engine never sees an array whose content changes under it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lnbench.backend import Call
from lnbench_backends._frameworks import Array, process_threads, require

Inputs = Mapping[str, Array]


def start(engine: str) -> None:
    """Imports the engine with the threads of this worker, before Keras does it in its own way."""
    if engine == "jax":
        from lnbench_backends.jax_backend import import_jax

        import_jax()
    elif engine == "torch":
        require("torch", "torch").set_num_threads(process_threads())
    elif engine == "tensorflow":
        from lnbench_backends.tensorflow_backend import import_tensorflow

        import_tensorflow()


def names(layer: Any) -> list[str]:
    """Names of the layer's trainable variables as we call them."""
    return ["beta" if "beta" in v.name else "gamma" for v in layer.trainable_variables]


def jax_function(layer: Any, pass_: str) -> Any:
    """`stateless_call` under `jax.jit`; `jax.vjp` for backward. It reads nothing of the layer but its configuration."""
    from lnbench_backends._jax_formulas import gradient
    from lnbench_backends.jax_backend import import_jax

    jax, known = import_jax(), names(layer)

    def forward(t: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": layer.stateless_call([t[n] for n in known], [], t["x"])[0]}

    def backward(t: Mapping[str, Any]) -> dict[str, Any]:
        return gradient(jax, forward, t)

    return jax.jit(forward if pass_ == "forward" else backward)


def jax_call(function: Any, inputs: Inputs) -> Call:
    """A call of what `jax_function` made."""
    from lnbench_backends.jax_backend import JaxCall, import_jax

    return JaxCall(import_jax(), function, inputs)


class TorchCall:
    """The layer eager; autograd for backward, forward included, as only that saves the graph."""

    def __init__(self, layer: Any, pass_: str, inputs: Inputs):
        from lnbench_backends.torch_backend import to_torch

        torch = require("torch", "torch")
        self._torch, self._layer, self._pass = torch, layer, pass_
        self._views = {n: to_torch(torch, a) for n, a in inputs.items()}
        self._x = self._views["x"].clone()
        self._returned: dict[str, Any] = {}
        self.load()

    def load(self) -> None:
        self._x.detach().copy_(self._views["x"])
        for name, variable in zip(names(self._layer), self._layer.trainable_variables, strict=True):
            variable.assign(self._views[name])

    def run(self) -> None:
        torch, layer = self._torch, self._layer
        if self._pass == "forward":
            with torch.no_grad():
                self._returned = {"y": layer(self._x)}
            return
        known = names(layer)
        leaves = [self._x.detach().requires_grad_(), *(v.value for v in layer.trainable_variables)]
        with torch.enable_grad():
            y = layer(leaves[0])
        found = torch.autograd.grad(y, leaves, self._views["dy"])
        self._returned = dict(zip(("dx", *(f"d{n}" for n in known)), found, strict=True))

    def outputs(self) -> Mapping[str, Array]:
        from lnbench_backends.torch_backend import to_numpy

        return {n: to_numpy(v) for n, v in self._returned.items()}


class TensorflowCall:
    """The layer in a `tf.function`; `GradientTape` for backward."""

    def __init__(self, layer: Any, pass_: str, inputs: Inputs):
        from lnbench_backends.tensorflow_backend import import_tensorflow

        tf = import_tensorflow()
        self._tf, self._sources, self._layer = tf, dict(inputs), layer
        known = names(layer)

        def forward(x: Any) -> dict[str, Any]:
            return {"y": layer(x)}

        def backward(x: Any, dy: Any) -> dict[str, Any]:
            variables = [v.value for v in layer.trainable_variables]
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x)
            found = tape.gradient(y, [x, *variables], output_gradients=dy)
            return dict(zip(("dx", *(f"d{n}" for n in known)), found, strict=True))

        self._wanted = ("x",) if pass_ == "forward" else ("x", "dy")
        self._arguments: list[Any] = []
        self._returned: dict[str, Any] = {}
        self.load()
        # Traced once; a concrete function does not look at the types of its arguments in every call.
        self._function = tf.function(forward if pass_ == "forward" else backward).get_concrete_function(
            *self._arguments
        )
        self.run()

    def load(self) -> None:
        self._arguments = [self._tf.constant(np.ascontiguousarray(self._sources[n])) for n in self._wanted]
        for name, variable in zip(names(self._layer), self._layer.trainable_variables, strict=True):
            variable.assign(np.ascontiguousarray(self._sources[name]))

    def run(self) -> None:
        self._returned = self._function(*self._arguments)

    def outputs(self) -> Mapping[str, Array]:
        return {n: v.numpy() for n, v in self._returned.items()}


CALLS: dict[str, Callable[[Any, str, Inputs], Call]] = {
    "torch": TorchCall,
    "tensorflow": TensorflowCall,
}
