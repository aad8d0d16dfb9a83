"""Write docs/algorithms.md from the algorithms themselves:  python docs/write_algorithms.py."""

import inspect
import sys
from pathlib import Path

from hessalign.algorithms import Algorithm, algorithm_names, get_algorithm
from hessalign.algorithms.hparams import Choice, Distribution, Fixed, LogUniform, Uniform

PAGE = Path(__file__).parent / "algorithms.md"
INTRODUCTION = """\
# Algorithms

`E` source domains, `R_e` the mean cross-entropy of domain `e` in the batch, `z = f(x)` the features, `c`
the linear head. All use Adam with a constant learning rate unless said. Hyper-parameters are given with
their default and the distribution of a random search for images of 224 pixels; those shared by all
algorithms stand first. The rules and ranges are DomainBed's (Gulrajani and Lopez-Paz, ICLR 2021) and, for
HGP and Hutchinson, those of the paper's code. Where DomainBed's code departs from an algorithm's paper, the
paper's rule is the default and DomainBed's is `variant="domainbed"`.

This page is written by `python docs/write_algorithms.py` from the docstrings and hyper-parameters.
"""


def describe(search: Distribution) -> str:
    """A distribution in a few signs."""
    match search:
        case LogUniform(first, second, base, whole):
            text = f"{base:g}^U({first:g}, {second:g})"
            return f"int({text})" if whole else text
        case Uniform(low, high, whole):
            return f"int(U({low:g}, {high:g}))" if whole else f"U({low:g}, {high:g})"
        case Choice(values):
            return f"one of {', '.join(f'{value:g}' for value in values)}"
        case Fixed(value):
            return f"always {value:g}"


def hparams_table(algorithm: type[Algorithm], but: set[str]) -> list[str]:
    """Rows for the hyper-parameters that are not in ``but``."""
    spaces = algorithm.hparams_class.spaces("large")
    rows = [
        f"| `{name}` | {space.default:g} | {describe(space.search)} |"
        for name, space in spaces.items()
        if name not in but
    ]
    for name, field in algorithm.hparams_class.model_fields.items():
        if name not in spaces:
            rows.append(f"| `{name}` | {field.default} | not searched |")
    return ["", "| hyper-parameter | default | search |", "|---|---:|---|", *rows] if rows else []


def rule_classes(algorithm: type[Algorithm]) -> list[type[Algorithm]]:
    """The algorithm's class, and those it shares its rule with."""
    return [kind for kind in algorithm.mro() if issubclass(kind, Algorithm) and kind is not Algorithm]


def page() -> str:
    """The whole page."""
    lines = [INTRODUCTION, "## Shared hyper-parameters", *hparams_table(get_algorithm("erm"), set())]
    shared = set(get_algorithm("erm").hparams_class.spaces("large"))
    for name in algorithm_names():
        algorithm = get_algorithm(name)
        paper = inspect.getdoc(sys.modules[algorithm.__module__]) or ""
        rules = [inspect.getdoc(kind) or "" for kind in rule_classes(algorithm)]
        but = shared - ({"batch_size"} if name == "arm" else set())
        lines += ["", f"## `{name}`", "", paper, "", "\n\n".join(rules), *hparams_table(algorithm, but)]
    return "\n".join(lines).replace("``", "`") + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
