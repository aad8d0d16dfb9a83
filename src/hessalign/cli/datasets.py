"""``hessalign datasets``: which datasets there are, how to get them, and whether a copy is whole."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from hessalign import datasets
from hessalign.cli.download import download_command
from hessalign.cli.help_text import add_command
from hessalign.cli.options import require_there
from hessalign.cli.progress import progress_bar
from hessalign.cli.terminal import Console

app = typer.Typer(
    help="Datasets made of domains: what there is, how to get it, and whether your copy is whole.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)
SHOWN = 20
"""Files of one kind that are named on a terminal."""


def list_datasets(
    as_json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """Show all datasets with their domains in index order.

    [b]Example[/b]

    hessalign datasets list
    """
    rows = [_describe(datasets.get_dataset(name)) for name in datasets.dataset_names()]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    table = Table(caption="–: the data decides")
    table.add_column("Dataset", no_wrap=True)
    table.add_column("Domains, in index order", overflow="fold")
    for column in ("Classes", "Samples", "Input"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            row["name"],
            ", ".join(row["domains"]) or "–",
            str(row["classes"] or "–"),
            Text("\n".join(f"{total:,}" for total in row["published_totals"]) or "–"),
            "×".join(map(str, row["input_shape"])) or "–",
        )
    Console().print(table)


def verify_dataset(
    name: Annotated[
        str, typer.Argument(help="Name of the dataset; [b]hessalign datasets list[/b] shows all.")
    ],
    root: Annotated[
        Path | None,
        typer.Option(
            help="Folder that holds the dataset's folder (DomainBed's layout) or its domain folders; for "
            "[b]csv_file[/b] and [b]features_file[/b] the file. The MNIST datasets ship with the package and "
            "need none.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Count the samples of each domain and class, compare with what is published, and decode every image.

    Wrong are also images of equal content in several domains or classes, names of classes that differ by
    capitals or blanks, and folders a level too deep; those of a published dataset are named only. Images of
    equal content within a domain, and files that are left out, are named as well, but not counted as wrong.

    Exit code 0: all is well. 1: counts differ or files cannot be read. 2: there is no such dataset to check.

    [b]Examples[/b]

    hessalign datasets verify pacs --root data

    hessalign datasets verify image_folder --root my_images --json
    """
    dataset = _open(name, root)
    console = Console(stderr=True)
    with progress_bar(console) as progress:
        task = progress.add_task("samples read", total=sum(map(len, dataset.domains)))
        report = datasets.verify.verify(dataset, lambda: progress.advance(task))
    if as_json:
        document = {**asdict(report), "total": report.total, "ok": report.ok}
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(1)


def _describe(dataset: "type[datasets.DomainDataset]") -> dict[str, Any]:
    published = dataset.expected_counts
    return {
        "name": dataset.name,
        "domains": list(dataset.domain_names),
        "classes": dataset.class_count,
        "published_totals": list(published.totals) if published else [],
        "published_counts": dict(published.by_domain) if published else {},
        "input_shape": list(dataset.input_shape),
        "images": dataset.search_space,
        "steps": dataset.steps,
        "checkpoint_every": dataset.checkpoint_every,
    }


def _open(name: str, root: Path | None) -> "datasets.DomainDataset":
    try:
        datasets.require_dataset(name)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from error
    try:
        require_there("root", root)
        return datasets.make_dataset(name, root)
    except (ValueError, OSError) as error:
        raise typer.BadParameter(str(error), param_hint="--root") from error


def _print(report: "datasets.verify.VerifyReport") -> None:
    """Classes as rows: there are more of them than domains."""
    table = Table(title=report.dataset)
    table.add_column("Class")
    for domain in report.counts:
        table.add_column(domain, justify="right")
    for class_name in next(iter(report.counts.values())):
        cells = (f"{by_class[class_name]:,}" for by_class in report.counts.values())
        table.add_row(class_name, *cells)
    table.add_section()
    table.add_row("all", *(f"{sum(by_class.values()):,}" for by_class in report.counts.values()))
    if report.published_counts:
        published = (report.published_counts.get(domain) for domain in report.counts)
        table.add_row("published", *("–" if count is None else f"{count:,}" for count in published))
    console = Console()
    console.print(table)
    if report.empty_classes:
        console.print(f"Without a sample: {', '.join(report.empty_classes)}")
    # Not wrapped: paths stay whole, to be copied.
    for problem in report.problems:
        console.print(f"Wrong: {problem}", soft_wrap=True)
    for kind, count in report.left_out.items():
        console.print(f"Left out: {count:,} {kind}", soft_wrap=True)
    _print_some(console, "Unreadable", report.unreadable)
    _print_some(console, "In several domains", [", ".join(paths) for paths in report.across_domains])
    _print_some(console, "In several classes", [", ".join(paths) for paths in report.conflicting])
    _print_some(console, "Equal files", [", ".join(paths) for paths in report.duplicates])
    if report.ok:
        compared = "" if report.published_totals else " (no published counts to compare with)"
        console.print(f"All {report.total:,} samples can be read; nothing is wrong{compared}.")


def _print_some(console: Console, what: str, entries: Sequence[str]) -> None:
    for entry in entries[:SHOWN]:
        console.print(f"{what}: {entry}", soft_wrap=True)
    if len(entries) > SHOWN:
        console.print(f"... and {len(entries) - SHOWN} more; --json names all.")


add_command(app, "list", list_datasets)
add_command(app, "verify", verify_dataset)
add_command(app, "download", download_command)
