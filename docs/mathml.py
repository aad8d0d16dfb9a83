"""Blocks of LaTeX (```` ```math ````) as MathML, which browsers show without a script or a network."""

from typing import Any

from latex2mathml.converter import convert


def block(source: str, *_: Any, **__: Any) -> str:
    """One displayed formula, for pymdownx.superfences.

    Args:
        source: In LaTeX.
        *_: Name of the fence, its class, options and the Markdown instance.
        **__: Likewise.

    Returns:
        The formula as HTML; wider than the page it scrolls by itself.
    """
    return f'<div class="formula">{convert(source.strip(), display="block")}</div>'
