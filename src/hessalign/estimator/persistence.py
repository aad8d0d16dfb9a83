"""Fitted estimators on disk: one safetensors file with numbers and JSON, nothing that could be executed.

The tensors are ``coef`` and ``intercept``, or what a class names in ``_tensors``. Of the metadata,
``estimator`` holds the rest as JSON and ``sha256`` a checksum over all of it: it finds damage and careless
edits, but it is no signature.
"""

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from hessalign import estimator as estimators
from hessalign import runs
from hessalign.files import replacing
from hessalign.grid import Grid
from hessalign.runs.checkpoints import WEIGHTS

if TYPE_CHECKING:
    from hessalign.metrics import Evaluation
    from hessalign.runs import Selection

Scalar = bool | int | float | str
Pairs = list[tuple[Scalar, float]]
# What weights count in: since this unit they are shares of the plain fit's loss; before, of nothing.
UNIT = "plain loss"

FEATURES = "features.npy"
USE = """import numpy as np

from hessalign.estimator import {class_name}

model = {class_name}.from_pretrained({place!r})  # or "OWNER/NAME" on the Hub
X = np.zeros((1, {width}))  # yours come here, (n, {width})
{call}"""
"""Of a card."""
CALLS = {
    "predict_proba": "probabilities = model.predict_proba(X)  # columns are model.classes_",
    "predict": "predictions = model.predict(X)",
    "transform": "transformed = model.transform(X)",
}
TASKS = {"predict_proba": "tabular-classification", "predict": "tabular-regression"}
SAVING = f"\nnp.save({FEATURES!r}, X)"
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
        content, _ = self._packed()
        with replacing(Path(path)) as draft:
            draft.write_bytes(content)

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        data: str = "",
        selection: "Selection" = "none",
        evaluation: "Evaluation | None" = None,
    ) -> None:
        """Write the file of ``save``, config and model card.

        The folder is what the Hugging Face Hub takes: ``hf upload OWNER/NAME FOLDER``.

        Args:
            folder: Of the model alone; created where it is missing.
            data: What it was fitted on, in words, for the card.
            selection: By which rule it was chosen among others, for the card: ``"none"`` (default),
                ``"source-validation"``, ``"leave-one-domain-out"`` or ``"oracle"``.
            evaluation: Metrics for the card, as [evaluate][hessalign.metrics.evaluate] gives them; None
                (default) for none.

        Raises:
            NotFittedError: If nothing is fitted.
            ValueError: If a parameter is a function, a class or domain id is neither number nor string, the
                rule is not known, or the folder holds something else.
            OSError: If a file cannot be written.

        Example:
            >>> import tempfile
            >>> import numpy as np
            >>> from hessalign.estimator import DomainCentering
            >>> X, domains = np.arange(8.0).reshape(4, 2), np.array(["north", "north", "west", "west"])
            >>> centring = DomainCentering().fit(X, sample_domain=domains)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     centring.save_pretrained(f"{folder}/centring", data="two hospitals")
            ...     loaded = DomainCentering.from_pretrained(f"{folder}/centring")
            >>> loaded.get_params() == centring.get_params()
            True
        """
        runs.check_selection(selection)
        content, saved = self._packed()
        place = Path(folder)
        described = saved.model_dump(mode="json", include={"class_name", "params", "arrays", "versions"})
        config = {"estimator": described, "data": data, "selection": selection}
        card = self._card(place, saved, data, selection, evaluation)
        runs.write_pretrained(place, "estimator", content, config, card)

    @classmethod
    def from_pretrained(cls, name: str | Path, revision: str | None = None) -> Self:
        """The estimator whose ``save_pretrained`` wrote a folder.

        Args:
            name: Of a folder; or ``OWNER/NAME`` of a model on the Hugging Face Hub.
            revision: Branch, tag or commit on the Hub; None (default) for its main branch.

        Returns:
            The estimator or transformer, fitted.

        Raises:
            ValueError: If there is no such model, it is damaged, or one of another class.
            OSError: If it cannot be fetched or read.
        """
        found = runs.read_pretrained(name, "estimator", revision)
        return cls.load(found.folder / WEIGHTS)

    def _packed(self) -> tuple[bytes, _Saved]:
        """The file's content, and what it says beside its tensors."""
        check_is_fitted(self)
        fitted = {name: value for name, value in vars(self).items() if name[-1] == "_" and name[0] != "_"}
        names = type(self)._tensors
        auto_results = fitted.pop("auto_results_", None)
        tensors = {key: np.asarray(fitted.pop(name), order="C") for name, key in names.items()}
        arrays = {name: fitted.pop(name) for name in list(fitted) if isinstance(fitted[name], np.ndarray)}
        saved = _Saved(
            class_name=type(self).__name__,
            params={name: _parameter(name, value) for name, value in self.get_params(deep=False).items()},
            numbers={name: _scalar(name, value) for name, value in fitted.items()},
            arrays={name: _Array.of(name, array) for name, array in arrays.items()},
            auto_results=auto_results and {key: _Array.of(key, value) for key, value in auto_results.items()},
            versions={library: version(library) for library in LIBRARIES},
            unit=UNIT,
        )
        about = saved.model_dump_json()
        return save(tensors, {"estimator": about, "sha256": _checksum(about, tensors)}), saved

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

    def _card(
        self,
        folder: Path,
        saved: _Saved,
        data: str,
        selection: "Selection",
        evaluation: "Evaluation | None",
    ) -> "runs.Card":
        params = ", ".join(f"{key} = {value}" for key, value in saved.params.items() if value is not None)
        facts = {
            "Data": data or "Not told.",
            "Fit": f"{saved.class_name} of hessalign {saved.versions['hessalign']}; {params}.",
            "Selection": runs.RULES[selection],
        }
        if "classes_" in saved.arrays:
            facts["Classes"] = ", ".join(map(str, saved.arrays["classes_"].values))
        tables = {}
        if evaluation is not None and evaluation.domains is not None:
            slices = evaluation.domains
            rows = [
                [str(domain), f"{count:,}", *(f"{values[row]:.3f}" for values in slices.values.values())]
                for row, (domain, count) in enumerate(zip(slices.names, slices.counts, strict=True))
            ]
            tables["Metrics by domain"] = Grid(["Domain", "samples", *slices.values], rows).to_markdown()
        place, width = runs.place_in_card(folder), self.n_features_in_
        call = next(name for name in CALLS if hasattr(self, name))
        predicts = call == "predict_proba"
        return runs.Card(
            title=folder.resolve().name,
            task=TASKS.get(call),
            tags=["domain-generalization", saved.class_name],
            facts=facts,
            tables=tables,
            use=USE.format(class_name=saved.class_name, place=place, width=width, call=CALLS[call])
            + (SAVING if predicts else ""),
            command=runs.predict_command(place, FEATURES) if predicts else "",
        )


def load_pretrained(name: str | Path, revision: str | None = None) -> Persistent:
    """The estimator or transformer of a folder, of whatever class of this package it is.

    Args:
        name: Of a folder that ``save_pretrained`` wrote; or ``OWNER/NAME`` of a model on the Hub.
        revision: Branch, tag or commit on the Hub; None (default) for its main branch.

    Returns:
        Fitted.

    Raises:
        ValueError: If there is no such model, it is damaged, or its class is not known here.
        OSError: If it cannot be fetched or read.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> from hessalign.estimator import DomainCentering, load_pretrained
        >>> X, domains = np.arange(8.0).reshape(4, 2), np.array(["north", "north", "west", "west"])
        >>> centring = DomainCentering().fit(X, sample_domain=domains)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     centring.save_pretrained(f"{folder}/centring")
        ...     loaded = load_pretrained(f"{folder}/centring")
        >>> type(loaded).__name__
        'DomainCentering'
    """
    found = runs.read_pretrained(name, "estimator", revision)
    described = found.config.get("estimator")
    wanted = described.get("class_name") if isinstance(described, dict) else None
    kind = getattr(estimators, wanted, None) if isinstance(wanted, str) else None
    if not (isinstance(kind, type) and issubclass(kind, Persistent)):
        raise ValueError(f"model: {found.folder} holds a {wanted!r}, which is no estimator of this version")
    return kind.load(found.folder / WEIGHTS)


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
