"""Run folders: what a run wrote, row by row, so that it can be read after a crash, resumed and compared.

Leaves what a verdict or a timing means to `lnbench.verify` and `lnbench.bench`, and every report to `lnbench.report`.
"""

from lnbench.results.columns import CASE_COLUMNS, SCHEMA, VERDICT_COLUMNS, case_cells, verdict_cells, verdict_of
from lnbench.results.folder import CASES, ENVIRONMENT, Folder, cases_text, check_fresh, create, now, read, reopen
from lnbench.results.table import Table, cell, csv_text, json_value, write_whole

__all__ = [
    "CASES",
    "CASE_COLUMNS",
    "ENVIRONMENT",
    "SCHEMA",
    "VERDICT_COLUMNS",
    "Folder",
    "Table",
    "case_cells",
    "cases_text",
    "cell",
    "check_fresh",
    "create",
    "csv_text",
    "json_value",
    "now",
    "read",
    "reopen",
    "verdict_cells",
    "verdict_of",
    "write_whole",
]
