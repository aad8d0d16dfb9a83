from . import (
    best,
    domainbed_runs,
    engines,
    estimate,
    formats,
    job,
    plot,
    protocol,
    records,
    report,
    sweep,
    tables,
)
from .records import Records, read_sweep
from .selection import RULES, Rule, select

__all__ = [
    "RULES",
    "Records",
    "Rule",
    "best",
    "domainbed_runs",
    "engines",
    "estimate",
    "formats",
    "job",
    "plot",
    "protocol",
    "read_sweep",
    "records",
    "report",
    "select",
    "sweep",
    "tables",
]
