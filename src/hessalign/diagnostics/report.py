r"""What differs between domains, as the classifier's head sees it."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from hessalign import diagnostics
from hessalign.checks import require_number, require_whole
from hessalign.diagnostics.attributes import AttributeComparison, attribute_names, standardised
from hessalign.diagnostics.data import SAID, DomainReport, Plot, Table
from hessalign.diagnostics.densities import DensityShift, density_shift
from hessalign.diagnostics.distances import (
    domain_eigenvalues,
    hessian_traces,
    mean_distances,
    spectral_distances,
)
from hessalign.diagnostics.means import Pairs, diagonal_means, gradient_means, hessian_means
from hessalign.diagnostics.samples import (
    DomainSamples,
    ReportInput,
    check_names,
    group_names,
    read_input,
    split_domains,
)
from hessalign.diagnostics.tables import (
    attribute_table,
    distance_table,
    domain_table,
    eigenvalue_table,
    group_table,
    pair_table,
    part_table,
    plane_table,
    sample_table,
    shift_table,
)
from hessalign.exceptions import UntrustworthyWarning
from hessalign.head import HeadDerivatives, HeadLoss

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CERTAIN_PREDICTION = 1e-9
"""Curvature below which a prediction leaves nothing to compare."""

LARGEST_SQUARE = 1e150
"""Of a sample's Hessian: its own square is needed for intervals, and must be finite in float64."""


class AlignmentReport(DomainReport):
    """Tables about the differences between domains. Made by [alignment_report][hessalign.alignment_report].

    ``print(report)`` is a summary, and notebooks show the table of pairs.

    Attributes:
        names: Names of the domains.
        sizes: Number of samples of each.
        radius: δ of the transfer bound.
        level: Share of intervals that hold the truth.
        replicates: Number of bootstrap replicates; 0 for no intervals.
        attributes: Names of the attributes that are told apart.
        notes: What should not be believed, or could not be told, and why; empty for most.
        tables: By name; see [to_frame][hessalign.diagnostics.AlignmentReport.to_frame].

    Examples:
        >>> import torch
        >>> from hessalign import alignment_report
        >>> generator = torch.Generator().manual_seed(0)
        >>> features = torch.randn(60, 3, generator=generator)
        >>> y, sites = torch.arange(60) % 2, ["north", "west", "west"] * 20
        >>> report = alignment_report(features, features[:, :2], y, sites)
        >>> list(report.names), list(report.sizes)
        (['north', 'west'], [20, 40])
        >>> report.to_frame("domains").height
        2
    """

    def plot(self, kind: Plot = "distances") -> "Figure":
        """A figure for print.

        Args:
            kind: ``"distances"`` (default): heat maps over pairs. ``"eigenvalues"``: of each domain's
                Hessian. ``"attributes"``: what differs, for each pair. ``"plane"``: the domains in the plane
                of the two leading aligned directions.

        Returns:
            The figure, to show or to save.

        Raises:
            ValueError: If there is no such plot.
        """
        return diagnostics.plots.draw({"": self}, kind)

    def to_html(self, path: str | Path) -> None:
        """Write one page that needs nothing else: tables to sort, plots, and what each quantity means.

        Of many domains the page tells the most different and the most alike; all tables then lie in a folder
        beside it, as Parquet, whose name the page tells.

        Args:
            path: Output path of the page.

        Raises:
            OSError: If it cannot be written.
        """
        diagnostics.page.write_html(Path(path), {"": self})

    def _repr_html_(self) -> str:
        """The table of pairs, for notebooks."""
        return diagnostics.page.overview(self)


def alignment_report(
    features: Any,
    logits: Any,
    y: Any,
    domains: Any,
    names: Sequence[str] | None = None,
    *,
    loss: str | HeadLoss | None = None,
    bias: bool | None = None,
    output_names: Sequence[str] | None = None,
    radius: float = 1.0,
    replicates: int = 1000,
    level: float = 0.95,
    eigenvalues: int = 10,
    top_samples: int = 10,
    pairs: int = 200,
    seed: int = 0,
) -> AlignmentReport:
    """Compare every two domains by gradient and Hessian of the head, and tell what differs between them.

    Definitions, formulas and their limits: docs/diagnostics.md. Data may be tensors on any device, NumPy
    arrays, pandas or Polars frames and series, or sequences; whatever it is, it is computed on the processor
    and in float64. A fitted linear estimator of scikit-learn's or of this package, or a pipeline that ends in
    one, takes the place of the head: ``alignment_report(estimator, X, y, domains)``. Features are then what
    its last step sees.

    Args:
        features: Input of the linear head, ``(n, d)``; or a fitted estimator.
        logits: Output of the linear head, ``(n, C)``, ``(n,)`` for one output; with an estimator the samples
            that it takes.
        y: Targets as the loss takes them, ``(n,)`` or ``(n, C)``. Class labels may be strings: those of the
            estimator, or in the order of ``output_names``, or as many as there are classes, ascending.
        domains: Domain id of each sample, ``(n,)``, in any order: integers or strings.
        names: Names of the domains in ascending order of their ids. Default: the ids, ``"domain 0"`` where
            they are integers.
        loss: As [from_logits][hessalign.head.HeadDerivatives.from_logits] takes it, without class
            weights. Default: an estimator's own; else cross-entropy, for one logit the binary one.
        bias: Whether the head has a bias, whose derivatives then count. Default: as the estimator has it;
            else True.
        output_names: Names of the outputs, for classes their names; by default those of the estimator's
            classes, or ``"output 0"``, ``"output 1"`` ...
        radius: δ of the transfer bound ``½ δ² ‖H_e − H_f‖₂``: how far the head may move, in units of its
            weights.
        replicates: Number of bootstrap replicates; 0 for no intervals.
        level: Share of intervals that hold the truth, between 0 and 1.
        eigenvalues: How many of each domain.
        top_samples: How many for each pair and quantity.
        pairs: Most pairs that are compared in full, default 200, all of 20 domains. Of more, the most
            different and the most alike are, half of each, by the Hessian's Frobenius distance; all others
            have no intervals, spectral distances, parts and samples.
        seed: Seed of the bootstrap and of what is drawn from large domains.

    Returns:
        The report.

    Raises:
        ValueError: If an argument is out of range, shapes do not fit, a value is NaN or infinite, there are
            fewer than 2 domains or fewer than 2 with more than one sample, an estimator is not fitted or not
            linear, or values are so large that the report is not finite.

    Warns:
        UntrustworthyWarning: If there are too few samples for some attributes, domains or replicates, an
            estimator was not fitted by cross-entropy, or nothing could differ: constant features, or
            predictions that are constant or certain.

    Examples:
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
    pairs = require_whole("pairs", pairs, least=1)
    seed = require_whole("seed", seed, least=0, most=2**63 - 1)
    if replicates == 1:
        raise ValueError("replicates: must be 0, for no intervals, or at least 2, got 1")
    given = read_input(features, logits, y, domains, loss=loss, bias=bias, output_names=output_names)
    split = split_domains(given)
    default = [str(each) if isinstance(each, str) else f"domain {each}" for each in given.ids]
    domain_names = check_names(names, default, "names")
    outputs = split[0].derivatives.residual.shape[1]
    unnamed = given.output_names or [f"output {number}" for number in range(outputs)]
    named = check_names(output_names, unnamed, "output_names")
    derivatives = [samples.derivatives for samples in split]
    _require_range(given, derivatives)
    draws = torch.Generator().manual_seed(seed)
    bootstrap = np.random.default_rng(seed)
    spectra = domain_eigenvalues(derivatives, eigenvalues)
    full = _pairs_in_full(derivatives, pairs, draws)
    hessians, hessian_parts = hessian_means(derivatives, draws, full)
    means = {
        "gradient": gradient_means(derivatives, full),
        "Hessian diagonal": diagonal_means(derivatives, full),
        "Hessian Frobenius": hessians,
    }
    largest = [float(values[0].abs()) for values in spectra]
    distances = {
        quantity: mean_distances(each, replicates, level, bootstrap) for quantity, each in means.items()
    }
    distances["Hessian spectral"] = spectral_distances(
        derivatives, largest, replicates, level, bootstrap, full
    )
    comparison = AttributeComparison(split, given.loss, draws, given.resolution, full)
    indices = [samples.indices for samples in split]
    gradients = torch.stack([domain.gradient() for domain in derivatives])
    groups = group_names(given, named, comparison.group_count)
    domain_column = pl.Series(domain_names, dtype=pl.String)
    tables: dict[Table, pl.DataFrame] = {
        "distances": distance_table(distances, means, domain_column, gradients, radius),
        "attributes": attribute_table(comparison, domain_column),
        "groups": group_table(comparison, domain_column, groups),
        "parts": part_table(gradients, hessian_parts, full, domain_names, named, given),
        "eigenvalues": eigenvalue_table(spectra, domain_names),
        "samples": sample_table(distances, domain_names, indices, top_samples),
        "plane": plane_table(derivatives, gradients, domain_names),
        "shift": shift_table(_density_shifts(comparison, split, full, seed), full, domain_names),
    }
    tables["pairs"] = pair_table(means, comparison, full, domain_column)
    tables["domains"] = domain_table(hessians, spectra, hessian_traces(derivatives), domain_names)
    report = AlignmentReport(
        names=domain_names,
        sizes=tuple(map(len, split)),
        radius=radius,
        level=level,
        replicates=replicates,
        attributes=attribute_names(given.loss),
        notes=(
            *given.notes,
            *_about_input(given, split),
            *_about_sizes(split, domain_names),
            *_about_replicates(replicates, level),
            *(sentence for each in comparison.effects for sentence in each.summaries()),
        ),
        tables=tables,
    )
    if report.notes:
        warnings.warn(UntrustworthyWarning("alignment_report: " + " ".join(report.notes)), stacklevel=2)
    return report


def _pairs_in_full(derivatives: Sequence[HeadDerivatives], most: int, generator: torch.Generator) -> Pairs:
    """All pairs, or of too many the most different and the most alike, half of each."""
    everything = Pairs.all_of(len(derivatives))
    if len(everything.chosen) <= most:
        return everything
    means, _ = hessian_means(derivatives, generator, Pairs(len(derivatives), ()))
    first, second = np.triu_indices(len(derivatives), 1)
    sizes = (means.debiased() / means.scales()).numpy()[first, second]
    # Pairs of which chance is not known are neither different nor alike: NaN comes last.
    order = np.argsort(-sizes, kind="stable")
    known = order[: int(np.isfinite(sizes).sum())]
    alike = min(most // 2, len(known) // 2)
    chosen = np.concatenate([known[: most - alike], known[len(known) - alike :]])
    return Pairs(
        len(derivatives), tuple(sorted(zip(first[chosen].tolist(), second[chosen].tolist(), strict=True)))
    )


def _density_shifts(
    comparison: AttributeComparison, split: Sequence[DomainSamples], full: Pairs, seed: int
) -> list[DensityShift]:
    """Of the pairs that are compared in full; draws of their own leave those of intervals as they are."""
    random = np.random.default_rng((seed, 1))
    domains = [
        (features.numpy(), samples.groups.numpy())
        for features, samples in zip(comparison.whitened, split, strict=True)
    ]
    return [density_shift(domains[first], domains[second], random) for first, second in full.chosen]


def _about_input(given: ReportInput, split: Sequence[DomainSamples]) -> list[str]:
    """Where nothing can differ, no difference is no alignment."""
    notes = []
    if not standardised(given.features, given.resolution).shape[1]:
        notes.append("features: all samples have the same, so that domains differ in their labels alone.")
    if not standardised(given.logits.reshape(len(given.logits), -1), given.resolution).shape[1]:
        notes.append("logits: the prediction is constant; domains that look alike here need not be alike.")
    elif all(
        float(samples.derivatives.curvature.diagonal().abs().amax()) < CERTAIN_PREDICTION for samples in split
    ):
        notes.append(
            "logits: all predictions are certain, so that Hessians vanish; domains that look alike here need "
            "not be alike."
        )
    return notes


def _about_sizes(split: Sequence[DomainSamples], names: Sequence[str]) -> list[str]:
    """A single sample has distances, but nothing to tell them from chance by."""
    alone = [name for name, samples in zip(names, split, strict=True) if len(samples) == 1]
    if not alone:
        return []
    more = f" and {len(alone) - SAID} more" if len(alone) > SAID else ""
    return [
        f"domains: {len(alone)} of {len(names)} have a single sample ({', '.join(alone[:SAID])}{more}); "
        "their distances cannot be told from chance, and they are not ranked."
    ]


def _about_replicates(replicates: int, level: float) -> list[str]:
    needed = math.ceil(2 / (1 - level) - 1e-9) - 1
    if not 0 < replicates < needed:
        return []
    return [
        f"replicates: {replicates} are too few for intervals of {100 * level:g} %; give at least {needed}."
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
