"""``hessalign inspect``: what differs between domains, and whether alignment removed it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from hessalign import cli, diagnostics
from hessalign.cli.errors import reported
from hessalign.cli.options import number, require_there, whole
from hessalign.cli.terminal import Console
from hessalign.memory import keep_freed_memory

if TYPE_CHECKING:
    import polars as pl
    import torch


def inspect_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run of hessalign train or of one checkpoint, a network of hessalign cmnist "
            "--save-models, or a features file."
        ),
    ],
    against: Annotated[
        Path | None, typer.Option(help="A second one, to compare with: a run with alignment, say.")
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="As in hessalign train. Default: the one of the run.", show_default=False),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder that holds the dataset.")] = None,
    per_domain: Annotated[
        int, typer.Option(callback=whole(0), help="At most so many random samples of each domain; 0 for all.")
    ] = 500,
    radius: Annotated[
        float,
        typer.Option(
            callback=number(above=0, most=1e100),
            help="δ of the transfer bound ½ δ² ‖H_e − H_f‖₂, in units of the head's weights.",
        ),
    ] = 1.0,
    replicates: Annotated[
        int, typer.Option(callback=whole(0, 1_000_000), help="Of the bootstrap; 0 for no intervals.")
    ] = 1000,
    seed: Annotated[int, typer.Option(callback=whole(0), help="Of the bootstrap.")] = 0,
    device: Annotated[str, typer.Option(help="Where networks are computed: cpu, cuda, mps ...")] = "cpu",
    html: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write a page with tables, plots and explanations.")
    ] = None,
    plots: Annotated[
        Path | None,
        typer.Option(
            file_okay=False, help="Folder for the figures, as PNG and PDF; of runs the training curves, too."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all tables as JSON.")] = False,
) -> None:
    """Compare a model's domains by gradient and Hessian of its head, and tell what differs between them.

    [b]Examples[/b]

    hessalign inspect runs/erm --against runs/hgp --html report.html

    hessalign inspect runs/fishr --root data --per-domain 0 --plots figures

    hessalign cmnist --fast --methods erm,diagonal --save-models --out runs/cm

    hessalign inspect runs/cm/restarts/erm-seed0-*.safetensors --per-domain 5000
    """
    console = Console(stderr=True)
    with reported(console):
        require_there("source", source)
        require_there("against", against)
        require_there("root", root)
        _check_outputs(html, plots)
        options = cli.InspectOptions(
            dataset=dataset,
            root=root,
            per_domain=per_domain or None,
            device=_device(device),
            seed=seed,
            report={"radius": radius, "replicates": replicates, "seed": seed},
        )
        keep_freed_memory()
        with console.status("computing features, gradients and Hessians"):
            sources = [source, *([against] if against else [])]
            reports = cli.inspect_all(sources, options)
        written = _write(reports, html, plots)
        if plots is not None:
            written += diagnostics.curves.save_all_curves(sources, plots)
    if as_json:
        document = {
            title: {name: table.to_dicts() for name, table in report.tables.items()}
            for title, report in reports.items()
        }
        typer.echo(json.dumps(document, ensure_ascii=False, indent=1))
    else:
        _print(reports)
    for path in written:
        console.print(f"Written: {path}", highlight=False)


def _device(name: str) -> "torch.device":
    try:
        return cli.usable_device(name)
    except ValueError as error:
        raise ValueError(f"device: {error}") from error


def _check_outputs(html: Path | None, plots: Path | None) -> None:
    if html is not None and not html.parent.is_dir():
        raise ValueError(f"html: there is no folder {html.parent}")
    if plots is not None:
        plots.mkdir(parents=True, exist_ok=True)


def _write(
    reports: "Mapping[str, diagnostics.AlignmentReport]", html: Path | None, plots: Path | None
) -> list[Path]:
    written: list[Path] = []
    if html is not None:
        diagnostics.page.write_html(html, reports)
        written.append(html)
    if plots is not None:
        written += diagnostics.plots.save_plots(reports, plots)
    return written


def _print(reports: "Mapping[str, diagnostics.AlignmentReport]") -> None:
    console = Console()
    for title, report in reports.items():
        pairs = report.extremes()
        ranked = report.told("attributes", pairs).drop("rank", "note")
        if ranked["shrunk"].null_count() == len(ranked):
            ranked = ranked.drop("shrunk")
        console.print(_rich_table(f"{title}: what differs, in nats", ranked))
        console.print(_distance_table(title, report, pairs))
        if left := len(report.to_frame("pairs")) - len(pairs):
            console.print(
                f"{left:,} more pairs lie between the most different and the most alike; --html and --json "
                "have all."
            )
        for note in report.notes:
            console.print(note)
    if len(reports) > 1:
        side_by_side = pairs.join(
            diagnostics.data.compare(reports), on=["first", "second"], maintain_order="left_right"
        )
        console.print(_rich_table("Side by side: distances relative to their own norms", side_by_side))


def _rich_table(title: str, frame: "pl.DataFrame") -> Table:
    table = Table(title=title)
    for name, dtype in zip(frame.columns, frame.dtypes, strict=True):
        if name != "second":
            table.add_column("domains" if name == "first" else name, justify=_side(dtype.is_numeric()))
    for first, second, *row in frame.iter_rows():
        table.add_row(f"{first} – {second}", *map(_text, row))
    return table


def _distance_table(title: str, report: "diagnostics.AlignmentReport", pairs: "pl.DataFrame") -> Table:
    table = Table(
        title=f"{title}: distances",
        caption=f"interval: {100 * report.level:g} %, without what chance adds; δ = {report.radius:g}",
    )
    for name in ("domains", "quantity", "distance", "relative", "interval"):
        table.add_column(name, justify=_side(name in ("distance", "relative")))
    columns = ("first", "second", "quantity", "distance", "relative", "low", "high")
    for first, second, quantity, distance, relative, low, high in (
        report.told("distances", pairs).select(columns).iter_rows()
    ):
        interval = "–" if low is None else f"{_text(low)} to {_text(high)}"
        table.add_row(f"{first} – {second}", quantity, _text(distance), _text(relative), interval)
    return table


def _side(numeric: bool) -> Literal["left", "right"]:
    return "right" if numeric else "left"


def _text(value: str | float | bool | None) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
