"""What a report is computed from: samples by domain, and groups of samples with alike targets."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hessalign.checks import require_same_length
from hessalign.head import HeadDerivatives, HeadLoss
from hessalign.inputs import as_tensor, read_domains

# Fewer distinct targets than this are classes; more are a quantity, cut into bins.
MOST_CLASSES = 20
TARGET_BINS = 5


@dataclass(frozen=True, eq=False)
class DomainSamples:
    """One domain's samples.

    Attributes:
        derivatives: Of the domain's mean loss with respect to the head.
        logits: ``(n, C)``.
        targets: As the loss takes them, ``(n, ...)``.
        groups: Group of alike targets of each sample, ``(n,)``.
        indices: Place of each sample in what the user gave, ``(n,)``.
    """

    derivatives: HeadDerivatives
    logits: Tensor
    targets: Tensor
    groups: Tensor
    indices: Tensor

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.indices)


@dataclass(frozen=True, eq=False)
class ReportInput:
    """What a report is asked about, on the processor and in float64.

    A report is made once, not in every step: in float64 nothing that it subtracts drowns in rounding.

    Attributes:
        features: ``(n, d)``.
        logits: ``(n, C)``.
        targets: As the loss takes them, ``(n, ...)``.
        ids: The distinct domain ids, ascending: integers or strings.
        codes: Position in ``ids`` of each sample's domain, ``(n,)``.
        resolution: Relative distance of neighbouring numbers in the type that the features came in.
    """

    features: Tensor
    logits: Tensor
    targets: Tensor
    ids: tuple[int | str, ...]
    codes: Tensor
    resolution: float


def read_input(features: Any, logits: Any, y: Any, domains: Any) -> ReportInput:
    """Take tensors of any device, arrays, frames, series and sequences.

    Raises:
        ValueError: If something holds no numbers, lengths differ, or domain ids are neither integers nor
            strings.
    """
    given = {
        name: _read(name, values) for name, values in (("features", features), ("logits", logits), ("y", y))
    }
    lengths = {name: len(values) if values.ndim else 0 for name, values in given.items()}
    require_same_length(**lengths)
    for name in ("features", "logits"):
        if not given[name].numel():
            raise ValueError(f"{name}: must hold at least one number, got shape {tuple(given[name].shape)}")
    found = read_domains("domains", domains, lengths["features"])
    floating = given["features"].is_floating_point()
    targets = given["y"]
    return ReportInput(
        features=given["features"].double(),
        logits=given["logits"].double(),
        targets=targets.double() if targets.is_floating_point() else targets,
        ids=tuple(found.names.tolist()),
        codes=torch.from_numpy(found.codes),
        resolution=torch.finfo(given["features"].dtype).eps if floating else 0.0,
    )


def _read(name: str, values: Any) -> Tensor:
    tensor = as_tensor(name, values).detach()
    if tensor.is_meta:
        raise ValueError(f"{name}: a tensor on the device meta holds no numbers to report on")
    return tensor.cpu()


def split_domains(given: ReportInput, loss: HeadLoss) -> list[DomainSamples]:
    """The samples by domain, in ascending order of the domains' ids.

    Raises:
        ValueError: If shapes, types or values do not fit, there are fewer than 2 domains, or a domain has
            fewer than 2 samples.
    """
    logits = given.logits.unsqueeze(1) if given.logits.ndim == 1 else given.logits
    sizes = given.codes.bincount().tolist()
    if len(sizes) < 2:
        raise ValueError(f"domains: at least 2 different ids are needed, got {len(sizes)}")
    if min(sizes) < 2:
        lonely = given.ids[sizes.index(min(sizes))]
        raise ValueError(
            "domains: each needs at least 2 samples to tell a difference from chance, "
            f"but there is only 1 of {lonely!r}"
        )
    order = given.codes.argsort(stable=True)
    features, logits, targets = given.features[order], logits[order], given.targets[order]
    try:
        derivatives = HeadDerivatives.from_logits(features, logits, targets, loss)
    except ValueError as error:
        # The report's argument is called y, as everywhere in scikit-learn.
        raise ValueError(re.sub("^targets:", "y:", str(error))) from error
    parts = zip(
        derivatives.split(sizes),
        logits.split(sizes),
        targets.split(sizes),
        target_groups(given.targets)[order].split(sizes),
        order.split(sizes),
        strict=True,
    )
    return [DomainSamples(*part) for part in parts]


def target_groups(targets: Tensor) -> Tensor:
    """Groups of samples with alike targets, ``(n,)``: classes, or bins of equal size of a real target.

    Class probabilities count as their most probable class; several real targets are cut along their
    leading principal direction.
    """
    if targets.ndim == 2 and targets.shape[1] > 1 and _is_probability(targets):
        return targets.argmax(1)
    values = targets.reshape(len(targets), -1)
    distinct, ids = torch.unique(values, dim=0, return_inverse=True)
    if len(distinct) <= MOST_CLASSES or (targets.ndim == 1 and not targets.is_floating_point()):
        classes: Tensor = ids
        return classes
    centred = values.double() - values.double().mean(0)
    line = centred @ torch.linalg.svd(centred, full_matrices=False).Vh[0]
    cuts = torch.quantile(
        line[:: 1 + len(line) // 100_000], torch.linspace(0, 1, TARGET_BINS + 1)[1:-1].double()
    )
    return torch.bucketize(line, cuts)


def group_names(given: ReportInput, outputs: Sequence[str], groups: int) -> list[str]:
    """What the groups of [target_groups][] are called: like the outputs where they are classes."""
    targets = given.targets
    if len(outputs) > 1 and targets.ndim == 1 and not targets.is_floating_point():
        return [outputs[int(value)] for value in targets.unique()]
    if targets.ndim == 2 and targets.shape[1] > 1 and _is_probability(targets):
        return list(outputs[:groups])
    return [f"group {number}" for number in range(groups)]


def check_names(names: Sequence[str] | None, default: Sequence[str], what: str) -> tuple[str, ...]:
    """The names, or the default where none are given.

    Raises:
        ValueError: If they are no strings, their number is wrong or two are equal.
    """
    if names is None:
        return tuple(default)
    count = len(default)
    listed = [names] if isinstance(names, str | bytes) or not isinstance(names, Iterable) else list(names)
    if len(listed) != count or not all(isinstance(name, str) for name in listed) or len(set(listed)) != count:
        raise ValueError(f"{what}: {count} different strings are needed, got {listed}")
    # Bytes that are no UTF-8 cannot be written to any file.
    return tuple(name.encode("utf-8", "backslashreplace").decode("utf-8") for name in listed)


def _is_probability(targets: Tensor) -> bool:
    if not targets.is_floating_point() or bool((targets < 0).any()):
        return False
    sums = targets.sum(1)
    return torch.allclose(sums, torch.ones_like(sums), atol=1e-3)
