"""Help of commands, from their docstrings, so that it fits any terminal and its examples can be copied."""

import inspect
from collections.abc import Callable
from typing import Any

import typer

EXAMPLE_WIDTH = 76
"""Of a terminal of 80 columns, the help's margins left out."""


def add_command(app: typer.Typer, name: str, function: Callable[..., Any]) -> None:
    """Register a command with the help that its docstring holds."""
    app.command(name, help=help_of(function))(function)


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
