"""What there is to say of an algorithm: paper, rule, needs, and hyper-parameters with their search."""

import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import get_args

from hessalign.algorithms.base import Algorithm
from hessalign.algorithms.hparams import Choice, Distribution, Fixed, HParams, LogUniform, Uniform, Value
from hessalign.algorithms.registry import get_algorithm
from hessalign.datasets.base import SearchSpace

PAPER = re.compile(r"\((?!see )[^()]*\b((?:19|20)\d\d)\)[.,]")
"""Authors, place and year in brackets, as the first line of an algorithm's file has them."""
SPACES = get_args(SearchSpace)


@dataclass(frozen=True)
class HParamDescription:
    """What there is to say of a hyper-parameter.

    Attributes:
        name: Its name.
        meaning: In a sentence.
        reference_name: DomainBed's name, which seeds its draw; None where it is not searched.
        defaults: By search space; all the same where it is not searched.
        searches: Search distribution by search space, in a few signs; empty where it is not searched.
        is_shared: Whether every algorithm has it, with the same defaults and the same search.
    """

    name: str
    meaning: str
    reference_name: str | None
    defaults: Mapping[str, Value]
    searches: Mapping[str, str]
    is_shared: bool


@dataclass(frozen=True)
class AlgorithmDescription:
    """What there is to say of an algorithm.

    Attributes:
        name: What commands know it by.
        reference_name: DomainBed's spelling, which seeds the runs of a sweep.
        paper: Its full name and the paper.
        year: Of the paper; None for an algorithm without one.
        rule: The formula, with words around it, in Markdown.
        needs_images: Whether it works on images only.
        needs_domains: Source domains from which on the rule does what it is for.
        needs_samples: Samples of each domain in a batch from which on it is defined.
        needs_trainable_backbone: Whether it is of no use to a bare head on frozen features.
        hparams: Its hyper-parameters, its own ones first.
    """

    name: str
    reference_name: str
    paper: str
    year: int | None
    rule: str
    needs_images: bool
    needs_domains: int
    needs_samples: int
    needs_trainable_backbone: bool
    hparams: tuple[HParamDescription, ...]


def describe_algorithm(name: str) -> AlgorithmDescription:
    """Everything that the algorithm's own file says of it.

    Args:
        name: Name of the algorithm, in any spelling.

    Returns:
        Paper, rule, needs and hyper-parameters.

    Raises:
        ValueError: If there is none.
    """
    algorithm = get_algorithm(name)
    paper = _in_markdown(inspect.getdoc(sys.modules[algorithm.__module__]) or "")
    found = PAPER.search(paper.split("\n")[0])
    kinds = [kind for kind in algorithm.mro() if issubclass(kind, Algorithm) and kind is not Algorithm]
    return AlgorithmDescription(
        name=algorithm.name,
        reference_name=algorithm.reference_name,
        paper=paper,
        year=int(found[1]) if found else None,
        rule="\n\n".join(_in_markdown(inspect.getdoc(kind) or "") for kind in kinds),
        needs_images=algorithm.needs_images,
        needs_domains=algorithm.needs_domains,
        needs_samples=algorithm.needs_samples,
        needs_trainable_backbone=algorithm.needs_trainable_backbone,
        hparams=_describe_hparams(algorithm.hparams_class),
    )


def search_text(search: Distribution) -> str:
    """A distribution in a few signs, ``"10^U(-5, -1)"`` say."""
    match search:
        case LogUniform(first, second, base, whole):
            low, high = sorted((first, second))
            text = f"{base:g}^U({low:g}, {high:g})"
            return f"int({text})" if whole else text
        case Uniform(low, high, whole):
            return f"int(U({low:g}, {high:g}))" if whole else f"U({low:g}, {high:g})"
        case Choice(values):
            return f"one of {', '.join(map(value_text, values))}"
        case Fixed(value):
            return f"always {value_text(value)}"


def value_text(value: Value) -> str:
    """A value of a hyper-parameter, as short as it can be told."""
    return f"{value:g}" if isinstance(value, int | float) and not isinstance(value, bool) else str(value)


def _describe_hparams(hparams_class: type[HParams]) -> tuple[HParamDescription, ...]:
    spaces = {name: hparams_class.spaces(name) for name in SPACES}
    shared = {name: HParams.spaces(name) for name in SPACES}
    references, meanings = hparams_class.reference_names(), _meanings(hparams_class)
    found = []
    for name, field in hparams_class.model_fields.items():
        is_searched = name in references
        found.append(
            HParamDescription(
                name=name,
                meaning=meanings.get(name, ""),
                reference_name=references.get(name),
                defaults={
                    space: spaces[space][name].default if is_searched else field.default for space in SPACES
                },
                searches={space: search_text(spaces[space][name].search) for space in SPACES}
                if is_searched
                else {},
                is_shared=is_searched
                and all(spaces[space][name] == shared[space].get(name) for space in SPACES),
            )
        )
    return tuple(sorted(found, key=lambda hparam: hparam.is_shared))


def _meanings(hparams_class: type[HParams]) -> dict[str, str]:
    """What the docstrings of the class and those above it say of each attribute; the nearest counts."""
    meanings: dict[str, str] = {}
    for kind in reversed([kind for kind in hparams_class.mro() if issubclass(kind, HParams)]):
        _, _, attributes = (inspect.getdoc(kind) or "").partition("Attributes:\n")
        for name, meaning in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE):
            meanings[name] = _in_markdown(" ".join(meaning.split()))
    return meanings


def _in_markdown(docstring: str) -> str:
    return docstring.replace("``", "`")
