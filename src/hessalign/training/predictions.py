"""The reader of saved predictions, apart from what training imports: it loads Polars."""

from hessalign.runs.predictions import read_predictions

__all__ = ["read_predictions"]
