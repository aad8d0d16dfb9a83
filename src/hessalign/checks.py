"""Checks of single arguments: one sentence that names the argument, what was given and what is allowed."""

import math
import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from pathlib import Path
from typing import Any


def require_choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse a value that is not among the allowed strings.

    Raises:
        ValueError: Naming the argument, the value and what is allowed.
    """
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(
            f"{name}: {value!r} is not known; allowed are {', '.join(map(repr, allowed))}"
            f"{did_you_mean(value, allowed)}"
        )


def did_you_mean(given: object, allowed: Sequence[str]) -> str:
    """The end of a sentence that refuses a name: the nearest that is allowed, whatever its case.

    Args:
        given: What was given.
        allowed: What would have been allowed.

    Returns:
        Words that begin with a semicolon; nothing if no name is near.
    """
    names = {name.casefold(): name for name in allowed}
    nearest = get_close_matches(given.casefold(), names, n=1) if isinstance(given, str) else []
    return f"; did you mean {names[nearest[0]]!r}?" if nearest else ""


def problem_in_words(problem: Mapping[str, Any]) -> str:
    """One entry of what pydantic reports: the field, and what is wrong with it.

    Args:
        problem: Of ``ValidationError.errors()``.

    Returns:
        Words that name the field once, though a check of our own may have named it, too.
    """
    message: str = problem["msg"].removeprefix("Value error, ")
    names = list(map(str, problem["loc"]))
    return f"{'.'.join(names)}: {message.removeprefix(f'{names[-1]}: ')}" if names else message


def require_flag(name: str, value: object) -> bool:
    """The value as a bool.

    Returns:
        The value.

    Raises:
        ValueError: If it is not True or False: the text ``"no"`` would count as true.
    """
    # NumPy's booleans are no bool; looked up by name, so that this module stays free of NumPy.
    kind = type(value)
    if kind is not bool and (kind.__module__, kind.__name__) not in (("numpy", "bool"), ("numpy", "bool_")):
        raise ValueError(f"{name}: must be True or False, got {value!r}")
    return bool(value)


def require_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
    otherwise: str = "",
) -> float:
    """The value as a float, whatever kind of real number it was.

    Args:
        name: What the argument is called.
        value: Any real number, NumPy's among them; no bool and no text.
        least: Smallest allowed value.
        above: Every allowed value is larger.
        most: Largest allowed value.
        below: Every allowed value is smaller.
        otherwise: What is allowed beside numbers, for the sentence: ``"None or "``.

    Returns:
        The value.

    Raises:
        ValueError: If it is no finite number or out of range.
    """
    allowed = f"{name}: must be {otherwise}a finite number{_range(least, above, most, below)}, got {value!r}"
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(allowed)
    number = float(value)
    if not math.isfinite(number) or not _inside(number, least, above, most, below):
        raise ValueError(allowed)
    return number


def require_whole(
    name: str, value: Any, *, least: int | None = None, most: int | None = None, otherwise: str = ""
) -> int:
    """The value as an int, NumPy's integers among what is taken.

    Args:
        name: What the argument is called.
        value: Any whole number; no bool, no text and no float.
        least: Smallest allowed value.
        most: Largest allowed value.
        otherwise: What is allowed beside numbers, for the sentence: ``"None or "``.

    Returns:
        The value.

    Raises:
        ValueError: If it is no whole number or out of range.
    """
    whole = isinstance(value, Integral) and not isinstance(value, bool)
    if not whole or not _inside(int(value), least, None, most, None):
        allowed = f"{otherwise}a whole number{_range(least, None, most, None)}"
        raise ValueError(f"{name}: must be {allowed}, got {value!r}")
    return int(value)


def require_path(name: str, value: Any) -> Path:
    """The value as a path.

    Returns:
        The path.

    Raises:
        ValueError: If it is neither text nor a path.
    """
    if not isinstance(value, str | os.PathLike) or not isinstance(os.fspath(value), str):
        raise ValueError(f"{name}: must be a path, got {value!r}")
    if "\0" in os.fspath(value):
        raise ValueError(f"{name}: must be a path, which holds no zero byte, got {value!r}")
    return Path(value)


def require_same_length(**lengths: int) -> None:
    """Refuse arrays of different lengths.

    Args:
        **lengths: Number of samples by the arguments' names.

    Raises:
        ValueError: Naming every argument with its length.
    """
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"{', '.join(lengths)}: must hold one entry for each sample, got lengths {found}")


def _inside(
    number: float, least: float | None, above: float | None, most: float | None, below: float | None
) -> bool:
    return (
        (least is None or number >= least)
        and (above is None or number > above)
        and (most is None or number <= most)
        and (below is None or number < below)
    )


def _range(least: float | None, above: float | None, most: float | None, below: float | None) -> str:
    limits = [
        f"{words} {limit}" if isinstance(limit, int) else f"{words} {limit:g}"
        for words, limit in (
            ("of at least", least),
            ("above", above),
            ("of at most", most),
            ("below", below),
        )
        if limit is not None
    ]
    return f" {' and '.join(limits)}" if limits else ""
