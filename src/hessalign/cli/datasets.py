"""``hessalign datasets``: which datasets there are, how to get them, and whether a copy is whole."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from hessalign import datasets
from hessalign.cli.command import Group, add_command, help_text
from hessalign.cli.options import Json, Panel, option, require_there
from hessalign.cli.terminal import INTERRUPTED, Console, progress_bar, reported
from hessalign.grid import NOTHING, Grid

if TYPE_CHECKING:
    from hessalign.datasets.download import Download
    from hessalign.datasets.image_files import PublishedImages

app = typer.Typer(
    cls=Group,
    help=help_text(
        """Datasets made of domains: what there is, how to get it, and whether your copy is whole.

        [b]Example[/b]

        hessalign datasets download office_home --root data
        """
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
)
SHOWN = 20
"""Files of one kind that are named on a terminal."""


def list_datasets(*, as_json: Json = False) -> None:
    """Show all datasets with their domains in index order.

    [b]Example[/b]

    hessalign datasets list
    """
    rows = [_describe(datasets.get_dataset(name)) for name in datasets.dataset_names()]
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    grid = Grid(
        headers=("Dataset", "Domains, in index order", "Classes", "Samples", "Input"),
        rows=[
            (
                row["name"],
                ", ".join(row["domains"]) or NOTHING,
                str(row["classes"] or NOTHING),
                " or ".join(f"{total:,}" for total in row["published_totals"]) or NOTHING,
                "×".join(map(str, row["input_shape"])) or NOTHING,
            )
            for row in rows
        ],
        notes=[f"{NOTHING}: the data decides"],
        align="llrrr",
    )
    Console().print(grid.to_rich())


def verify_dataset(
    name: Annotated[
        str, typer.Argument(help="Name of the dataset; [b]hessalign datasets list[/b] shows all.")
    ],
    *,
    root: Annotated[
        Path | None,
        option(
            Panel.DATA,
            "Folder that holds the dataset's folder (DomainBed's layout) or its domain folders; for "
            "[b]csv_file[/b] and [b]features_file[/b] the file, for [b]parquet_images[/b] and "
            "[b]parquet_features[/b] a file or a folder of them. The MNIST datasets ship with the package "
            "and need none.",
        ),
    ] = None,
    as_json: Json = False,
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
        _print_report(report)
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


def _print_report(report: "datasets.verify.VerifyReport") -> None:
    """Classes as rows: there are more of them than domains."""
    domains = list(report.counts.values())
    totals = [["all", *(f"{sum(by_class.values()):,}" for by_class in domains)]]
    if report.published_counts:
        published = (report.published_counts.get(domain) for domain in report.counts)
        totals.append(["published", *(NOTHING if count is None else f"{count:,}" for count in published)])
    grid = Grid(
        headers=("Class", *report.counts),
        rows=[[name, *(f"{by_class[name]:,}" for by_class in domains)] for name in domains[0]],
        title=report.dataset,
        totals=totals,
    )
    console = Console()
    console.print(grid.to_rich())
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


def download_dataset(
    name: Annotated[str, typer.Argument(help="Name of a published image dataset, for example pacs.")],
    *,
    root: Annotated[Path, option(Panel.DATA, "Folder that will hold the dataset's folder.")],
    source: Annotated[
        list[str] | None,
        option(
            Panel.DATA,
            "URL or file of an archive, instead of the published one; repeat it for several archives.",
            metavar="ARCHIVE",
        ),
    ] = None,
    sha256: Annotated[
        list[str] | None,
        option(
            Panel.DATA,
            "SHA-256 that the archive must have; repeat it for several archives, in their order.",
            metavar="DIGITS",
        ),
    ] = None,
    duplicates: Annotated[
        Path | None,
        option(
            Panel.DATA,
            "File that names images to delete, one domain/class/image in each line; where the dataset is "
            "there already, they are deleted from it.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a published dataset, check and extract it, lay its folders out as DomainBed does, and count.

    After an interruption it goes on where it stopped. A dataset that is there already is only counted.

    Exit code 0: all is well. 1: an archive cannot be had or used, or counts differ. 2: an argument is wrong.

    [b]Examples[/b]

    hessalign datasets download office_home --root data

    hessalign datasets download pacs --root data --source PACS.zip

    hessalign datasets download terra_incognita --root data --source images.tar.gz --source annotations.tar.gz

    hessalign datasets download domain_net --root data --duplicates domain_net_duplicates.txt
    """
    console = Console(stderr=True)
    with reported(console):
        datasets.require_dataset(name)
        datasets.download.check_sources(source or [])
        dataset = datasets.download.downloadable(datasets.get_dataset(name))
        try:
            if dataset.existing(root) is None:
                done = _download(dataset, root, source or [], sha256 or [], duplicates, console)
            else:
                done = datasets.download.remove_listed(dataset, root, duplicates)
        except KeyboardInterrupt:
            console.print("Interrupted; start again to go on from here.")
            raise typer.Exit(INTERRUPTED) from None
        copy = dataset.make(root, seed=0)
    by_class = datasets.verify.count_samples(copy)
    problems = datasets.verify.count_problems(copy, by_class)
    counts = {domain: sum(classes.values()) for domain, classes in by_class.items()}
    if as_json:
        document = {**asdict(done), "folder": str(done.folder), "counts": counts, "problems": problems}
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        _print_download(done, copy, counts, problems)
    if problems:
        raise typer.Exit(1)


def _download(
    dataset: "type[PublishedImages]",
    root: Path,
    sources: list[str],
    sha256: list[str],
    duplicates: Path | None,
    console: Console,
) -> "Download":
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def report(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                # What an earlier call has downloaded took this one no time.
                tasks[what] = progress.add_task(what, completed=done)
            progress.update(tasks[what], completed=done, total=total)

        return datasets.download.download(dataset, root, report, sources, sha256, duplicates)


def _print_download(
    done: "Download", copy: "datasets.DomainDataset", counts: dict[str, int], problems: list[str]
) -> None:
    console = Console()
    published = copy.expected_counts.by_domain if copy.expected_counts else {}
    totals = copy.expected_counts.totals if copy.expected_counts else ()
    all_published = " or ".join(f"{total:,}" for total in totals) or NOTHING
    grid = Grid(
        headers=("Domain", "Images", "Published"),
        rows=[
            (domain, f"{count:,}", f"{published[domain]:,}" if domain in published else NOTHING)
            for domain, count in counts.items()
        ],
        title=f"{copy.name} in {done.folder}",
        totals=[("all", f"{sum(counts.values()):,}", all_published)],
    )
    console.print(grid.to_rich())
    # Not wrapped: paths, URLs and hashes stay whole, to be copied.
    for archive in done.archives:
        checked = (
            f"as it must be ({archive.checked})"
            if archive.checked
            else "nobody has published what it must be"
        )
        console.print(f"SHA-256 {archive.sha256} of {archive.source}: {checked}", soft_wrap=True)
    if done.duplicates_removed:
        console.print(f"{done.duplicates_removed:,} listed duplicates were deleted.")
    for note in done.notes:
        console.print(note, soft_wrap=True)
    for problem in problems:
        console.print(f"Wrong: {problem}", soft_wrap=True)
    if not problems and totals:
        console.print("The counts are the published ones.")
    elif not problems:
        console.print("No counts are published to compare with.")


add_command(app, "list", list_datasets)
add_command(app, "verify", verify_dataset)
add_command(app, "download", download_dataset)
