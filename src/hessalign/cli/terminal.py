"""The terminal: what is printed there is data, never markup."""

from typing import Any

from rich import console
from rich.text import Text

from hessalign.markup import visible


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
