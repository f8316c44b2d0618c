"""The checks of verification, one per file: each defines `CHECK` (see `lnbench.verify.check.Check`)."""
