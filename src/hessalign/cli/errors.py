"""How commands end when something is wrong, and how they say what is doubtful."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import typer
from pydantic import ValidationError

from hessalign.cli.terminal import Console
from hessalign.exceptions import DivergedError, HessalignWarning
from hessalign.markup import visible

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


@contextmanager
def reported(console: Console) -> Iterator[None]:
    """End the command in one sentence: exit code 2 for bad input, 1 for a file, the disk, or divergence.

    Behind a quiet console the command ends without a word: another of its processes says what is wrong.
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
        name = ".".join(map(str, problem["loc"]))
        message = problem["msg"].removeprefix("Value error, ")
        given = "" if problem["type"] == "value_error" else f" (given {problem['input']!r})"
        problems.append(f"{name}: {message}{given}" if name else message)
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
