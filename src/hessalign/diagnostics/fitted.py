"""The linear head of a fitted estimator: what it sees, what it gives, and by which loss to read that."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import issparse
from scipy.special import expit, softmax
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from hessalign.head import BinaryCrossEntropy, CrossEntropy, HeadLoss, SquaredError
from hessalign.inputs import as_tensor, read_domains

TOLERANCE = 1e-5
"""Relative difference of an estimator's own predictions from those of its head that is rounding."""


@dataclass(frozen=True, eq=False)
class FittedHead:
    """What a report needs of a fitted estimator.

    Attributes:
        features: What its last step sees, ``(n, d)``.
        logits: What its coefficients make of them, ``(n, C)``.
        targets: As the loss takes them.
        loss: By which its scores are read.
        bias: Whether it was fitted with an intercept.
        output_names: Of its classes, or of the second one where it has one logit; None for a regressor.
        class_names: Of all its classes; None for a regressor.
        notes: What is not as the estimator itself has it.
    """

    features: Tensor
    logits: Tensor
    targets: Tensor
    loss: HeadLoss
    bias: bool
    output_names: tuple[str, ...] | None
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def is_estimator(value: object) -> bool:
    """Whether this is something that scikit-learn would call an estimator, fitted or not."""
    return hasattr(value, "fit") and hasattr(value, "get_params")


def read_estimator(estimator: Any, X: Any, y: Any) -> FittedHead:  # noqa: N803 (scikit-learn's name)
    """Take a fitted linear classifier or regressor apart, alone or at the end of a pipeline.

    Args:
        estimator: With ``coef_`` and ``intercept_``; a search stands for its best estimator.
        X: Samples as the estimator takes them, ``(n, ...)``.
        y: Class labels as it was fitted to, or real targets.

    Returns:
        Its head, with these samples.

    Raises:
        ValueError: If it is not fitted or not linear in its features, it knows a label not, or its own
            predictions are not those of its coefficients.
    """
    samples: Any = X.detach().cpu().numpy() if isinstance(X, Tensor) else X
    name = type(estimator).__name__
    try:
        check_is_fitted(estimator)
    except ValueError as error:
        raise ValueError(f"features: this {name} is not fitted; call its fit first") from error
    last = getattr(estimator, "best_estimator_", estimator)
    while hasattr(last, "steps"):
        if len(last.steps) > 1:
            samples = last[:-1].transform(samples)
        last = getattr(last.steps[-1][1], "best_estimator_", last.steps[-1][1])
    if not hasattr(last, "coef_") or not hasattr(last, "intercept_"):
        raise ValueError(
            f"features: {name} ends in {type(last).__name__}, which has no coef_ and intercept_; a report "
            "needs a linear head, alone or as the last step of a pipeline"
        )
    features = as_tensor("features", _dense(samples)).double()
    weights = np.atleast_2d(np.asarray(_dense(last.coef_), dtype=np.float64))
    if features.ndim != 2 or weights.ndim != 2 or features.shape[1] != weights.shape[1]:
        raise ValueError(
            f"logits: {type(last).__name__} takes samples of {weights.shape[-1]} features, got an array of "
            f"shape {tuple(features.shape)}"
        )
    logits: NDArray[Any] = features.numpy() @ weights.T + np.asarray(last.intercept_, dtype=np.float64)
    bias = bool(getattr(last, "fit_intercept", True))
    read = _read_classifier if hasattr(last, "classes_") else _read_regressor
    return read(last, samples, features, logits, y, bias)


def class_codes(labels: Any, classes: NDArray[Any], samples: int, name: str = "y") -> Tensor:
    """Position of each label among the classes, ``(n,)``.

    Args:
        labels: ``(n,)`` integers, booleans or strings.
        classes: All different labels, in the order of the logits.
        samples: ``n``.
        name: What the argument is called.

    Returns:
        Integers from 0.

    Raises:
        ValueError: If the labels are no labels, or one is no class.
    """
    found = read_domains(name, labels, samples, "class")
    place = {str(label): code for code, label in enumerate(classes.tolist())}
    unknown = [str(label) for label in found.names.tolist() if str(label) not in place]
    if unknown:
        raise ValueError(f"{name}: {unknown[0]!r} is no class; allowed are {', '.join(map(repr, place))}")
    codes = np.array([place[str(label)] for label in found.names.tolist()])
    return torch.from_numpy(codes[found.codes])


def _read_classifier(
    last: Any, samples: Any, features: Tensor, logits: NDArray[Any], y: Any, bias: bool
) -> FittedHead:
    classes = np.asarray(last.classes_)
    codes = class_codes(_whole(y), _whole(classes), len(features))
    single = logits.shape[1] == 1
    if not _alike(last.decision_function(samples), logits):
        raise ValueError(
            f"features: the scores of {type(last).__name__} are not those of its coefficients; pass features "
            "and logits instead"
        )
    loss: HeadLoss = BinaryCrossEntropy() if single else CrossEntropy()
    targets = codes.double() if single else codes
    sigmoid = expit(logits)
    expected = np.hstack([1 - sigmoid, sigmoid]) if single else softmax(logits, axis=1)
    notes: tuple[str, ...] = ()
    probabilities = last.predict_proba(samples) if hasattr(last, "predict_proba") else None
    if probabilities is None or not np.allclose(probabilities, expected, atol=TOLERANCE):
        one_by_one = sigmoid / sigmoid.sum(1, keepdims=True)
        if (
            probabilities is not None
            and not single
            and np.allclose(probabilities, one_by_one, atol=TOLERANCE)
        ):
            loss, targets = BinaryCrossEntropy(), torch.nn.functional.one_hot(codes, len(classes)).double()
        else:
            notes = (
                f"logits: {type(last).__name__} was not fitted by cross-entropy; its scores are read as "
                "logits all the same, so that gradients need not vanish where it was fitted.",
            )
    names = tuple(map(str, classes.tolist()))
    return FittedHead(
        features=features,
        logits=torch.from_numpy(logits),
        targets=targets,
        loss=loss,
        bias=bias,
        output_names=names[1:] if single else names,
        class_names=names,
        notes=notes,
    )


def _read_regressor(
    last: Any, samples: Any, features: Tensor, logits: NDArray[Any], y: Any, bias: bool
) -> FittedHead:
    loss = SquaredError(getattr(last, "activation", "identity"))
    scores = torch.from_numpy(logits)
    if not _alike(last.predict(samples), loss.predict(scores).detach().numpy()):
        raise ValueError(
            f"features: the predictions of {type(last).__name__} are not those of its coefficients; pass "
            "features and logits instead"
        )
    return FittedHead(features, scores, as_tensor("y", y), loss, bias, None, None)


def _dense(values: Any) -> Any:
    return values.toarray() if issparse(values) else values


def _alike(own: Any, expected: NDArray[Any]) -> bool:
    """Whether an estimator's own numbers are these, to rounding; one column may have lost its axis."""
    array = np.asarray(own)
    array = array.reshape(-1, 1) if array.ndim == 1 else array
    return array.shape == expected.shape and np.allclose(array, expected, rtol=TOLERANCE, atol=TOLERANCE)


def _whole(labels: Any) -> Any:
    """Labels that are whole numbers of a floating type, as scikit-learn takes them, as integers."""
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    array = np.asarray(labels)
    if array.dtype.kind == "f" and array.size and np.isfinite(array).all() and (array == array.round()).all():
        return array.astype(np.int64)
    return labels
