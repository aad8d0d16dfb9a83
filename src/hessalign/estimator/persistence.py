"""Fitted estimators on disk: one safetensors file with numbers and JSON, nothing that could be executed.

The tensors are ``coef`` and ``intercept``. Of the metadata, ``estimator`` holds the rest as JSON and
``sha256`` a checksum over all of it: it finds damage and careless edits, but it is no signature.
"""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from hessalign.files import replacing

if TYPE_CHECKING:
    from hessalign.estimator.base import HeadEstimator

Scalar = bool | int | float | str
Pairs = list[tuple[Scalar, float]]
# What weights count in: since this unit they are shares of the plain fit's loss; before, of nothing.
UNIT = "plain loss"
Estimator = TypeVar("Estimator", bound="HeadEstimator")

LIBRARIES = ("hessalign", "scikit-learn", "torch", "numpy")
# Fitted attributes, saved where the estimator has them.
NUMBERS = (
    "n_features_in_",
    "alpha_",
    "beta_",
    "C_",
    "l2_",
    "scale_",
    "loss_",
    "penalty_",
    "objective_",
    "gradient_norm_",
    "converged_",
    "n_iter_",
)
ARRAYS = ("classes_", "domains_", "feature_names_in_")


class _Array(BaseModel):
    """A small array of numbers or strings; JSON keeps both exactly."""

    model_config = ConfigDict(extra="forbid")

    dtype: str
    values: list[Any]

    @classmethod
    def of(cls, name: str, array: NDArray[Any]) -> "_Array":
        strings = array.dtype.kind == "O" and all(isinstance(value, str) for value in array)
        if not strings and array.dtype.kind not in "biufU":
            raise ValueError(f"{name}: only numbers and strings can be saved, got dtype {array.dtype}")
        return cls(dtype=array.dtype.str, values=array.tolist())

    def array(self) -> NDArray[Any]:
        return np.array(self.values, dtype=self.dtype)


class _Saved(BaseModel):
    """Everything of an estimator but its coefficients."""

    model_config = ConfigDict(extra="forbid")

    class_name: str
    params: dict[str, Scalar | Pairs | None]
    numbers: dict[str, Scalar]
    arrays: dict[str, _Array]
    auto_results: dict[str, _Array] | None
    versions: dict[str, str]
    unit: str | None = None


def save_estimator(estimator: "HeadEstimator", path: Path) -> None:
    """Write a fitted estimator; see [HeadEstimator.save][hessalign.estimator.base.HeadEstimator.save]."""
    fitted = vars(estimator)
    auto_results = fitted.get("auto_results_")
    about = _Saved(
        class_name=type(estimator).__name__,
        params={name: _parameter(name, value) for name, value in estimator.get_params(deep=False).items()},
        numbers={name: _scalar(name, fitted[name]) for name in NUMBERS if name in fitted},
        arrays={name: _Array.of(name, fitted[name]) for name in ARRAYS if name in fitted},
        auto_results=auto_results and {key: _Array.of(key, value) for key, value in auto_results.items()},
        versions={library: version(library) for library in LIBRARIES},
        unit=UNIT,
    ).model_dump_json()
    coef = np.ascontiguousarray(estimator.coef_)
    intercept = np.asarray(estimator.intercept_)
    metadata = {"estimator": about, "sha256": _checksum(about, coef, intercept)}
    with replacing(path) as draft:
        draft.write_bytes(save({"coef": coef, "intercept": intercept}, metadata))


def load_estimator(cls: type[Estimator], path: Path) -> Estimator:
    """Read an estimator; see [HeadEstimator.load][hessalign.estimator.base.HeadEstimator.load]."""
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except SafetensorError as error:
        raise ValueError(f"path: {path} is cut short or no safetensors file ({error})") from error
    if not {"estimator", "sha256"} <= metadata.keys() or tensors.keys() != {"coef", "intercept"}:
        raise ValueError(f"path: {path} holds no estimator of hessalign")
    about, coef, intercept = metadata["estimator"], tensors["coef"], tensors["intercept"]
    if metadata["sha256"] != _checksum(about, coef, intercept):
        raise ValueError(f"path: {path} is damaged or was changed after it was saved: its checksum is wrong")
    try:
        saved = _Saved.model_validate_json(about)
        if saved.class_name != cls.__name__:
            raise ValueError(f"path: {path} holds a {saved.class_name}, not a {cls.__name__}")
        estimator = cls(**{name: _loaded(value) for name, value in saved.params.items()})
    except (ValidationError, TypeError) as error:
        raise ValueError(
            f"path: {path} was written by a version of hessalign that differs too much"
        ) from error
    for name, number in saved.numbers.items():
        setattr(estimator, name, number)
    for name, array in saved.arrays.items():
        setattr(estimator, name, array.array())
    if saved.auto_results is not None:
        estimator.auto_results_ = {name: array.array() for name, array in saved.auto_results.items()}
    estimator.coef_ = coef
    estimator.intercept_ = intercept if intercept.ndim else float(intercept)
    if saved.unit != UNIT:
        estimator._units_changed = True  # predicts as before; a new fit says so
    return estimator


def _scalar(name: str, value: object) -> Scalar:
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, Scalar):
        raise ValueError(f"{name}: only numbers and strings can be saved, got {value!r}")
    return plain


def _parameter(name: str, value: object) -> Scalar | Pairs | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return [(_scalar(name, key), float(weight)) for key, weight in value.items()]
    return _scalar(name, value)


def _loaded(value: Scalar | Pairs | None) -> object:
    return dict(value) if isinstance(value, list) else value


def _checksum(about: str, coef: NDArray[Any], intercept: NDArray[Any]) -> str:
    digest = hashlib.sha256(about.encode())
    for tensor in (coef, intercept):
        digest.update(f"{tensor.dtype.str}{tensor.shape}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()
