r"""Gradient and Hessian of a linear head's mean loss, in closed form.

Notation: ``n`` samples, ``d`` features ``z``, ``C`` logits ``a = W z + b``, ``z̃ = (z, 1)`` and the augmented
weight ``θ = [W | b]``, ``(C, d+1)``. With each sample's residual ``r_i = ∂ℓ/∂a`` and curvature
``A_i = ∂²ℓ/∂a²``, everything below is a plain matrix product: nothing is differentiated twice, and
autograd can differentiate all of it with respect to features and logits, and so to all weights. A head
without bias has ``z̃ = z`` and ``d`` columns where others have ``d+1``.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hessalign.checks import require_flag, require_same_length, require_whole
from hessalign.head.gram import weighted_gram, weighted_squares, weighted_sum
from hessalign.head.losses import Curvature, HeadLoss, resolve_loss
from hessalign.inputs import as_domain_ids, as_tensor

# Data of up to so many values are computed in float64 whatever their own type: it costs little there, and
# differences of nearly equal derivatives keep their digits.
PRECISE_VALUES = 2**20


@dataclass(frozen=True, eq=False)
class HeadDerivatives:
    """First and second derivatives of the mean loss of one domain (or of any set of samples).

    Build it with [from_logits][hessalign.head.HeadDerivatives.from_logits], which checks its input. The class
    itself checks nothing and reads no value.

    Attributes:
        features: Input of the head, ``(n, d)``, without a constant feature.
        residual: ``∂ℓ/∂a`` of each sample, ``(n, C)``.
        curvature: ``∂²ℓ/∂a²`` of each sample.
        bias: Whether the head has a bias, whose derivatives then come last.
        weight: Weight ``w_i`` of each sample in the mean ``Σ_i w_i ℓ_i / Σ_i m_i``, ``(n,)``; None (default)
            for the plain mean.
        mass: ``m_i``, ``(n,)``; None (default) for the weights themselves.

    Examples:
        >>> import torch
        >>> from hessalign.head import HeadDerivatives
        >>> features = torch.eye(3, dtype=torch.float64)
        >>> logits, targets = torch.zeros(3, 2, dtype=torch.float64), torch.tensor([0, 1, 0])
        >>> d = HeadDerivatives.from_logits(features, logits, targets, bias=False)
        >>> d.residual
        tensor([[-0.5000,  0.5000],
                [ 0.5000, -0.5000],
                [-0.5000,  0.5000]], dtype=torch.float64)
        >>> torch.allclose(d.gradient(), d.residual.T @ features / 3)
        True
    """

    features: Tensor
    residual: Tensor
    curvature: Curvature
    bias: bool = True
    weight: Tensor | None = None
    mass: Tensor | None = None

    @classmethod
    def from_logits(
        cls,
        features: Tensor,
        logits: Tensor,
        targets: Tensor,
        loss: str | HeadLoss = "cross_entropy",
        *,
        bias: bool = True,
        sample_weight: Tensor | None = None,
    ) -> "HeadDerivatives":
        """Derivatives of the mean loss over the given samples.

        bfloat16 and float16 inputs are computed in float32 at least: differences of Hessians would drown in
        their rounding. Gradients reach the inputs in the inputs' own type.

        Args:
            features: ``(n, d)``, floating point, finite; tensor, array, data frame or rows of numbers.
            logits: ``(n, C)``, finite; ``(n,)`` is read as ``(n, 1)``.
            targets: Class ids ``(n,)``, or ``(n, C)`` values, as the loss takes them.
            loss: ``"cross_entropy"`` (default), ``"binary_cross_entropy"``,
                [SquaredError][hessalign.SquaredError], [AutogradLoss][hessalign.AutogradLoss] or any other
                [HeadLoss][hessalign.HeadLoss].
            bias: Whether the head has a bias, default True.
            sample_weight: Weight of each sample in the mean, ``(n,)``, at least 0 and not all 0; equal by
                default.

        Returns:
            The derivatives.

        Raises:
            ValueError: If there is no sample, lengths or shapes do not match, a value is NaN or infinite,
                a target is out of range, or the loss is unknown.

        Examples:
            >>> import torch
            >>> import hessalign as ha
            >>> features, logits, targets = torch.randn(8, 4), torch.randn(8, 3), torch.arange(8) % 3
            >>> d = ha.HeadDerivatives.from_logits(features, logits, targets)
            >>> d.gradient().shape, d.hessian().shape
            (torch.Size([3, 5]), torch.Size([15, 15]))
            >>> torch.allclose(d.hvp(d.gradient()).flatten(), d.hessian() @ d.gradient().flatten(), atol=1e-6)
            True
        """
        head_loss = resolve_loss(loss)
        require_flag("bias", bias)
        features, logits = as_tensor("features", features), as_tensor("logits", logits)
        targets = as_tensor("targets", targets)
        if logits.ndim == 1:
            logits = logits.unsqueeze(1)
        check_shapes(features, logits, targets)
        check_finite(features, logits)
        if sample_weight is not None:
            sample_weight = as_tensor("sample_weight", sample_weight, features.device)
            _check_weights(sample_weight, len(features))
        return cls._of(features, logits, targets, head_loss, head_loss.prepare_targets, bias, sample_weight)

    @classmethod
    def from_checked(
        cls,
        features: Tensor,
        logits: Tensor,
        targets: Tensor,
        loss: HeadLoss,
        *,
        bias: bool = True,
        sample_weight: Tensor | None = None,
    ) -> "HeadDerivatives":
        """The same for tensors that are known to be right: no value is read, and no device waited for.

        Args:
            features: ``(n, d)``.
            logits: ``(n, C)``.
            targets: What the loss takes.
            loss: Loss of the head.
            bias: Whether the head has a bias.
            sample_weight: Weight of each sample in the mean, ``(n,)``; equal by default.

        Returns:
            The derivatives.
        """
        return cls._of(features, logits, targets, loss, loss.encode_targets, bias, sample_weight)

    @classmethod
    def _of(
        cls,
        features: Tensor,
        logits: Tensor,
        targets: Tensor,
        loss: HeadLoss,
        encode: Callable[[Tensor, Tensor], Tensor],
        bias: bool,
        sample_weight: Tensor | None,
    ) -> "HeadDerivatives":
        dtype = torch.promote_types(torch.promote_types(features.dtype, logits.dtype), torch.float32)
        features, logits = features.to(dtype), logits.to(dtype)
        if logits.numel() <= PRECISE_VALUES:
            logits = logits.to(precise_type(logits))
        residual, curvature = loss.derivatives(logits, encode(logits, targets))
        weight, mass = sample_weight, None
        if (own := loss.target_weights(logits, targets)) is not None:
            weight, mass = own if sample_weight is None else (own[0] * sample_weight, own[1] * sample_weight)
        return cls(features, residual, curvature, bias, weight, mass)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.features)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the head's weight with its bias, ``(C, d+1)``."""
        return self.residual.shape[1], self.features.shape[1] + self.bias

    def shares(self) -> Tensor | float:
        """Share of each sample in the mean, ``w_i / Σ m``, ``(n, 1)``; a number where all are equal."""
        if self.weight is None:
            return 1 / len(self)
        mass = self.weight if self.mass is None else self.mass
        return (self.weight / mass.sum()).to(self.residual.dtype).unsqueeze(1)

    def gradient(self) -> Tensor:
        """``G = (1/n) Σ_i r_i z̃_iᵀ``, ``(C, d+1)``, the bias last (supplement, Eqs. 30, 36–37)."""
        return self._mean(self.features, self.residual)

    def hvp(self, v: Tensor) -> Tensor:
        """Product of the Hessian with one or several vectors.

        ``U = Z̃ Vᵀ``, ``S_i = A_i U_i``, ``H V = Sᵀ Z̃ / n``.

        Args:
            v: ``(..., C, d+1)``, shaped like the gradient, after any leading axes.

        Returns:
            Like ``v``.

        Raises:
            ValueError: If the last two axes of ``v`` are not ``(C, d+1)``.
        """
        if v.shape[-2:] != self.shape:
            raise ValueError(f"v: the last two axes must be {self.shape}, got shape {tuple(v.shape)}")
        rows = v.to(self.features.dtype).reshape(-1, self.shape[1])
        # A slice as it is would cost the backward pass over many samples twice the time (memory layout).
        weights, biases = (rows[:, :-1].contiguous(), rows[:, -1]) if self.bias else (rows, None)
        projected = F.linear(self.features, weights, biases).to(self.residual.dtype)
        curved = self.curvature.apply(projected.unflatten(1, (-1, self.shape[0])))
        return self._mean(self.features, curved.flatten(1)).view(v.shape)

    def diagonal(self) -> Tensor:
        """Diagonal of the Hessian, ``D = (1/n) Σ_i diag(A_i) ⊗ z̃_i²``, ``(C, d+1)``."""
        weights = (self.curvature.diagonal() * self.shares()).to(self.features.dtype)
        return weighted_squares(self.features, weights, self.bias)

    def gradient_variance(self) -> Tensor:
        """Variance over samples of each element of the gradient, ``(C, d+1)``; divides by ``n``.

        The statistic that Fishr aligns (Rame et al., ICML 2022). With the features' mean ``μ`` and ``ζ = z −
        μ`` it is ``Var(r ζ) + 2 μ Cov(r ζ, r) + μ² Var(r)``: features far from 0 take no digits away.

        Returns:
            ``(C, d+1)``.
        """
        this = self.precise()
        shares, features = this.shares(), this.features
        residual = this.residual.to(features.dtype)
        centre = (features * shares).sum(0) if isinstance(shares, Tensor) else features.mean(0)
        centred = features - centre
        mean = (residual * shares).sum(0)
        deviations = residual - mean
        covariance = weighted_sum(centred, deviations * residual * shares, bias=False)
        product = weighted_sum(centred, residual * shares, bias=False)
        spread = (deviations.square() * shares).sum(0).unsqueeze(1)
        variance = weighted_sum(centred.square(), residual.square() * shares, bias=False) - product.square()
        # Cov(r ζ, r) = E[(r − r̄) r ζ].
        variance = variance + 2 * centre * covariance + centre.square() * spread
        if self.bias:
            variance = torch.cat([variance, spread], dim=1)
        return variance.to(self.features.dtype)

    def hessian(self) -> Tensor:
        """The whole Hessian, ``H = (1/n) Σ_i A_i ⊗ z̃_i z̃_iᵀ`` (supplement, Eqs. 33–35, 38–40).

        Rows and columns follow ``θ`` flattened row by row: output 0's ``d`` weights, its bias, output 1's ...

        Returns:
            ``(C(d+1), C(d+1))``. Only this method forms it; the distances do without.
        """
        shares = self.shares()
        shares = shares.squeeze(1) if isinstance(shares, Tensor) else shares
        blocks = {
            (row, column): weighted_gram(
                self.features, (self.curvature.entry(row, column) * shares).to(self.features.dtype), self.bias
            )
            for row, column in self.curvature.upper_pairs()
        }
        outputs, width = self.shape
        zeros = self.features.new_zeros(width, width)
        rows = [
            torch.cat([blocks.get((min(a, b), max(a, b)), zeros) for b in range(outputs)], dim=1)
            for a in range(outputs)
        ]
        return torch.cat(rows)

    def inner(self, other: "HeadDerivatives") -> Tensor:
        """Frobenius inner product ``⟨H, H'⟩_F`` with another Hessian, without forming either.

        ``(1/(n m)) Σ_ij ⟨A_i, A'_j⟩ (z̃_iᵀ z̃'_j)²``.

        Args:
            other: Derivatives with the same numbers of features and outputs.

        Returns:
            Scalar.

        Raises:
            ValueError: If the numbers of features or outputs differ.
        """
        from hessalign.head.statistics import Statistics  # noqa: PLC0415 (needs this module)

        statistics = Statistics(DomainDerivatives.of([self, other]), ["hessian"])
        return statistics.spread("hessian").products[0, 1].to(self.features.dtype)

    def precise(self) -> "HeadDerivatives":
        """The same in float64, where that is cheap enough; else as it is."""
        if self.features.numel() > PRECISE_VALUES:
            return self
        return self.to(precise_type(self.features))

    def to(self, dtype: torch.dtype) -> "HeadDerivatives":
        """The same with features, residual and curvature in another floating-point type."""
        return replace(
            self,
            features=self.features.to(dtype),
            residual=self.residual.to(dtype),
            curvature=self.curvature.to(dtype),
        )

    def take(self, index: Tensor | slice) -> "HeadDerivatives":
        """Derivatives of the samples at the given positions alone."""
        return replace(
            self,
            features=self.features[index],
            residual=self.residual[index],
            curvature=self.curvature.take(index),
            weight=None if self.weight is None else self.weight[index],
            mass=None if self.mass is None else self.mass[index],
        )

    def split(self, sizes: Sequence[int]) -> list["HeadDerivatives"]:
        """Consecutive groups of samples, one [HeadDerivatives][hessalign.HeadDerivatives] for each size."""
        ends = list(accumulate(sizes))
        return [self.take(slice(end - size, end)) for end, size in zip(ends, sizes, strict=True)]

    def _mean(self, features: Tensor, weights: Tensor) -> Tensor:
        return weighted_sum(features, (weights * self.shares()).to(features.dtype), self.bias)


class DomainDerivatives(Sequence[HeadDerivatives]):
    """Head derivatives of ``m`` domains: one batch sorted by domain, and how many samples each domain has.

    A sequence of the domains' [HeadDerivatives][hessalign.HeadDerivatives]. What is computed from it takes
    the whole batch at once, however many domains it has.

    Args:
        batch: All samples, each domain's together.
        sizes: Samples of each domain, at least one each.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> from hessalign.head import DomainDerivatives
        >>> generator = torch.Generator().manual_seed(0)
        >>> features = torch.randn(12, 4, generator=generator, dtype=torch.float64)
        >>> logits, targets = features[:, :3], torch.arange(12) % 3
        >>> batch = ha.HeadDerivatives.from_logits(features, logits, targets)
        >>> domains = DomainDerivatives(batch, sizes=[4, 8])
        >>> len(domains), domains.sizes
        (2, (4, 8))
        >>> west = ha.HeadDerivatives.from_logits(features[4:], logits[4:], targets[4:])
        >>> torch.allclose(domains[1].gradient(), west.gradient())
        True
    """

    def __init__(self, batch: HeadDerivatives, sizes: Sequence[int]) -> None:
        self._batch: HeadDerivatives | None = batch
        self._domains: list[HeadDerivatives] | None = None
        self.sizes = tuple(sizes)

    @classmethod
    def of(cls, domains: Sequence[HeadDerivatives]) -> "DomainDerivatives":
        """From the derivatives of each domain; what is one already is returned as it is.

        Returns:
            The domains together.

        Raises:
            ValueError: If there is no domain, or they differ in their numbers of features or outputs.
        """
        if isinstance(domains, DomainDerivatives):
            return domains
        if not domains:
            raise ValueError("domains: at least 1 is needed, got none")
        if len({(domain.shape, domain.bias) for domain in domains}) > 1:
            shapes = sorted({(domain.features.shape[1], domain.residual.shape[1]) for domain in domains})
            raise ValueError(
                "domains: all must have the same numbers of features and outputs (and all a bias or none), "
                f"got (features, outputs) = {shapes}"
            )
        result = cls.__new__(cls)
        result._batch, result._domains = None, list(domains)
        result.sizes = tuple(map(len, domains))
        return result

    @property
    def batch(self) -> HeadDerivatives:
        """All samples, sorted by domain."""
        if self._batch is None:
            self._batch = _join(self.domains)
        return self._batch

    @property
    def domains(self) -> list[HeadDerivatives]:
        """The domains one by one."""
        if self._domains is None:
            assert self._batch is not None
            self._domains = self._batch.split(self.sizes)
        return self._domains

    @property
    def is_joined(self) -> bool:
        """Whether all samples lie in one tensor already."""
        return self._batch is not None

    @property
    def like(self) -> HeadDerivatives:
        """Any of the derivatives at hand, for shapes and types."""
        return self.domains[0] if self._batch is None else self._batch

    def __len__(self) -> int:
        """Number of domains."""
        return len(self.sizes)

    def __getitem__(self, index: Any) -> Any:
        """A domain's derivatives."""
        return self.domains[index]

    def __iter__(self) -> Iterator[HeadDerivatives]:
        """The domains one by one."""
        return iter(self.domains)

    def mean(self) -> HeadDerivatives:
        """Derivatives of the mean over domains of their mean losses: all samples, weighted."""
        shares = torch.cat([_column(domain) for domain in self.domains]) / len(self)
        # Their weights sum to one domain's share each; masses that sum to 1 keep them as they are.
        mass = torch.full_like(shares, 1 / len(shares))
        return replace(self.batch, weight=shares, mass=mass)


def _column(domain: HeadDerivatives) -> Tensor:
    """A domain's shares as ``(n,)``."""
    shares = domain.shares()
    if isinstance(shares, Tensor):
        return shares.squeeze(1)
    return domain.residual.new_full((len(domain),), shares)


def _join(domains: Sequence[HeadDerivatives]) -> HeadDerivatives:
    weighted = any(domain.weight is not None for domain in domains)
    weight = mass = None
    if weighted:
        # Shares of a domain sum to whatever its mean says; equal masses that sum to 1 keep them.
        weight = torch.cat([_column(domain) for domain in domains])
        mass = torch.cat([weight.new_full((len(domain),), 1 / len(domain)) for domain in domains])
    first = domains[0]
    return HeadDerivatives(
        torch.cat([domain.features for domain in domains]),
        torch.cat([domain.residual for domain in domains]),
        first.curvature.join([domain.curvature for domain in domains[1:]]),
        first.bias,
        weight,
        mass,
    )


@dataclass(frozen=True)
class SortedDomains:
    """Domains of a batch that is sorted by domain, given by their sizes in the place of ids.

    With it a penalty reads no value of the batch, so that nothing waits for the device: not even NaN,
    infinity or a class id out of range is looked for.

    Attributes:
        sizes: Samples of each domain, in the batch's order, at least one each.

    Raises:
        ValueError: If there is no domain or a size is no whole number of at least 1.

    Examples:
        >>> import torch
        >>> from hessalign import HessianAlignment
        >>> from hessalign.alignment import SortedDomains
        >>> features, targets = torch.randn(12, 4), torch.randint(0, 3, (12,))
        >>> logits = torch.nn.Linear(4, 3)(features)
        >>> value = HessianAlignment("hgp")(features, logits, targets, SortedDomains([4, 4, 4]))
    """

    sizes: Sequence[int]

    def __post_init__(self) -> None:
        sizes = tuple(require_whole("sizes", size, least=1) for size in self.sizes)
        if not sizes:
            raise ValueError("sizes: at least one domain is needed, got none")
        object.__setattr__(self, "sizes", sizes)


def derivatives_by_domain(
    features: Any,
    logits: Any,
    targets: Any,
    domains: Any,
    loss: HeadLoss,
    bias: bool = True,
    sample_weight: Any = None,
) -> DomainDerivatives:
    """Head derivatives of each domain of a batch, in ascending order of the domains' ids.

    Args:
        features: ``(n, d)``.
        logits: ``(n, C)``, or ``(n,)`` for one logit.
        targets: What the loss takes.
        domains: Domain ids, ``(n,)``, in any order, or [SortedDomains][hessalign.alignment.SortedDomains].
        loss: Loss of the head.
        bias: Whether the head has a bias.
        sample_weight: Weight of each sample in its domain's mean loss, ``(n,)``; equal by default.

    Returns:
        Those of the domains.

    Raises:
        ValueError: As [HeadDerivatives.from_logits][hessalign.head.HeadDerivatives.from_logits] and
            ``sort_by_domain`` do, and if no sample of a domain counts.
    """
    features, logits = as_tensor("features", features), as_tensor("logits", logits)
    targets = as_tensor("targets", targets)
    if logits.ndim == 1:
        logits = logits.unsqueeze(1)
    check_shapes(features, logits, targets)
    if isinstance(domains, SortedDomains):
        if sum(domains.sizes) != len(features):
            raise ValueError(
                f"domains: sizes must add up to the {len(features)} samples, got {sum(domains.sizes)}"
            )
        batch = HeadDerivatives.from_checked(
            features, logits, targets, loss, bias=bias, sample_weight=sample_weight
        )
        return DomainDerivatives(batch, domains.sizes)
    ids = as_domain_ids("domains", domains, len(features), features.device)
    order, sizes = sort_by_domain(ids, samples=len(features))
    if sample_weight is not None:
        sample_weight = as_tensor("sample_weight", sample_weight, features.device)
    if order is not None:
        check_finite(features, logits)
        place = order.to(features.device)
        features, logits, targets = features[place], logits[place], targets[order.to(targets.device)]
        if isinstance(sample_weight, Tensor) and sample_weight.shape == (len(features),):
            sample_weight = sample_weight[place]
    batch = HeadDerivatives.from_logits(
        features, logits, targets, loss, bias=bias, sample_weight=sample_weight
    )
    found = DomainDerivatives(batch, sizes)
    if batch.weight is not None:
        _check_counting(found)
    return found


def sort_by_domain(domains: Tensor, samples: int) -> tuple[Tensor | None, list[int]]:
    """Order that puts each domain's samples together, and how many samples each domain has.

    Args:
        domains: Integer domain ids, ``(n,)``, in any order, not necessarily contiguous.
        samples: ``n``, the length that ``domains`` must have.

    Returns:
        Indices that sort the batch by domain, or None where it is sorted already, and the domains' sizes in
        ascending order of their ids.

    Raises:
        ValueError: If ``domains`` is not a tensor of ``n`` integers.
    """
    domains = as_domain_ids("domains", domains, samples)
    if bool((domains[1:] >= domains[:-1]).all()):
        order, ordered = None, domains
    else:
        ordered, order = domains.sort(stable=True)
    _, sizes = torch.unique_consecutive(ordered, return_counts=True)
    return order, sizes.tolist()


def _check_counting(domains: DomainDerivatives) -> None:
    weights = domains.batch.weight
    assert weights is not None
    counted = [float(own.sum()) for own in weights.detach().split(list(domains.sizes))]
    if min(counted) <= 0:
        raise ValueError(
            "targets, sample_weight: every domain needs a sample that counts, but of the domain at position "
            f"{counted.index(min(counted))} in ascending order all are ignored or have weight 0"
        )


def without_autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Mixed precision off for a while; a device that knows none has none to switch off.

    Args:
        device: Where the tensors lie that are computed with.

    Returns:
        A context.
    """
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def at_least_single(values: Tensor) -> Tensor:
    """The values in float32 at least; float64 stays what it is."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def precise_type(values: Tensor) -> torch.dtype:
    """float64, or the values' own type on devices that lack it."""
    return values.dtype if values.device.type == "mps" else torch.float64


def check_shapes(features: Tensor, logits: Tensor, targets: Tensor) -> None:
    """Refuse tensors whose shapes or types do not fit together; reads no value.

    Raises:
        ValueError: Naming the argument.
    """
    if features.ndim != 2 or not features.is_floating_point():
        raise ValueError(
            "features: must be a floating-point tensor of shape (n, d), "
            f"got {features.dtype} of shape {tuple(features.shape)}{_flattened(features, 3)}"
        )
    if logits.ndim != 2 or not logits.is_floating_point():
        raise ValueError(
            "logits: must be a floating-point tensor of shape (n, C), (n, 1) or (n,), "
            f"got {logits.dtype} of shape {tuple(logits.shape)}{_flattened(logits, 3)}"
        )
    if targets.ndim == 0 or not len(features) == len(logits) == len(targets):
        raise ValueError(
            "features, logits and targets: must have one row for each sample, got shapes "
            f"{tuple(features.shape)}, {tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    if len(features) == 0:
        raise ValueError("features: an empty domain has no derivatives; at least 1 sample is needed")


def check_finite(features: Tensor, logits: Tensor) -> None:
    """Refuse NaN and infinity.

    Raises:
        ValueError: Naming the argument.
    """
    # A finite sum tells it in one pass and with one look at the device; a sum may also overflow.
    if math.isfinite(float(features.detach().sum() + logits.detach().sum().to(features.device))):
        return
    for name, values in (("features", features), ("logits", logits)):
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name}: all values must be finite, got NaN or infinity")


def _check_weights(weights: Tensor, samples: int) -> None:
    if weights.ndim != 1 or weights.is_complex():
        raise ValueError(
            f"sample_weight: must hold one number for each of the {samples} samples, "
            f"got {weights.dtype} of shape {tuple(weights.shape)}"
        )
    require_same_length(features=samples, sample_weight=len(weights))
    low, high = torch.stack(weights.detach().double().aminmax()).tolist()
    if not (low >= 0 and 0 < high < math.inf):
        raise ValueError(
            f"sample_weight: must be finite, at least 0 and not all 0, got values from {low:g} to {high:g}"
        )


def _flattened(values: Tensor, axes: int) -> str:
    if values.ndim < axes:
        return ""
    return "; flatten one row for each token or pixel: .flatten(0, -2), and ids likewise"
