"""Commands: help that fits any terminal, with examples to copy, and sentences that name what was meant."""

import inspect
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from copy import copy
from typing import Any, Literal, TextIO, cast, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from hessalign.checks import did_you_mean
from hessalign.cli.options import FORMER_NAMES, OPTION_OF, Panel
from hessalign.cli.terminal import flags

EXAMPLE_WIDTH = 76
"""Of a terminal of 80 columns, the help's margins left out."""

UsageError = cast(type[Exception], typer.BadParameter.__base__)
"""Click's, which some versions of Typer take from Click and others bring along under another name."""


class _Unpadded:
    """A stream without the blanks that Rich adds to lines: behind a backslash they would break an example."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(re.sub(r" +(?=\n)", "", text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Sentences:
    """Help that can be copied from, and errors that name what was probably meant."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Print the help."""
        with redirect_stdout(cast(TextIO, _Unpadded(sys.stdout))):
            super().format_help(ctx, formatter)  # type: ignore[misc]

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parse a command line, or say what is wrong with it."""
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc]
        except UsageError as error:
            _suggest(error, self)
            raise


class Command(_Sentences, TyperCommand):
    """A command, whose options go by their former names, too."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; whatever it says of an argument, it says under the name of its option."""
        before = flags.set(self.flags())
        try:
            return super().invoke(ctx)
        finally:
            flags.reset(before)

    def flags(self) -> dict[str, str]:
        """What its options are called, by every name that the library may have for them."""
        here = {name for parameter in self.params for name in parameter.opts if name.startswith("--")}
        found = {name: option for name, options in OPTION_OF.items() for option in options if option in here}
        for parameter in self.params:
            option = next((name for name in parameter.opts if name.startswith("--")), None)
            if option is not None:
                name = option.removeprefix("--")
                found |= dict.fromkeys((name, name.replace("-", "_"), str(parameter.name)), option)
        return found

    def get_help_option(self, ctx: Any) -> Any:
        """The option ``--help``, in no panel of its own."""
        found = super().get_help_option(ctx)
        if found is not None:
            found.rich_help_panel = Panel.OUTPUT.value
        return found

    def make_parser(self, ctx: Any) -> Any:
        """The parser; a former name is taken, too, but where it means something else in this command."""
        parser = super().make_parser(ctx)
        options = {name: parameter for parameter in self.params for name in parameter.opts}
        for former, name in FORMER_NAMES.items():
            if name in options and former not in options:
                alias = copy(options[name])
                alias.opts = [former]
                alias.add_to_parser(parser, ctx)
        return parser


class Group(_Sentences, TyperGroup):
    """A group of commands."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that a line begins with; a name that is none is refused with all there are."""
        name = args[0]
        if not name.startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, name) is None:
            known = [name for name in self.list_commands(ctx) if not self.commands[name].hidden]
            ctx.fail(f"No such command {name!r}; allowed are {', '.join(known)}{did_you_mean(name, known)}")
        return super().resolve_command(ctx, args)


def _suggest(error: Any, command: Any) -> None:
    """Add the nearest name to what is wrong with a command line."""
    unknown, message = getattr(error, "option_name", None), str(getattr(error, "message", ""))
    if unknown is not None and hasattr(error, "possibilities"):
        shown = [name for option in command.params if not option.hidden for name in option.opts]
        meant = did_you_mean(unknown, ["--help", *(name for name in shown if name.startswith("-"))])
        error.possibilities = None  # Click's own, in other words
        error.message = f"No such option: {unknown!r}; --help shows all{meant}"
    # Some versions of Typer check with pydantic, which says of every error that it is one.
    given = re.match(r"(?:Value error, )?('(.*)' is not one of .*)\.", message, re.DOTALL)
    if given:
        choices = _choices(command.callback, error.param.name)
        error.message = f"{given[1]}{did_you_mean(given[2], choices)}"


def _choices(callback: Callable[..., Any], name: str) -> list[str]:
    """The texts that a command's parameter can be; those of a ``Literal``."""
    hint = get_type_hints(callback)[name]
    kinds = [hint, *get_args(hint)]
    return [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]


def add_command(app: typer.Typer, name: str, function: Callable[..., Any]) -> None:
    """Register a command with the help that its docstring holds."""
    app.command(name, cls=Command, help=help_text(function.__doc__))(function)


def help_text(docstring: str | None) -> str:
    """A docstring for Typer, which would keep the line breaks of the source.

    Args:
        docstring: Of paragraphs; those that begin with ``hessalign`` are examples, of which the long ones are
            broken as a shell takes them.

    Returns:
        Its paragraphs, each of one line but for examples.
    """
    return "\n\n".join(map(_paragraph, inspect.cleandoc(docstring or "").split("\n\n")))


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
