"""Checks of what was given on the command line, before anything heavy is imported."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import typer

from hessalign.checks import require_number, require_whole

LARGEST_WHOLE = 2**63 - 1
"""Of PyTorch's generators and sizes."""

MOST_PROCESSES = 1024
MOST_RUNS = 100_000
"""Of one kind, in a single command; more is a slip of the hand, and would fill the memory with plans."""


FIGURES = (".png", ".pdf", ".svg")

Number = TypeVar("Number", int, float)


def whole(least: int, most: int = LARGEST_WHOLE) -> Callable[[typer.CallbackParam, int | None], int | None]:
    """Callback of an option that takes whole numbers in a range.

    Args:
        least: Smallest allowed value.
        most: Largest allowed value.
    """

    def check(parameter: typer.CallbackParam, value: int | None) -> int | None:
        return _checked(parameter, value, require_whole, least, most)

    return check


def number(
    least: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> Callable[[typer.CallbackParam, float | None], float | None]:
    """Callback of an option that takes finite numbers in a range.

    Args:
        least: Smallest allowed value; None for any.
        above: Every allowed value is larger; None for any.
        below: Every allowed value is smaller; None for any.
        most: Largest allowed value; None for any.
    """

    def check(parameter: typer.CallbackParam, value: float | None) -> float | None:
        return _checked(parameter, value, require_number, least, most, above=above, below=below)

    return check


def _checked(
    parameter: typer.CallbackParam,
    value: Number | None,
    check: Callable[..., Number],
    least: float | None,
    most: float | None,
    **limits: float | None,
) -> Number | None:
    if value is None:
        return None
    try:
        check(str(parameter.name), value, least=least, **limits)
        # By itself, so that a limit that hardly anybody comes near is told only there.
        return check(str(parameter.name), value, most=most)
    except ValueError as error:
        # Typer names the option itself.
        raise typer.BadParameter(str(error).removeprefix(f"{parameter.name}: ")) from error


def require_there(name: str, path: Path | None) -> None:
    """Refuse a path with nothing at its end; None is allowed.

    Args:
        name: What the argument is called.
        path: Of a file or a folder.

    Raises:
        ValueError: If there is neither.
    """
    if path is not None and not path.exists():
        raise ValueError(f"{name}: there is no file or folder {path}")


def require_figure(name: str, path: Path) -> None:
    """Refuse the path of a figure that could not be written, before any work is done.

    Args:
        name: What the argument is called.
        path: Of the figure.

    Raises:
        ValueError: If its ending is no known format, or there is a folder.
    """
    if path.suffix not in FIGURES:
        raise ValueError(f"{name}: must end in {', '.join(FIGURES)}, got {path}")
    if path.is_dir():
        raise ValueError(f"{name}: {path} is a folder; choose the name of a file")


def parse_settings(settings: Sequence[str]) -> dict[str, str]:
    """Values by name, of options ``--set NAME=VALUE``.

    Raises:
        ValueError: If one is not of that form.
    """
    for setting in settings:
        if "=" not in setting:
            raise ValueError(f"set: {setting!r} is not of the form NAME=VALUE")
    return dict(setting.split("=", 1) for setting in settings)


def names_between_commas(text: str) -> tuple[str, ...]:
    """Names between commas, each once."""
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
