"""One self-contained HTML page for one run: nothing is loaded from elsewhere, and every text is escaped."""

from lnbench.report.html.bench import page_of as bench_page
from lnbench.report.html.verify import page_of as verify_page

__all__ = ["bench_page", "verify_page"]
