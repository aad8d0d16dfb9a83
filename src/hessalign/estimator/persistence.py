"""Fitted estimators on disk: one safetensors file with numbers and JSON, nothing that could be executed.

The tensors are ``coef`` and ``intercept``, or what a class names in ``_tensors``. Of the metadata,
``estimator`` holds the rest as JSON and ``sha256`` a checksum over all of it: it finds damage and careless
edits, but it is no signature.
"""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from hessalign.files import replacing

Scalar = bool | int | float | str
Pairs = list[tuple[Scalar, float]]
# What weights count in: since this unit they are shares of the plain fit's loss; before, of nothing.
UNIT = "plain loss"

LIBRARIES = ("hessalign", "scikit-learn", "torch", "numpy")
# What a fit left before there was a choice between heads.
BEFORE = {"plain_": False}


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
    """Everything of an estimator but its tensors."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    class_name: str
    params: dict[str, Scalar | Pairs | list[Scalar] | None]
    numbers: dict[str, Scalar]
    arrays: dict[str, _Array]
    auto_results: dict[str, _Array] | None
    versions: dict[str, str]
    unit: str | None = None


class Persistent(BaseEstimator):  # type: ignore[misc]
    """An estimator or transformer that can be kept in a file."""

    # Fitted attributes that are saved as tensors, by their names in the file.
    _tensors: ClassVar[Mapping[str, str]] = {"coef_": "coef", "intercept_": "intercept"}

    def save(self, path: str | Path) -> None:
        """Write what is fitted to one safetensors file, atomically; nothing in it can be executed.

        Args:
            path: Output file; one that exists is replaced.

        Raises:
            NotFittedError: If nothing is fitted.
            ValueError: If a parameter is a function, or a class or domain id is neither number nor string.
            OSError: If the file cannot be written; one that was there stays as it was.
        """
        check_is_fitted(self)
        fitted = {name: value for name, value in vars(self).items() if name[-1] == "_" and name[0] != "_"}
        names = type(self)._tensors
        auto_results = fitted.pop("auto_results_", None)
        tensors = {key: np.asarray(fitted.pop(name), order="C") for name, key in names.items()}
        arrays = {name: fitted.pop(name) for name in list(fitted) if isinstance(fitted[name], np.ndarray)}
        about = _Saved(
            class_name=type(self).__name__,
            params={name: _parameter(name, value) for name, value in self.get_params(deep=False).items()},
            numbers={name: _scalar(name, value) for name, value in fitted.items()},
            arrays={name: _Array.of(name, array) for name, array in arrays.items()},
            auto_results=auto_results and {key: _Array.of(key, value) for key, value in auto_results.items()},
            versions={library: version(library) for library in LIBRARIES},
            unit=UNIT,
        ).model_dump_json()
        metadata = {"estimator": about, "sha256": _checksum(about, tensors)}
        with replacing(Path(path)) as draft:
            draft.write_bytes(save(tensors, metadata))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what ``save`` wrote.

        Args:
            path: The file.

        Returns:
            The estimator or transformer, fitted.

        Raises:
            ValueError: If the file is damaged, was changed, or holds an estimator of another class.
            OSError: If it cannot be opened.
        """
        try:
            with safe_open(Path(path), framework="np") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
        except SafetensorError as error:
            raise ValueError(f"path: {path} is cut short or no safetensors file ({error})") from error
        if not {"estimator", "sha256"} <= metadata.keys():
            raise ValueError(f"path: {path} holds no estimator of hessalign")
        about = metadata["estimator"]
        if metadata["sha256"] != _checksum(about, tensors):
            raise ValueError(
                f"path: {path} is damaged or was changed after it was saved: its checksum is wrong"
            )
        try:
            saved = _Saved.model_validate_json(about)
            if saved.class_name != cls.__name__:
                raise ValueError(f"path: {path} holds a {saved.class_name}, not a {cls.__name__}")
            estimator = cls(**{name: _loaded(value) for name, value in saved.params.items()})
            for name, key in cls._tensors.items():
                setattr(estimator, name, tensors[key] if tensors[key].ndim else float(tensors[key]))
        except (ValidationError, TypeError, KeyError) as error:
            raise ValueError(
                f"path: {path} was written by a version of hessalign that differs too much"
            ) from error
        if "coef_" in vars(estimator):
            estimator.__dict__.update(BEFORE)
        estimator.__dict__.update(saved.numbers)
        estimator.__dict__.update({name: array.array() for name, array in saved.arrays.items()})
        if saved.auto_results is not None:
            estimator.auto_results_ = {name: array.array() for name, array in saved.auto_results.items()}
        if saved.unit != UNIT:
            estimator._units_changed = True  # predicts as before; a new fit says so
        return estimator


def _scalar(name: str, value: object) -> Scalar:
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, Scalar):
        raise ValueError(f"{name}: only numbers and strings can be saved, got {value!r}")
    return plain


def _parameter(name: str, value: object) -> Scalar | Pairs | list[Scalar] | None:
    if value is None:
        return None
    if isinstance(value, list | tuple | np.ndarray):
        return [_scalar(name, each) for each in value]
    if isinstance(value, Mapping):
        return [(_scalar(name, key), float(weight)) for key, weight in value.items()]
    return _scalar(name, value)


def _loaded(value: Scalar | Pairs | list[Scalar] | None) -> object:
    pairs = isinstance(value, list) and bool(value) and isinstance(value[0], tuple)
    return dict(value) if pairs else value  # type: ignore[arg-type]


def _checksum(about: str, tensors: Mapping[str, NDArray[Any]]) -> str:
    digest = hashlib.sha256(about.encode())
    for _, tensor in sorted(tensors.items()):
        digest.update(f"{tensor.dtype.str}{tensor.shape}".encode())
        digest.update(tensor.tobytes())
    return digest.hexdigest()
