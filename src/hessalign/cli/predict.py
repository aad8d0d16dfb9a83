"""``hessalign predict``: what a trained model says of images."""

import csv
import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import track

from hessalign import training
from hessalign.cli.options import Json, require_there
from hessalign.cli.terminal import Console, reported
from hessalign.memory import keep_freed_memory


def predict_command(
    checkpoint: Annotated[
        Path, typer.Argument(help="Folder of a run of hessalign train, or of one checkpoint.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Images, and folders that are searched for images.")],
    *,
    as_json: Json = False,
) -> None:
    """Write class and probability of each image, as CSV with the columns path, class, probability.

    [b]Example[/b]

    hessalign predict runs/fishr photos/ > predictions.csv
    """
    console = Console(stderr=True)
    with reported(console):
        require_there("checkpoint", checkpoint)
        for path in images:
            require_there("images", path)
        paths = training.image_paths(images)
        keep_freed_memory()
        predictions = training.predict(*training.load_trained(checkpoint), paths)
        found = list(track(predictions, "predicting", total=len(paths), console=console))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(prediction) for prediction in found], indent=1))
        return
    writer = csv.writer(sys.stdout)
    writer.writerow(("path", "class", "probability"))
    for prediction in found:
        writer.writerow((prediction.path, prediction.class_name, f"{prediction.probability:.6f}"))
