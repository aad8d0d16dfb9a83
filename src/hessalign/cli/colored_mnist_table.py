"""The Colored MNIST table, for the terminal and as Markdown."""

from collections.abc import Sequence

from rich.table import Table

from hessalign.experiments import colored_mnist

COLUMNS = ("Method", "n", "Train", "Target", "Paper train", "Paper target")
EXPLANATION = "accuracies in percent, mean ± population standard deviation over n restarts"


def as_table(rows: "Sequence[colored_mnist.Row]", title: str, reduction: str | None) -> Table:
    """A table for the terminal."""
    table = Table(title=title, caption=_caption(reduction))
    for column in COLUMNS:
        table.add_column(column, justify="left" if column == "Method" else "right")
    for row in rows:
        table.add_row(*_cells(row))
    return table


def as_markdown(rows: "Sequence[colored_mnist.Row]", title: str, reduction: str | None) -> str:
    """The same as a Markdown document."""
    lines = [
        f"# {title}",
        "",
        f"{_caption(reduction)}",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|---|{'---:|' * (len(COLUMNS) - 1)}",
        *(f"| {' | '.join(_cells(row))} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


def _caption(reduction: str | None) -> str:
    if reduction is None:
        return f"The published setting; {EXPLANATION}."
    return f"Changed setting: {reduction} (the paper's figures are for the published one); {EXPLANATION}."


def _cells(row: "colored_mnist.Row") -> tuple[str, ...]:
    return (
        row.label,
        str(row.restarts),
        _ours(row.source_accuracy, row.source_accuracy_std, row.restarts),
        _ours(row.target_accuracy, row.target_accuracy_std, row.restarts),
        _papers(row.paper_source_accuracy, row.paper_source_accuracy_std),
        _papers(row.paper_target_accuracy, row.paper_target_accuracy_std),
    )


def _ours(mean: float, deviation: float, restarts: int) -> str:
    return f"{mean:.1f}" if restarts == 1 else f"{mean:.1f} ± {deviation:.1f}"


def _papers(mean: float | None, deviation: float | None) -> str:
    return "–" if mean is None or deviation is None else f"{mean:.1f} ± {deviation:.1f}"
