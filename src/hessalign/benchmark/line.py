r"""Accuracy on the line: do accuracies on the source domains foretell those on the target domain?

Over all draws of a sweep the probits of source accuracy and of target accuracy are compared,

$$\Phi^{-1}(a_{\text{target}}) \approx s\,\Phi^{-1}(a_{\text{source}}) + c .$$

Where the correlation is near 1, whoever does better on the sources does better on the target: choosing by the
sources is safe, and the target asks for nothing that the sources do not. Where it is near 0 or negative, the
source accuracies cannot choose a model, and a benchmark of robustness has something to measure.

Sources: Miller et al., "Accuracy on the Line", ICML 2021; Salaudeen et al., "Are Domain Generalization
Benchmarks with Accuracy on the Line Misspecified?", 2025.
"""

import numpy as np
import polars as pl
from scipy.stats import norm, pearsonr

from hessalign.benchmark.names import dataset_label, sorted_datasets
from hessalign.benchmark.readers import Records
from hessalign.benchmark.selection import candidates
from hessalign.benchmark.tables import Line

CLOSEST = 0.001
"""Accuracies are taken to be at least so far from 0 and from 1, whose probits are infinite."""
LEAST_DRAWS = 10
"""Below, no correlation is told."""
LEVEL = 0.95


def accuracy_lines(records: Records) -> tuple[Line, ...]:
    """Slope and correlation of target on source accuracy over all draws, by dataset and target domain.

    A draw counts at the checkpoint with the best mean accuracy on the held-out splits of the source domains.
    The interval is Fisher's, ``tanh(artanh r ± 1.96 / √(n - 3))``: it takes draws for independent, so it is
    too narrow where many come from few algorithms.

    Args:
        records: Of a sweep.

    Returns:
        One for each dataset, setting and target domain that has runs. Slope, correlation and interval are
        None with fewer than 10 draws, or where one of the accuracies is the same in all of them.

    Example:
        >>> from hessalign.benchmark import read_sweep
        >>> from hessalign.benchmark.line import accuracy_lines
        >>> for line in accuracy_lines(read_sweep("runs/sweep")):  # doctest: +SKIP
        ...     print(line.dataset, line.target, line.correlation)
    """
    # Accuracies on both sides, whatever the tables report.
    draws = candidates(records.accuracies.drop("reported", strict=False), "source-validation").filter(
        pl.col("validation").is_finite() & pl.col("test").is_finite()
    )
    found = []
    for dataset in sorted_datasets(draws["dataset"]):
        here = draws.filter(dataset=dataset)
        for setting, target in sorted(here.select("setting", "target").unique().rows()):
            names = records.example(dataset, setting).domain_names
            chosen = here.filter(setting=setting, target=target)
            found.append(
                _line(
                    Line(
                        dataset=dataset,
                        label=dataset_label(dataset),
                        setting=setting,
                        target=names[target],
                        draws=len(chosen),
                        algorithms=chosen["algorithm"].n_unique(),
                        forgone=_forgone(chosen),
                    ),
                    chosen,
                )
            )
    return tuple(found)


def _line(line: Line, chosen: pl.DataFrame) -> Line:
    source, target = (
        norm.ppf(chosen[column].to_numpy().clip(CLOSEST, 1 - CLOSEST)) for column in ("validation", "test")
    )
    if len(chosen) < LEAST_DRAWS or np.ptp(source) == 0 or np.ptp(target) == 0:
        return line
    result = pearsonr(source, target)
    interval = result.confidence_interval(LEVEL)
    return line.model_copy(
        update={
            "slope": float(result.statistic * target.std() / source.std()),
            "correlation": float(result.statistic),
            "low": float(interval.low),
            "high": float(interval.high),
        }
    )


def _forgone(chosen: pl.DataFrame) -> float:
    """What the choice by source accuracy leaves on the table, in percentage points of target accuracy."""
    best = chosen.sort("validation", "hparams_seed", descending=True)["test"][0]
    return float(100 * (chosen["test"].max() - best))
