# ruff: noqa: N803 (scikit-learn's names)
"""What reaches the estimators: features, labels, weights, domains and groups, checked; and their warnings."""

import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, validate_data
from torch import Tensor

from hessalign.inputs import read_domains

HOW_TO_PASS = (
    "pass fit(..., sample_domain=ids); through cross_val_score, cross_validate and searches "
    "params={'sample_domain': ids} (groups= reaches the splitter only), and through pipelines "
    "sklearn.set_config(enable_metadata_routing=True)"
)

_HERE = str(Path(__file__).parent)


def as_plain(values: Any) -> Any:
    """A tensor as an array, which scikit-learn's checks take; anything else as it is."""
    if not isinstance(values, Tensor):
        return values
    plain = values.detach().cpu()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).numpy()


def checked(estimator: BaseEstimator, *arrays: Any, **kind: Any) -> Any:
    """What scikit-learn's validate_data returns; its errors name the arguments where it does not."""
    try:
        return validate_data(estimator, *map(as_plain, arrays), **kind)
    except (TypeError, ValueError) as error:
        if any(word in str(error) for word in (" X", "X ", " y ", "eature", "sample", "abel")):
            raise
        kind_of_error = TypeError if isinstance(error, TypeError) else ValueError
        raise kind_of_error(f"{' or '.join(('X', 'y')[: len(arrays)])}: {error}") from error


def classes_and_codes(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The labels, ascending, and each sample's position among them.

    Returns:
        The labels, ``(C,)``, and the positions, ``(n,)``.

    Raises:
        ValueError: If they are not class labels.
    """
    try:
        check_classification_targets(y)
        return np.unique(y, return_inverse=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"y: class labels must be all numbers or all strings ({error})") from error


def read_weight(sample_weight: Any, X: NDArray[Any]) -> NDArray[np.float64]:
    """Weight of each sample, ``(n,)``; all 1 by default.

    Returns:
        Weights of at least 0, ``(n,)``.

    Raises:
        ValueError: If there is not one finite number of at least 0 for each sample, or all are 0.
    """
    if sample_weight is None:
        return np.ones(len(X))
    array = np.asarray(as_plain(sample_weight))
    if array.dtype.kind in "OT" and all(
        isinstance(value, int | float | np.number) and not isinstance(value, bool) for value in array.flat
    ):
        array = array.astype(np.float64)
    if array.dtype.kind not in "iufb":
        raise ValueError(
            f"sample_weight: must be numbers, got dtype {array.dtype}; domain ids go under sample_domain="
        )
    if array.ndim == 0:
        array = np.full(len(X), array)
    try:
        weight: NDArray[np.float64] = _check_sample_weight(array, X, dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"sample_weight: {error}") from error
    if (weight < 0).any() or not (weight > 0).any() or not np.isfinite(weight.sum()):
        raise ValueError(
            "sample_weight: weights must be at least 0, and not all 0, "
            f"got values from {weight.min():g} to {weight.max():g}"
        )
    return weight / weight.max() if weight.max() > 1e100 or weight.max() < 1e-100 else weight


def read_views(sample_id: Any, same: Mapping[str, NDArray[Any]]) -> NDArray[np.intp] | None:
    """The sample that each row is a view of.

    Args:
        sample_id: An integer or a string for each row.
        same: What the rows of one sample must share, by the name of the argument, ``(n, ...)`` each.

    Returns:
        Number of each row's sample, ``(n,)``; None where every row is a sample of its own.

    Raises:
        ValueError: If there is not one id for each row, or rows of one sample differ in what they must share.
    """
    rows = len(next(iter(same.values())))
    found = read_domains("sample_id", sample_id, rows, "sample")
    if len(found.names) == rows:
        return None
    first = np.unique(found.codes, return_index=True)[1][found.codes]
    for name, values in same.items():
        differ = (values != values[first]).reshape(rows, -1).any(1)
        if differ.any():
            sample = found.names[found.codes[int(differ.argmax())]]
            raise ValueError(
                f"sample_id, {name}: all rows of a sample are views of it and have the same {name}; those of "
                f"sample {sample!s} do not"
            )
    return found.codes


def warn(estimator: object, message: str, category: type[Warning]) -> None:
    """Warn the caller of fit, however deep in this package the warning arose."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_HERE):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(f"{type(estimator).__name__}: {message}", category, stacklevel=depth)
