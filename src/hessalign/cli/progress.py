"""The bar that commands show while they count."""

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hessalign.cli.terminal import Console


def progress_bar(console: Console, *shown_after: str) -> Progress:
    """A bar for each task: its description, how many of how many, and the time left.

    Args:
        console: Where to draw it.
        shown_after: Fields of the tasks that are shown behind it; every task must have them.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        *(TextColumn(f"{{task.fields[{field}]}}", markup=False) for field in shown_after),
        console=console,
    )
