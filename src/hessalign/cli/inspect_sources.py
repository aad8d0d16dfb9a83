"""What ``hessalign inspect`` can look at, each made into a report."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from hessalign.datasets import DomainDataset, make_dataset
from hessalign.datasets.registry import PARQUET, USERS_OWN, find_data
from hessalign.diagnostics import AlignmentReport, alignment_report
from hessalign.diagnostics.outputs import HeadOutputs, feature_outputs, run_outputs
from hessalign.exceptions import UntrustworthyWarning
from hessalign.experiments.colored_mnist import RestartSpec, label_of, load_model, model_outputs
from hessalign.experiments.colored_mnist.network import ColoredMLP
from hessalign.training import load_trained

COLORED_MNIST_DOMAINS = ("source 80 %", "source 90 %", "target 10 %")
"""By how often colour and label agree."""


@dataclass(frozen=True)
class InspectOptions:
    """How to look.

    Attributes:
        dataset: Name of the dataset, a folder or a CSV file; None for the one of the run.
        root: Folder that holds it.
        per_domain: At most so many samples of each domain; None for all.
        device: Where networks are computed.
        seed: Of the networks that draw random numbers when they predict, as MTL does in DomainBed's variant.
        report: Arguments of [alignment_report][hessalign.alignment_report] besides data and names.
    """

    dataset: str | None
    root: Path | None
    per_domain: int | None
    device: torch.device
    seed: int = 0
    report: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Inspected:
    """A report and what it is of."""

    title: str
    report: AlignmentReport


def inspect_all(sources: Sequence[Path], options: InspectOptions) -> dict[str, AlignmentReport]:
    """A report on each source, by title.

    Returns:
        The reports, in the order of the sources.

    Raises:
        ValueError: If something there cannot be inspected.
        OSError: If a sample cannot be read.
    """
    torch.manual_seed(options.seed)
    found = [_inspect(source, options) for source in sources]
    titles = [item.title for item in found]
    if len(set(titles)) < len(titles):
        titles = [f"{item.title} ({source})" for item, source in zip(found, sources, strict=True)]
    if len(set(titles)) < len(titles):
        raise ValueError(f"against: {sources[-1]} is the same as the first; choose another to compare with")
    return {title: item.report for title, item in zip(titles, found, strict=True)}


def _inspect(source: Path, options: InspectOptions) -> Inspected:
    if source.suffix.lower() == PARQUET:
        return _inspect_features(source, options)
    if source.is_dir():
        return _inspect_run(source, options)
    try:
        network, spec = load_model(source)
    except ValueError:  # no network of the Colored MNIST experiment
        return _inspect_features(source, options)
    return _inspect_colored_mnist(network, spec, options)


def _inspect_run(source: Path, options: InspectOptions) -> Inspected:
    algorithm, about = load_trained(source)
    name = options.dataset or about.run.dataset
    if name in USERS_OWN and options.root is None:
        raise ValueError(
            f"dataset: {source} was trained on data of your own ({name}), and a run does not record where "
            "that lies; name the file or folder with --dataset"
        )
    dataset = find_data(name, options.root).open(about.run.trial_seed)
    if dataset.input_shape != about.input_shape or dataset.class_names != about.class_names:
        raise ValueError(
            f"dataset: {name} has inputs of shape {dataset.input_shape} and the classes "
            f"{', '.join(dataset.class_names)}, but the model was trained on {about.input_shape} and "
            f"{', '.join(about.class_names)}"
        )
    outputs = run_outputs(algorithm.to(options.device), dataset, options.per_domain, options.device)
    return Inspected(about.run.algorithm, _report(outputs, dataset, options))


def _inspect_features(source: Path, options: InspectOptions) -> Inspected:
    name = "parquet_features" if source.suffix.lower() == PARQUET else "features_file"
    dataset = make_dataset(name, source)
    return Inspected(
        f"{source.stem}, logistic head",
        _report(feature_outputs(dataset, options.per_domain), dataset, options),
    )


def _inspect_colored_mnist(network: ColoredMLP, spec: RestartSpec, options: InspectOptions) -> Inspected:
    outputs = model_outputs(network, spec, options.per_domain)
    report = _noted_report(
        outputs.features,
        outputs.logits,
        outputs.labels,
        outputs.domains,
        COLORED_MNIST_DOMAINS,
        loss="binary_cross_entropy",
        output_names=("digit below 5",),
        **options.report,
    )
    return Inspected(label_of(spec), report)


def _report(outputs: HeadOutputs, dataset: DomainDataset, options: InspectOptions) -> AlignmentReport:
    return _noted_report(
        outputs.features,
        outputs.logits,
        outputs.targets,
        outputs.domains,
        [domain.name for domain in dataset.domains],
        output_names=dataset.class_names,
        **options.report,
    )


def _noted_report(*data: Any, **options: Any) -> AlignmentReport:
    """A report whose notes are shown with it, and not as warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UntrustworthyWarning)
        return alignment_report(*data, **options)
