"""Help of commands, from their docstrings, so that it fits any terminal and its examples can be copied."""

import inspect
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any, TextIO, cast

import typer
from typer.core import TyperCommand

EXAMPLE_WIDTH = 76
"""Of a terminal of 80 columns, the help's margins left out."""


class _Unpadded:
    """A stream without the blanks that Rich adds to lines: behind a backslash they would break an example."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(re.sub(r" +(?=\n)", "", text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class HelpfulCommand(TyperCommand):
    """Typer's command, whose help can be copied from."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        with redirect_stdout(cast(TextIO, _Unpadded(sys.stdout))):
            super().format_help(ctx, formatter)


def add_command(app: typer.Typer, name: str, function: Callable[..., Any]) -> None:
    """Register a command with the help that its docstring holds."""
    app.command(name, cls=HelpfulCommand, help=help_of(function))(function)


def help_of(function: Callable[..., Any]) -> str:
    """The docstring for Typer, which would keep the line breaks of the source.

    Args:
        function: Its docstring has paragraphs; those that begin with ``hessalign`` are examples, of which the
            long ones are broken as a shell takes them.
    """
    paragraphs = (inspect.getdoc(function) or "").split("\n\n")
    return "\n\n".join(map(_paragraph, paragraphs))


def _paragraph(text: str) -> str:
    words = text.split()
    if words[:1] != ["hessalign"]:
        return " ".join(words)
    lines = [""]
    for option in _options(words):
        if lines[-1] and len(f"{lines[-1]} {option} \\") > EXAMPLE_WIDTH:
            lines[-1] += " \\"
            lines.append(f"    {option}")
        else:
            lines[-1] = f"{lines[-1]} {option}".lstrip() if len(lines) == 1 else f"{lines[-1]} {option}"
    return "\n".join(lines)


def _options(words: list[str]) -> list[str]:
    """Words, each option together with its value."""
    options: list[str] = []
    for word in words:
        if options and options[-1].startswith("--") and not word.startswith("--") and " " not in options[-1]:
            options[-1] += f" {word}"
        else:
            options.append(word)
    return options
