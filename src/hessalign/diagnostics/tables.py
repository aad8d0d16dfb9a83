"""From what was computed to the tables of a report."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform
from torch import Tensor

from hessalign.diagnostics.attributes import AttributeComparison, ranking
from hessalign.diagnostics.densities import DensityShift
from hessalign.diagnostics.distances import PairDistance, gradient_term, transfer_bound
from hessalign.diagnostics.means import DomainMeans, Pairs
from hessalign.diagnostics.samples import ReportInput
from hessalign.head import HeadDerivatives, SquaredError

GRADIENT_PARTS = ("error", "error-weighted features")
HESSIAN_PARTS = ("confidence", "confidence-weighted features", "confidence-weighted second moments")
REGRESSION_HESSIAN_PARTS = ("curvature", "curvature-weighted features", "curvature-weighted second moments")


def distance_table(
    distances: Mapping[str, Sequence[PairDistance]],
    means: Mapping[str, DomainMeans],
    names: pl.Series,
    gradients: Tensor,
    radius: float,
) -> pl.DataFrame:
    """Each pair's distances: of all in closed form, of those compared in full with intervals and bounds."""
    first, second = _above(len(names))
    frames = []
    for quantity, each in means.items():
        intervals = {(pair.first, pair.second): pair.interval for pair in distances[quantity]}
        found = [intervals.get(pair) for pair in zip(first.tolist(), second.tolist(), strict=True)]
        distance = each.distances.sqrt()
        values = {"distance": distance, "relative": distance / each.scales(), "debiased": each.debiased()}
        frames.append(
            pl.DataFrame(
                {
                    **_pair_columns(names, first, second),
                    "quantity": pl.repeat(quantity, len(first), eager=True),
                    **{name: matrix.numpy()[first, second] for name, matrix in values.items()},
                    "low": pl.Series([limits and limits.low for limits in found], dtype=pl.Float64),
                    "high": pl.Series([limits and limits.high for limits in found], dtype=pl.Float64),
                }
            )
        )
    spectral = distances["Hessian spectral"]
    rows = [
        {
            "first": names[pair.first],
            "second": names[pair.second],
            "quantity": "Hessian spectral",
            **_values(pair),
        }
        for pair in spectral
    ]
    for pair in spectral:
        both = {"first": names[pair.first], "second": names[pair.second]}
        bound = {
            column: None if value is None or column == "relative" else transfer_bound(value, radius)
            for column, value in _values(pair).items()
        }
        rows.append({**both, "quantity": "transfer bound", **bound})
        slope = gradient_term(gradients[pair.first], gradients[pair.second], radius)
        rows.append({**both, "quantity": "transfer bound, gradient term", "distance": slope})
    return _without_nan(pl.concat([*frames, pl.DataFrame(rows, schema=frames[0].schema)]))


def attribute_table(comparison: AttributeComparison, names: pl.Series) -> pl.DataFrame:
    """Each pair's attributes, ranked."""
    first, second = _above(len(names))
    effects = comparison.effects
    order = ranking(effects, first, second)
    rows = np.arange(len(first))[:, None]

    def ordered(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
        stacked = np.stack([matrix[first, second] for matrix in values], axis=1)
        return stacked[rows, order].ravel()

    effect, z = ordered([each.effect for each in effects]), ordered([each.z for each in effects])
    notes = list(dict.fromkeys(note for each in effects for note in each.notes))
    note_codes = [np.array([notes.index(note) for note in each.notes])[each.note] for each in effects]
    ranks = np.tile(np.arange(1, len(effects) + 1), len(first))
    shrunk = np.full((len(effects), len(names), len(names)), np.nan)
    if comparison.pairs.chosen:
        place = tuple(np.array(comparison.pairs.chosen).T)
        shrunk[2][place] = comparison.shrunk
    return _without_nan(
        pl.DataFrame(
            {
                **_pair_columns(names, first, second, len(effects)),
                "rank": pl.Series(ranks, dtype=pl.Int64),
                "attribute": pl.Series([each.name for each in effects]).gather(order.ravel()),
                "effect": effect,
                # Where chance has no part in a difference, there is no number of its standard deviations.
                "z": np.where(np.isinf(z), np.nan, z),
                "found": ordered([each.found for each in effects]),
                "note": pl.Series(notes, dtype=pl.String).gather(ordered(note_codes)),
                "shrunk": ordered(list(shrunk)),
            }
        )
    ).with_columns(rank=pl.when(pl.col("effect").is_not_null()).then("rank"))


def group_table(comparison: AttributeComparison, names: pl.Series, groups: Sequence[str]) -> pl.DataFrame:
    """Attributes of the pairs compared in full, by group of targets."""
    first, second = np.array(comparison.pairs.chosen, dtype=np.intp).reshape(-1, 2).T
    effects = comparison.effects
    order = ranking(effects, first, second)
    by_group = np.stack([each.by_group for each in effects], axis=1)
    ordered = by_group[np.arange(len(first))[:, None], order]
    attributes = pl.Series([each.name for each in effects]).gather(np.repeat(order.ravel(), len(groups)))
    return _without_nan(
        pl.DataFrame(
            {
                **_pair_columns(names, first, second, len(effects) * len(groups)),
                "attribute": attributes,
                "group": pl.Series(list(groups) * len(effects) * len(first), dtype=pl.String),
                "effect": ordered.ravel(),
            }
        )
    )


def part_table(
    gradients: Tensor,
    hessian_parts: Tensor,
    pairs: Pairs,
    names: Sequence[str],
    outputs: Sequence[str],
    given: ReportInput,
) -> pl.DataFrame:
    """Squared distances of the pairs compared in full, by attribute of Proposition 4 or 5 and output."""
    of_hessian = REGRESSION_HESSIAN_PARTS if isinstance(given.loss, SquaredError) else HESSIAN_PARTS
    # Without a bias only what is weighted by all features is left.
    gradient_names, hessian_names = (
        kind if given.bias else kind[-1:] for kind in (GRADIENT_PARTS, of_hessian)
    )
    squares = {pair: (gradients[pair[0]] - gradients[pair[1]]).double().square() for pair in pairs.chosen}
    gradient_parts = {
        pair: torch.stack([square[:, -1], square[:, :-1].sum(1)], dim=1)
        if given.bias
        else square.sum(1, keepdim=True)
        for pair, square in squares.items()
    }
    rows = []
    for derivative, attributes, parts in (
        ("gradient", gradient_names, gradient_parts),
        (
            "Hessian",
            hessian_names,
            dict(zip(pairs.chosen, hessian_parts[:, :, -len(hessian_names) :], strict=True)),
        ),
    ):
        for (first, second), found in parts.items():
            total = float(found.sum())
            for place, attribute in enumerate(attributes):
                for output, name in enumerate(outputs):
                    squared = float(found[output, place])
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


def pair_table(
    means: Mapping[str, DomainMeans], comparison: AttributeComparison, full: Pairs, names: pl.Series
) -> pl.DataFrame:
    """A row for each pair, the most different first; what chance adds to a distance is left out."""
    first, second = _above(len(names))
    effects = comparison.effects
    leading = ranking(effects, first, second)[:, 0]
    rows = np.arange(len(first))
    in_full = np.zeros((len(names), len(names)), dtype=bool)
    if full.chosen:
        in_full[tuple(np.array(full.chosen).T)] = True
    relative = {
        quantity: (means[quantity].debiased() / means[quantity].scales()).numpy()[first, second]
        for quantity in ("Hessian Frobenius", "gradient")
    }
    return _without_nan(
        pl.DataFrame(
            {
                **_pair_columns(names, first, second),
                "Hessian distance": relative["Hessian Frobenius"],
                "gradient distance": relative["gradient"],
                "attribute": pl.Series([each.name for each in effects]).gather(leading),
                "effect": np.stack([each.effect[first, second] for each in effects], axis=1)[rows, leading],
                "found": np.stack([each.found[first, second] for each in effects], axis=1)[rows, leading],
                "full": in_full[first, second],
            }
        )
    ).sort("Hessian distance", descending=True, nulls_last=True, maintain_order=True)


def domain_table(
    hessians: DomainMeans,
    spectra: Sequence[Tensor],
    traces: Sequence[tuple[float, float]],
    names: Sequence[str],
) -> pl.DataFrame:
    """A row for each domain: how far the others are, its place among its like, and how sharp its loss is."""
    relative = (hessians.debiased() / hessians.scales()).numpy()
    np.fill_diagonal(relative, np.nan)
    known = ~np.isnan(relative)
    count = known.sum(1)
    mean = np.where(count > 0, np.nansum(relative, axis=1) / np.maximum(count, 1), np.nan)
    nearest, farthest = (
        [names[place] if found else None for place, found in zip(places, count > 0, strict=True)]
        for places in (
            np.where(known, relative, np.inf).argmin(1),
            np.where(known, relative, -np.inf).argmax(1),
        )
    )
    return _without_nan(
        pl.DataFrame(
            {
                "domain": list(names),
                "samples": hessians.sizes,
                "mean Hessian distance": mean,
                "nearest": pl.Series(nearest, dtype=pl.String),
                "farthest": pl.Series(farthest, dtype=pl.String),
                "place": _places(hessians),
                "trace": [trace for trace, _ in traces],
                "trace error": [error for _, error in traces],
                "largest eigenvalue": [float(values[0]) for values in spectra],
            }
        )
    )


def eigenvalue_table(spectra: Sequence[Tensor], names: Sequence[str]) -> pl.DataFrame:
    """Each domain's leading eigenvalues."""
    rows = [
        {"domain": name, "number": number, "eigenvalue": float(value)}
        for name, values in zip(names, spectra, strict=True)
        for number, value in enumerate(values, start=1)
    ]
    return pl.DataFrame(rows)


def shift_table(shifts: Sequence[DensityShift], pairs: Pairs, names: Sequence[str]) -> pl.DataFrame:
    """Diversity and correlation shift of the pairs compared in full."""
    rows = [
        {
            "first": names[first],
            "second": names[second],
            **{
                f"{name}{column}": value
                for name, size in (("diversity", shift.diversity), ("correlation", shift.correlation))
                for column, value in (("", size.value), (" by chance", size.chance), (" z", size.z))
            },
            "directions": shift.directions,
            "note": shift.note or None,
        }
        for (first, second), shift in zip(pairs.chosen, shifts, strict=True)
    ]
    numbers = [
        f"{name}{column}" for name in ("diversity", "correlation") for column in ("", " by chance", " z")
    ]
    schema: dict[str, Any] = dict.fromkeys(("first", "second"), pl.String)
    schema |= {**dict.fromkeys(numbers, pl.Float64), "directions": pl.Int64, "note": pl.String}
    return _without_nan(pl.DataFrame(rows, schema=schema))


def sample_table(
    distances: Mapping[str, Sequence[PairDistance]],
    names: Sequence[str],
    indices: Sequence[Tensor],
    count: int,
) -> pl.DataFrame:
    """The samples that lengthen a distance most, of the pairs compared in full."""
    rows = []
    for quantity, pairs in distances.items():
        for pair in pairs:
            influences = torch.cat(pair.influences).nan_to_num(nan=-math.inf)
            sides = [
                (names[domain], indices[domain][chosen])
                for domain, chosen in zip((pair.first, pair.second), pair.rows, strict=True)
            ]
            domain_of = [name for name, chosen in sides for _ in range(len(chosen))]
            samples = torch.cat([chosen for _, chosen in sides])
            known = int(influences.isfinite().sum())
            for place in influences.topk(min(count, known)).indices.tolist():
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


def _about_centre(values: Tensor) -> Tensor:
    """Inner products of vectors ``(m, ...)`` about their mean, ``(m, m)``; their mean square is the unit."""
    flat = values.flatten(1).double()
    square = float(flat.square().sum()) / len(flat)
    flat = flat - flat.mean(0)
    return flat @ flat.T / (square if square > 0 else 1.0)


def plane_table(
    derivatives: Sequence[HeadDerivatives], gradients: Tensor, names: Sequence[str]
) -> pl.DataFrame:
    """Principal components of the domains' gradients and diagonals, each in units of its own mean length."""
    diagonals = torch.stack([domain.diagonal() for domain in derivatives])
    # Of the domains' inner products, which are small where the vectors are long.
    inner = torch.stack([_about_centre(values) for values in (gradients, diagonals)]).sum(0)
    squares, vectors = torch.linalg.eigh(inner)
    total = float(inner.trace())
    rounding = len(names) * torch.finfo(inner.dtype).eps * total
    leading = torch.where(squares > rounding, squares, 0.0)[-2:].flip(0)
    coordinates = vectors[:, -2:].flip(1) * leading.sqrt()
    shares = [float(value) / total if total > 0 else 0.0 for value in leading]
    return pl.DataFrame(
        {
            "domain": list(names),
            "first direction": coordinates[:, 0].tolist(),
            "second direction": coordinates[:, 1].tolist(),
            "first share": [shares[0]] * len(names),
            "second share": [shares[1]] * len(names),
        }
    )


def _above(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Both indices of all pairs, ascending."""
    first, second = np.triu_indices(count, 1)
    return first, second


def _pair_columns(
    names: pl.Series, first: NDArray[np.intp], second: NDArray[np.intp], times: int = 1
) -> dict[str, pl.Series]:
    """Names of pairs, each for so many rows that follow one another."""
    return {
        column: names.gather(np.repeat(index, times))
        for column, index in (("first", first), ("second", second))
    }


def _without_nan(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def _values(pair: PairDistance) -> dict[str, float | None]:
    interval = pair.interval
    return {
        "distance": pair.distance,
        "relative": pair.relative,
        "debiased": interval.estimate if interval else None,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }


def _places(hessians: DomainMeans) -> list[int]:
    """Place of each domain in the order of average linkage, from 1: like domains stand together."""
    distances = hessians.debiased() / hessians.scales()
    # Of a domain with a single sample the distance as it is has to do.
    distances = torch.where(distances.isnan(), hessians.distances.sqrt() / hessians.scales(), distances)
    distances.fill_diagonal_(0.0)
    condensed = squareform(distances.numpy(), checks=False)
    order = leaves_list(linkage(condensed, "average", optimal_ordering=True))
    places: list[int] = (np.argsort(order) + 1).tolist()
    return places
