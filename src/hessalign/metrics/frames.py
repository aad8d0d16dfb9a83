"""Slices as a frame of Polars, which training does without."""

from typing import Any

import polars as pl

from hessalign.metrics.evaluation import Slices


def slices_frame(slices: Slices) -> pl.DataFrame:
    """What [Slices.to_frame][hessalign.metrics.Slices.to_frame] gives.

    Args:
        slices: Of an evaluation.

    Returns:
        A row for each slice: its id, ``samples``, ``training_share`` if known, and every metric.
    """
    columns: dict[str, Any] = {}
    if slices.names and isinstance(slices.names[0], tuple):
        columns["domain"] = [name[0] for name in slices.names if isinstance(name, tuple)]
        columns["class"] = [name[1] for name in slices.names if isinstance(name, tuple)]
    else:
        columns[slices.kind] = list(slices.names)
    columns["samples"] = slices.counts
    if slices.training_shares is not None:
        columns["training_share"] = slices.training_shares
    return pl.DataFrame(columns | dict(slices.values))
