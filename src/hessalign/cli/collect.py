"""``hessalign collect``: a sweep's tables."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import typer

from hessalign import benchmark
from hessalign.cli.options import Panel, option, require_figure
from hessalign.cli.terminal import Console, reported
from hessalign.files import write_atomically
from hessalign.runs.records import MEASURED

Format = Literal["rich", "markdown", "latex", "html", "json", "csv"]
BY_ENDING: Mapping[str, Format] = {
    ".md": "markdown",
    ".tex": "latex",
    ".html": "html",
    ".json": "json",
    ".csv": "csv",
}
"""What a file is written in where no format is asked for."""


def collect_command(
    folder: Annotated[
        Path,
        typer.Argument(
            help="A sweep's folder, or any above run folders; DomainBed's own sweeps are read too."
        ),
    ],
    *,
    select: Annotated[
        Literal["source-validation", "leave-one-domain-out", "oracle", "all", "worst-group"],
        option(
            Panel.ANALYSIS,
            "How models are selected: source-validation, leave-one-domain-out, oracle, or all of these; or "
            "worst-group, by the worst class of a source domain.",
            metavar="RULE",
        ),
    ] = "source-validation",
    metric: Annotated[
        str,
        option(
            Panel.ANALYSIS,
            f"What tables report of the target domain: accuracy, {', '.join(MEASURED).replace('_', '-')}. "
            "Models are selected as without it.",
            metavar="NAME",
        ),
    ] = "accuracy",
    baseline: Annotated[
        str | None, option(Panel.ANALYSIS, "Add paired differences from this algorithm, erm say.")
    ] = None,
    compare: Annotated[
        Literal["paper"] | None, option(Panel.ANALYSIS, "Set published accuracies beside yours.")
    ] = None,
    line: Annotated[
        bool,
        option(
            Panel.ANALYSIS,
            "Tell how well source accuracies foretell target accuracies, over all draws.",
            "--line",
        ),
    ] = False,
    statistics: Annotated[
        bool, option(Panel.ANALYSIS, "Tell n and the sample deviation in each cell.", "--statistics")
    ] = False,
    include_unfinished: Annotated[
        bool,
        option(Panel.ANALYSIS, "Count unfinished runs, as far as they have come.", "--include-unfinished"),
    ] = False,
    output_format: Annotated[
        Format,
        option(
            Panel.OUTPUT,
            "Format of the tables: rich (for the terminal), markdown, latex, html, json or csv.",
            "--format",
            metavar="FORMAT",
        ),
    ] = "rich",
    as_json: Annotated[bool, option(Panel.OUTPUT, "The same as --format json.", "--json")] = False,
    out: Annotated[
        Path | None,
        option(Panel.OUTPUT, "File for the tables, in the format of its ending.", dir_okay=False),
    ] = None,
    export_best: Annotated[
        Path | None,
        option(Panel.OUTPUT, "JSON file for the selected configurations, to run them again.", dir_okay=False),
    ] = None,
    plot: Annotated[
        Path | None,
        option(
            Panel.OUTPUT,
            "Figure (.png, .pdf, .svg): accuracies with errors, and source-validation against target.",
            dir_okay=False,
        ),
    ] = None,
) -> None:
    """Select models and print tables: every dataset by target domain, and a summary over datasets.

    The best figure of a column is bold, the second underlined. Cells are mean ± standard error over trials,
    as DomainBed has them. Works while the sweep is running.

    [b]Examples[/b]

    hessalign collect runs/sweep --select all

    hessalign collect runs/sweep --select oracle --compare paper --format latex --out tables.tex

    hessalign collect runs/sweep --select worst-group --metric worst-group-accuracy

    hessalign collect runs/sweep --baseline erm --statistics --plot sweep.png --export-best best.json
    """
    console = Console(stderr=True)
    with reported(console):
        if as_json and output_format not in ("rich", "json"):
            raise ValueError(f"json: --json and --format {output_format} contradict each other")
        if plot is not None:
            require_figure("plot", plot)
        if not folder.is_dir():
            raise ValueError(f"folder: there is no folder {folder}")
        if out is not None and output_format == "rich" and not as_json:
            output_format = BY_ENDING.get(out.suffix.lower(), "rich")
        if line and output_format == "csv":
            raise ValueError("line: a CSV file has cells of tables alone; choose another --format")
        rules = benchmark.RULES if select == "all" else (select,)
        records = benchmark.read_sweep(folder, include_unfinished, metric)
        report = benchmark.report.make_report(records, rules, baseline, compare == "paper")
        if line:
            lines = benchmark.line.accuracy_lines(records)
            report = report.model_copy(update={"lines": lines})
        for file in filter(None, (out, export_best, plot)):
            file.parent.mkdir(parents=True, exist_ok=True)
        _show(report, "json" if as_json else output_format, statistics, out)
        if export_best is not None:
            best = benchmark.best.best_runs(records, rules, folder)
            write_atomically(export_best, best.model_dump_json(indent=2) + "\n")
        if plot is not None:
            benchmark.plot.save_plot(records, report, rules, plot)
    for note in report.notes:
        console.print(note, highlight=False, markup=False)
    for what, path in (("Tables", out), ("Configurations", export_best), ("Figure", plot)):
        if path is not None:
            console.print(f"{what}: {path}", highlight=False, markup=False, soft_wrap=True)


def _show(
    report: "benchmark.tables.Report", output_format: Format, statistics: bool, out: Path | None
) -> None:
    """Print the tables, or write them to a file."""
    if out is not None:
        write_atomically(out, benchmark.formats.as_text(report, output_format, statistics))
    elif output_format == "rich":
        console = Console()
        if not console.is_terminal:
            console.width = benchmark.formats.WIDTH
        console.print(benchmark.formats.as_renderable(report, statistics))
    else:
        typer.echo(benchmark.formats.as_text(report, output_format, statistics), nl=False)
