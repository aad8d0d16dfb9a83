"""What a report is computed from: samples by domain, and groups of samples with alike targets."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hessalign.checks import require_flag, require_same_length
from hessalign.diagnostics.fitted import class_codes, is_estimator, read_estimator
from hessalign.head import BinaryCrossEntropy, CrossEntropy, HeadDerivatives, HeadLoss
from hessalign.head.losses import resolve_loss
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
        loss: Of the head.
        bias: Whether the head has a bias.
        output_names: Of the outputs, where they are known.
        class_names: Of all classes, where targets are classes and these have names.
        notes: What should be known about the input.
    """

    features: Tensor
    logits: Tensor
    targets: Tensor
    ids: tuple[int | str, ...]
    codes: Tensor
    resolution: float
    loss: HeadLoss
    bias: bool
    output_names: tuple[str, ...] | None = None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def read_input(
    features: Any,
    logits: Any,
    y: Any,
    domains: Any,
    *,
    loss: str | HeadLoss | None = None,
    bias: bool | None = None,
    output_names: Sequence[str] | None = None,
) -> ReportInput:
    """Take tensors of any device, arrays, frames, series and sequences, or an estimator and its samples.

    Args:
        features: Input of the head, ``(n, d)``, or a fitted estimator.
        logits: Output of the head, ``(n, C)`` or ``(n,)``; with an estimator the samples that it takes.
        y: Targets as the loss takes them; class labels may be strings.
        domains: Domain id of each sample.
        loss: Of the head; None for cross-entropy, or an estimator's own.
        bias: Whether the head has one; None for True, or as an estimator has it.
        output_names: Of the outputs; strings as labels are looked up among them.

    Returns:
        Tensors on the processor, in float64.

    Raises:
        ValueError: If something holds no numbers, lengths differ, domain ids are neither integers nor
            strings, a label is no class, or the bias is not the estimator's.
    """
    if bias is not None:
        require_flag("bias", bias)
    if is_estimator(logits):
        raise ValueError(
            f"logits: got a {type(logits).__name__}; a fitted estimator comes first: "
            "alignment_report(estimator, X, y, domains)"
        )
    if is_estimator(features):
        return _read_fitted(features, logits, y, domains, loss, bias, output_names)
    given = {name: _read(name, values) for name, values in (("features", features), ("logits", logits))}
    for name, values in given.items():
        if not values.numel():
            raise ValueError(f"{name}: must hold at least one number, got shape {tuple(values.shape)}")
    outputs = given["logits"].shape[1] if given["logits"].ndim == 2 else 1
    classes = None
    if _is_text(y):
        targets, classes = _read_labels(y, outputs, output_names)
        targets = targets.double() if outputs == 1 else targets
    else:
        targets = _read("y", y)
    lengths = {name: len(values) if values.ndim else 0 for name, values in (*given.items(), ("y", targets))}
    require_same_length(**lengths)
    found = read_domains("domains", domains, lengths["features"])
    floating = given["features"].is_floating_point()
    default = BinaryCrossEntropy() if outputs == 1 else CrossEntropy()
    return ReportInput(
        features=given["features"].double(),
        logits=given["logits"].double(),
        targets=targets.double() if targets.is_floating_point() else targets,
        ids=tuple(found.names.tolist()),
        codes=torch.from_numpy(found.codes),
        resolution=torch.finfo(given["features"].dtype).eps if floating else 0.0,
        loss=default if loss is None else resolve_loss(loss),
        bias=True if bias is None else bias,
        output_names=None if classes is None else classes[-outputs:] if outputs == 1 else classes,
        class_names=classes,
    )


def _read_fitted(
    estimator: Any,
    samples: Any,
    y: Any,
    domains: Any,
    loss: str | HeadLoss | None,
    bias: bool | None,
    output_names: Sequence[str] | None,
) -> ReportInput:
    head = read_estimator(estimator, samples, y)
    if bias is not None and bias != head.bias:
        raise ValueError(
            f"bias: {type(estimator).__name__} was fitted {'with' if head.bias else 'without'} an intercept, "
            f"got {bias}; leave it out"
        )
    require_same_length(logits=len(head.features), y=len(head.targets))
    found = read_domains("domains", domains, len(head.features))
    return ReportInput(
        features=head.features,
        logits=head.logits,
        targets=head.targets,
        ids=tuple(found.names.tolist()),
        codes=torch.from_numpy(found.codes),
        resolution=torch.finfo(torch.float32).eps if _is_single(samples) else torch.finfo(torch.float64).eps,
        loss=head.loss if loss is None else resolve_loss(loss),
        bias=head.bias,
        output_names=None if output_names is not None else head.output_names,
        class_names=head.class_names,
        notes=head.notes if loss is None else (),
    )


def _read(name: str, values: Any) -> Tensor:
    tensor = as_tensor(name, values).detach()
    if tensor.is_meta:
        raise ValueError(f"{name}: a tensor on the device meta holds no numbers to report on")
    return tensor.cpu()


def _is_single(values: Any) -> bool:
    return getattr(values, "dtype", None) in (np.float32, torch.float32)


def _is_text(y: Any) -> bool:
    """Whether targets are class labels in words."""
    if y is None or isinstance(y, Tensor | str | bytes | dict | set):
        return False
    if isinstance(y, list | tuple):  # NumPy would make strings of numbers that stand among strings
        return len(y) > 0 and all(isinstance(each, str) for each in y)
    array = np.asarray(y)
    if array.dtype.kind == "O":
        return array.size > 0 and all(isinstance(each, str) for each in array.flat)
    return array.dtype.kind in "UT"


def _read_labels(y: Any, outputs: int, names: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Class ids of labels in words, and the classes in the order of the logits.

    That is the order of ``output_names``, and without these the ascending one, as scikit-learn has it.

    Returns:
        Ids ``(n,)``, and names.

    Raises:
        ValueError: If there are not as many labels as logits, or one is no class.
    """
    distinct = read_domains("y", y, len(np.asarray(y)), "class").names
    classes = 2 if outputs == 1 else outputs
    if outputs > 1 and names is not None:
        known = np.array(check_names(names, [""] * outputs, "output_names"))
    else:
        known = distinct
        if len(known) != classes:
            raise ValueError(
                f"y: {len(known)} different labels cannot be matched to {classes} classes; name all classes "
                "in the order of the logits by output_names, or pass class ids"
            )
    return class_codes(y, known, len(np.asarray(y))), tuple(map(str, known.tolist()))


def split_domains(given: ReportInput) -> list[DomainSamples]:
    """The samples by domain, in ascending order of the domains' ids.

    Returns:
        One for each domain.

    Raises:
        ValueError: If shapes, types or values do not fit, there are fewer than 2 domains, fewer than 2 have
            more than one sample, or the loss weighs samples unequally.
    """
    logits = given.logits.unsqueeze(1) if given.logits.ndim == 1 else given.logits
    sizes = given.codes.bincount().tolist()
    if len(sizes) < 2:
        raise ValueError(f"domains: at least 2 different ids are needed, got {len(sizes)}")
    if sum(size > 1 for size in sizes) < 2:
        lonely = given.ids[sizes.index(min(sizes))]
        raise ValueError(
            "domains: at least 2 need at least 2 samples each to tell a difference from chance, "
            f"but there is only 1 of {lonely!r}"
        )
    order = given.codes.argsort(stable=True)
    features, logits, targets = given.features[order], logits[order], given.targets[order]
    try:
        derivatives = HeadDerivatives.from_logits(features, logits, targets, given.loss, bias=given.bias)
    except ValueError as error:
        # The report's argument is called y, as everywhere in scikit-learn.
        raise ValueError(re.sub("^targets:", "y:", str(error))) from error
    if derivatives.weight is not None:
        raise ValueError(
            "loss: a report weighs all samples of a domain alike; leave out class_weight and ignore_index"
        )
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

    Returns:
        Integers from 0.
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
    """What the groups of ``target_groups`` are called: like the outputs where they are classes."""
    targets = given.targets
    if given.class_names is not None:
        present = targets.unique() if targets.ndim == 1 else torch.arange(groups)
        return [given.class_names[int(value)] for value in present]
    if len(outputs) > 1 and targets.ndim == 1 and not targets.is_floating_point():
        return [outputs[int(value)] for value in targets.unique()]
    if targets.ndim == 2 and targets.shape[1] > 1 and _is_probability(targets):
        return list(outputs[:groups])
    return [f"group {number}" for number in range(groups)]


def check_names(names: Sequence[str] | None, default: Sequence[str], what: str) -> tuple[str, ...]:
    """The names, or the default where none are given.

    Returns:
        As many as there are defaults.

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
