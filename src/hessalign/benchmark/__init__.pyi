from . import (
    best,
    engines,
    estimate,
    formats,
    job,
    line,
    plot,
    protocol,
    readers,
    report,
    sweep,
    tables,
)
from .readers import Records, read_sweep
from .selection import RULES, Rule, select

__all__ = [
    "RULES",
    "Records",
    "Rule",
    "best",
    "engines",
    "estimate",
    "formats",
    "job",
    "line",
    "plot",
    "protocol",
    "read_sweep",
    "readers",
    "report",
    "select",
    "sweep",
    "tables",
]
