"""Targets, predictions and weights, as given, read as arrays or refused in a sentence."""

import warnings
from typing import Any, NoReturn

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray

from hessalign.exceptions import UntrustworthyWarning
from hessalign.inputs import as_tensor, read_domains

Scores = tuple[NDArray[np.float64], NDArray[np.intp]]
"""Log-probabilities, ``(n, C)``, and the position of the largest, told before logarithms round it."""


def length_of(name: str, values: Any) -> int:
    """How many there are; what has no length is refused."""
    try:
        return len(values)
    except TypeError:
        raise ValueError(f"{name}: must be an array or a list, got {values!r}") from None


def read_targets(
    targets: ArrayLike, classes: ArrayLike | None, samples: int, outputs: int
) -> tuple[NDArray[np.intp], list[Any]]:
    """Position of each sample's class, and the classes."""
    found = read_domains("targets", targets, samples, "class")
    names = found.names
    if classes is not None:
        given = read_domains("classes", classes, length_of("classes", classes), "class")
        order = np.empty(len(given.codes), dtype=np.intp)
        order[given.codes] = np.arange(len(order))
        if len(given.names) != len(given.codes) or len(order) != outputs:
            raise ValueError(
                f"classes: must name each of the {outputs} classes once, got {len(given.codes)} names, "
                f"{len(given.names)} of them distinct"
            )
        known = np.isin(names, given.names)
        if not known.all():
            raise ValueError(
                f"targets: {names[~known].tolist()[0]!r} is none of the classes; allowed are "
                f"{', '.join(map(repr, given.names[given.codes].tolist()))}"
            )
        positions = order[np.searchsorted(given.names, names)]
        listed: list[Any] = given.names[given.codes].tolist()
        return positions[found.codes], listed
    if len(names) == outputs:
        return found.codes, names.tolist()
    if names.dtype.kind in "iub" and names.min() >= 0 and names.max() < outputs:
        return names.astype(np.intp)[found.codes], list(range(outputs))
    raise ValueError(
        f"targets: hold {len(names)} classes where {outputs} are predicted; name all of them in classes="
    )


def _read_numbers(name: str, values: ArrayLike) -> NDArray[np.float64]:
    array = as_tensor(name, values).detach().cpu().double().numpy()
    if array.ndim not in (1, 2) or not len(array) or 0 in array.shape:
        raise ValueError(f"{name}: must have shape (n, C), (n, 1) or (n,), got {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: must be finite, got NaN or infinity")
    return array


def read_logits(logits: ArrayLike | None) -> Scores:
    """Scores of logits, ``(n, C)``, or of one logit each, ``(n,)`` or ``(n, 1)``."""
    given: ArrayLike = logits if logits is not None else []
    array = _read_numbers("logits", given)
    tensor = as_tensor("logits", given)
    is_single = array.ndim == 1 or array.shape[1] == 1
    if not tensor.is_floating_point() and (is_single or _is_one_hot(array)):
        _refuse_classes("logits", tensor)
    if is_single:
        single = array.reshape(-1)
        both = np.column_stack([-single, single])
        return F.logsigmoid(torch.from_numpy(both)).numpy(), (single > 0).astype(np.intp)
    return log_softmax(array), array.argmax(1)


def log_softmax(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Log-probabilities of finite logits, ``(n, C)``, in double precision."""
    found: NDArray[np.float64] = torch.from_numpy(logits.astype(np.float64)).log_softmax(1).numpy()
    return found


def read_probabilities(probabilities: ArrayLike) -> Scores:
    """Scores of probabilities, ``(n, C)``, or of the second of two classes, ``(n,)``."""
    tensor = as_tensor("probabilities", probabilities)
    array = _read_numbers("probabilities", tensor)
    if not tensor.is_floating_point():
        _refuse_classes("probabilities", tensor)
    if array.ndim == 1 or array.shape[1] == 1:
        array = np.column_stack([1 - array.reshape(-1), array.reshape(-1)])
    if array.min() < -1e-6 or array.max() > 1 + 1e-6 or np.abs(array.sum(1) - 1).max() > 1e-2:
        raise ValueError(
            "probabilities: must lie between 0 and 1 and add up to 1 for each sample, got values from "
            f"{array.min():.4g} to {array.max():.4g} and sums up to {array.sum(1).max():.4g}; "
            "logits go under logits="
        )
    if _is_one_hot(array):
        warnings.warn(
            "probabilities: all are 0 or 1, as of predicted classes; accuracies stand, but log-loss, AUROC "
            "and calibration error say nothing more",
            UntrustworthyWarning,
            stacklevel=3,
        )
    # A probability rounded to 0 is no infinite loss; scikit-learn's log_loss has the same floor.
    floor = torch.finfo(tensor.dtype).eps
    return np.log(np.clip(array, floor, 1)), array.argmax(1)


def _is_one_hot(array: NDArray[np.float64]) -> bool:
    return bool(np.isin(array, (0, 1)).all() and (array.sum(1) == 1).all())


def _refuse_classes(name: str, given: torch.Tensor) -> NoReturn:
    raise ValueError(
        f"{name}: must be real numbers, as predict_proba or a network gives them, got an array of "
        f"{str(given.dtype).removeprefix('torch.')} of shape {tuple(given.shape)}, as predicted classes are"
    )


def read_weight(sample_weight: ArrayLike | None, samples: int) -> NDArray[np.float64]:
    """Weight of each sample, ``(n,)``; 1 where none is given."""
    if sample_weight is None:
        return np.ones(samples)
    weight = as_tensor("sample_weight", sample_weight).detach().cpu().double().numpy()
    usable = weight.shape == (samples,) and np.isfinite(weight).all()
    if not usable or weight.min() < 0 or not weight.sum() > 0:
        raise ValueError(
            f"sample_weight: must hold one finite weight of at least 0 for each of the {samples} samples, "
            f"not all 0, got an array of shape {weight.shape}"
        )
    return weight
