"""Between commands and a person: a console that obeys no name, progress, and how commands end."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import typer
from pydantic import ValidationError
from rich import console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from hessalign.checks import problem_in_words
from hessalign.exceptions import DivergedError, HessalignWarning
from hessalign.markup import visible

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


class Console(console.Console):
    r"""Rich's console, which takes every text as it is: ``[b]`` and ``:dog:`` in names stay what they are.

    Whatever a command prints may hold names of files, domains and classes. What is to stand out is a
    ``rich.text.Text`` with a style. What a terminal would obey is shown as Python writes it: ``\x1b``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})

    def render_str(self, text: str, **options: Any) -> Text:
        """Text of a line, a title or a cell; a line break that a name may hold is shown, not made."""
        below = text.removeprefix("\n")
        return super().render_str(text[: len(text) - len(below)] + visible(below), **options)


def progress_bar(console: Console, *shown_after: str) -> Progress:
    """A bar for each task: its description, how many of how many, and the time left.

    Args:
        console: Where to draw it.
        shown_after: Fields of the tasks that are shown behind it; every task must have them.

    Returns:
        The bar, which is drawn while its context is open.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        *(TextColumn(f"{{task.fields[{field}]}}", markup=False) for field in shown_after),
        console=console,
    )


@contextmanager
def reported(console: Console) -> Iterator[None]:
    """End the command in one sentence: exit code 2 for bad input, 1 for a file, the disk, or divergence.

    Behind a quiet console the command ends without a word: another of its processes says what is wrong.

    Raises:
        typer.BadParameter: Instead of a ValueError.
        typer.Exit: Instead of another of these errors.
    """
    try:
        yield
    except ValueError as error:
        if console.quiet:
            raise typer.Exit from error
        raise typer.BadParameter(visible(one_sentence(error))) from error
    except (OSError, DivergedError) as error:
        if console.quiet:
            raise typer.Exit from error
        console.print(f"Stopped: {error}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


def one_sentence(error: Exception) -> str:
    """What is wrong, for a person: pydantic's reports are shortened, everything else stays as it is."""
    if not isinstance(error, ValidationError):
        return str(error)
    problems = []
    for problem in error.errors(include_url=False):
        given = bool(problem["loc"]) and problem["type"] != "value_error"
        problems.append(problem_in_words(problem) + (f" (given {problem['input']!r})" if given else ""))
    return "; ".join(problems)


def show_warnings_as_sentences() -> None:
    """Show the library's warnings on stderr as sentences, each once; others stay as Python shows them.

    For a process that is the command line alone. Python's filters come first: ``-W error`` raises, and
    ``warnings.catch_warnings(record=True)`` records.
    """
    show_others = warnings.showwarning
    shown = set()

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if not issubclass(category, HessalignWarning):
            show_others(message, category, filename, lineno, file, line)
        elif str(message) not in shown:
            shown.add(str(message))
            print(f"Warning: {visible(str(message))}", file=file or sys.stderr)

    warnings.showwarning = show
