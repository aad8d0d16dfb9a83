"""The terminal: what is printed there is data, never markup."""

from typing import Any

from rich import console


class Console(console.Console):
    """Rich's console, which takes every text as it is: ``[b]`` and ``:dog:`` in names stay what they are.

    Whatever a command prints may hold names of files, domains and classes. What is to stand out is a
    ``rich.text.Text`` with a style.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"markup": False, "emoji": False, "highlight": False, **options})
