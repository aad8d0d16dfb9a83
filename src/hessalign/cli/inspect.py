"""``hessalign inspect``: what differs between domains, and whether alignment removed it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hessalign import cli, diagnostics
from hessalign.cli import options
from hessalign.cli.options import Panel, number, option, require_page, require_there, whole
from hessalign.cli.terminal import Console, reported
from hessalign.grid import NOTHING, Grid
from hessalign.memory import keep_freed_memory

if TYPE_CHECKING:
    import polars as pl

MOST_DOMAINS = 15
"""Rows of a table of domains in the terminal, the sharpest."""
MOST_NOTES = 3


def inspect_command(
    source: Annotated[
        Path,
        typer.Argument(
            help="Folder of a run of hessalign train or of one checkpoint, a network of hessalign cmnist "
            "--save-models, a features file, or a Parquet file of embeddings."
        ),
    ],
    *,
    dataset: Annotated[
        str | None, option(Panel.DATA, "As in hessalign train. Default: the one of the run.")
    ] = None,
    root: options.Root = None,
    per_domain: Annotated[
        int,
        option(Panel.DATA, "At most so many random samples of each domain; 0 for all.", callback=whole(0)),
    ] = 500,
    against: Annotated[
        Path | None,
        option(Panel.ANALYSIS, "A second source, to compare with: a run with alignment, say."),
    ] = None,
    radius: Annotated[
        float,
        option(
            Panel.ANALYSIS,
            "δ of the transfer bound ½ δ² ‖H_e − H_f‖₂, in units of the head's weights.",
            callback=number(above=0, most=1e100),
        ),
    ] = 1.0,
    replicates: Annotated[
        int,
        option(
            Panel.ANALYSIS, "Replicates of the bootstrap; 0 for no intervals.", callback=whole(0, 1_000_000)
        ),
    ] = 1000,
    seed: Annotated[int, option(Panel.ANALYSIS, "Seed of the bootstrap.", callback=whole(0))] = 0,
    device: options.Device = "cpu",
    html: options.Html = None,
    plots: Annotated[
        Path | None,
        option(
            Panel.OUTPUT,
            "Folder for the figures, as PNG and PDF; of runs the training curves, too.",
            file_okay=False,
        ),
    ] = None,
    as_json: options.Json = False,
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
        torch_device = cli.usable_device(device)
        require_page("html", html)
        if plots is not None:
            plots.mkdir(parents=True, exist_ok=True)
        wanted = cli.InspectOptions(
            dataset=dataset,
            root=root,
            per_domain=per_domain or None,
            device=torch_device,
            seed=seed,
            report={"radius": radius, "replicates": replicates, "seed": seed},
        )
        keep_freed_memory()
        with console.status("computing features, gradients and Hessians"):
            sources = [source, *([against] if against else [])]
            reports = cli.inspect_all(sources, wanted)
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
        console.print(_grid(f"{title}: what differs, in nats", ranked).to_rich())
        console.print(_distance_grid(title, report, pairs).to_rich())
        console.print(_shift_grid(title, report, pairs).to_rich())
        console.print(_sharpness_grid(title, report).to_rich())
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
        console.print(_grid("Side by side: distances relative to their own norms", side_by_side).to_rich())


def _grid(title: str, frame: "pl.DataFrame") -> Grid:
    return Grid(
        headers=("domains", *frame.columns[2:]),
        rows=[(f"{first} – {second}", *map(_text, row)) for first, second, *row in frame.iter_rows()],
        title=title,
        align="l" + "".join("r" if dtype.is_numeric() else "l" for dtype in frame.dtypes[2:]),
    )


def _distance_grid(title: str, report: "diagnostics.AlignmentReport", pairs: "pl.DataFrame") -> Grid:
    columns = ("first", "second", "quantity", "distance", "relative", "low", "high")
    rows = []
    for first, second, quantity, distance, relative, low, high in (
        report.told("distances", pairs).select(columns).iter_rows()
    ):
        interval = NOTHING if low is None else f"{_text(low)} to {_text(high)}"
        rows.append((f"{first} – {second}", quantity, _text(distance), _text(relative), interval))
    return Grid(
        headers=("domains", "quantity", "distance", "relative", "interval"),
        rows=rows,
        title=f"{title}: distances",
        notes=[f"interval: {100 * report.level:g} %, without what chance adds; δ = {report.radius:g}"],
        align="llrrl",
    )


def _shift_grid(title: str, report: "diagnostics.AlignmentReport", pairs: "pl.DataFrame") -> Grid:
    columns = ("first", "second", "diversity", "diversity by chance", "correlation", "correlation by chance")
    shifts = report.told("shift", pairs)
    notes = [
        f"{first} – {second}: {note}"
        for first, second, note in shifts.select("first", "second", "note").iter_rows()
        if note
    ]
    return Grid(
        headers=("domains", "diversity", "by chance", "correlation", "by chance"),
        rows=[
            (f"{first} – {second}", *map(_text, values))
            for first, second, *values in shifts.select(columns).iter_rows()
        ],
        title=f"{title}: diversity and correlation shift (OoD-Bench), 0 to 1",
        notes=notes[:MOST_NOTES],
        align="lrrrr",
    )


def _sharpness_grid(title: str, report: "diagnostics.AlignmentReport") -> Grid:
    domains = report.to_frame("domains")
    columns = ("domain", "samples", "trace", "trace error", "largest eigenvalue")
    ranked = domains.sort("trace", descending=True, maintain_order=True).head(MOST_DOMAINS)
    left = len(domains) - len(ranked)
    return Grid(
        headers=("domain", "samples", "trace", "±", "largest eigenvalue"),
        rows=[
            (name, f"{size:,}", *map(_text, rest)) for name, size, *rest in ranked.select(columns).iter_rows()
        ],
        title=f"{title}: sharpness of each domain's loss in the head",
        notes=[f"{left:,} more domains are less sharp; --html and --json have all."] if left else [],
        align="lrrrr",
    )


def _text(value: str | float | bool | None) -> str:
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else str(value)
