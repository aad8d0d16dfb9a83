"""``hessalign metrics``: how good a run's saved predictions are, by domain and by group."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hessalign import cli
from hessalign.cli.options import Panel, option, require_there, whole
from hessalign.cli.terminal import Console, reported

if TYPE_CHECKING:
    from hessalign.cli.saved_predictions import Measured

Format = Literal["rich", "markdown", "latex", "json"]


def metrics_command(
    run: Annotated[Path, typer.Argument(help="Folder of a run that was trained with --save-predictions.")],
    *,
    part: Annotated[
        Literal["in", "out", "both"],
        option(
            Panel.DATA,
            "Which samples of each domain: in, the larger part; out, what is held out; or both.",
            metavar="PART",
        ),
    ] = "in",
    groups: Annotated[
        Path | None,
        option(
            Panel.DATA,
            "A table (.csv, .parquet) with the group of each sample: a column group, and file, or domain and "
            "sample. Default: a group is a class of a domain.",
            dir_okay=False,
        ),
    ] = None,
    step: Annotated[
        int | None,
        option(Panel.ANALYSIS, "Of the evaluation. Default: the last one.", callback=whole(0)),
    ] = None,
    bins: Annotated[int, option(Panel.ANALYSIS, "Of the calibration error.", callback=whole(1, 10_000))] = 15,
    output_format: Annotated[
        Format,
        option(Panel.OUTPUT, "Of the tables: rich, markdown, latex or json.", "--format", metavar="FORMAT"),
    ] = "rich",
    as_json: Annotated[bool, option(Panel.OUTPUT, "The same as --format json.", "--json")] = False,
) -> None:
    """Compute accuracy, F1, AUROC, log-loss and calibration error of predictions that a run has saved.

    Nothing is trained or predicted again, and the data are not needed. The worst groups come last.

    [b]Examples[/b]

    hessalign metrics runs/hgp

    hessalign metrics runs/hgp --part out --groups attributes.csv --format markdown
    """
    with reported(Console(stderr=True)):
        if as_json and output_format not in ("rich", "json"):
            raise ValueError(f"json: --json and --format {output_format} contradict each other")
        require_there("run", run)
        require_there("groups", groups)
        found = cli.measure_saved(run, step, part, groups, bins)
    _show(found, "json" if as_json else output_format)


def _show(found: "Measured", output_format: Format) -> None:
    if output_format == "json":
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=1))
    elif output_format == "rich":
        console = Console()
        for grid in found.grids():
            for part in grid.within(console.width):
                console.print(part.to_rich())
    else:
        texts = [
            grid.to_markdown() if output_format == "markdown" else grid.to_latex() for grid in found.grids()
        ]
        typer.echo("\n\n".join(texts))
