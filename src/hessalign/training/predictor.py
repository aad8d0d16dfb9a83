"""A trained model, used."""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from hessalign.algorithms import Algorithm
from hessalign.datasets.image_folder import ImageFinder
from hessalign.datasets.image_reading import IMAGE_SIZE, plain_transform, read_image
from hessalign.exceptions import DivergedError, HessalignWarning
from hessalign.files import shown
from hessalign.runs.checkpoints import check_whole, checkpoint_metadata
from hessalign.runs.layout import CHECKPOINTS, METRICS, latest_checkpoint
from hessalign.runs.records import divergence, read_records
from hessalign.training.checkpoint import load_model
from hessalign.training.spec import CheckpointMetadata, build_algorithm

IMAGES_AT_ONCE = 32


@dataclass(frozen=True)
class Prediction:
    """What a model makes of one image.

    Attributes:
        path: Of the image, as text that can be printed (see ``shown``).
        class_name: The most probable class.
        probability: Of that class, by softmax.
    """

    path: str
    class_name: str
    probability: float


def load_trained(path: Path) -> tuple[Algorithm, CheckpointMetadata]:
    """The trained algorithm of a run's folder or of a checkpoint, and what it was trained on.

    Returns:
        The algorithm in evaluation mode, and the metadata.

    Raises:
        ValueError: If there is no readable checkpoint, or what is there is damaged.
        OSError: If a file cannot be read.
        DivergedError: If the folder is that of a run that diverged, whose model is no result. A checkpoint
            from before that is loaded by its own path.
    """
    _refuse_diverged(path)
    checkpoint = latest_checkpoint(path / CHECKPOINTS) or path
    check_whole(checkpoint)
    try:
        metadata = CheckpointMetadata(**checkpoint_metadata(checkpoint))
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
    """Images among files and folders; folders are searched to any depth, in order of names.

    A file is taken whatever its name; in folders, names tell the images, as in datasets. Other files there,
    hidden ones aside, are left out, which gives a warning.

    Returns:
        Paths of files.

    Raises:
        ValueError: If something does not exist, a link in a folder leads to one that is read in another way,
            or there is no image at all.
        OSError: If a folder cannot be read.
    """
    paths: list[Path] = []
    left_out: Counter[str] = Counter()
    for path in given:
        if path.is_dir():
            finder = ImageFinder(path)
            paths += sorted(map(Path, finder.find(path)))
            left_out += finder.left_out
        elif path.is_file():
            paths.append(path)
        else:
            raise ValueError(f"images: there is no file or folder {shown(path)}")
    if not paths:
        raise ValueError(f"images: there is none in {', '.join(map(shown, given))}")
    if left_out:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))
        warnings.warn(f"images: files are left out: {kinds}", HessalignWarning, stacklevel=2)
    return paths


@torch.no_grad()
def predict(
    algorithm: Algorithm, metadata: CheckpointMetadata, paths: Sequence[Path]
) -> Iterator[Prediction]:
    """Class and probability of each image, in order.

    Args:
        algorithm: In evaluation mode.
        metadata: What it was trained on.
        paths: Of the images.

    Yields:
        A prediction for each image.

    Raises:
        ValueError: If the model does not take photographs.
        OSError: If an image cannot be read, naming it.
    """
    if metadata.input_shape != (3, IMAGE_SIZE, IMAGE_SIZE):
        raise ValueError(
            f"checkpoint: the model takes inputs of shape {metadata.input_shape}, not photographs, which are "
            f"{(3, IMAGE_SIZE, IMAGE_SIZE)}"
        )
    transform = plain_transform()
    for start in range(0, len(paths), IMAGES_AT_ONCE):
        group = paths[start : start + IMAGES_AT_ONCE]
        inputs: Tensor = torch.stack([transform(read_image(str(path))) for path in group])
        probabilities, classes = algorithm(inputs).softmax(1).max(1)
        for path, probability, class_id in zip(group, probabilities, classes, strict=True):
            yield Prediction(shown(path), metadata.class_names[int(class_id)], float(probability))
