"""Verification: the runner, the checks, the bound and the verdict; no timing. Calling the package is `lnbench.api.verify`."""

from lnbench.callable_module import make_callable

make_callable(__name__, "lnbench.api:verify")
