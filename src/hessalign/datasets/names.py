"""Names of domains and classes: which are refused, and which look like a mistake."""

import unicodedata
from collections.abc import Sequence

from hessalign.files import shown

MISSING = ("nan", "nat", "<na>", "n/a", "null", "")
"""What other programs write where a value is missing, in small letters."""


def check_names(argument: str, names: Sequence[object]) -> tuple[str, ...]:
    """The names, if each is a text that can be written and none is there twice.

    Args:
        argument: What they are called.
        names: By id.

    Raises:
        ValueError: If a name is no text, no UTF-8 (as folders may be called), or there twice.
    """
    if isinstance(names, str):
        raise ValueError(f"{argument}: must be a list of names, got the text {names!r}")
    checked: list[str] = []
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{argument}: every name must be a text, got {name!r}")
        if shown(name) != name:
            raise ValueError(
                f"{argument}: {shown(name)} is not UTF-8, and no record could hold it; choose another name"
            )
        if name in seen:
            raise ValueError(f"{argument}: {name!r} is there twice; every name must be another one")
        checked.append(str(name))
        seen.add(str(name))
    return tuple(checked)


def name_doubts(kind: str, names: Sequence[str]) -> tuple[str, ...]:
    """One sentence for each mistake that names look like.

    Args:
        kind: Of what they are the names: ``"domain"`` or ``"class"``.
        names: All of them, each once.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_essence(name), []).append(name)
    doubts = [
        f"{kind} names differ by capitals or blanks alone, and count as different: "
        f"{', '.join(map(repr, group))}"
        for group in alike.values()
        if len(group) > 1
    ]
    doubts += [
        f"a {kind} is called {name!r}, as other programs write a missing value"
        for name in names
        if name.strip().lower() in MISSING
    ]
    return tuple(doubts)


def _essence(name: str) -> str:
    """What is left without capitals, blanks and ways to write an accent."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())
