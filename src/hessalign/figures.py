"""Figures: the palette, and the one way in which they get to disk or into a page."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from matplotlib import rcParams
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font

from hessalign.files import replacing
from hessalign.markup import plot_text, visible

# Colours that colour-blind readers tell apart (Okabe and Ito, "Color Universal Design", 2008).
COLOURS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7")

MARKERS = "os^DvPX*"
"""One more than there are colours: neighbours differ in both, and no two of 56 look the same."""

HEAT = "cividis"
"""Of maps of distances: it stays ordered in grey and for colour-blind readers."""

FORMATS = {"png": "Software", "pdf": "CreationDate", "svg": "Date"}
"""Formats of figures, and the entry of each that changes from one writing to the next."""


def domain_mark(number: int) -> tuple[str, str]:
    """Colour and marker of a domain, by its place; black is left to what all domains share."""
    others = COLOURS[1:]
    return others[number % len(others)], MARKERS[(number + number // 24) % len(MARKERS)]


def figure_text(text: str) -> str:
    """A name as figures show it: no formula, and signs that the font lacks by their numbers, not as boxes.

    For other scripts name a font that has them: ``matplotlib.rcParams["font.family"]`` takes several.

    Returns:
        The text to draw.
    """
    fonts = [get_font(findfont(FontProperties(family=[family]))) for family in rcParams["font.family"]]
    signs = (
        sign
        if any(font.get_char_index(ord(sign)) for font in fonts)
        else sign.encode("unicode_escape").decode("ascii")
        for sign in visible(text)
    )
    return plot_text("".join(signs))


def check_figure_path(path: Path) -> None:
    """Refuse a figure that could not be written.

    Args:
        path: Output path; the suffix selects the format (.png, .pdf, .svg).

    Raises:
        ValueError: If the format is not known, or there is a folder.
    """
    if path.suffix.removeprefix(".") not in FORMATS:
        raise ValueError(
            f"plot: the name must end in {', '.join(f'.{each}' for each in FORMATS)}, got {path}"
        )
    if path.is_dir():
        raise ValueError(f"plot: {path} is a folder; choose the name of a file")


def save_figure(figure: Figure, path: Path, *, dpi: int = 200, description: str | None = None) -> None:
    """Write a figure, whole or not at all.

    Args:
        figure: To write.
        path: Output path; the suffix selects the format (.png, .pdf, .svg).
        dpi: Dots per inch of a PNG, default 200.
        description: Of a PNG, to be stored in it.

    Raises:
        ValueError: If the format is not known, or there is a folder.
        OSError: If it cannot be written; what was at the path then stays.
    """
    check_figure_path(path)
    with replacing(path) as draft:
        _write(figure, draft, path.suffix.removeprefix("."), dpi, description)


def save_figures(figures: Mapping[str, Figure], folder: Path) -> list[Path]:
    """Write each figure as PNG and as PDF, in one layout.

    Args:
        figures: By the names of their files, without endings. They are not laid out again later.
        folder: Where; made if it is not there.

    Returns:
        The PNGs' paths.

    Raises:
        OSError: If one cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        save_figure(figure, folder / f"{name}.png")
        figure.set_layout_engine("none")  # that takes longer than to draw it
        save_figure(figure, folder / f"{name}.pdf")
    return [folder / f"{name}.png" for name in figures]


def png_bytes(figure: Figure, *, dpi: int = 110) -> bytes:
    """A figure as PNG, to stand in a page.

    Args:
        figure: To write.
        dpi: Dots per inch, default 110.

    Returns:
        The file's content.
    """
    buffer = io.BytesIO()
    _write(figure, buffer, "png", dpi, None)
    return buffer.getvalue()


def _write(figure: Figure, target: Path | IO[bytes], kind: str, dpi: int, description: str | None) -> None:
    # What tells the time or the program would make equal figures differ.
    metadata: dict[str, str | None] = {FORMATS[kind]: None}
    if description is not None:
        metadata["Description"] = description
    figure.savefig(target, format=kind, dpi=dpi, metadata=metadata)
