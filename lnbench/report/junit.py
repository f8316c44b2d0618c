"""Verdicts as JUnit XML, which every continuous integration reads: one suite per backend, one test case per verdict."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from xml.etree import ElementTree as Xml

from lnbench.report import summary
from lnbench.verify.verdict import Status, Verdict

_CONTROL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ERRORS = (Status.ERROR, Status.CRASHED, Status.TIMEOUT)


def text(verdicts: Sequence[Verdict], repro: Callable[[Verdict], str]) -> str:
    """The document. What is not accepted is a failure, or an error when the backend raised, crashed or hung."""
    root = Xml.Element("testsuites", name="lnbench verify")
    suites: dict[str, list[Verdict]] = {}
    for v in verdicts:
        suites.setdefault(v.backend, []).append(v)
    totals = [_suite(root, backend, group, repro) for backend, group in suites.items()]
    for i, name in enumerate(("tests", "failures", "errors", "skipped")):
        root.set(name, str(sum(t[i] for t in totals)))
    Xml.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(root, encoding="unicode") + "\n"


def _suite(
    root: Xml.Element, backend: str, verdicts: Sequence[Verdict], repro: Callable[[Verdict], str]
) -> tuple[int, int, int, int]:
    suite = Xml.SubElement(root, "testsuite", name=_clean(backend))
    failed = errors = skipped = 0
    for v in verdicts:
        name = " ".join(w for w in (v.case.label, v.pass_, v.check, v.output) if w)
        classname = f"{backend}.{v.case.op}"
        element = Xml.SubElement(
            suite, "testcase", classname=_clean(classname), name=_clean(name), time=f"{v.seconds:.6f}"
        )
        if v.status is Status.SKIPPED:
            skipped += 1
            Xml.SubElement(element, "skipped", message=_clean(v.reason))
        elif not v.accepted:
            is_error = v.status in _ERRORS
            errors += is_error
            failed += not is_error
            message = _clean(v.reason or summary.detail(v))
            child = Xml.SubElement(element, "error" if is_error else "failure", type=v.status, message=message)
            child.text = _clean("\n".join(x for x in (summary.detail(v), v.reason, f"again: {repro(v)}") if x))
    counts = (len(verdicts), failed, errors, skipped)
    for key, value in zip(("tests", "failures", "errors", "skipped"), counts, strict=True):
        suite.set(key, str(value))
    suite.set("time", f"{sum(v.seconds for v in verdicts):.6f}")
    return counts


def _clean(value: str) -> str:
    """Without the characters that XML cannot hold."""
    return _CONTROL.sub("\ufffd", value)
