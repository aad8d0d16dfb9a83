from . import curves, html, outputs, plots
from .report import AlignmentReport, alignment_report

__all__ = [
    "AlignmentReport",
    "alignment_report",
    "curves",
    "html",
    "outputs",
    "plots",
]
