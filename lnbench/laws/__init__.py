"""Data laws: named ways to draw the inputs of a case, each chosen for the mistakes it reveals.

`schema` says what a law is; `data` and `parameters` hold the laws; `drawing` makes arrays of them;
`files` reads real tensors instead.
"""

from __future__ import annotations

from lnbench.laws.drawing import draw, draw_into, inputs_of, is_unsystematic, law_of
from lnbench.laws.registry import get, names
from lnbench.laws.schema import KINDS, Law

__all__ = ["KINDS", "Law", "draw", "draw_into", "get", "inputs_of", "is_unsystematic", "law_of", "names"]
