"""docs/cases.md says what the code does: every law, layout and key, and examples that load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lnbench import config, laws, layouts
from lnbench.config.model import KEYS

DOCUMENT = (Path(__file__).parents[1] / "docs" / "cases.md").read_text()


def table(first: str) -> list[str]:
    """The rows of the table whose first column is called `first`."""
    lines = DOCUMENT.split(f"| {first} | ", 1)[1].splitlines()[2:]
    return lines[: next(i for i, line in enumerate(lines) if not line.startswith("|"))]


def test_the_table_of_laws_is_that_of_the_code() -> None:
    found = [laws.get(name) for name in laws.names()]
    assert table("law") == [
        f"| `{law.name}`{' *' if law.unsystematic else ''} | {', '.join(law.tensors)} | {law.reveals} |"
        for law in found
    ]


def test_the_table_of_layouts_is_that_of_the_code() -> None:
    found = [layouts.get(name) for name in layouts.names()]
    assert table("layout") == [f"| `{a.name}` | {', '.join(a.suits)} | {a.reveals} |" for a in found]


def test_every_key_is_explained() -> None:
    named = [key for row in table("key") for key in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert sorted(named) == sorted([*KEYS, "sweep"])


def test_every_suite_is_explained() -> None:
    shipped = {p.stem for p in (Path(__file__).parents[1] / "configs").glob("*.yaml")}
    assert {row.split("`")[1] for row in table("suite")} == shipped


@pytest.mark.parametrize("example", re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL))
def test_the_examples_load(example: str, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    path.write_text(example)
    names = [c.name for c in config.load(str(path))]
    assert "bert-base-float32-normal-epsilon=1e-12" in names and len(names) == 9


def test_the_inline_example_is_a_case() -> None:
    (text,) = re.findall(r"--case '(.*)'", DOCUMENT)
    (case,) = config.inline(text)
    assert (case.shape, case.law, case.epsilon) == ((37, 5), "decades", 1e-2)
