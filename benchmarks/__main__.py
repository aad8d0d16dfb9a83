"""Run all benchmarks and write benchmarks/README.md, or run those that are named and only print."""

import os
import platform
import sys
from pathlib import Path

import torch

import hessalign
from benchmarks import (
    algorithm_step,
    colored_mnist_step,
    domain_report,
    feature_extraction,
    input_pipeline,
    penalties,
    resnet_step,
    vectorised_runs,
)
from benchmarks.timing import HEADER

PAGE = Path(__file__).parent / "README.md"
README = Path(__file__).parents[1] / "README.md"
START, END = "<!-- written by python -m benchmarks -->\n", "\n<!-- end of benchmarks -->"
HEADLINES = (
    "exact diagonal",
    "expected Hutchinson",
    "whole Hessian",
    "HGP",
    "ResNet-18 step with HGP",
    "Colored MNIST step, ERM",
)
SCRIPTS = (
    penalties,
    colored_mnist_step,
    resnet_step,
    algorithm_step,
    input_pipeline,
    feature_extraction,
    vectorised_runs,
    domain_report,
)


def processor() -> str:
    """Name of the processor, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def machine() -> str:
    """What the figures were measured on."""
    return (
        f"{processor()}, {os.cpu_count()} processors, {torch.get_num_threads()} threads, "
        f"{platform.system()}, Python {platform.python_version()}, "
        f"PyTorch {torch.__version__}, hessalign {hessalign.__version__}"
    )


def refresh_readme(rows: list[str]) -> None:
    """Put the rows of the headlines into the README's section on speed."""
    chosen = [row for row in rows if row.split("|")[1].strip() in HEADLINES]
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    table = "\n".join([START, HEADER, *chosen, END])
    README.write_text(before + table + after, encoding="utf-8")


def main() -> None:
    """Run the named scripts and print their tables; run all of them to write both pages as well."""
    names = sys.argv[1:]
    scripts = [script for script in SCRIPTS if not names or script.__name__.split(".")[1] in names]
    sections, all_rows = [], []
    for script in scripts:
        assert script.__doc__ is not None
        print(f"running {script.__name__} ...", file=sys.stderr)
        rows = [comparison.row() for comparison in script.run()]
        sections.append("\n".join([script.__doc__.strip(), "", HEADER, *rows]))
        all_rows += rows
        print(sections[-1] + "\n")
    if names:
        return
    PAGE.write_text(
        "# Benchmarks\n\n"
        "Medians of several rounds in which all alternatives take turns; ratios are what counts.\n"
        "Written by\n\n"
        "    python -m benchmarks\n\n"
        f"on: {machine()}.\n\n" + "\n\n".join(sections) + "\n",
        encoding="utf-8",
    )
    refresh_readme(all_rows)


main()
