"""Reads real tensors from an .npz file and holds them to the case's shapes and dtypes."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping

import numpy as np

from lnbench.errors import UsageError, nearest
from lnbench.laws.schema import Array
from lnbench.numerics import dtypes
from lnbench.operators.schema import Tensor


def read(path: str, wanted: Mapping[str, Tensor], known: Mapping[str, Tensor], variant: int = 0) -> dict[str, Array]:
    """The arrays of `path` that are inputs, by tensor name; those missing in the file are left out.

    Arrays that are other tensors of the operator (a saved y, say) are ignored; any other name is refused. bfloat16 is
    stored as NumPy stores it, as 2-byte items without a type. Variants other than 0 hold the same values moved on by
    `variant` places and, when odd and not a state, negated: other data of the same kind.
    Raises UsageError when the file cannot be read, holds nothing, or disagrees with the case.
    """
    arrays = _load(path)
    allowed = [*wanted, *(n for n in known if n not in wanted)]
    out = {}
    for name, array in arrays.items():
        if name not in known:
            raise UsageError(
                f"{path} holds an array {name!r}{nearest(name, allowed)}; allowed names: {', '.join(allowed)}"
            )
        if name in wanted:
            out[name] = _vary(_checked(path, name, array, wanted[name]), wanted[name], variant)
    if not out:
        raise UsageError(f"{path} holds no input of this case; save at least one of {', '.join(wanted)} in it")
    return out


def _load(path: str) -> dict[str, Array]:
    try:
        with open(path, "rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise UsageError(f"{path} is not an .npz archive; write it with numpy.savez(path, x=..., gamma=...)")
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror or error}); give the path of an .npz file") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not a readable .npz archive; write it with numpy.savez") from error


def _checked(path: str, name: str, array: Array, tensor: Tensor) -> Array:
    dtype = dtypes.numpy(tensor.dtype)
    if tensor.dtype == "bfloat16" and array.dtype == np.dtype("V2"):
        array = array.view(dtype)
    if array.dtype != dtype:
        raise UsageError(f"{path}: {name} is {array.dtype.name}, the case says {tensor.dtype}; change one of them")
    if array.shape != tensor.shape:
        raise UsageError(
            f"{path}: {name} has shape {list(array.shape)}, the case says {list(tensor.shape)}; change one of them"
        )
    return np.ascontiguousarray(array)


def _vary(array: Array, tensor: Tensor, variant: int) -> Array:
    if variant == 0:
        return array
    moved = np.roll(array, variant)
    return -moved if variant % 2 and tensor.role != "state" else moved
