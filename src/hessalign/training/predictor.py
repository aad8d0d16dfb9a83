"""A trained model, used."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.utils.data import Dataset, Subset

from hessalign.algorithms import Algorithm
from hessalign.algorithms.base import known_as
from hessalign.datasets.features_file import FeatureSamples
from hessalign.datasets.features_format import SUFFIX as FEATURES_SUFFIX
from hessalign.datasets.features_format import read_features
from hessalign.datasets.image_folder import ImageFinder
from hessalign.datasets.image_reading import IMAGE_SIZE, plain_transform, read_image
from hessalign.datasets.tables import TABLES, read_table
from hessalign.exceptions import DivergedError, HessalignWarning, UntrustworthyWarning
from hessalign.files import shown
from hessalign.runs.checkpoints import check_whole, checkpoint_metadata
from hessalign.runs.layout import CHECKPOINTS, METRICS, latest_checkpoint
from hessalign.runs.pretrained import is_pretrained, read_pretrained
from hessalign.runs.records import divergence, read_records
from hessalign.training.batches import Key, Sample, load
from hessalign.training.checkpoint import load_model
from hessalign.training.spec import CheckpointMetadata, build_algorithm

IMAGES_AT_ONCE = 32
PHOTOGRAPH = (3, IMAGE_SIZE, IMAGE_SIZE)
"""Shape of the inputs that image files of any size become."""
ARRAYS = ".npy"
"""Ending of files of inputs as they are, ``(n, ...)``, which NumPy writes."""


@dataclass(frozen=True)
class Prediction:
    """What a model makes of one sample.

    Attributes:
        path: Of the image, or of a file with the number of the row, as text that can be printed (see
            ``shown``).
        class_name: The most probable class.
        probability: Of that class, by softmax.

    Examples:
        >>> from hessalign.training import Prediction
        >>> prediction = Prediction("scan.png", "ill", 0.75)
        >>> f"{prediction.path}: {prediction.class_name} ({prediction.probability:.0%})"
        'scan.png: ill (75%)'
    """

    path: str
    class_name: str
    probability: float


def load_trained(path: Path) -> tuple[Algorithm, CheckpointMetadata]:
    """The trained algorithm of a run's folder, a checkpoint or a shared model, and what it was trained on.

    Returns:
        The algorithm in evaluation mode, and the metadata.

    Raises:
        ValueError: If there is no readable checkpoint, or what is there is damaged.
        OSError: If a file cannot be read.
        DivergedError: If the folder is that of a run that diverged, whose model is no result. A checkpoint
            from before that is loaded by its own path.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, load_trained, train
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
        ...     record = train(spec, dataset, place / "run", Machine("cpu"))
        ...     algorithm, metadata = load_trained(place / "run")
        >>> metadata.step, metadata.class_names, algorithm.training
        (4, ('0', '1'), False)
    """
    checkpoint, described = _found(path)
    try:
        metadata = CheckpointMetadata(**described)
    except (ValidationError, TypeError) as error:
        raise ValueError(f"checkpoint: {checkpoint} is of another program or version") from error
    # The checkpoint brings every weight, so pretrained ones need not be found again.
    backbone = metadata.run.backbone.model_copy(update={"weights": "none"})
    spec = metadata.run.model_copy(update={"backbone": backbone})
    try:
        algorithm = build_algorithm(
            spec, metadata.input_shape, len(metadata.class_names), metadata.source_domains
        )
    except (ValueError, RuntimeError, MemoryError, IndexError, TypeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"checkpoint: {checkpoint} tells of no network that can be ({reason})") from error
    load_model(checkpoint, algorithm)
    return algorithm.eval(), metadata


def _found(path: Path) -> tuple[Path, Any]:
    """The folder that holds the weights, whole, and what it tells of the run."""
    if is_pretrained(path):
        found = read_pretrained(path, "run")
        return found.folder, found.config.get("metadata")
    _refuse_diverged(path)
    checkpoint = latest_checkpoint(path / CHECKPOINTS) or path
    check_whole(checkpoint)
    return checkpoint, checkpoint_metadata(checkpoint)


def _refuse_diverged(path: Path) -> None:
    if not (path / METRICS).exists():
        return
    records = read_records(path)
    problem = divergence(records)
    if problem is not None:
        checkpoint = latest_checkpoint(path / CHECKPOINTS)
        before = "" if checkpoint is None else f"; {checkpoint} is what it was before"
        raise DivergedError(f"the run in {path} diverged: {problem} at step {records[-1]['step']}{before}")


def image_paths(given: Sequence[Path]) -> list[Path]:
    """Images among files, folders and tables; folders are searched to any depth, in order of names.

    A file ``.csv`` or ``.parquet`` is a table with a column ``path``, one image in each row; relative paths
    start at the table's folder. Any other file is taken whatever its name; in folders, names tell the images,
    as in datasets. Other files there, hidden ones aside, are left out, which gives a warning.

    Returns:
        Paths of files.

    Raises:
        ValueError: If something does not exist, a link in a folder leads to one that is read in another way,
            a table cannot be read or lacks a path, or there is no image at all.
        OSError: If a folder cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from hessalign.training import image_paths
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.png", "a.png"):
        ...         Image.new("RGB", (8, 8)).save(Path(folder) / name)
        ...     paths = image_paths([Path(folder)])
        >>> [path.name for path in paths]
        ['a.png', 'b.png']
    """
    paths: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in given:
        if path.is_dir():
            finder = ImageFinder(path)
            paths += sorted(map(Path, finder.find(path)))
            left_out += finder.left_out
        elif path.is_file():
            paths += _images_in_table(path) if path.suffix.lower() in TABLES else [path]
        else:
            raise ValueError(f"images: there is no file or folder {shown(path)}")
    if not paths:
        raise ValueError(f"images: there is none in {', '.join(map(shown, given))}")
    if left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))
        warnings.warn(f"images: files are left out: {kinds}", HessalignWarning, stacklevel=2)
    return paths


@dataclass(frozen=True, eq=False)
class Asked:
    """What a model is asked about.

    Attributes:
        names: Of the samples, as text that can be printed.
        samples: In the same order; their classes mean nothing.

    Examples:
        >>> import torch
        >>> from torch.utils.data import TensorDataset
        >>> from hessalign.training import Asked
        >>> asked = Asked(["first", "second"], TensorDataset(torch.zeros(2, 3), torch.zeros(2)))
        >>> len(asked.names) == len(asked.samples)
        True
    """

    names: Sequence[str]
    samples: Dataset[Sample]


def asked_about(given: Sequence[Path], metadata: CheckpointMetadata) -> Asked:
    """The samples that paths stand for, of the kind that a model takes.

    Args:
        given: For a model of images: images, folders and tables, as ``image_paths`` reads them. For a model
            of feature vectors ``(d,)``: files of ``hessalign features`` (``.safetensors``), Parquet files
            with one column of vectors, and NumPy files (``.npy``) of ``(n, d)``. For any other model NumPy
            files of its inputs, ``(n, channels, height, width)``, floats as in training.
        metadata: What the model was trained on.

    Returns:
        The samples.

    Raises:
        ValueError: If a path leads to nothing that the model takes.
        OSError: If a file cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.training import CheckpointMetadata, RunSpec, asked_about
        >>> hparams = get_algorithm("erm").hparams_class.with_defaults("features")
        >>> spec = RunSpec(
        ...     dataset="features_file",
        ...     algorithm="erm",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="identity"),
        ...     hparams=hparams.model_dump(),
        ...     steps=300,
        ...     evaluate_every=100,
        ... )
        >>> metadata = CheckpointMetadata(
        ...     step=300, run=spec, class_names=("healthy", "ill"), input_shape=(3,), source_domains=2
        ... )
        >>> X = np.zeros((2, 3), dtype="float32")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "scans.safetensors"
        ...     written = save_features(path, X, ["healthy", "ill"], ["north", "west"])
        ...     asked = asked_about([path], metadata)
        >>> [name.split("/")[-1] for name in asked.names]
        ['scans.safetensors[0]', 'scans.safetensors[1]']
    """
    shape = metadata.input_shape
    if shape == PHOTOGRAPH:
        return _images(image_paths(given), metadata)
    names, table = _read_rows(given, shape)
    samples = FeatureSamples(table.unsqueeze(1), torch.zeros(len(table), dtype=torch.long))
    return Asked(names, Subset(samples, range(len(table))))


def read_vectors(given: Sequence[Path], width: int) -> tuple[list[str], Tensor]:
    """Feature vectors of files, and what each is called.

    Args:
        given: Files of ``hessalign features``, Parquet files with one column of vectors, and NumPy files.
        width: Number of values ``d`` that a vector must have.

    Returns:
        Names, and ``(n, d)``, float32, finite.

    Raises:
        ValueError: If a path leads to nothing of that kind.
        OSError: If a file cannot be read.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import read_vectors
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "scans.safetensors"
        ...     written = save_features(path, np.ones((2, 3), dtype="float32"), [0, 1], ["north", "west"])
        ...     names, vectors = read_vectors([path], width=3)
        >>> len(names), vectors.shape
        (2, torch.Size([2, 3]))
    """
    return _read_rows(given, (width,))


def _read_rows(given: Sequence[Path], shape: tuple[int, ...]) -> tuple[list[str], Tensor]:
    """Inputs of a shape in files, ``(n, *shape)``, float32, finite, and what each is called."""
    names: list[str] = []
    tables: list[Tensor] = []
    what = "vector" if len(shape) == 1 else "array"
    for path in given:
        table = _array(path, shape) if path.suffix.lower() == ARRAYS or what == "array" else _vectors(path)
        if table.shape[1:] != shape:
            found, wanted = (
                f"{sizes[0]} values" if len(sizes) == 1 == len(shape) else f"the shape {tuple(sizes)}"
                for sizes in (table.shape[1:], shape)
            )
            raise ValueError(
                f"images: the {what}s in {shown(path)} have {found}, and the model takes "
                f"{wanted.removesuffix(' values')}"
            )
        finite = table.flatten(1).isfinite().all(1)
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise ValueError(f"images: {shown(path)}, row {row}: the {what} holds NaN or infinity")
        names += [f"{shown(path)}[{row}]" for row in range(len(table))]
        tables.append(table)
    return names, torch.cat(tables)


@torch.no_grad()
def predict(
    algorithm: Algorithm,
    metadata: CheckpointMetadata,
    inputs: Sequence[Path] | Asked,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = IMAGES_AT_ONCE,
    loaders: int = 0,
) -> Iterator[Prediction]:
    """Class and probability of each sample, in order.

    Args:
        algorithm: In evaluation mode; moved to the device.
        metadata: What it was trained on.
        inputs: Paths of images, or what [asked_about][hessalign.training.asked_about] made of paths.
        device: Where to compute; the processor by default.
        batch_size: Samples that go through the network together; 32 by default.
        loaders: Processes that load images; 0 (default) loads them here.

    Yields:
        A prediction for each sample.

    Raises:
        ValueError: If the model does not take photographs, and paths of images are given.
        OSError: If an image cannot be read, naming it.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, asked_about, load_trained, predict, train
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
        ...     record = train(spec, dataset, place / "run", Machine("cpu"))
        ...     algorithm, metadata = load_trained(place / "run")
        ...     asked = asked_about([place / "sites.safetensors"], metadata)
        ...     predictions = list(predict(algorithm, metadata, asked))
        >>> len(predictions), {prediction.class_name for prediction in predictions} <= {"0", "1"}
        (24, True)
    """
    asked = inputs if isinstance(inputs, Asked) else _images(inputs, metadata)
    if algorithm.predicts_by_batch:
        warnings.warn(
            f"predictions: what {known_as(algorithm)} predicts of a sample depends on the others of its "
            f"batch, here groups of {batch_size} in the given order; give the samples of one domain at a "
            "time",
            UntrustworthyWarning,
            stacklevel=2,
        )
    algorithm.to(device)
    count = len(asked.names)
    batches = [
        [Key(0, index, 0) for index in range(start, min(start + batch_size, count))]
        for start in range(0, count, batch_size)
    ]
    names = iter(asked.names)
    for rows, _, _ in load([asked.samples], batches, loaders):
        probabilities, classes = algorithm(rows.to(device)).softmax(1).cpu().max(1)
        for probability, class_id in zip(probabilities, classes, strict=True):
            yield Prediction(next(names), metadata.class_names[int(class_id)], float(probability))


class _ImageFiles(Dataset[Sample]):
    """Photographs as evaluation sees them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self.transform = plain_transform()

    def __getitem__(self, index: int) -> Sample:
        return self.transform(read_image(str(self.paths[index]))), 0


def _images(paths: Sequence[Path], metadata: CheckpointMetadata) -> Asked:
    if metadata.input_shape != PHOTOGRAPH:
        raise ValueError(
            f"checkpoint: the model takes inputs of shape {metadata.input_shape}, not photographs, which are "
            f"{PHOTOGRAPH}"
        )
    return Asked([shown(path) for path in paths], _ImageFiles(paths))


def _images_in_table(table: Path) -> list[Path]:
    frame = read_table("images", table, ("path",))
    columns = {name.strip().lower(): name for name in frame.columns}
    if "path" not in columns:
        found = ", ".join(map(repr, frame.columns))
        raise ValueError(f"images: {shown(table)} has no column path; found are {found}")
    paths = []
    for row, value in enumerate(frame[columns["path"]].to_list()):
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"images: {shown(table)}, row {row}: no path; every row needs one")
        path = table.parent / value.strip()
        if not path.is_file():
            raise ValueError(f"images: {shown(table)}, row {row}: there is no file {shown(path)}")
        paths.append(path)
    return paths


def _array(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Inputs of a NumPy file, ``(n, ...)``, float32."""
    wanted = f"(n, {', '.join(map(str, shape))})"
    if path.suffix.lower() != ARRAYS or not path.is_file():
        raise ValueError(
            f"images: the model takes arrays of shape {shape}, and {shown(path)} is no NumPy file "
            f"(NAME{ARRAYS}) of them, {wanted}"
        )
    try:
        found = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"images: {shown(path)} cannot be read as an array of numbers ({reason})") from None
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.ndim < 2:
        kind = f"{found.dtype} of shape {found.shape}" if isinstance(found, np.ndarray) else "several arrays"
        raise ValueError(
            f"images: {shown(path)} must hold floats of shape {wanted}, as training had them; it holds {kind}"
        )
    with np.errstate(over="ignore"):  # infinity is told with its row
        return torch.from_numpy(found.astype(np.float32))


def _vectors(path: Path) -> Tensor:
    """Feature vectors of a file, ``(n, d)``, float32."""
    if path.suffix.lower() == FEATURES_SUFFIX:
        _, tensors = read_features(path)
        return tensors["features"].float()
    if path.suffix.lower() != ".parquet" or not path.is_file():
        raise ValueError(
            f"images: the model takes feature vectors, and {shown(path)} is neither a file of hessalign "
            "features nor a Parquet file with a column of vectors nor a NumPy file"
        )
    frame = read_table("images", path)
    vectors = [column for column in frame if column.dtype.is_nested() and column.dtype != polars.Struct]
    if len(vectors) != 1:
        found = ", ".join(repr(column.name) for column in vectors) or "none"
        raise ValueError(f"images: {shown(path)} must have one column of vectors; found are {found}")
    try:
        rows = [torch.tensor(row, dtype=torch.float32) for row in vectors[0].to_list()]
        table = torch.stack(rows)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(
            f"images: {shown(path)}: the vectors in column {vectors[0].name!r} must all be numbers, as many "
            "in each row"
        ) from None
    if table.ndim != 2:
        raise ValueError(f"images: {shown(path)}: column {vectors[0].name!r} must hold one vector in a row")
    return table
