"""Errors of bad input, in one sentence."""

from pydantic import ValidationError


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
