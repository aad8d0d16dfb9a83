"""``hessalign predict``: what a trained model says of images, or of feature vectors."""

import csv
import dataclasses
import json
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track

from hessalign import cli, estimator, runs, training
from hessalign.cli.options import BatchSize, Device, Json, Loaders, require_there
from hessalign.cli.terminal import Console, reported
from hessalign.exceptions import NoEffectWarning
from hessalign.memory import keep_freed_memory

if TYPE_CHECKING:
    import torch


def predict_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="Folder of a run of hessalign train, of one checkpoint, or of a shared model."),
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            help="Images, folders that are searched for images, and tables (.csv, .parquet) with a column "
            "path. For a model of features: files of hessalign features, Parquet files with a column of "
            "vectors, and NumPy files (.npy). For other inputs: NumPy files of them."
        ),
    ],
    *,
    device: Device = "auto",
    batch_size: BatchSize = 32,
    loaders: Loaders = 0,
    as_json: Json = False,
) -> None:
    """Write class and probability of each image, as CSV with the columns path, class, probability.

    [b]Examples[/b]

    hessalign predict runs/fishr photos/ > predictions.csv

    hessalign predict runs/fishr images.parquet --device cuda --batch-size 256 --loaders 8 > predictions.csv

    hessalign predict runs/hgp digits.npy --json
    """
    console = Console(stderr=True)
    with reported(console):
        require_there("checkpoint", checkpoint)
        for path in images:
            require_there("images", path)
        place = cli.usable_device(device)
        if place.type == "cpu":
            keep_freed_memory()
        if runs.pretrained_kind(checkpoint) == "estimator":
            found = _by_estimator(checkpoint, images, place)
        else:
            algorithm, metadata = training.load_trained(checkpoint)
            asked = training.asked_about(images, metadata)
            predictions = training.predict(
                algorithm, metadata, asked, device=place, batch_size=batch_size, loaders=loaders
            )
            found = list(track(predictions, "predicting", total=len(asked.names), console=console))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(prediction) for prediction in found], indent=1))
        return
    writer = csv.writer(sys.stdout)
    writer.writerow(("path", "class", "probability"))
    for prediction in found:
        writer.writerow((prediction.path, prediction.class_name, f"{prediction.probability:.6f}"))


def _by_estimator(folder: Path, files: list[Path], device: "torch.device") -> "list[training.Prediction]":
    """What a shared estimator says of feature vectors; it computes on the processor."""
    if device.type != "cpu":
        warnings.warn(f"device: an estimator computes on the processor, not on {device}", NoEffectWarning, 2)
    model = estimator.load_pretrained(folder)
    if not hasattr(model, "predict_proba"):
        raise ValueError(f"checkpoint: a {type(model).__name__} predicts no classes; load it from Python")
    names, vectors = training.read_vectors(files, model.n_features_in_)
    probabilities = model.predict_proba(vectors.numpy())
    classes = probabilities.argmax(1)
    return [
        training.Prediction(name, str(model.classes_[class_id]), float(row[class_id]))
        for name, class_id, row in zip(names, classes, probabilities, strict=True)
    ]
