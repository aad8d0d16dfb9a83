"""``hessalign compare``: every head on the same features, and what the evidence says."""

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hessalign import cli, estimator
from hessalign.cli import options
from hessalign.cli.options import Panel, option, require_figure, require_page, require_there, whole
from hessalign.cli.terminal import INTERRUPTED, Console, progress_bar, reported
from hessalign.exceptions import UntrustworthyWarning
from hessalign.markup import markdown_line

if TYPE_CHECKING:
    from hessalign.estimator import HeadComparison

Format = Literal["rich", "markdown", "latex", "json"]


def compare_command(
    features: Annotated[
        Path,
        typer.Argument(
            help="A features file, NAME.safetensors; or a table, NAME.csv or NAME.parquet, with the columns "
            "label and domain, whose others are features."
        ),
    ],
    *,
    target: Annotated[
        list[str] | None,
        option(Panel.DATA, "A domain to leave out; may be given several times. Default: each in turn."),
    ] = None,
    standardize: Annotated[
        bool,
        option(
            Panel.DATA,
            "Standardize each feature by mean and deviation over the sources. Tables always are.",
            "--standardize",
        ),
    ] = False,
    heads: Annotated[
        str | None,
        option(Panel.MODEL, "Names between commas. Default: all but spectral, which takes minutes."),
    ] = None,
    scoring: Annotated[
        Literal["log-loss", "accuracy"],
        option(Panel.TRAINING, "What hyper-parameters are chosen by, on source domains held out."),
    ] = "log-loss",
    seed: Annotated[
        int, option(Panel.TRAINING, "Of the heads that draw subsets.", callback=whole(0, 2**31 - 1))
    ] = 0,
    jobs: Annotated[
        int,
        option(Panel.MACHINE, "Processes that fit heads.", callback=whole(1, options.MOST_PROCESSES)),
    ] = 1,
    out: Annotated[
        Path | None,
        option(Panel.OUTPUT, "Folder where each fit is kept as soon as it is done.", file_okay=False),
    ] = None,
    resume: options.Resume = False,
    html: options.Html = None,
    plot: Annotated[
        Path | None,
        option(Panel.OUTPUT, "Figure (.png, .pdf, .svg) of the differences.", dir_okay=False),
    ] = None,
    output_format: Annotated[
        Format,
        option(Panel.OUTPUT, "Of the tables: rich, markdown, latex or json.", "--format", metavar="FORMAT"),
    ] = "rich",
    as_json: Annotated[bool, option(Panel.OUTPUT, "The same as --format json.", "--json")] = False,
) -> None:
    """Fit every head with each domain left out, and tell which beats tuned logistic regression.

    All is chosen on the source domains alone. Differences are paired, with standard errors that count domains
    and samples. The last line says what the evidence supports. In a table empty numbers are filled with the
    sources' mean, and text is a category.

    [b]Examples[/b]

    hessalign compare pacs.safetensors --jobs 2 --html compare.html

    hessalign compare hospitals.csv --scoring accuracy --target north --format markdown

    hessalign compare pacs.safetensors --out runs/compare --resume --heads gradient,V-REx,DFR
    """
    console = Console(stderr=True)
    try:
        with reported(console):
            if as_json and output_format not in ("rich", "json"):
                raise ValueError(f"json: --json and --format {output_format} contradict each other")
            if plot is not None:
                require_figure("plot", plot)
            require_page("html", html)
            named = None if heads is None else options.names_between_commas(heads)
            if named == ():
                raise ValueError(f"heads: {heads!r} names none; leave the option out for all")
            if resume and out is None:
                raise ValueError("resume: nothing is kept without --out")
            require_there("features", features)
            samples = cli.read_samples(features, standardize)
            with progress_bar(console) as bar, warnings.catch_warnings():
                # It stands below the table.
                warnings.filterwarnings("ignore", "compare_heads:", UntrustworthyWarning)
                task = bar.add_task("heads", total=None)
                found = estimator.compare_heads(
                    **samples.arguments,
                    heads=named,
                    targets=target or None,
                    scoring={"log-loss": "neg_log_loss"}.get(scoring, scoring),
                    seed=seed,
                    jobs=jobs,
                    folder=out,
                    resume=resume,
                    report=lambda done, every: bar.update(task, completed=done, total=every),
                )
            found = replace(found, notes=(*samples.notes, *found.notes))
            if html is not None:
                found.to_html(html)
            if plot is not None:
                plot.parent.mkdir(parents=True, exist_ok=True)
                found.plot(plot)
    except KeyboardInterrupt:
        kept = f"Finished heads are in {out}; go on with --resume." if out else "Nothing was kept."
        console.print(f"\nInterrupted. {kept}")
        raise typer.Exit(INTERRUPTED) from None
    _show(found, "json" if as_json else output_format)
    for what, path in (("Page", html), ("Figure", plot), ("Heads", out)):
        if path is not None:
            console.print(f"{what}: {path}", soft_wrap=True)


def _show(found: "HeadComparison", output_format: Format) -> None:
    """Print the tables; the last sentence is the conclusion."""
    if output_format == "json":
        typer.echo(json.dumps(found.to_dict(), ensure_ascii=False, indent=1))
    elif output_format == "rich":
        console = Console()
        heads, chosen, shifts = found.grids()
        for grid in (*chosen.within(console.width), *shifts.within(console.width)):
            console.print(grid.to_rich())
        for note in found.notes:
            console.print(note)
        for grid in heads.within(console.width):
            console.print(grid.to_rich())
    else:
        texts = [
            grid.to_markdown() if output_format == "markdown" else grid.to_latex() for grid in found.grids()
        ]
        notes = [f"* {markdown_line(note)}" for note in found.notes] if output_format == "markdown" else []
        typer.echo("\n\n".join(filter(None, (*texts[1:], "\n".join(notes), texts[0]))))
