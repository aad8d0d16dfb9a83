from . import curves, data, outputs, page, plots
from .report import AlignmentReport, alignment_report

__all__ = [
    "AlignmentReport",
    "alignment_report",
    "curves",
    "data",
    "outputs",
    "page",
    "plots",
]
