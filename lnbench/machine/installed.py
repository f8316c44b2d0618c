"""Which backends are registered and which of them can be used here; each answers for itself, from its own worker."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from lnbench.errors import BackendBroken, LnbenchError, Unavailable

# Seconds that a framework may take to be imported before it counts as broken.
PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Installed:
    """A registered backend. state: `installed`, `missing` (reason: how to install it) or `broken` (reason: why)."""

    name: str
    state: str
    described: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""


def backends() -> list[Installed]:
    """Every backend with an entry point, in the order of the registry; each is started once, two at a time."""
    from lnbench import registry

    with ThreadPoolExecutor(max_workers=2) as workers:
        return list(workers.map(_ask, registry.names()))


def _ask(name: str) -> Installed:
    from lnbench.pool import Session

    try:
        with Session(name, timeout=PATIENCE) as session:
            return Installed(name, "installed", dict(session.description.described))
    except Unavailable as error:
        return Installed(name, "missing", reason=str(error))
    except BackendBroken as error:
        return Installed(name, "broken", reason=str(error))
    except LnbenchError as error:
        return Installed(name, "broken", reason=str(error))
