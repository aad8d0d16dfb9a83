"""``hessalign average``: one network that is the mean of trained ones."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from hessalign import datasets, training
from hessalign.cli import options
from hessalign.cli.options import Panel, number, option
from hessalign.cli.terminal import Console, reported
from hessalign.cli.train import result_grid


def average_command(
    folders: Annotated[
        list[Path], typer.Argument(help="Folders of finished runs of hessalign train, with checkpoints.")
    ],
    *,
    dataset: Annotated[
        str | None, option(Panel.DATA, "Where the runs' data lie, if they are your own.")
    ] = None,
    root: options.Root = None,
    select: Annotated[
        Literal["uniform", "restricted"],
        option(
            Panel.ANALYSIS,
            "uniform takes all runs; restricted those that do not lower the mean's accuracy on the held-out "
            "samples of the source domains, from the best on.",
            metavar="WHICH",
        ),
    ] = "uniform",
    wise_ft: Annotated[
        float,
        option(
            Panel.ANALYSIS,
            "Share of the trained backbone; what is left is the pretrained one's (WiSE-FT). Default: 1.",
            callback=number(0, most=1),
        ),
    ] = 1.0,
    device: options.Device = "auto",
    loaders: options.Loaders = 0,
    out: Annotated[Path, option(Panel.OUTPUT, "Folder of the new run alone.", file_okay=False)],
    save_predictions: options.SavePredictions = False,
    as_json: options.Json = False,
) -> None:
    """Average the weights of trained runs (DiWA), and write the mean as a run that predict and collect know.

    The runs are of one architecture and began with the same weights: train a first one with
    --linear-probe-steps, and the others with --start-from it.

    [b]Examples[/b]

    hessalign average runs/a runs/b runs/c --select restricted --out runs/mean

    hessalign average runs/a --wise-ft 0.5 --out runs/between
    """
    console = Console(stderr=True)
    with reported(console):
        found = []

        def find(spec: "training.RunSpec") -> "datasets.DomainDataset":
            found.append(training.open_data(spec, dataset, root, folders[0]))
            return found[0]

        record, spec = training.average_runs(
            folders,
            out,
            find,
            training.Machine(device, workers=loaders),
            select,
            wise_ft,
            save_predictions=save_predictions,
        )
    if as_json:
        assert spec.average is not None
        members = [{"run": run, "sha256": digest} for run, digest in spec.average.members]
        typer.echo(json.dumps({**record, "members": members}, indent=2))
    else:
        Console().print(result_grid(record, spec, found[0]).to_rich())
