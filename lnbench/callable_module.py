"""Makes a package callable, so that `lnbench.verify(...)` works although `lnbench.verify` is also a package.

Importing `lnbench.verify.runner` binds the name `verify` of `lnbench` to the package; a function of that name would be
lost. The package therefore answers calls itself. Knows nothing else of lnbench.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any


def make_callable(module: str, function: str) -> None:
    """Lets calls of `module` run `function` ("package.module:name"), which is imported at the first call."""

    class CallableModule(ModuleType):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            home, _, name = function.partition(":")
            return getattr(import_module(home), name)(*args, **kwargs)

    sys.modules[module].__class__ = CallableModule
