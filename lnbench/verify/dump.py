"""Writes the tensors of a case that was not accepted: inputs, expected values, bounds and what the backend returned."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lnbench import laws
from lnbench.errors import ResultsError
from lnbench.verify.bound import expected_arrays
from lnbench.verify.subject import Subject
from lnbench.verify.verdict import Verdict


def dump(folder: Path, subject: Subject, pass_: str, verdicts: Sequence[Verdict]) -> Path:
    """Writes `<case key>-<pass>-<backend>.npz` and a `.json` beside it with the verdicts; returns the .npz path.

    Keys of the .npz: `input/NAME`, `got/NAME`, `expected/NAME` and `bound/NAME`, both float64. Half types are stored as
    float32, which holds every value exactly. Raises ResultsError when the folder cannot be written.
    """
    arrays = {f"input/{n}": a for n, a in subject.problem.inputs().items()}
    arrays |= {f"got/{n}": a for n, a in subject.kept(pass_).items()}
    for name, (value, bound) in expected_arrays(
        subject.case,
        pass_,
        subject.problem.inputs(),
        subject.facts,
        unsystematic=laws.is_unsystematic(subject.case, pass_),
    ).items():
        arrays |= {f"expected/{name}": value, f"bound/{name}": bound}
    backend = "".join(c if c.isalnum() else "_" for c in subject.backend)
    path = folder / f"{subject.case.key}-{pass_}-{backend}.npz"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **{n: a.astype(np.float32) if a.dtype.itemsize == 2 else a for n, a in arrays.items()})  # type: ignore[arg-type]
        path.with_suffix(".json").write_text(
            json.dumps(
                {
                    "case": subject.case.to_mapping(),
                    "backend": subject.backend,
                    "pass": pass_,
                    "verdicts": [
                        {"check": v.check, "output": v.output, "status": v.status, "reason": v.reason} for v in verdicts
                    ],
                    "repro": subject.case.repro(subject.backend),
                },
                indent=2,
            )
            + "\n"
        )
    except OSError as error:
        raise ResultsError(f"cannot write {path}: {error.strerror or error}; choose another --dump folder") from error
    return path
