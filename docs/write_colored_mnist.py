"""Write docs/colored-mnist.md and its figures from the records:  python docs/write_colored_mnist.py.

Every number of the page is computed from the files under ``results/colored_mnist``; every statement names the
files it rests on; what has no records is said to be missing.
"""

from pathlib import Path

from colored_mnist_page.beyond import beyond
from colored_mnist_page.collapse import without_gradients
from colored_mnist_page.drawn_probes import drawn_against_expected
from colored_mnist_page.full_size import what_full_size_says
from colored_mnist_page.page import TITLES, Page, Sources, all_records
from colored_mnist_page.short import in_short
from colored_mnist_page.sweeps import studies
from colored_mnist_page.tables import table
from hessalign.experiments.colored_mnist import group_restarts

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "colored-mnist.md"
FIGURES = ROOT / "docs" / "colored-mnist"

INTRODUCTION = """\
# Colored MNIST: Tables 7 and 8, and why they are so

This page is written by `python docs/write_colored_mnist.py` from the records in
[results/colored_mnist](../results/colored_mnist); footnotes name the records that a row or a statement rests
on. Accuracies are percentages of the last step; ours are mean ± population standard deviation over n
restarts, the paper's (Hemati et al., ICCV 2023, supplement) over ten.

A quarter of all labels is flipped, so a classifier that ignores colour reaches 75 % everywhere: 75 is the
ceiling of what generalizes. A target accuracy above the source accuracy, or above 75, does not mean a better
classifier. It means one that holds colour against the label, as the target happens to do.
"""
REGENERATE = r"""## How to add to this page

    R=results/colored_mnist
    hessalign cmnist --methods table --restarts 3 --log-parts --out $R
    hessalign cmnist --methods table --restarts 2 --log-parts --imbalanced --out $R
    hessalign cmnist --methods table --restarts 1 --log-parts --imbalanced --split text --out $R
    hessalign cmnist --methods hutchinson --hutchinson sampled --restarts 3 --log-parts --out $R
    hessalign cmnist --methods hutchinson --hutchinson sampled --restarts 2 --log-parts --imbalanced --out $R
    hessalign cmnist --methods gradient,diagonal --fresh-optimizer --restarts 3 --log-parts --out $R
    hessalign cmnist --methods diagonal,diagonal-flat-off,frobenius --restarts 3 --log-parts --out $R
    hessalign cmnist --methods diagonal,diagonal-flat-off,frobenius --restarts 3 --log-parts --imbalanced \
      --out $R
    hessalign cmnist --methods diagonal,diagonal-flat-off --fresh-optimizer --restarts 3 --log-parts \
      --imbalanced --out $R
    hessalign cmnist --methods diagonal-flat-off --steps 801 --anneal-step 190 --restarts 3 --log-parts \
      --imbalanced --out $R
    for gamma in 0.005 0.02; do
      hessalign cmnist --methods diagonal-flat-off --gamma $gamma --restarts 3 --log-parts --imbalanced \
        --out $R/studies
    done
    hessalign cmnist --methods gradient-flat-off --restarts 3 --log-parts --imbalanced --out $R/studies
    for k in 15 50 500; do
      hessalign cmnist --methods hutchinson,diagonal-flat-off --probes $k --seed 1 --restarts 2 --log-parts \
        --out $R/studies
    done
    for study in probes alpha flatness exact; do hessalign cmnist-study $study --fast --out $R/studies; done
    python docs/write_colored_mnist.py

All commands go on where they were interrupted and leave finished restarts alone.
"""


def make_page() -> Page:
    """The whole page, from the records."""
    records = all_records()
    sources = Sources({record.spec: path for path, record in records.items()})
    page = Page(group_restarts(records.values()), sources)
    page.add(INTRODUCTION)
    in_short(page)
    for split in TITLES:
        table(page, split)
    what_full_size_says(page)
    drawn_against_expected(page)
    without_gradients(page)
    studies(page)
    beyond(page)
    page.add(REGENERATE)
    page.add("## Records", "", *page.sources.lines())
    return page


def write() -> None:
    """Write the text and all figures, and remove figures that no longer belong to it."""
    page = make_page()
    FIGURES.mkdir(exist_ok=True)
    for name, (draw, _) in page.figures.items():
        draw(FIGURES / name)
    for path in FIGURES.glob("*.png"):
        if path.name not in page.figures:
            path.unlink()
    PAGE.write_text("\n".join(page.lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write()
