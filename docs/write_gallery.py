"""Run the gallery's notebooks and scripts, and write what they say and draw:  python docs/write_gallery.py.

Notebooks (``examples/notebooks``) become pages, with what their cells print and draw. Scripts stay on pages
written by hand; what they print is put between two comments there.
"""

import ast
import contextlib
import io
import json
import re
import runpy
import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
GALLERY = ROOT / "docs" / "gallery"
NOTEBOOKS = {
    "penalty-in-your-loop": ROOT / "examples" / "notebooks" / "penalty_in_your_loop.ipynb",
    "sites-and-report": ROOT / "examples" / "notebooks" / "sites_and_report.ipynb",
}
SCRIPTS = {
    "plain": ROOT / "examples" / "own_loop" / "plain.py",
    "timm": ROOT / "examples" / "own_loop" / "timm_style.py",
    "four-hospitals": ROOT / "examples" / "federated" / "four_hospitals.py",
}
START, END = "<!-- printed by the script -->\n", "<!-- end -->\n"
FENCE = re.compile(f"{START}.*?{END}", re.DOTALL)


def notebook_page(name: str) -> tuple[str, dict[str, Figure]]:
    """A notebook as a page, run from its first cell to its last.

    Args:
        name: One of ``NOTEBOOKS``.

    Returns:
        The page in Markdown, and its figures by file name.
    """
    path = NOTEBOOKS[name]
    notebook = json.loads(path.read_text(encoding="utf-8"))
    names: dict[str, object] = {"__name__": "__main__"}
    blocks: list[str] = []
    figures: dict[str, Figure] = {}
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            blocks.append(source)
            continue
        blocks.append(f"```python\n{source}\n```")
        printed, value = run_cell(source, names)
        if printed:
            blocks.append(f"```text\n{printed.rstrip()}\n```")
        if isinstance(value, Figure):
            file = f"{name}-{len(figures) + 1}.png"
            figures[file] = value
            blocks.append(f"![What the cell above draws]({file})")
    relative = path.relative_to(ROOT).as_posix()
    blocks.insert(2, f"    jupyter lab {relative}")
    return "\n\n".join(blocks) + "\n", figures


def run_cell(source: str, names: dict[str, object]) -> tuple[str, object]:
    """Run one cell as Jupyter does.

    Args:
        source: Its code.
        names: What the cells before have left; what this one leaves is added.

    Returns:
        What it prints, and the value of its last expression.
    """
    body = ast.parse(source).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(ast.Module(body, []), "cell", "exec"), names)
        value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
    return printed.getvalue(), value


def printed_by(script: Path) -> str:
    """What a script prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        runpy.run_path(str(script), run_name="__main__")
    return printed.getvalue()


def script_pages() -> Iterator[tuple[Path, str]]:
    """Pages of the scripts, with what they print now."""
    for name, script in SCRIPTS.items():
        page = GALLERY / f"{name}.md"
        shown = f"{START}\n```text\n{printed_by(script).rstrip()}\n```\n\n{END}"
        yield page, FENCE.sub(lambda _, shown=shown: shown, page.read_text(encoding="utf-8"))


def main() -> None:
    """Write all pages and figures."""
    mpl.use("agg")
    with warnings.catch_warnings(action="ignore"):
        for name in NOTEBOOKS:
            text, figures = notebook_page(name)
            (GALLERY / f"{name}.md").write_text(text, encoding="utf-8")
            for file, figure in figures.items():
                figure.savefig(GALLERY / file, dpi=100, bbox_inches="tight", metadata={"Software": None})
        for page, text in [*script_pages()]:
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
