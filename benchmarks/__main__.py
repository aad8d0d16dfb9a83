"""Run all benchmarks, or those that are named, and write what they measured into benchmarks/README.md."""

import os
import platform
import re
import sys
from pathlib import Path
from types import ModuleType

import torch

import hessalign
from benchmarks import (
    algorithm_step,
    colored_mnist_step,
    domain_report,
    estimator_speed,
    feature_extraction,
    heart_disease,
    input_pipeline,
    linear_unit_tests,
    mnist_step,
    penalties,
    penalty_profile,
    resnet_step,
    vectorised_runs,
)
from benchmarks.timing import HEADER

PAGE = Path(__file__).parent / "README.md"
HEADLINE_PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
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
    penalty_profile,
    colored_mnist_step,
    resnet_step,
    algorithm_step,
    mnist_step,
    input_pipeline,
    feature_extraction,
    vectorised_runs,
    domain_report,
    estimator_speed,
    linear_unit_tests,
    heart_disease,
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


def rows_in(text: str) -> dict[str, str]:
    """Rows of measurements in a text, by what they are of."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and "×" in line]
    return {line.split("|")[1].strip(): line for line in lines}


def refresh_page(measured: dict[str, str]) -> None:
    """Put sections into the page; those of other scripts stay as they are."""
    parts = re.split(r"<!-- (\w+) -->\n", PAGE.read_text(encoding="utf-8"))[1:]
    sections = {name: text.strip() for name, text in zip(parts[::2], parts[1::2], strict=True)} | measured
    ordered = [f"<!-- {name} -->\n{sections[name]}" for name in map(name_of, SCRIPTS) if name in sections]
    introduction = (
        "# Benchmarks\n\n"
        "Medians of several rounds in which all alternatives take turns; ratios are what counts.\n"
        "Written by\n\n"
        "    python -m benchmarks\n\n"
        "(or, section by section, by the same with the name of a script)\n"
        f"on: {machine()}."
    )
    PAGE.write_text("\n\n".join([introduction, *ordered]) + "\n", encoding="utf-8")


def refresh_headlines() -> None:
    """Put the page's rows of the headlines into the page on speed."""
    rows = rows_in(PAGE.read_text(encoding="utf-8"))
    text = HEADLINE_PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    _, after = rest.split(END)
    table = "\n".join([START, HEADER, *(rows[name] for name in HEADLINES if name in rows), END])
    HEADLINE_PAGE.write_text(before + table + after, encoding="utf-8")


def name_of(script: ModuleType) -> str:
    """Name of a script, without its package."""
    return script.__name__.split(".")[1]


def table_of(script: ModuleType) -> str | None:
    """What a script measures, as a table: its comparisons, or a table of its own; None without its data."""
    if not hasattr(script, "run"):
        own: str | None = script.table()
        return own
    return "\n".join([HEADER, *(comparison.row() for comparison in script.run())])


def main() -> None:
    """Run the named scripts, or all; print their tables, and write them into both pages."""
    names = sys.argv[1:] or [name_of(script) for script in SCRIPTS]
    unknown = set(names) - {name_of(script) for script in SCRIPTS}
    if unknown:
        raise SystemExit(
            f"{', '.join(sorted(unknown))}: not known; allowed are {', '.join(map(name_of, SCRIPTS))}"
        )
    measured = {}
    for script in SCRIPTS:
        if name_of(script) in names:
            print(f"running {script.__name__} ...", file=sys.stderr)
            table = table_of(script)
            if table is None:
                print(f"{script.__name__} lacks its data; its section stays as it is", file=sys.stderr)
                continue
            assert script.__doc__ is not None
            measured[name_of(script)] = "\n".join([script.__doc__.strip(), "", table])
            print(measured[name_of(script)] + "\n")
    refresh_page(measured)
    refresh_headlines()


if __name__ == "__main__":
    main()
