"""The language of -k."""

from __future__ import annotations

import pytest

from lnbench.cli._select import matcher
from lnbench.errors import UsageError

TEXT = "bert-base layer_norm float32 offset"


@pytest.mark.parametrize(
    ("expression", "matches"),
    [
        (None, True),
        ("  ", True),
        ("bert", True),
        ("BERT", True),
        ("float64", False),
        ("not float64", True),
        ("not not bert", True),
        ("bert and offset", True),
        ("bert and normal", False),
        ("normal or offset", True),
        ("float64 and bert or offset", True),
        ("float64 and (bert or offset)", False),
        ("not (bert and normal)", True),
        ("not bert or offset", True),
    ],
)
def test_words_match_where_they_occur(expression: str | None, matches: bool) -> None:
    assert matcher(expression)(TEXT) is matches


@pytest.mark.parametrize("expression", ["bert offset", "and", "bert and", "(bert", "bert)", "not", "()"])
def test_what_is_no_expression_is_refused(expression: str) -> None:
    with pytest.raises(UsageError, match="-k"):
        matcher(expression)
