"""Checks of what was given on the command line, before anything heavy is imported."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import typer

from hessalign.checks import require_number, require_whole

LARGEST_SEED = 2**63 - 1
"""Of PyTorch's generators."""


FIGURES = (".png", ".pdf", ".svg")

Number = TypeVar("Number", int, float)


def whole(least: int, most: int | None = None) -> Callable[[typer.CallbackParam, int | None], int | None]:
    """Callback of an option that takes whole numbers in a range.

    Args:
        least: Smallest allowed value.
        most: Largest allowed value; None for any.
    """

    def check(parameter: typer.CallbackParam, value: int | None) -> int | None:
        return value if value is None else _checked(parameter, value, require_whole, least=least, most=most)

    return check


def number(
    least: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> Callable[[typer.CallbackParam, float | None], float | None]:
    """Callback of an option that takes finite numbers in a range.

    Args:
        least: Smallest allowed value; None for any.
        above: Every allowed value is larger; None for any.
        below: Every allowed value is smaller; None for any.
    """

    def check(parameter: typer.CallbackParam, value: float | None) -> float | None:
        if value is None:
            return None
        return _checked(parameter, value, require_number, least=least, above=above, below=below)

    return check


def _checked(
    parameter: typer.CallbackParam, value: Number, check: Callable[..., Number], **limits: float | None
) -> Number:
    try:
        return check(str(parameter.name), value, **limits)
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
