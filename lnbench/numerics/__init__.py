"""Floating-point formats, arithmetic wider than the one under test, and `Bounded`. The ground: knows nothing else of lnbench."""
