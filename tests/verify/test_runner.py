"""The runner and the checks, end to end through real plug-ins in real workers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lnbench.case import Case
from lnbench.errors import Exit, UnknownBackend, UsageError, worst
from lnbench.verify.differences import Differences
from lnbench.verify.runner import Options, run
from lnbench.verify.verdict import Status, Verdict, exit_codes

Plugin = Callable[..., str]

CASES = (
    Case(shape=(6, 33), law="offset", name="offset"),
    Case(shape=(5, 8), law="near_epsilon", epsilon=0.1, name="short"),
    Case(shape=(4, 16), law="constant_rows", name="constant"),
    Case(shape=(3, 2, 10), axis=-2, dtype="float64", name="double"),
)


def verify(backend: str | list[str], cases: tuple[Case, ...] = CASES, **options: object) -> list[Verdict]:
    backends = [backend] if isinstance(backend, str) else backend
    return run(cases, backends, Options(**{"timeout": 20.0, **options}))  # type: ignore[arg-type]


def bad(verdicts: list[Verdict]) -> list[Verdict]:
    return [v for v in verdicts if not v.accepted]


def test_a_correct_plugin_passes_every_check(plugin: Plugin) -> None:
    verdicts = verify(plugin())
    assert {v.status for v in verdicts} == {Status.PASSED}
    assert {v.check for v in verdicts} == {
        "bound", "exact", "statistics", "memory", "repeat", "threads", "identities", "gradient",
    }  # fmt: skip
    assert exit_codes(verdicts) == set()


@pytest.mark.parametrize(
    ("edit", "outputs"),
    [
        (("np.sqrt(var + eps)", "(np.sqrt(var) + eps)"), {"y", "rstd"}),
        (("np.sqrt(var + eps)", "np.sqrt(var)"), {"y", "rstd"}),
        (
            (
                "var = ((x - mean) ** 2).mean(",
                "var = x.dtype.type(x.shape[-1] / (x.shape[-1] - 1)) * ((x - mean) ** 2).mean(",
            ),
            {"y", "rstd"},
        ),
        (('"dgamma": dgamma, "dbeta": dbeta', '"dgamma": dbeta, "dbeta": dgamma'), {"dgamma", "dbeta"}),
        (("g - g.mean(axis=axes, keepdims=True) - ", "g - "), {"dx"}),
        (("g = dy if gamma is None else dy * gamma.reshape(shape)", "g = dy"), {"dx"}),
    ],
    ids=["epsilon outside", "no epsilon", "ddof", "swapped gradients", "no mean of g", "gamma forgotten"],
)
def test_a_wrong_kernel_fails_and_the_verdict_names_output_index_and_values(
    plugin: Plugin, edit: tuple[str, str], outputs: set[str]
) -> None:
    verdicts = verify(plugin(edit))
    failed = [v for v in verdicts if v.status is Status.FAILED and v.check == "bound"]
    assert outputs <= {v.output for v in failed}
    assert all(v.worst_index is not None and v.expected != v.got and v.budget and v.budget > 1 for v in failed)
    assert worst(exit_codes(verdicts)) is Exit.FAILED


def test_one_pass_variance_is_unstable_and_says_why(plugin: Plugin) -> None:
    one_pass = "var = (x * x).mean(axis=axes, keepdims=True, dtype=x.dtype) - mean * mean"
    backend = plugin(("var = ((x - mean) ** 2).mean(axis=axes, keepdims=True, dtype=x.dtype)", one_pass))
    verdicts = [v for v in verify(backend, CASES[:1]) if v.check == "bound" and v.output == "y"]
    assert [v.status for v in verdicts] == [Status.UNSTABLE]
    assert "one-pass variance" in verdicts[0].reason
    assert not verdicts[0].accepted
    assert all(v.accepted for v in verify(backend, CASES[:1], require="any"))


def test_a_folded_affine_breaks_the_exact_rule_only(plugin: Plugin) -> None:
    edits = (
        ("y = (x - mean) * rstd\n", "y = x * (rstd * gamma.reshape(shape)) - mean * (rstd * gamma.reshape(shape))\n"),
        ("    y = y if gamma is None else y * gamma.reshape(shape)\n", ""),
        (
            "    y = y if beta is None else y + beta.reshape(shape)\n",
            "    y = x * (s := rstd * gamma.reshape(shape)) + (beta.reshape(shape) - mean * s)\n",
        ),
    )
    verdicts = verify(plugin(*edits), (Case(shape=(8, 1), law="normal"),), checks=("bound", "exact"))
    exact = [v for v in verdicts if v.check == "exact"]
    assert [v.status for v in exact] == [Status.UNSTABLE]
    assert "folded affine" in exact[0].reason
    assert {v.status for v in verdicts if v.check == "bound"} == {Status.PASSED}


def test_state_kept_between_calls_is_found(plugin: Plugin) -> None:
    signature = "def forward(x, gamma, beta, *, axis, epsilon):\n"
    result = '{"y": y, "mean": mean, "rstd": rstd}'
    backend = plugin(
        ("def parts(", "CACHE = {}\n\n\ndef parts("),
        (signature, f"{signature}    if x.shape in CACHE:\n        return CACHE[x.shape]\n"),
        (f"    return {result}", f"    CACHE[x.shape] = {result}\n    return CACHE[x.shape]"),
    )
    failed = bad(verify(backend, CASES[:1], checks=("repeat",)))
    assert {v.check for v in failed} == {"repeat"}
    assert "new data" in failed[0].reason or "other gamma" in failed[0].reason


def test_a_result_that_depends_on_threads_is_found(plugin: Plugin) -> None:
    backend = plugin(
        ("def forward(x, gamma, beta, *, axis, epsilon):", "def forward(x, gamma, beta, *, axis, epsilon, threads):"),
        ('    return {"y": y,', '    if threads == 5:\n        y[-1] = 0\n    return {"y": y,'),
    )
    failed = bad(verify(backend, CASES[:1]))
    assert [(v.check, v.output) for v in failed] == [("threads", "y")]
    assert "with 5 threads" in failed[0].reason


def test_a_write_to_an_input_is_failed_by_the_memory_check(plugin: Plugin) -> None:
    backend = plugin(
        (
            "    y = (x - mean) * rstd\n",
            "    y = (x - mean) * rstd\n    x.setflags(write=True) if False else None\n    ctypes.memset(x.ctypes.data, 0, 4)\n",
        )
    )
    failed = bad(verify(backend, CASES[:1]))
    assert failed and {v.check for v in failed} == {"memory"}
    assert "x" in failed[0].reason


def test_declared_determinism_is_held(plugin: Plugin) -> None:
    noisy = "    y = (x - mean) * rstd * x.dtype.type(1 + 1e-7 * (time.perf_counter_ns() // 1000 % 2))\n"
    edits = ("    y = (x - mean) * rstd\n", noisy)
    failed = bad(verify(plugin(edits, facts='{"deterministic": "yes"}'), CASES[:1]))
    assert any("declared not to happen" in v.reason for v in failed)


@pytest.mark.parametrize(
    ("statement", "status"),
    [("os._exit(0)", Status.CRASHED), ("ctypes.string_at(0)", Status.CRASHED), ("time.sleep(1000)", Status.TIMEOUT)],
)
def test_a_backend_that_dies_or_hangs_spares_the_others(plugin: Plugin, statement: str, status: Status) -> None:
    good = plugin(name="good.py")
    evil = plugin(("    y = (x - mean) * rstd\n", f"    {statement}\n    y = (x - mean) * rstd\n"), name="evil.py")
    verdicts = verify([evil, good], CASES[:2], timeout=1.0)
    assert status in {v.status for v in verdicts if v.backend == evil}
    assert {v.status for v in verdicts if v.backend == good} == {Status.PASSED}
    assert worst(exit_codes(verdicts)) is Exit.CRASHED


def test_after_two_hangs_the_rest_is_not_run(plugin: Plugin) -> None:
    backend = plugin(("    y = (x - mean) * rstd\n", "    time.sleep(1000)\n    y = (x - mean) * rstd\n"))
    verdicts = verify(backend, CASES, timeout=0.5)
    assert [v.status for v in verdicts].count(Status.TIMEOUT) == 2
    assert {v.status for v in verdicts if v.case.name in ("constant", "double")} == {Status.SKIPPED}
    assert "hung 2 times" in verdicts[-1].reason
    assert worst(exit_codes(verdicts)) is Exit.CRASHED


def test_a_plugin_that_raises_on_import_is_reported_and_spares_the_others(tmp_path: Path, plugin: Plugin) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("import os\nos._exit(3)\n")
    verdicts = verify([str(broken), plugin()], CASES[:1])
    assert [v.status for v in verdicts if v.backend == str(broken)] == [Status.CRASHED]
    assert {v.status for v in verdicts if v.backend != str(broken)} == {Status.PASSED}


def test_an_unknown_backend_stops_before_anything_runs() -> None:
    with pytest.raises(UnknownBackend, match="nativ"):
        verify("nativ")


def test_an_unknown_check_is_a_usage_error(plugin: Plugin) -> None:
    with pytest.raises(UsageError, match="did you mean 'bound'"):
        verify(plugin(), checks=("bond",))


def test_an_expected_weakness_passes_and_its_absence_fails(plugin: Plugin) -> None:
    case = CASES[0].replace(expect={"*": "unstable"})
    one_pass = "var = (x * x).mean(axis=axes, keepdims=True, dtype=x.dtype) - mean * mean"
    weak = plugin(("var = ((x - mean) ** 2).mean(axis=axes, keepdims=True, dtype=x.dtype)", one_pass), name="weak.py")
    assert not bad(verify(weak, (case,)))
    gone = bad(verify(plugin(), (case,)))
    assert len(gone) == 1 and "weakness is gone" in gone[0].reason


def test_tensors_of_a_model_are_verified_like_drawn_ones(tmp_path: Path, plugin: Plugin) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "real.npz"
    np.savez(path, x=rng.standard_normal((4, 24)).astype(np.float32), gamma=np.ones(24, np.float32))
    case = (Case(shape=(4, 24), inputs=str(path)),)
    assert not bad(verify(plugin(), case))
    assert bad(verify(plugin(("np.sqrt(var + eps)", "(np.sqrt(var) + x.dtype.type(1e-3))")), case))


def test_a_dump_holds_inputs_expected_bound_and_got(tmp_path: Path, plugin: Plugin) -> None:
    backend = plugin(("np.sqrt(var + eps)", "np.sqrt(var)"))
    verify(backend, CASES[1:2], dump=tmp_path / "dump", checks=("bound",))
    path = next((tmp_path / "dump").glob("*-forward-*.npz"))
    with np.load(path) as arrays:
        assert {"input/x", "got/y", "expected/y", "bound/y"} <= set(arrays.files)
        wrong = np.abs(arrays["got/y"] - arrays["expected/y"]) > arrays["bound/y"]
        assert wrong.any()
    assert json.loads(path.with_suffix(".json").read_text())["repro"].startswith("lnbench verify --case")


def test_without_a_worker_the_verdicts_are_the_same(plugin: Plugin) -> None:
    backend = plugin(("np.sqrt(var + eps)", "np.sqrt(var)"))
    isolated = verify(backend, CASES[1:2], checks=("bound",))
    in_process = verify(backend, CASES[1:2], checks=("bound",), in_process=True)
    assert [(v.status, v.output, v.worst_index, v.got) for v in isolated] == [
        (v.status, v.output, v.worst_index, v.got) for v in in_process
    ]


def test_pairwise_differences_show_which_backends_agree(plugin: Plugin) -> None:
    good, other = (
        plugin(name="good.py"),
        plugin(("(x - mean) * rstd\n    y = y if", "(x - mean) * rstd * 2\n    y = y if"), name="other.py"),
    )
    differences = Differences()
    run(CASES[:1], [good, other], Options(checks=("bound",)), differences=differences)
    assert differences.matrix["mean", good, other].ulp == 0
    assert differences.matrix["y", good, other].ulp > 1000
    assert differences.matrix["y", good, other].case == "offset"


def test_a_case_that_asks_for_a_tier_is_held_to_it(plugin: Plugin) -> None:
    # Off by 3e-6: more than summing 16384 terms as a tree can explain, less than summing them in blocks can.
    backend = plugin(("y = (x - mean) * rstd\n", "y = (x - mean) * rstd * x.dtype.type(1 + 3e-6)\n"))
    wide = Case(shape=(2, 1 << 14), passes="forward")
    assert not bad(verify(backend, (wide,), checks=("bound",)))
    strict = [v for v in verify(backend, (wide.replace(require="tier2"),), checks=("bound",)) if not v.accepted]
    assert strict and "tier2 is required" in strict[0].reason


@pytest.mark.parametrize(
    ("returned", "words"),
    [('y.astype("float16")', "float16"), ("y[:-1]", "shape"), ("y.T", "shape")],
)
def test_an_output_of_the_wrong_form_is_failed_with_its_form_named(plugin: Plugin, returned: str, words: str) -> None:
    failed = bad(verify(plugin(('return {"y": y,', f'return {{"y": {returned},')), CASES[:1], checks=("bound",)))
    assert failed[0].status is Status.FAILED and failed[0].output == "y"
    assert words in failed[0].reason


def test_identities_asked_for_by_name_are_all_tried(plugin: Plugin) -> None:
    by_default = [v for v in verify(plugin(), CASES[:1]) if v.check == "identities"]
    asked = [v for v in verify(plugin(), CASES[:1], checks=("identities",)) if v.check == "identities"]
    assert [v.pass_ for v in asked] == [v.pass_ for v in by_default] == ["forward", "backward"]
    assert all(more.compared > few.compared for more, few in zip(asked, by_default, strict=True))
