"""Writes docs/peers.md: what verification says of every other implementation that is installed, each weakness explained.

    python benchmarks/peer_verdicts.py                      # all installed peers over the suite `ci`
    python benchmarks/peer_verdicts.py --resume             # the same, after an interruption: only what is missing
    python benchmarks/peer_verdicts.py --backend torch      # one peer again; the others as they were verified last
    python benchmarks/peer_verdicts.py --suite smoke --output -

Needs `pip install 'lnbench[peers]'` (and tensorflow, onednn for those). Each peer's verdicts are kept as they come, in the
folder of a run of lnbench under results/peers/. Ends with exit code 1 when a verdict is not explained by peer_findings.py:
then either the peer has a new weakness or lnbench accuses it falsely.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path

from peer_findings import FINDINGS, Finding

from lnbench import Status, Unavailable, Verdict, pool, results

ROOT = Path(__file__).resolve().parents[1]
PAGE, KEPT = ROOT / "docs" / "peers.md", ROOT / "results" / "peers"
OWN = ("numpy", "native", "torch-cuda")
FACTS = ("statistics", "statistics_dtype", "accumulate", "subnormals")
HEAD = """# What verification says of other implementations

Written by `python benchmarks/peer_verdicts.py`, suite `{suite}`, on {machine}. Every verdict that is not PASSED or SKIPPED is
explained below, with a program without lnbench that shows it; a skipped case is one that the peer's interface does not have.

UNSTABLE means that the strict bound is broken while a weaker bound, named in the reason, is kept; FAILED that none is.
A verdict is counted per check and output, so one weakness counts several times. Where a peer was stopped by its time limit
(torch.compile compiles for minutes), the table says how many cases were judged; of the others nothing is said.
"""


@dataclass(slots=True)
class Peer:
    """One backend, what it said of itself, and all its verdicts; `cases` is how many the suite has."""

    name: str
    described: Mapping[str, str]
    verdicts: list[Verdict]
    cases: int
    explained: dict[str, list[Verdict]] = field(default_factory=dict)
    open: list[Verdict] = field(default_factory=list)

    @property
    def facts(self) -> str:
        return ", ".join(f"{k} {self.described[k]}" for k in FACTS if k in self.described)

    @property
    def judged(self) -> str:
        """How many cases were judged: all of them, or what the time limit left."""
        seen = len({v.case.key for v in self.verdicts})
        return str(seen) if seen >= self.cases else f"{seen} of {self.cases}, time limit"

    def sort(self, findings: Iterable[Finding]) -> None:
        """Puts every bad verdict under the first finding that explains it."""
        for verdict in self.verdicts:
            if verdict.status is Status.PASSED:
                continue
            why = next((f for f in findings if f.explains(verdict)), None)
            if why is not None:
                self.explained.setdefault(why.title, []).append(verdict)
            elif verdict.status is not Status.SKIPPED:
                self.open.append(verdict)


def verify(name: str, suite: str, *, resume: bool, limit: float) -> None:
    """Verifies one backend into its folder; goes on with what is there when `resume`. Stops after `limit` seconds."""
    folder = KEPT / suite / name
    begun = resume and (folder / results.ENVIRONMENT).is_file()
    if begun and "finished" in results.reopen(folder).environment:
        return
    try:
        with pool.Session(name) as session:
            said = dict(session.description.described)
    except Unavailable as missing:
        print(f"{name}: {missing}", file=sys.stderr)
        return
    if not begun:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    (folder / "described.json").write_text(json.dumps(said), encoding="utf-8")
    which = ["--resume", str(folder)] if begun else [suite, "--output", str(folder)]
    command = [sys.executable, "-m", "lnbench", "verify", *which, "--backend", name, "--timeout", "300s", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT)
    try:
        process.wait(limit)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)  # lnbench then writes what it has
        process.wait()


def look_at(folder: Path) -> Peer:
    """The peer whose verdicts are in `folder`, its weaknesses explained."""
    cases = {c.key: c for c in results.reopen(folder).cases()}
    rows = results.read(folder, "verdicts.csv", needed=results.VERDICT_COLUMNS)
    verdicts = [results.verdict_of(row, cases[row["key"]]) for row in rows]
    peer = Peer(folder.name, json.loads((folder / "described.json").read_text()), verdicts, len(cases))
    peer.sort(FINDINGS)
    print(f"{peer.name}: {counts(verdicts)}; {len(peer.open)} not explained", file=sys.stderr)
    return peer


def counts(verdicts: Sequence[Verdict]) -> str:
    found = Counter(v.status for v in verdicts)
    return ", ".join(f"{found[s]} {s}" for s in Status if found[s])


def table(peers: Sequence[Peer]) -> list[str]:
    words = [s for s in Status if any(v.status is s for p in peers for v in p.verdicts)]
    lines = [f"| backend | version | declares | cases | {' | '.join(words)} | cases not accepted |"]
    lines.append("| --- | --- | --- |" + " ---: |" * (len(words) + 2))
    for peer in peers:
        found = Counter(v.status for v in peer.verdicts)
        bad = len({v.case.key for v in peer.verdicts if not v.accepted})
        numbers = " | ".join(str(found[s]) for s in words)
        lines.append(
            f"| `{peer.name}` | {peer.described['version']} | {peer.facts} | {peer.judged} | {numbers} | {bad} |"
        )
    return lines


def explanation(finding: Finding, peers: Sequence[Peer]) -> list[str]:
    """The section of one finding, or nothing where it did not show."""
    found = [v for p in peers for v in p.explained.get(finding.title, [])]
    if not found:
        return []
    cases = list(dict.fromkeys(v.case.label for v in found))
    shown = ", ".join(f"`{c}`" for c in cases[:8]) + (f" and {len(cases) - 8} more" if len(cases) > 8 else "")
    who = ", ".join(f"`{b}`" for b in dict.fromkeys(v.backend for v in found))
    worst = found[0]
    return [
        "", f"## {finding.title}", "", f"{who}: {counts(found)}, on {len(cases)} cases: {shown}.", "", finding.sentences, "",
        f"First seen as: {worst.pass_} {worst.output or worst.check}, {one_line(worst.reason)}.", "",
        "```python", finding.program, "```", "", "prints", "", "```", demonstrate(finding), "```",
    ]  # fmt: skip


def one_line(text: str) -> str:
    line = text.splitlines()[0] if text else ""
    return line if len(line) < 200 else line[:200].rsplit(" ", 1)[0] + " ..."


def demonstrate(finding: Finding) -> str:
    """What the demonstration prints; for one that raises, its last lines."""
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", **finding.environment}
    done = subprocess.run(
        [sys.executable, "-c", finding.program],
        env={**os.environ, **quiet}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    said = done.stdout.strip() if done.returncode == 0 else done.stderr.strip()
    meaningful = [line for line in said.splitlines() if line.strip() and "WARNING" not in line]
    return "\n".join(line[:160] for line in meaningful[-6:])


def unexplained(peers: Sequence[Peer]) -> list[str]:
    """Verdicts that no finding explains, told as they are."""
    lines: list[str] = []
    for peer in peers:
        for v in peer.open:
            lines.append(
                f"* `{v.backend}` on `{v.case.label}`, {v.pass_} {v.check} {v.output}: {v.status}, {one_line(v.reason)}"
            )
    return ["", "## Not explained", "", *lines] if lines else []


def page(peers: Sequence[Peer], suite: str) -> str:
    machine = f"{platform.machine()} ({os.cpu_count()} processors), Python {platform.python_version()}"
    lines = [HEAD.format(suite=suite, machine=machine), *table(peers)]
    for finding in FINDINGS:
        lines += explanation(finding, peers)
    return "\n".join([*lines, *unexplained(peers)]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", default="ci")
    parser.add_argument("--backend", action="append", help="verify only these (default: every installed one)")
    parser.add_argument("--resume", action="store_true", help="keep what is verified, and go on")
    parser.add_argument("--limit", type=float, default=60.0, help="minutes for each backend (default: 60)")
    parser.add_argument("--output", default=str(PAGE), help="a file, or - for stdout")
    asked = parser.parse_args()
    names = sorted(p.name for p in entry_points(group="lnbench.backends") if p.name not in OWN)
    for name in asked.backend or names:
        verify(name, asked.suite, resume=asked.resume, limit=60 * asked.limit)
    kept = [KEPT / asked.suite / name for name in names]
    peers = [look_at(folder) for folder in kept if (folder / "verdicts.csv").is_file()]
    text = page(peers, asked.suite)
    if asked.output == "-":
        print(text, end="")
    else:
        Path(asked.output).write_text(text, encoding="utf-8")
    return int(any(p.open for p in peers))


if __name__ == "__main__":
    sys.exit(main())
