"""Floating-point formats, arithmetic wider than the one under test, and `Bounded`. Knows nothing else of lnbench."""
