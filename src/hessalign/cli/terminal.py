"""Between commands and a person: a console that obeys no name, progress, and how commands end."""

import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
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

flags: ContextVar[Mapping[str, str]] = ContextVar("flags", default=MappingProxyType({}))
"""Of the command that runs: what its options are called, by the names that the library has for them."""

NAMED = re.compile(r"(?P<names>[a-z][a-z0-9_-]*(?:, [a-z][a-z0-9_-]*)*): (?P<words>.*)", re.DOTALL)
"""A sentence of the library that begins with the arguments that it is about."""


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
        typer.BadParameter: Instead of a ValueError, naming the option and not the library's argument.
        typer.Exit: Instead of another of these errors.
    """
    try:
        yield
    except ValueError as error:
        if console.quiet:
            raise typer.Exit from error
        raise bad_parameter(one_sentence(error)) from error
    except (OSError, DivergedError) as error:
        if console.quiet:
            raise typer.Exit from error
        console.print(f"Stopped: {in_flags(str(error))}", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(1) from error


def bad_parameter(sentence: str) -> typer.BadParameter:
    """What ends a command with a sentence of the library, under the name of the option that it is about."""
    found = _named(sentence)
    if found is None:
        return typer.BadParameter(visible(sentence))
    names, words = found
    return typer.BadParameter(visible(words), param_hint=names)


def in_flags(sentence: str) -> str:
    """A sentence of the library in which the argument that it begins with is named as the option is."""
    found = _named(sentence)
    return sentence if found is None else f"{found[0]}: {found[1]}"


def _named(sentence: str) -> tuple[str, str] | None:
    """Options and what is said of them; None where a sentence begins with no option of the command."""
    found, known = NAMED.match(sentence), flags.get()
    names = found["names"].split(", ") if found else []
    if found is None or not any(name in known for name in names):
        return None
    options = ", ".join(dict.fromkeys(known.get(name, name) for name in names))
    inner = _named(found["words"])
    # Where one layer names what another has named already, once is enough.
    return options, inner[1] if inner is not None and inner[0] == options else found["words"]


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
            print(f"Warning: {visible(in_flags(str(message)))}", file=file or sys.stderr)

    warnings.showwarning = show
