"""Sessions: right outputs through a worker, memory that is watched, timing, and a worker seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from lnbench import errors, memory, pool, probe
from lnbench.case import DTYPES, Case
from lnbench.operators.schema import Tensor
from lnbench.pool import Handle, Reply, Request, Sample, Session

Start = Callable[..., Session]
Make = Callable[..., Request]
Right = Callable[[np.ndarray, Request], bool]

needs_probe = pytest.mark.skipif(probe.library() is None, reason="the C helper is not built")
CASE = Case(shape=(6, 40))
FILL = (
    "found = normalize(x, gamma, beta, axis, epsilon)\nfor name in out:\n    out[name][...] = found[name]\nreturn None"
)
POKE = """
import ctypes
def poke(address): ctypes.memset(int(address), 1, 4)
def peek(address): ctypes.string_at(int(address), 4)
"""


def opened(session: Session, request: Request) -> Handle:
    handle = session.open(request)
    assert isinstance(handle, Handle), handle
    return handle


def sampled(result: Sample | Reply) -> Sample:
    assert isinstance(result, Sample), result
    return result


@pytest.mark.parametrize("body", ["pass", FILL])
def test_returned_and_filled_outputs_come_back(session: Start, request_of: Make, right: Right, body: str) -> None:
    reply = session(body).run(request := request_of(CASE))
    assert (reply.status, reply.violations, reply.wrong) == ("OK", (), {})
    assert right(reply.outputs["y"], request)
    assert set(reply.outputs) == {"y", "mean", "rstd"}
    assert reply.returned == (() if body == FILL else ("y", "mean", "rstd"))
    assert not reply.outputs["y"].flags.writeable
    assert reply.seconds > 0


@pytest.mark.parametrize("in_process", [False, True])
def test_every_layout_placement_and_dtype_gives_the_same_result(
    session: Start, request_of: Make, right: Right, in_process: bool
) -> None:
    one = session(FILL, in_process=in_process)
    for layout in ("contiguous", "row_padded", "column_strided", "transposed", "offset", "misaligned", "sparse_rows"):
        for placement in ("end", "begin", "private"):
            request = request_of(CASE.replace(layout=layout, out_layout=layout), placement=placement)
            reply = one.run(request)
            assert reply.is_ok and right(reply.outputs["y"], request), (layout, placement, reply)
            assert reply.violations == ()
    for dtype in DTYPES:
        request = request_of(CASE.replace(dtype=dtype))
        assert right(one.run(request).outputs["y"], request), dtype


@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (1, 1), (2, 3, 4)])
def test_zero_sizes_and_higher_ranks_work(
    session: Start, request_of: Make, right: Right, shape: tuple[int, ...]
) -> None:
    top = "import warnings; warnings.simplefilter('ignore')"
    request = request_of(Case(shape=shape))
    reply = session(top=top).run(request)
    assert reply.is_ok, reply
    assert reply.outputs["y"].shape == shape
    assert shape == (3, 0) or right(reply.outputs["y"], request)


def test_broadcast_dy_reaches_the_backend_with_stride_zero(session: Start, request_of: Make) -> None:
    top = """
def grad(dy, x, gamma, mean, rstd, *, axis, epsilon):
    assert dy.strides[0] == 0 and not dy.flags.writeable
    return {"dx": dy, "dgamma": dy.sum(0), "dbeta": rstd[:1, 0].repeat(dy.shape[1])}
"""
    one = session("pass", top=top)
    Path(one.spec).write_text(Path(one.spec).read_text() + '\nbackend.backward("layer_norm")(grad)\n')
    request = request_of(CASE.replace(dy_layout="broadcast"), "backward")
    reply = one.run(request)
    assert reply.is_ok, reply
    assert (reply.outputs["dx"] == request.inputs["dy"][0]).all()
    assert reply.outputs["dbeta"][0] == request.inputs["rstd"][0, 0]


def test_an_output_that_is_never_written_still_holds_the_pattern(session: Start, request_of: Make) -> None:
    from lnbench.memory import unwritten

    reply = session("out['y'][:3] = 0\nreturn None").run(request_of(CASE))
    assert unwritten(reply.outputs["y"]).sum() == 3 * 40
    assert unwritten(reply.outputs["mean"]).all()


def test_a_wrong_dtype_or_shape_is_told_and_a_statistic_may_have_any_shape(session: Start, request_of: Make) -> None:
    body = (
        "found = normalize(x, gamma, beta, axis, epsilon)\n"
        "return {'y': found['y'].astype('float64'), 'mean': found['mean'].ravel(), 'rstd': found['rstd'][:2]}"
    )
    reply = session(body).run(request_of(CASE))
    assert reply.is_ok
    assert reply.wrong["y"] == "y is float64 of shape (6, 40); expected float32 of shape (6, 40)"
    assert reply.wrong["rstd"].startswith("rstd is float32 of shape (2, 1)")
    assert reply.outputs["mean"].shape == (6, 1)
    transposed = session("return {'y': np.ascontiguousarray(x.T)}").run(request_of(CASE))
    assert transposed.wrong["y"] == "y is float32 of shape (40, 6); expected float32 of shape (6, 40)"
    assert "y" not in transposed.outputs


GUARDS = [
    ("peek(x.ctypes.data + x.nbytes)", "end", "read directly after the end of x"),
    ("peek(x.ctypes.data - 4)", "begin", "read 4 bytes before the start of x"),
    ("poke(out['y'].ctypes.data + x.nbytes + 8)", "end", "wrote 8 bytes after the end of y"),
    ("poke(out['mean'].ctypes.data - 4)", "begin", "wrote 4 bytes before the start of mean"),
    ("poke(gamma.ctypes.data + 4)", "end", "wrote to the input gamma, 4 bytes from its start"),
    ("peek(x.ctypes.data + 200000)", "begin", "read 199040 bytes after the end of x"),
]


@needs_probe
@pytest.mark.parametrize(("body", "placement", "sentence"), GUARDS)
def test_an_access_outside_names_buffer_and_side(
    session: Start, request_of: Make, body: str, placement: str, sentence: str
) -> None:
    reply = session(body, top=POKE).run(request_of(CASE, placement=placement))
    assert reply.status == "CRASHED"
    assert [v.sentence for v in reply.violations] == [sentence]
    assert reply.reason.startswith(f"was killed by SIGSEGV while running: {sentence}")
    assert "mine.py:" in reply.reason


def test_a_write_into_slack_or_padding_is_seen_after_the_run(session: Start, request_of: Make) -> None:
    after = session(FILL.replace("return", "poke(out['y'].ctypes.data + x.nbytes)\nreturn"), top=POKE)
    reply = after.run(request_of(CASE, placement="begin"))
    assert [v.sentence for v in reply.violations] == ["wrote directly after the end of y"]
    again = after.run(request_of(CASE, placement="end"))
    assert again.status == "CRASHED"
    padding = session("poke(out['y'][1:].ctypes.data - 4)", top=POKE).run(
        request_of(CASE.replace(out_layout="row_padded"))
    )
    assert [(v.kind, v.side) for v in padding.violations] == [("canary overwritten", "padding")]


def test_a_numpy_write_to_an_input_is_an_error_with_its_line(session: Start, request_of: Make) -> None:
    reply = session("x -= x.mean()").run(request_of(CASE))
    assert reply.status == "ERROR"
    assert reply.reason.startswith("ValueError: output array is read-only") and "mine.py:" in reply.reason


def test_alias_makes_output_and_input_one_memory_and_restores_it(
    session: Start, request_of: Make, right: Right
) -> None:
    one = session("assert x.ctypes.data == out['y'].ctypes.data\n" + FILL, facts="{'inplace': 'y=x'}")
    handle = opened(one, request := request_of(CASE, alias="y=x"))
    for _ in range(3):
        assert right(handle.run().outputs["y"], request)
    private = opened(one, request_of(CASE, alias="y=x", placement="private"))
    for _ in range(2):
        assert right(private.run().outputs["y"], request)


def test_declared_alignment_reaches_the_backend(session: Start, request_of: Make) -> None:
    one = session("assert not any(a.ctypes.data % 64 for a in (x, gamma, *out.values()))", facts="{'alignment': '64'}")
    for placement in ("end", "begin", "private"):
        assert one.run(request_of(CASE, placement=placement)).is_ok


def test_handles_interleave_take_new_inputs_and_survive_a_crash(session: Start, request_of: Make, right: Right) -> None:
    one = session("if case.seed == 9: __import__('os').abort()")
    first, second = opened(one, a := request_of(CASE)), opened(one, b := request_of(Case(shape=(3, 5), seed=1)))
    assert right(first.run().outputs["y"], a) and right(second.run().outputs["y"], b)
    new = {**a.inputs, "x": a.inputs["x"] * 3 + 1}
    assert first.load({"x": new["x"]}).is_ok
    changed = Request(CASE, "forward", new, a.outputs)
    assert right(first.run().outputs["y"], changed)
    pid = one.pid
    crashed = one.run(request_of(CASE.replace(seed=9)))
    assert crashed.status == "CRASHED" and "SIGABRT" in crashed.reason
    assert right(second.run().outputs["y"], b) and right(first.run().outputs["y"], changed)
    assert one.pid not in (None, pid)
    first.close()
    first.close()
    assert right(second.run().outputs["y"], b)


def test_private_calls_see_new_inputs_under_the_same_addresses(session: Start, request_of: Make, right: Right) -> None:
    handle = opened(session(), a := request_of(CASE, placement="private"))
    assert sampled(handle.sample(3)).inner == 3
    new = {"x": a.inputs["x"] * 2 + 5}
    assert handle.load(new).is_ok and handle.poison().is_ok
    sampled(handle.sample(2, untimed=0))
    assert right(handle.collect().outputs["y"], Request(CASE, "forward", {**a.inputs, **new}, a.outputs))


def test_an_input_changed_in_private_memory_is_told(session: Start, request_of: Make) -> None:
    handle = opened(session("poke(x.ctypes.data + 8)", top=POKE), request_of(CASE, placement="private"))
    assert sampled(handle.sample(1)).inner == 1
    assert [(v.kind, v.tensor) for v in handle.collect().violations] == [("input modified", "x")]


def test_a_worker_started_anew_has_nothing_to_collect(session: Start, request_of: Make, right: Right) -> None:
    one = session()
    handle = opened(one, request := request_of(CASE))
    one.restart()
    assert handle.collect().status == "ERROR"
    assert right(handle.run().outputs["y"], request)


def test_a_backend_may_close_itself_but_not_for_long(write: Callable[..., str], tmp_path: Path) -> None:
    closing = "class FunctionBackend(FunctionBackend):\n    def close(self): "
    with Session(write(top=f"{closing}open({str(tmp_path / 'closed')!r}, 'w').close()")) as one:
        assert one.description.name == "mine"
    assert (tmp_path / "closed").exists()
    with Session(write(top=f"{closing}__import__('time').sleep(99)")) as one:
        assert one.description.name == "mine"
    assert one.pid is None


def test_a_forgotten_session_takes_its_worker_along(write: Callable[..., str]) -> None:
    import gc

    one = Session(write())
    assert one.description.name == "mine"
    worker = psutil.Process(one.pid)
    del one
    gc.collect()
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_a_large_call_gives_its_memory_back(
    session: Start, request_of: Make, right: Right, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "POOL_SEGMENT", 20 << 20)
    one = session(FILL)
    big = request_of(Case(shape=(500, 2048)))
    reply = one.run(big)
    y = reply.outputs["y"]
    assert right(y, big)
    assert one.run(request_of(CASE)).is_ok
    assert not y.any()
    assert right(one.run(big).outputs["y"], big)


def test_unsupported_and_reasons_are_skips(session: Start, request_of: Make) -> None:
    raising = session("from lnbench.errors import Unsupported\nraise Unsupported('rows must be even')")
    assert (raising.run(request_of(CASE)).status, raising.run(request_of(CASE)).reason) == (
        "SKIPPED",
        "rows must be even",
    )
    backward = raising.open(request_of(CASE.replace(passes="backward"), "backward"))
    assert isinstance(backward, Reply) and backward.status == "SKIPPED"
    assert raising.supports(CASE.replace(op="rms_norm")) == "mine has no function for rms_norm"
    assert raising.supports(CASE) is None


def test_a_sample_counts_clocks_that_a_patched_time_module_cannot_bend(session: Start, request_of: Make) -> None:
    top = "import time\ntime.perf_counter_ns = lambda: 0\ntime.process_time_ns = lambda: 0\ntime.sleep_ = time.sleep"
    sample = sampled(opened(session("time.sleep_(0.002)", top=top), request_of(CASE)).sample(5))
    assert sample.inner == 5
    assert 10_000_000 <= sample.wall_ns <= sample.parent_ns
    assert sample.cpu_ns > 0 and sample.switches >= 0
    assert probe.library() is None or sample.raw_ns >= sample.wall_ns


def test_a_sample_rotates_over_handles(session: Start, request_of: Make) -> None:
    one = session("counts[case.seed] = counts.get(case.seed, 0) + 1\nprint(counts)", top="counts = {}")
    handles = [opened(one, request_of(CASE.replace(seed=s))) for s in range(3)]
    sampled(one.sample(handles, 6, untimed=1))
    assert handles[0]._session._log().splitlines()[-1] == "{0: 3, 1: 3, 2: 3}"


def test_a_failing_sample_is_a_reply(session: Start, request_of: Make) -> None:
    handle = opened(session("raise KeyError('no')"), request_of(CASE))
    reply = handle.sample(3)
    assert isinstance(reply, Reply) and reply.status == "ERROR" and "KeyError" in reply.reason


def test_the_worker_is_seen_frozen_and_thawed_from_outside(session: Start, request_of: Make) -> None:
    top = "import threading\ndef spin():\n    while True: pass\nthreading.Thread(target=spin, daemon=True).start()"
    one = session(top=top)
    assert (one.pid, one.cpu_seconds(), one.threads_now()) == (None, 0.0, 0)
    assert one.description.name == "mine"
    assert one.threads_now() == 2

    def used() -> float:
        before = one.cpu_seconds()
        time.sleep(0.05)
        return one.cpu_seconds() - before

    assert used() > 0
    one.freeze()
    time.sleep(0.02)
    assert used() == 0
    assert one.run(request_of(CASE)).is_ok
    assert used() > 0


def test_the_environment_of_a_worker(session: Start, monkeypatch: pytest.MonkeyPatch, request_of: Make) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("LNBENCH_TARGET", "baseline")
    one = session("import os, json\nprint(json.dumps(dict(os.environ)))", threads=3, environment={"MINE": "1"})
    import json

    seen = json.loads(one.run(request_of(CASE)).log)
    assert (seen["OMP_NUM_THREADS"], seen["OMP_WAIT_POLICY"], seen["KMP_BLOCKTIME"]) == ("3", "passive", "0")
    assert (seen["LNBENCH_TARGET"], seen["MINE"]) == ("baseline", "1")
    assert "MALLOC_TRIM_THRESHOLD_" in seen
    plain = session("import os, json\nprint(json.dumps(dict(os.environ)))", allocator="system")
    assert "MALLOC_TRIM_THRESHOLD_" not in json.loads(plain.run(request_of(CASE)).log)
    with pytest.raises(errors.UsageError, match="unknown allocator"):
        Session("x.py", allocator="fast")


def test_closing_leaves_no_process_and_a_closed_session_starts_again(session: Start, request_of: Make) -> None:
    one = session("import subprocess\nsubprocess.Popen(['sleep', '1000'])")
    assert one.run(request_of(CASE)).is_ok
    assert one.pid is not None
    family = [psutil.Process(one.pid), *psutil.Process(one.pid).children()]
    assert len(family) == 2
    one.close()
    psutil.wait_procs(family, timeout=5)
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family)
    assert one.run(request_of(CASE)).is_ok
    one.close()
    one.close()


def test_a_killed_parent_leaves_no_worker(write: Callable[..., str]) -> None:
    script = (
        "import sys, threading; from lnbench.pool import Session; s = Session(sys.argv[1]);"
        "t = threading.Thread(target=lambda: s.description); t.start(); t.join();"
        "print(s.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, write()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    worker = psutil.Process(int(parent.stdout.readline()))
    assert worker.is_running()
    parent.kill()
    parent.communicate()
    psutil.wait_procs([worker], timeout=5)
    assert not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE


def test_ctrl_c_ends_the_worker_that_is_out_of_step(session: Start, request_of: Make) -> None:
    import signal

    one = session("if case.seed == 1:\n    import time; time.sleep(60)")
    assert one.run(request_of(CASE)).is_ok
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(KeyboardInterrupt):
        one.run(request_of(CASE.replace(seed=1)))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    assert one.pid is None
    assert one.run(request_of(CASE)).is_ok


def test_what_a_backend_says_at_start_is_believed_or_refused(write: Callable[..., str]) -> None:
    with Session(write(facts="{'statistics': 'rstd', 'alignment': '16'}")) as one:
        assert one.description.facts.alignment_bytes == 16
        assert one.description.described["alignment"] == "16"
    bad = """
class Bad:
    name = "bad"
    def describe(self): return {"cast": "never"}
    supports = prepare = describe
backend = Bad()
"""
    path = write()
    Path(path).write_text(bad)
    with Session(path) as one, pytest.raises(errors.UsageError, match=r"mine\.py.*fact cast='never'"):
        _ = one.description
    assert one.pid is None


@pytest.mark.parametrize(
    ("top", "kind", "words"),
    [
        (
            "raise RuntimeError('boom')",
            errors.BackendBroken,
            r"could not be imported: RuntimeError: boom \(.*mine.py:\d+\)",
        ),
        ("import no_such_framework", errors.Unavailable, "No module named 'no_such_framework'"),
        ("import sys; sys.exit(0)", errors.BackendBroken, "exited with status 0 while being imported"),
        ("import os; os._exit(7)", errors.BackendBroken, "exited with status 7 while being imported"),
        ("import os; print('bye'); os.abort()", errors.BackendBroken, "killed by SIGABRT while being imported"),
        ("import time; time.sleep(60)", errors.BackendBroken, "did not finish within 1 s"),
    ],
)
def test_a_backend_that_cannot_start(
    session: Start, monkeypatch: pytest.MonkeyPatch, top: str, kind: type[Exception], words: str
) -> None:
    monkeypatch.setattr(pool, "_START_SECONDS", 1.0 if "sleep" in top else 30.0)
    one = session(top=top, timeout=1.0)
    with pytest.raises(kind, match=words):
        _ = one.description
    assert one.pid is None


def test_a_file_with_several_backends_expands(write: Callable[..., str]) -> None:
    path = write(top='first = FunctionBackend("first")')
    assert pool.expand(path) == [f"{path}:first", f"{path}:backend"]
    assert pool.expand(f"{path}:first") == [f"{path}:first"]
    with pytest.raises(errors.UnknownBackend, match="holds several backends"), Session(path) as one:
        _ = one.description
    with Session(f"{path}:first") as one:
        assert one.description.name == "first"


def test_threads_of_the_request_reach_the_call(session: Start, request_of: Make) -> None:
    assert session("assert threads == 5").run(request_of(CASE, threads=5)).is_ok


def test_outputs_that_were_not_asked_for_are_ignored(session: Start, request_of: Make) -> None:
    request = request_of(CASE)
    only: dict[str, Tensor] = {"y": request.outputs["y"]}
    reply = session().run(Request(CASE, "forward", request.inputs, only))
    assert set(reply.outputs) == {"y"}


def test_the_worker_answers_although_its_directory_is_gone(
    session: Start, request_of: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    os.rmdir(folder)
    assert session().run(request_of(CASE)).is_ok
