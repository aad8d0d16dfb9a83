"""How large a penalty's terms are beside the loss, and the weights that make them a given share of it."""

import copy
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hessalign.checks import require_number
from hessalign.exceptions import UntrustworthyWarning
from hessalign.head.derivatives import SortedDomains
from hessalign.inputs import as_domain_ids, as_tensor

if TYPE_CHECKING:
    from hessalign.alignment.penalty import HeadPenalty


ROUNDING = 1e-14
"""Squared distances below this share of the squared sizes are rounding."""


@dataclass(frozen=True)
class TermSize:
    """One term of a penalty, as some batches have it.

    Attributes:
        value: Without its weight, reduced over domains as the penalty does, averaged over batches.
        weight: At which it is the wanted share of the loss; 0, which leaves the term out, where no weight
            makes it one: the term is not above 0, or is nothing but rounding.
        share_now: Share of the loss at the weight that the penalty has now.
        noise: Part of the value that is the sampling noise of the batches, between 0 and 1: what
            ``unbiased=True`` leaves out; None where there is no unbiased estimate.
    """

    value: float
    weight: float
    share_now: float
    noise: float | None


@dataclass(frozen=True)
class WeightSuggestion:
    """What [suggest][hessalign.alignment.HessianAlignment.suggest] found; ``print`` it.

    Attributes:
        loss: Mean over domains of their mean losses, averaged over batches.
        share: Share of the loss that each term was to be.
        batches: Number of batches.
        terms: Each term by the name of its weight: ``"alpha"``, ``"beta"`` or ``"gamma"``.

    Examples:
        >>> import torch
        >>> from hessalign import HessianAlignment
        >>> generator = torch.Generator().manual_seed(0)
        >>> features = torch.randn(64, 8, generator=generator)
        >>> logits, domains = features[:, :3], torch.arange(64) % 2
        >>> batch = (features, logits, domains + (features[:, 0] > 0), domains)
        >>> suggestion = HessianAlignment("diagonal").suggest([batch], share=0.2)
        >>> suggestion.share, suggestion.batches, sorted(suggestion.terms)
        (0.2, 1, ['alpha', 'beta'])
        >>> penalty = HessianAlignment("diagonal", **suggestion.weights)
    """

    loss: float
    share: float
    batches: int
    terms: Mapping[str, TermSize]

    @property
    def weights(self) -> dict[str, float]:
        """The suggested weights by name, as the penalty takes them."""
        return {name: term.weight for name, term in self.terms.items()}

    def __str__(self) -> str:
        """A line for each term."""
        batches = "batch" if self.batches == 1 else "batches"
        lines = [f"loss {self.loss:.4g}, mean over {self.batches} {batches}"]
        for name, term in self.terms.items():
            noise = (
                ""
                if term.noise is None
                else f"; {100 * term.noise:.0f} % of it is the batches' sampling noise"
            )
            found = f"{name}: the term is {term.value:.3g}, now {100 * term.share_now:.3g} % of the loss"
            if term.weight:
                lines.append(f"{found}; {name}={term.weight:.3g} makes it {100 * self.share:g} %{noise}")
            else:
                none = f"no weight makes it {100 * self.share:g} %"
                lines.append(f"{found}; {none}, and {name}=0 leaves it out")
        return "\n".join(lines)


def suggest_weights(penalty: "HeadPenalty", batches: Iterable[Any], share: float) -> WeightSuggestion:
    """The work of [suggest][hessalign.alignment.HessianAlignment.suggest]."""
    require_number("share", share, above=0)
    plain, twins = _with_unit_weights(penalty), _twins(penalty)
    losses: list[float] = []
    sizes: dict[str, list[float]] = {name: [] for name in penalty.weights}
    values: dict[str, list[float]] = {name: [] for name in penalty.weights}
    with_noise: dict[str, list[float]] = {name: [] for name in penalty.weights}
    without: dict[str, list[float]] = {name: [] for name in penalty.weights}
    for batch in batches:
        if not isinstance(batch, list | tuple) or len(batch) != 4:
            raise ValueError("batches: each must be (features, logits, targets, domains)")
        _add_terms(values, plain, batch)
        if twins is not None:
            try:
                _add_terms(without, twins[1], batch)
                _add_terms(with_noise, twins[0], batch)
            except ValueError:  # too few samples in a domain, or weights: no estimate without noise
                twins = None
        losses.append(_loss(penalty, *batch[1:]))
        for name, size in _sizes(penalty, *batch[:3]).items():
            sizes[name].append(size)
    if not losses:
        raise ValueError("batches: at least one is needed, got none")
    if not any(values.values()):
        raise ValueError("batches: each needs samples of at least 2 domains, got one domain in every batch")
    loss = sum(losses) / len(losses)
    found = {
        penalty.weights[name]: _size(
            penalty,
            name,
            loss,
            share,
            values[name],
            sum(sizes[name]) / len(losses),
            _noise(with_noise[name], without[name]) if twins else None,
        )
        for name in penalty.weights
        if values[name]
    }
    for name, term in found.items():
        if not term.weight:
            warnings.warn(
                f"{name}: its term is {term.value:.3g} over these batches, so no weight makes it a share "
                "of the loss, and the suggested 0 leaves it out; the domains do not differ in it beyond "
                "rounding, or the batches' noise",
                UntrustworthyWarning,
                stacklevel=3,
            )
    return WeightSuggestion(loss, share, len(losses), found)


def _size(
    penalty: "HeadPenalty",
    name: str,
    loss: float,
    share: float,
    values: list[float],
    rounding: float,
    noise: float | None,
) -> TermSize:
    value = sum(values) / len(values)
    now = float(getattr(penalty, penalty.weights[name]))
    weight = share * loss / value if value > rounding else 0.0
    return TermSize(value, weight if math.isfinite(weight) else 0.0, now * value / loss, noise)


def _noise(with_noise: list[float], without: list[float]) -> float:
    """Part of plug-in distances that their unbiased estimates do without."""
    return min(1.0, max(0.0, 1 - sum(without) / sum(with_noise))) if sum(with_noise) > 0 else 0.0


@torch.no_grad()
def _add_terms(into: dict[str, list[float]], penalty: "HeadPenalty", batch: Sequence[Any]) -> None:
    features, logits, targets, domains = batch
    for name, term in penalty.with_terms(features, logits, targets, domains)[1].items():
        into[name].append(float(term.mean() if penalty.reduction == "mean" else term.sum()))


def _with_unit_weights(penalty: "HeadPenalty") -> "HeadPenalty":
    """A copy that leaves no term out."""
    unit = copy.copy(penalty)
    for weight in penalty.weights.values():
        setattr(unit, weight, 1.0)
    return unit


def _twins(penalty: "HeadPenalty") -> "tuple[HeadPenalty, HeadPenalty] | None":
    """The penalty as it is and without the batches' noise, alike in all else; None where there is no such."""
    method = getattr(penalty, "method", None)
    drawn = method == "hutchinson" and not getattr(penalty, "expected", False)
    if method is None or method == "spectral" or drawn:
        return None
    plain = _with_unit_weights(penalty)
    if method == "hgp":
        plain.centre = "mean_product"
    unbiased = copy.copy(plain)
    unbiased.unbiased = True
    return plain, unbiased


@torch.no_grad()
def _sizes(penalty: "HeadPenalty", features: Any, logits: Any, targets: Any) -> dict[str, float]:
    """What rounding alone can make of each term: a share of the squared size of what it compares."""
    features, logits, targets = (
        as_tensor(name, given)
        for name, given in (("features", features), ("logits", logits), ("targets", targets))
    )
    logits = logits.unsqueeze(1) if logits.ndim == 1 else logits
    precision = torch.finfo(features.dtype).eps if features.is_floating_point() else 0.0
    residual, curvature = penalty.loss.derivatives(logits, penalty.loss.prepare_targets(logits, targets))
    inputs = float(features.double().square().sum(1).mean()) + penalty.bias
    gradient = inputs * float(residual.double().square().sum(1).mean())
    hessian = inputs**2 * float(curvature.diagonal().double().square().sum(1).mean())
    compared = {
        "gradient": gradient,
        "hessian": hessian * gradient if getattr(penalty, "method", None) == "hgp" else hessian,
    }
    share = max(ROUNDING, (10 * precision) ** 2)
    return {name: share * compared.get(name, 0.0) for name in penalty.weights}


@torch.no_grad()
def _loss(penalty: "HeadPenalty", logits: Any, targets: Any, domains: Any) -> float:
    """Mean over domains of the mean loss."""
    logits, targets = as_tensor("logits", logits), as_tensor("targets", targets)
    logits = logits.unsqueeze(1) if logits.ndim == 1 else logits
    losses = penalty.loss.values(logits, penalty.loss.prepare_targets(logits, targets)).double()
    weights, masses = penalty.loss.target_weights(logits, targets) or (torch.ones_like(losses),) * 2
    if isinstance(domains, SortedDomains):
        codes = torch.arange(len(domains.sizes)).repeat_interleave(torch.tensor(domains.sizes))
    else:
        codes = as_domain_ids("domains", domains, len(losses), losses.device).unique(return_inverse=True)[1]
    zeros = losses.new_zeros(int(codes.max()) + 1)
    sums, counted = (
        zeros.index_add(0, codes.to(losses.device), values.to(losses.dtype))
        for values in (weights * losses, masses)
    )
    return float((sums / counted).mean())
