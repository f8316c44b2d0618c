"""Shared libraries with the C contract, compiled here with the machine's C compiler."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lnbench import probe
from lnbench.backend import LibraryBackend, Tensors
from lnbench.case import Case
from lnbench.errors import BackendBroken, Unavailable, Unsupported
from lnbench.library import LayerNorm, row_stride
from lnbench.operators.schema import Fold
from lnbench.pool import Request, Session

COMPILER = shutil.which("gcc") or shutil.which("cc")
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="no C compiler")
HEADER = Path(__file__).parents[2] / "backends" / "native" / "include"
CASE = Case(shape=(6, 40))

SOURCE = r"""
#include <lnbench.h>
#include <math.h>
#include <stddef.h>
uint32_t lnb_abi_version(void) { return VERSION; }
const char *lnb_describe(void) { return "name=tiny;version=1;statistics=rstd;deterministic=yes"; }
const char *lnb_reason(void) { return "columns must be even"; }
int64_t lnb_layer_norm_workspace(const lnb_layer_norm *c, int backward) { return 8 * c->cols; }
int lnb_layer_norm_forward(const lnb_layer_norm *c)
{
    double *wide = c->workspace;
    if (c->size < sizeof *c || c->dtype != LNB_F32) return LNB_INVALID;
    if (c->cols % 2) return LNB_UNSUPPORTED;
    for (int64_t r = 0; r < c->rows; r++) {
        const float *x = (const float *)c->x + r * c->x_row_stride, *g = c->gamma, *b = c->beta;
        float *y = (float *)c->y + r * c->y_row_stride;
        double mean = 0, var = 0;
        for (int64_t j = 0; j < c->cols + EXTRA; j++) wide[j] = x[j];
        for (int64_t j = 0; j < c->cols; j++) mean += wide[j];
        mean /= (double)c->cols;
        for (int64_t j = 0; j < c->cols; j++) var += (wide[j] - mean) * (wide[j] - mean);
        double rstd = 1 / sqrt(var / (double)c->cols + c->epsilon);
        for (int64_t j = 0; j < c->cols; j++)
            y[j] = (float)((wide[j] - mean) * rstd * (g ? g[j] : 1) + (b ? b[j] : 0));
        if (c->mean) ((float *)c->mean)[r] = (float)mean;
        if (c->stat) ((float *)c->stat)[r] = (float)rstd;
    }
    return LNB_OK;
}
"""

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Compiles `source` with macros into a library of its own."""

    def compile_(source: str = SOURCE, **macros: int) -> Path:
        folder = tmp_path_factory.mktemp("library")
        (folder / "tiny.c").write_text(source)
        defines = [f"-D{k}={v}" for k, v in {"VERSION": 1, "EXTRA": 0, **macros}.items()]
        command = [
            str(COMPILER),
            "-shared",
            "-fPIC",
            "-O1",
            f"-I{HEADER}",
            *defines,
            "tiny.c",
            "-lm",
            "-o",
            "libtiny.so",
        ]
        subprocess.run(command, cwd=folder, check=True)
        return folder / "libtiny.so"

    return compile_


def test_the_struct_has_the_size_and_order_of_the_header() -> None:
    # 24 bytes of ints, a double, 6 int64, 11 pointers and one for the workspace.
    assert ctypes.sizeof(LayerNorm) == 24 + 8 + 6 * 8 + 11 * ctypes.sizeof(ctypes.c_void_p)
    names = [name for name, *_ in LayerNorm._fields_]
    assert names[:7] == ["size", "dtype", "affine_dtype", "stat_dtype", "stat_kind", "threads", "epsilon"]
    assert names[-1] == "workspace"


@needs_compiler
def test_a_library_runs_in_a_worker(
    build: Build, request_of: Callable[..., Request], right: Callable[[np.ndarray, Request], bool]
) -> None:
    with Session(str(build())) as one:
        assert one.description.name == "tiny"
        assert one.description.facts.deterministic == "yes"
        for layout in ("contiguous", "row_padded", "misaligned", "offset", "sparse_rows"):
            request = request_of(CASE.replace(layout=layout, out_layout=layout))
            reply = one.run(request)
            assert reply.is_ok and right(reply.outputs["y"], request), (layout, reply)
            assert reply.returned == () and reply.violations == ()
            assert np.allclose(reply.outputs["mean"][:, 0], request.inputs["x"].mean(-1), atol=1e-6)
        for changes in ({"gamma": False}, {"beta": False}, {"gamma": False, "beta": False}, {"shape": (2, 3, 4)}):
            request = request_of(CASE.replace(**changes))
            assert right(one.run(request).outputs["y"], request), changes


@needs_compiler
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layout": "column_strided"}, "needs the columns of x side by side"),
        ({"layout": "transposed"}, "needs the columns of x side by side"),
        ({"gamma_layout": "column_strided"}, "cannot express a strided gamma"),
        ({"shape": (3, 4, 5), "axis": (1,)}, "needs the columns of x side by side"),
        ({"shape": (3, 4, 5), "axis": (0, 2)}, "needs the columns of x side by side"),
        ({"shape": (6, 41)}, "columns must be even"),
        ({"passes": "backward"}, "exports no lnb_layer_norm_backward"),
        ({"op": "rms_norm"}, "the C contract has no rms_norm"),
    ],
)
def test_what_the_contract_cannot_express_is_a_skip_with_its_reason(
    build: Build, request_of: Callable[..., Request], changes: dict[str, object], words: str
) -> None:
    case = CASE.replace(**changes)
    with Session(str(build()), in_process=True) as one:
        if case.op != "layer_norm" or case.passes == "backward":
            assert words in str(one.supports(case))
            return
        reply = one.run(request_of(case))
    assert reply.status == "SKIPPED" and words in reply.reason


@needs_compiler
def test_a_wrong_return_code_is_an_error_with_its_name(build: Build, request_of: Callable[..., Request]) -> None:
    with Session(str(build()), in_process=True) as one:
        reply = one.run(request_of(CASE.replace(dtype="float64")))
    assert reply.status == "ERROR" and "returned LNB_INVALID: columns must be even" in reply.reason


@needs_compiler
@pytest.mark.skipif(probe.library() is None, reason="the C helper is not built")
def test_overrunning_the_workspace_names_it(build: Build, request_of: Callable[..., Request]) -> None:
    # One double more than the workspace holds; the row padding makes the read of x itself harmless.
    with Session(str(build(EXTRA=1))) as one:
        reply = one.run(request_of(CASE.replace(layout="row_padded")))
    assert reply.status == "CRASHED"
    assert "wrote directly after the end of the workspace" in reply.reason
    assert reply.violations[0].tensor == "workspace"


@needs_compiler
def test_a_library_that_is_none_is_refused(build: Build, tmp_path: Path) -> None:
    with pytest.raises(BackendBroken, match="has ABI version 7, lnbench speaks 1"):
        LibraryBackend(build(VERSION=7)).describe()
    with pytest.raises(BackendBroken, match="does not export lnb_abi_version"):
        LibraryBackend(build("int nothing;")).describe()
    source = 'unsigned lnb_abi_version(void) { return 1; }\nconst char *lnb_describe(void) { return "name=a;odd"; }'
    with pytest.raises(BackendBroken, match="holds 'odd'; write key=value"):
        LibraryBackend(build(source)).describe()
    text = tmp_path / "libtext.so"
    text.write_text("not a library")
    with pytest.raises(Unavailable, match="could not be loaded: "):
        LibraryBackend(text).describe()


@needs_compiler
def test_a_library_that_exits_or_aborts_while_loading_is_broken_not_fatal(build: Build) -> None:
    source = "#include <stdlib.h>\n__attribute__((constructor)) static void f(void) { _Exit(4); }"
    with Session(str(build(source))) as one, pytest.raises(BackendBroken, match="exited with status 4"):
        _ = one.description


@pytest.mark.parametrize(
    ("shape", "strides", "axes", "expected"),
    [
        ((4, 6), (24, 4), (1,), 6),
        ((4, 6), (40, 4), (1,), 10),
        ((4, 6), (0, 4), (1,), 0),
        ((2, 3, 5), (3 * 28, 28, 4), (2,), 7),
        ((2, 3, 5), (60, 20, 4), (1, 2), 15),
        ((1, 6), (4, 4), (1,), 6),
        ((4, 1), (12, 99), (1,), 3),
        ((0, 6), (24, 4), (1,), 6),
        ((4, 6), (4, 16), (1,), None),
        ((4, 6), (24, 8), (1,), None),
        ((2, 3, 5), (100, 20, 4), (2,), None),
        ((4, 6), (-24, 4), (1,), None),
    ],
)
def test_rows_fold_to_one_stride_or_not(
    shape: tuple[int, ...], strides: tuple[int, ...], axes: tuple[int, ...], expected: int | None
) -> None:
    array = np.lib.stride_tricks.as_strided(np.zeros(1, np.float32), shape, strides)
    fold = Fold(shape, axes)
    if expected is None:
        with pytest.raises(Unsupported):
            row_stride(array, fold, "x")
    else:
        assert row_stride(array, fold, "x") == expected


@needs_compiler
def test_backward_statistics_arrive_under_their_kind(build: Build) -> None:
    source = r"""
#include <lnbench.h>
uint32_t lnb_abi_version(void) { return 1; }
const char *lnb_describe(void) { return "name=v;statistics=var"; }
int lnb_layer_norm_backward(const lnb_layer_norm *c)
{
    ((float *)c->dx)[0] = c->stat_kind == LNB_VAR ? ((const float *)c->stat)[1] : -1;
    return c->y == 0 && c->gamma == 0 ? LNB_OK : LNB_INVALID;
}
"""
    backend = LibraryBackend(build(source))
    shape = (2, 3)
    inputs = {"dy": np.ones(shape, np.float32), "x": np.ones(shape, np.float32)}
    inputs |= {"mean": np.zeros((2, 1), np.float32), "var": np.array([[3], [4]], np.float32)}
    out = {"dx": np.zeros(shape, np.float32)}
    case = Case(shape=shape, gamma=False, beta=False, passes="backward")
    call = backend.prepare(case, "backward", Tensors(inputs, out), 1)
    call.run()
    assert call.outputs()["dx"][0, 0] == 4
