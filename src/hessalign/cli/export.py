"""``hessalign export``: a trained model as a file for serving, or as a folder to share."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hessalign import training
from hessalign.cli.options import Json, Panel, option, require_there
from hessalign.cli.terminal import Console, reported

Format = Literal["onnx", "torchscript", "torch-export", "pretrained"]
RULES = Literal["none", "source-validation", "leave-one-domain-out", "worst-group", "oracle"]


def export_command(
    checkpoint: Annotated[
        Path,
        typer.Argument(help="Folder of a run of hessalign train, of one checkpoint, or of a shared model."),
    ],
    *,
    out: Annotated[
        Path,
        option(
            Panel.OUTPUT,
            "What to write: a file .onnx, .pt (torchscript) or .pt2 (torch-export); for pretrained a folder.",
        ),
    ],
    format: Annotated[
        Format,
        option(
            Panel.OUTPUT,
            "onnx, torchscript and torch-export are files for serving; pretrained is a folder with weights "
            "(safetensors), config.json and a model card.",
            metavar="FORMAT",
        ),
    ],
    selection: Annotated[
        RULES,
        option(
            Panel.OUTPUT,
            "Format pretrained: by which rule the run was chosen among others, for the model card: none, "
            "source-validation, leave-one-domain-out, worst-group or oracle.",
            metavar="RULE",
        ),
    ] = "none",
    as_json: Json = False,
) -> None:
    """Write a trained model for serving or sharing, and check that it predicts what the run does.

    A file for serving maps normalised inputs to logits and tells the classes and the transforms of images.
    It is read back and compared with the run's own network: probabilities must agree to 1e-5.

    [b]Examples[/b]

    hessalign export runs/hgp --format onnx --out hgp.onnx

    hessalign export runs/hgp --format pretrained --selection source-validation --out models/hgp
    """
    console = Console(stderr=True)
    with reported(console):
        require_there("checkpoint", checkpoint)
        if format == "pretrained":
            model = training.TrainedModel.load(checkpoint)
            model.save_pretrained(out, selection=selection)
            written: dict[str, Any] = {"format": format, "folder": str(out)}
        else:
            if selection != "none":
                raise ValueError(f"selection: belongs to --format pretrained, which has a card; got {format}")
            training.check_export(out, format)
            exported = training.export_model(*training.load_trained(checkpoint), out, format)
            written = {
                "format": format,
                "file": str(out),
                "bytes": exported.bytes,
                "sha256": exported.sha256,
                "difference": exported.difference,
            }
    if as_json:
        typer.echo(json.dumps(written, ensure_ascii=False, indent=1))
    elif format == "pretrained":
        console.print(f"Model: {out}")
    else:
        console.print(
            f"Model: {out}, {written['bytes']:,} bytes; probabilities differ from the run's by at most "
            f"{written['difference']:.1e}"
        )
