"""Recorded runs, done again: the spec in a file, what was said besides, and the data."""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hessalign.algorithms import get_algorithm
from hessalign.backbones.weights import FILE_SUFFIXES, file_sha256
from hessalign.checks import problem_in_words
from hessalign.datasets.base import DomainDataset
from hessalign.datasets.registry import USERS_OWN, DataSource, find_data
from hessalign.exceptions import HessalignWarning, UntrustworthyWarning
from hessalign.markup import counted
from hessalign.runs.checkpoints import STATE
from hessalign.runs.layout import SPEC, of_sweep
from hessalign.runs.recipe import Recipe
from hessalign.runs.seals import check_spec, company_of
from hessalign.training.recipe import started_weights
from hessalign.training.spec import RunSpec, target_indices


def _recipe_field(name: str, spec: RunSpec) -> Any:
    """A choice of the recipe; of weights to start from the digest, since they may lie anywhere."""
    recipe = spec.recipe or Recipe()
    return recipe.start_sha256 if name == "start_from" else getattr(recipe, name)


FIELDS: dict[str, Callable[[RunSpec], Any]] = {
    "dataset": lambda spec: spec.dataset,
    "algorithm": lambda spec: spec.algorithm,
    "target": lambda spec: ",".join(map(str, spec.target_domains)),
    "backbone": lambda spec: spec.backbone.name,
    "rank": lambda spec: spec.backbone.rank,
    "weights": lambda spec: str(spec.backbone.weights),
    "normalization": lambda spec: spec.backbone.normalization,
    "train_batch_norm": lambda spec: not spec.backbone.frozen_batch_norm,
    "steps": lambda spec: spec.steps,
    "evaluate_every": lambda spec: spec.evaluate_every,
    "evaluate_samples": lambda spec: spec.evaluation_samples,
    "trial_seed": lambda spec: spec.trial_seed,
    "seed": lambda spec: spec.seed,
    **{name: partial(_recipe_field, name) for name in Recipe.model_fields if name != "start_sha256"},
}
"""What ``hessalign train`` has an option for, as a spec tells it."""
LENGTHENED = "a run can be lengthened with --resume, but not shortened"
SHOWN = 4
"""Values of a field that an error lists."""


def open_recorded(
    path: Path, said: Mapping[str, Any], dataset: str | None, root: Path | None, *, longer: bool = False
) -> tuple[RunSpec, DomainDataset]:
    """A run that was recorded or exported, and its data, ready to be trained again.

    Args:
        path: A file with the spec of a run, or with several runs as ``hessalign collect --export-best``
            writes them; or the folder of a run or of a checkpoint.
        said: What was said besides, by the names of ``hessalign train``'s options, None for nothing;
            ``settings`` are hyper-parameters by name. It may contradict nothing, and chooses among several
            runs.
        dataset: Name of the dataset, or where it lies; None for the name in the spec.
        root: Folder that holds a dataset given by name.
        longer: Whether more ``steps`` than the spec's may be said, which then are the run's.

    Returns:
        The spec, and the dataset that it names.

    Raises:
        ValueError: If there is no spec, what is said contradicts it or leaves several, or the data are not
            the run's.
        OSError: If a file cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, open_recorded, train
        >>> y, site = np.arange(24) % 2, np.arange(24) // 8
        >>> X = (np.random.default_rng(0).normal(size=(24, 3)) + 3 * y[:, None]).astype("float32")
        >>> hparams = get_algorithm("erm").hparams_class.with_defaults("features", {"batch_size": 4})
        >>> spec = RunSpec(
        ...     dataset="features_file",
        ...     algorithm="erm",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="identity"),
        ...     hparams=hparams.model_dump(),
        ...     steps=4,
        ...     evaluate_every=2,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder)
        ...     written = save_features(place / "sites.safetensors", X, y, site)
        ...     dataset = find_data(f"{folder}/sites.safetensors").open(seed=0)
        ...     spec = spec.model_copy(update={"data": dataset.fingerprint})
        ...     record = train(spec, dataset, place / "run", Machine("cpu"))
        ...     data = f"{folder}/sites.safetensors"
        ...     again, found = open_recorded(place / "run", {}, data, None)
        >>> again == spec, [domain.name for domain in found.domains]
        (True, ['0', '1', '2'])
    """
    specs = read_specs(path)
    source = None if dataset is None else find_data(dataset, root)
    given = {name: value for name, value in said.items() if value is not None}
    told = given if source is None else {"dataset": source.name, **given}
    target = told.pop("target", None)
    specs = _agreeing(path, specs, {name: (told[name], _agrees(name, told[name], longer)) for name in told})
    if len({spec.dataset for spec in specs}) > 1:
        raise ValueError(_several(path, specs))
    source = source or _source_of(specs[0], root, path)
    data = source.open(specs[0].trial_seed)
    if target is not None:
        indices = target_indices(target, data)
        specs = _agreeing(path, specs, {"target": (target, lambda spec: spec.target_domains == indices)})
    if len(specs) > 1:
        raise ValueError(_several(path, specs))
    (spec,) = specs
    _check_data(spec, data, source)
    if Path(str(told.get("weights"))).suffix in FILE_SUFFIXES:  # the same content, wherever it lies
        weights = Path(told["weights"]).absolute()
        spec = spec.model_copy(update={"backbone": spec.backbone.model_copy(update={"weights": weights})})
    return spec.with_steps(told.get("steps") or spec.steps), data


def open_data(spec: RunSpec, dataset: str | None, root: Path | None, path: Path) -> DomainDataset:
    """The data of a recorded run.

    Args:
        spec: The run.
        dataset: Name of the dataset, or where it lies; None for the name in the spec.
        root: Folder that holds a dataset given by name.
        path: Where the run is recorded, for errors.

    Returns:
        The dataset.

    Raises:
        ValueError: If it is not there, or is not the run's.
        OSError: If a file cannot be read.

    Examples:
        >>> from pathlib import Path
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.training import RunSpec, open_data
        >>> hparams = get_algorithm("erm").hparams_class.with_defaults("small")
        >>> spec = RunSpec(
        ...     dataset="colored_mnist",
        ...     algorithm="erm",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="mnist_cnn"),
        ...     hparams=hparams.model_dump(),
        ...     steps=300,
        ...     evaluate_every=100,
        ... )
        >>> dataset = open_data(spec, None, None, Path("runs/first"))
        >>> len(dataset.domains)
        3
    """
    source = _source_of(spec, root, path) if dataset is None else find_data(dataset, root)
    data = source.open(spec.trial_seed)
    _check_data(spec, data, source)
    return data


def read_specs(path: Path) -> list[RunSpec]:
    """The runs that a file or a folder tells of, each once.

    Args:
        path: As for [open_recorded][hessalign.training.open_recorded].

    Returns:
        Specs, in the order of the file.

    Raises:
        ValueError: If it tells of none that can be run again, and why.
        OSError: If it cannot be read.
    """
    file = path
    if path.is_dir():
        file = next((path / name for name in (SPEC, STATE) if (path / name).exists()), path / SPEC)
    if not file.is_file():
        raise ValueError(f"spec: there is no file {file}{of_sweep(path)}")
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        raise ValueError(f"spec: {file} is not JSON") from None
    if file.name == SPEC:
        check_spec(file.parent)
        if (company := company_of(file.parent)) > 1:
            warnings.warn(
                f"spec: the run in {file.parent} was trained together with "
                f"{counted(company - 1, 'other')}; alone, its sums are taken in another order, so last bits "
                "may differ",
                HessalignWarning,
                stacklevel=3,
            )
    entries = content.get("runs") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        return [_spec(content, file)]
    ours = [entry for entry in entries if not isinstance(entry, dict) or entry.get("program") != "DomainBed"]
    if not ours:
        what = "are DomainBed's, whose configuration is no spec of hessalign" if entries else "are none"
        raise ValueError(f"spec: the runs in {file} {what}")
    return list({spec.identity(): spec for spec in (_spec(entry, file) for entry in ours)}.values())


def _spec(entry: Any, file: Path) -> RunSpec:
    """From a spec itself, an exported choice, or what a checkpoint tells."""
    fields = entry
    for wrapped in ("configuration", "run"):
        if isinstance(entry, dict) and isinstance(entry.get(wrapped), dict):
            fields = entry[wrapped]
    try:
        return RunSpec.model_validate(fields)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        reason = problem_in_words(problem)
        raise ValueError(f"spec: {file} tells of no run that can be done again ({reason})") from error


def _agreeing(
    path: Path, specs: Sequence[RunSpec], said: Mapping[str, tuple[Any, Callable[[RunSpec], bool]]]
) -> list[RunSpec]:
    """The specs that agree with all that is said.

    Returns:
        At least one.

    Raises:
        ValueError: Naming what leaves none.
    """
    left = list(specs)
    for name, (value, agrees) in said.items():
        agreeing = [spec for spec in left if agrees(spec)]
        if not agreeing:
            found = _values(name, left) if name in FIELDS else "others"
            raise ValueError(
                f"{name}: {_shown(value)} contradicts the spec in {path}, which has {found}; "
                f"{LENGTHENED if name == 'steps' else 'leave it out, or choose another spec'}"
            )
        left = agreeing
    return left


def _agrees(name: str, value: Any, longer: bool) -> Callable[[RunSpec], bool]:
    """Whether a spec has what is said of one thing."""
    if name == "settings":

        def same_hparams(spec: RunSpec) -> bool:
            hparams_class = get_algorithm(spec.algorithm).hparams_class
            return hparams_class(**{**spec.hparams, **value}) == hparams_class(**spec.hparams)

        return same_hparams
    if name == "steps" and longer:
        return lambda spec: spec.steps <= value
    if name == "start_from":
        started = file_sha256(started_weights(value))
        return lambda spec: FIELDS[name](spec) == started
    if name == "weights" and Path(value).suffix in FILE_SUFFIXES:
        digest = file_sha256(Path(value))
        return lambda spec: spec.backbone.weights_sha256 == digest
    return lambda spec: FIELDS[name](spec) == value


def _source_of(spec: RunSpec, root: Path | None, path: Path) -> DataSource:
    if spec.dataset in USERS_OWN:
        raise ValueError(
            f"dataset: the run in {path} is of data of your own ({spec.dataset}), and no spec tells where "
            "they lie; name the folder or the file"
        )
    return find_data(spec.dataset, root)


def _check_data(spec: RunSpec, data: DomainDataset, source: DataSource) -> None:
    if spec.data == data.fingerprint:
        return
    if not spec.data and spec.dataset in USERS_OWN:
        warnings.warn(
            "dataset: the spec does not tell which data the run had, so nobody can say whether "
            f"{source.root} holds the same",
            UntrustworthyWarning,
            stacklevel=3,
        )
        return
    raise ValueError(
        f"dataset: the data in {source.root} are not those of the run (fingerprint {data.fingerprint!r}, "
        f"where the run has {spec.data!r}; empty for data as published)"
    )


def _several(path: Path, specs: Sequence[RunSpec]) -> str:
    differing = [name for name in FIELDS if len({FIELDS[name](spec) for spec in specs}) > 1]
    told = "; ".join(f"{name}: {_values(name, specs)}" for name in differing)
    return (
        f"spec: {path} tells of {len(specs)} runs that agree with what is said; say which "
        f"({told or 'they differ in what no option tells'})"
    )


def _values(name: str, specs: Sequence[RunSpec]) -> str:
    values = list(dict.fromkeys(str(FIELDS[name](spec)) for spec in specs))
    return ", ".join(values[:SHOWN]) + (", ..." if len(values) > SHOWN else "")


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={given}" for name, given in value.items())
    return repr(value)
