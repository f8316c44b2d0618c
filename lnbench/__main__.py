"""`python -m lnbench` is `lnbench`."""

from lnbench.cli import main

main()
