"""``hessalign datasets download``: a published dataset, ready to be trained on."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from rich.table import Table

from hessalign import datasets
from hessalign.cli.errors import INTERRUPTED, reported
from hessalign.cli.terminal import Console

if TYPE_CHECKING:
    from hessalign.datasets.download import Download
    from hessalign.datasets.image_folder import PublishedFolder


def download_command(
    name: Annotated[
        str,
        typer.Argument(help="pacs, vlcs, office_home, terra_incognita or domain_net.", show_default=False),
    ],
    root: Annotated[
        Path, typer.Option(help="Folder that will hold the dataset's folder.", show_default=False)
    ],
    source: Annotated[
        list[str] | None,
        typer.Option(
            help="URL or file of an archive, instead of the published one; repeat it for several archives.",
            show_default=False,
        ),
    ] = None,
    sha256: Annotated[
        list[str] | None,
        typer.Option(
            help="What the archive must be; repeat it for several archives, in their order.",
            show_default=False,
        ),
    ] = None,
    duplicates: Annotated[
        Path | None,
        typer.Option(
            help="File that names images to delete, one domain/class/image in each line; where the dataset "
            "is there already, they are deleted from it.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")] = False,
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
        _print(done, copy, counts, problems)
    if problems:
        raise typer.Exit(1)


def _download(
    dataset: "type[PublishedFolder]",
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


def _print(
    done: "Download", copy: "datasets.DomainDataset", counts: dict[str, int], problems: list[str]
) -> None:
    console = Console()
    published = copy.expected_counts.by_domain if copy.expected_counts else {}
    table = Table(title=f"{copy.name} in {done.folder}")
    table.add_column("Domain")
    table.add_column("Images", justify="right")
    table.add_column("Published", justify="right")
    for domain, count in counts.items():
        table.add_row(domain, f"{count:,}", f"{published[domain]:,}" if domain in published else "–")
    table.add_section()
    totals = copy.expected_counts.totals if copy.expected_counts else ()
    table.add_row("all", f"{sum(counts.values()):,}", " or ".join(f"{total:,}" for total in totals) or "–")
    console.print(table)
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
    if not problems:
        console.print("The counts are the published ones.")
