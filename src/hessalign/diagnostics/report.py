r"""What differs between domains, as the classifier's head sees it."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import polars as pl
import torch
from torch import Tensor

from hessalign import diagnostics
from hessalign.checks import require_choice, require_number, require_whole
from hessalign.diagnostics.attributes import (
    AttributeComparison,
    Difference,
    attribute_names,
    standardised,
)
from hessalign.diagnostics.distances import PairDistance, mean_distances, spectral_distances
from hessalign.diagnostics.groups import (
    DomainSamples,
    ReportInput,
    check_names,
    group_names,
    read_input,
    split_domains,
)
from hessalign.diagnostics.hessian_means import hessian_means
from hessalign.diagnostics.means import diagonal_means, gradient_means, pairwise_differences
from hessalign.diagnostics.spectra import domain_eigenvalues
from hessalign.diagnostics.transfer import gradient_term, transfer_bound
from hessalign.exceptions import UntrustworthyWarning
from hessalign.head import HeadDerivatives, HeadLoss, SquaredError
from hessalign.head.losses import resolve_loss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Table = Literal["distances", "attributes", "groups", "parts", "eigenvalues", "samples", "plane"]
Plot = Literal["distances", "eigenvalues", "attributes", "plane"]

GRADIENT_PARTS = ("error", "error-weighted features")
HESSIAN_PARTS = ("confidence", "confidence-weighted features", "confidence-weighted second moments")
REGRESSION_HESSIAN_PARTS = ("curvature", "curvature-weighted features", "curvature-weighted second moments")

CERTAIN_PREDICTION = 1e-9
"""Curvature below which a prediction leaves nothing to compare."""

LARGEST_SQUARE = 1e150
"""Of a sample's Hessian: its own square is needed for intervals, and must be finite in float64."""


@dataclass(frozen=True, eq=False)
class AlignmentReport:
    """Tables about the differences between domains. Made by [alignment_report][hessalign.alignment_report].

    Attributes:
        names: Of the domains.
        sizes: Number of samples of each.
        radius: δ of the transfer bound.
        level: Of the intervals.
        replicates: Of the bootstrap.
        attributes: Names of the attributes that are told apart.
        notes: What should not be believed, or could not be told, and why; empty for most.
        tables: By name; see [to_frame][hessalign.diagnostics.AlignmentReport.to_frame].
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    radius: float
    level: float
    replicates: int
    attributes: tuple[str, ...]
    notes: tuple[str, ...]
    tables: dict[Table, pl.DataFrame]

    def to_frame(self, table: Table = "distances") -> pl.DataFrame:
        """One of the report's tables.

        Args:
            table: ``"distances"`` (default): for each pair of domains and each quantity the distance, the
                same relative to the quantities' own norms, without what chance adds, and its interval.
                ``"attributes"``: what differs, ranked, for each pair; where too few samples cannot tell,
                there is neither effect nor rank, and ``note`` says so. ``"groups"``: the same by class.
                ``"parts"``: squared distances split by attribute of Proposition 4 (or 5) and output.
                ``"eigenvalues"``: leading ones of each domain's Hessian. ``"samples"``: those that lengthen a
                distance most. ``"plane"``: the domains in the plane of the two leading aligned directions.

        Raises:
            ValueError: If there is no such table.
        """
        require_choice("table", table, get_args(Table))
        return self.tables[table]

    def plot(self, kind: Plot = "distances") -> "Figure":
        """A figure for print.

        Args:
            kind: ``"distances"`` (default): heat maps over pairs. ``"eigenvalues"``: of each domain's
                Hessian. ``"attributes"``: what differs, for each pair. ``"plane"``: the domains in the plane
                of the two leading aligned directions.

        Raises:
            ValueError: If there is no such plot.
        """
        return diagnostics.plots.draw({"": self}, kind)

    def to_html(self, path: str | Path) -> None:
        """Write one page that needs nothing else: tables to sort, plots, and what each quantity means.

        Raises:
            OSError: If it cannot be written.
        """
        diagnostics.html.write_html(Path(path), {"": self})


def alignment_report(
    features: Any,
    logits: Any,
    y: Any,
    domains: Any,
    names: Sequence[str] | None = None,
    *,
    loss: str | HeadLoss = "cross_entropy",
    output_names: Sequence[str] | None = None,
    radius: float = 1.0,
    replicates: int = 1000,
    level: float = 0.95,
    eigenvalues: int = 10,
    top_samples: int = 10,
    seed: int = 0,
) -> AlignmentReport:
    """Compare every two domains by gradient and Hessian of the head, and tell what differs between them.

    Definitions, formulas and their limits: docs/diagnostics.md. Data may be tensors on any device, NumPy
    arrays, pandas or Polars frames and series, or sequences; whatever it is, it is computed on the processor
    and in float64.

    Args:
        features: Input of the linear head, ``(n, d)``.
        logits: Output of the linear head, ``(n, C)``; ``(n,)`` for one output.
        y: Targets as the loss takes them, ``(n,)`` or ``(n, C)``.
        domains: Domain id of each sample, ``(n,)``, in any order: integers or strings.
        names: Of the domains in ascending order of their ids. Default: the ids, ``"domain 0"`` where they are
            integers.
        loss: As [HeadDerivatives.from_logits][hessalign.HeadDerivatives.from_logits] takes it.
        output_names: Of the outputs, for classes their names; by default ``"output 0"``, ``"output 1"`` ...
        radius: δ of the transfer bound ``½ δ² ‖H_e − H_f‖₂``: how far the head may move, in units of its
            weights.
        replicates: Of the bootstrap; 0 for no intervals.
        level: Of the intervals, between 0 and 1.
        eigenvalues: How many of each domain.
        top_samples: How many for each pair and quantity.
        seed: Of the bootstrap and of what is drawn from large domains.

    Raises:
        ValueError: If an argument is out of range, shapes do not fit, a value is NaN or infinite, there are
            fewer than 2 domains, a domain has a single sample, or values are so large that the report is not
            finite.

    Warns:
        UntrustworthyWarning: If there are too few samples for some attributes or replicates, or nothing that
            could differ: constant features, or predictions that are constant or certain.

    Example:
        >>> import torch
        >>> from hessalign import alignment_report
        >>> head = torch.nn.Linear(4, 3)
        >>> features, y = torch.randn(200, 4), torch.randint(0, 3, (200,))
        >>> domains = ["day", "night"] * 100
        >>> features[1::2] += 1.0
        >>> report = alignment_report(features, head(features), y, domains)
        >>> report.to_frame("attributes")["attribute"][0]
        'feature mean'
    """
    radius = require_number("radius", radius, above=0)
    level = require_number("level", level, above=0, below=1)
    replicates = require_whole("replicates", replicates, least=0)
    eigenvalues = require_whole("eigenvalues", eigenvalues, least=1)
    top_samples = require_whole("top_samples", top_samples, least=0)
    seed = require_whole("seed", seed, least=0, most=2**63 - 1)
    if replicates == 1:
        raise ValueError("replicates: must be 0, for no intervals, or at least 2, got 1")
    head_loss = resolve_loss(loss)
    given = read_input(features, logits, y, domains)
    split = split_domains(given, head_loss)
    default = [str(each) if isinstance(each, str) else f"domain {each}" for each in given.ids]
    domain_names = check_names(names, default, "names")
    outputs = split[0].derivatives.residual.shape[1]
    named = check_names(output_names, [f"output {number}" for number in range(outputs)], "output_names")
    derivatives = [part.derivatives for part in split]
    _require_range(given, derivatives)
    draws = torch.Generator().manual_seed(seed)
    bootstrap = np.random.default_rng(seed)
    spectra = domain_eigenvalues(derivatives, eigenvalues)
    whole, whole_parts = hessian_means(derivatives, draws)
    largest = [float(values[0].abs()) for values in spectra]
    distances = {
        "gradient": mean_distances(gradient_means(derivatives), replicates, level, bootstrap),
        "Hessian diagonal": mean_distances(diagonal_means(derivatives), replicates, level, bootstrap),
        "Hessian Frobenius": mean_distances(whole, replicates, level, bootstrap),
        "Hessian spectral": spectral_distances(derivatives, largest, replicates, level, bootstrap),
    }
    comparison = AttributeComparison(split, head_loss, draws, given.resolution)
    differences = {pair: comparison.differences(*pair) for pair in combinations(range(len(split)), 2)}
    indices = [part.indices for part in split]
    gradients = torch.stack([domain.gradient() for domain in derivatives])
    groups = group_names(given, named, comparison.group_count)
    tables: dict[Table, pl.DataFrame] = {
        "distances": _distance_table(distances, domain_names, gradients, radius),
        "attributes": _attribute_table(differences, domain_names),
        "groups": _group_table(differences, domain_names, groups),
        "parts": _part_table(gradients, whole_parts, domain_names, named, head_loss),
        "eigenvalues": _eigenvalue_table(spectra, domain_names),
        "samples": _sample_table(distances, domain_names, indices, top_samples),
        "plane": _plane_table(derivatives, gradients, domain_names),
    }
    report = AlignmentReport(
        names=domain_names,
        sizes=tuple(map(len, split)),
        radius=radius,
        level=level,
        replicates=replicates,
        attributes=attribute_names(head_loss),
        notes=(
            *_about_input(given, split),
            *_about_replicates(replicates, level),
            *_about_attributes(differences),
        ),
        tables=tables,
    )
    if report.notes:
        warnings.warn(UntrustworthyWarning("alignment_report: " + " ".join(report.notes)), stacklevel=2)
    return report


def _about_input(given: ReportInput, split: Sequence[DomainSamples]) -> list[str]:
    """Where nothing can differ, no difference is no alignment."""
    notes = []
    if not standardised(given.features, given.resolution).shape[1]:
        notes.append("features: all samples have the same, so that domains differ in their labels alone.")
    if not standardised(given.logits.reshape(len(given.logits), -1), given.resolution).shape[1]:
        notes.append("logits: the prediction is constant; domains that look alike here need not be alike.")
    elif all(
        float(part.derivatives.curvature.diagonal().abs().amax()) < CERTAIN_PREDICTION for part in split
    ):
        notes.append(
            "logits: all predictions are certain, so that Hessians vanish; domains that look alike here need "
            "not be alike."
        )
    return notes


def _about_replicates(replicates: int, level: float) -> list[str]:
    needed = math.ceil(2 / (1 - level) - 1e-9) - 1
    if not 0 < replicates < needed:
        return []
    return [
        f"replicates: {replicates} are too few for intervals of {100 * level:g} %; give at least {needed}."
    ]


def _about_attributes(differences: Mapping[tuple[int, int], Sequence[Difference]]) -> list[str]:
    """A sentence for each attribute that is told only in part or not at all, and for how many pairs."""
    notes: dict[tuple[str, bool, str], int] = {}
    for difference in (each for ranked in differences.values() for each in ranked):
        if difference.note:
            key = difference.attribute, difference.effect is not None, difference.note
            notes[key] = notes.get(key, 0) + 1
    return [
        f"{attribute}: {'told' if told else 'not told'} for {count} of {len(differences)} pairs of domains, "
        f"{note}."
        for (attribute, told, note), count in notes.items()
    ]


def _require_range(given: ReportInput, derivatives: Sequence[HeadDerivatives]) -> None:
    """Refuse values whose Hessians have squares that are not finite.

    Raises:
        ValueError: Naming the argument whose values are too large.
    """
    for domain in derivatives:
        sizes = 1 + domain.features.square().sum(1)
        weights = domain.residual.square().sum(1) + domain.curvature.diagonal().square().sum(1)
        if not bool((sizes.square() * weights <= LARGEST_SQUARE).all()):
            break
    else:
        return
    scales = {
        "features": float(given.features.abs().amax()),
        "logits": float(given.logits.abs().amax()),
        "y": float(given.targets.double().abs().amax()),
    }
    name = max(scales, key=scales.__getitem__)
    raise ValueError(
        f"{name}: absolute values of up to {scales[name]:.3g} are too large, squares of Hessians are not "
        "finite; divide by their scale"
    )


def _distance_table(
    distances: dict[str, list[PairDistance]], names: Sequence[str], gradients: Tensor, radius: float
) -> pl.DataFrame:
    rows = [
        {"first": names[pair.first], "second": names[pair.second], "quantity": quantity, **_values(pair)}
        for quantity, pairs in distances.items()
        for pair in pairs
    ]
    for pair in distances["Hessian spectral"]:
        both = {"first": names[pair.first], "second": names[pair.second]}
        values = _values(pair)
        bound = {
            column: None if value is None or column == "relative" else transfer_bound(value, radius)
            for column, value in values.items()
        }
        rows.append({**both, "quantity": "transfer bound", **bound})
        slope = gradient_term(gradients[pair.first], gradients[pair.second], radius)
        rows.append({**both, "quantity": "transfer bound, gradient term", "distance": slope})
    schema = dict.fromkeys(("first", "second", "quantity"), pl.String)
    numbers = dict.fromkeys(("distance", "relative", "debiased", "low", "high"), pl.Float64)
    return pl.DataFrame(rows, schema={**schema, **numbers})


def _values(pair: PairDistance) -> dict[str, float | None]:
    interval = pair.interval
    return {
        "distance": pair.distance,
        "relative": pair.relative,
        "debiased": interval.estimate if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }


def _attribute_table(
    differences: dict[tuple[int, int], list[Difference]], names: Sequence[str]
) -> pl.DataFrame:
    rows = [
        {
            "first": names[first],
            "second": names[second],
            "rank": None if difference.effect is None else place,
            "attribute": difference.attribute,
            "effect": difference.effect,
            # Where chance has no part in a difference, there is no number of its standard deviations.
            "z": difference.z if difference.z != math.inf else None,
            "found": difference.found,
            "note": difference.note,
        }
        for (first, second), ranked in differences.items()
        for place, difference in enumerate(ranked, start=1)
    ]
    schema = {"rank": pl.Int64, "effect": pl.Float64, "z": pl.Float64}
    return pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)


def _group_table(
    differences: dict[tuple[int, int], list[Difference]],
    names: Sequence[str],
    groups: Sequence[str],
) -> pl.DataFrame:
    rows = [
        {
            "first": names[first],
            "second": names[second],
            "attribute": difference.attribute,
            "group": group,
            "effect": effect,
        }
        for (first, second), ranked in differences.items()
        for difference in ranked
        for group, effect in zip(groups, difference.by_group, strict=True)
    ]
    return pl.DataFrame(rows, schema_overrides={"effect": pl.Float64}).with_columns(
        pl.col("effect").fill_nan(None)
    )


def _part_table(
    gradients: Tensor, hessian_parts: Tensor, names: Sequence[str], outputs: Sequence[str], loss: HeadLoss
) -> pl.DataFrame:
    squares = pairwise_differences(gradients)
    gradient_parts = torch.stack([squares[..., -1], squares[..., :-1].sum(-1)], dim=-1)
    hessian_names = REGRESSION_HESSIAN_PARTS if isinstance(loss, SquaredError) else HESSIAN_PARTS
    rows = []
    for derivative, attributes, parts in (
        ("gradient", GRADIENT_PARTS, gradient_parts),
        ("Hessian", hessian_names, hessian_parts),
    ):
        for first, second in combinations(range(len(names)), 2):
            total = float(parts[first, second].sum())
            for place, attribute in enumerate(attributes):
                for output, name in enumerate(outputs):
                    squared = float(parts[first, second, output, place])
                    rows.append(
                        {
                            "first": names[first],
                            "second": names[second],
                            "derivative": derivative,
                            "attribute": attribute,
                            "output": name,
                            "squared distance": squared,
                            "share": squared / total if total > 0 else 0.0,
                        }
                    )
    return pl.DataFrame(rows)


def _eigenvalue_table(spectra: Sequence[Tensor], names: Sequence[str]) -> pl.DataFrame:
    rows = [
        {"domain": name, "number": number, "eigenvalue": float(value)}
        for name, values in zip(names, spectra, strict=True)
        for number, value in enumerate(values, start=1)
    ]
    return pl.DataFrame(rows)


def _sample_table(
    distances: dict[str, list[PairDistance]], names: Sequence[str], indices: Sequence[Tensor], count: int
) -> pl.DataFrame:
    rows = []
    for quantity, pairs in distances.items():
        for pair in pairs:
            influences = torch.cat(pair.influences)
            sides = [
                (names[domain], indices[domain][chosen])
                for domain, chosen in zip((pair.first, pair.second), pair.rows, strict=True)
            ]
            domain_of = [name for name, chosen in sides for _ in range(len(chosen))]
            samples = torch.cat([chosen for _, chosen in sides])
            for place in influences.topk(min(count, len(influences))).indices.tolist():
                rows.append(
                    {
                        "first": names[pair.first],
                        "second": names[pair.second],
                        "quantity": quantity,
                        "domain": domain_of[place],
                        "sample": int(samples[place]),
                        "influence": float(influences[place]),
                    }
                )
    strings = dict.fromkeys(("first", "second", "quantity", "domain"), pl.String)
    return pl.DataFrame(rows, schema={**strings, "sample": pl.Int64, "influence": pl.Float64})


def _plane_table(
    derivatives: Sequence[HeadDerivatives], gradients: Tensor, names: Sequence[str]
) -> pl.DataFrame:
    """Principal components of the domains' gradients and diagonals, each in units of its own mean length."""
    diagonals = torch.stack([domain.diagonal() for domain in derivatives])
    scaled = []
    for values in (gradients, diagonals):
        flat = values.flatten(1).double()
        length = float(flat.norm()) / len(names) ** 0.5
        scaled.append((flat - flat.mean(0)) / (length if length > 0 else 1.0))
    left, singular, _ = torch.linalg.svd(torch.cat(scaled, dim=1), full_matrices=False)
    coordinates = left[:, :2] * singular[:2]
    total = float(singular.square().sum())
    shares = [float(value) ** 2 / total if total > 0 else 0.0 for value in singular[:2]]
    return pl.DataFrame(
        {
            "domain": list(names),
            "first direction": coordinates[:, 0].tolist(),
            "second direction": coordinates[:, 1].tolist(),
            "first share": [shares[0]] * len(names),
            "second share": [shares[1]] * len(names),
        }
    )
