from . import csv_rows, html_page, latex, markdown, rich_tables

__all__ = [
    "csv_rows",
    "html_page",
    "latex",
    "markdown",
    "rich_tables",
]
