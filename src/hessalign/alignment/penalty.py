r"""One penalty for any training loop: alignment of the head's gradients and Hessians across domains."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from hessalign.alignment.diagonal import diagonal_distances
from hessalign.alignment.domains import derivatives_by_domain
from hessalign.alignment.frobenius import frobenius_distances
from hessalign.alignment.gradient import gradient_distances
from hessalign.alignment.hgp import Centre, hgp_distances
from hessalign.alignment.hutchinson import expected_hutchinson_distances, sampled_hutchinson_distances
from hessalign.alignment.spectral import spectral_distances
from hessalign.checks import require_choice
from hessalign.head import HeadDerivatives, HeadLoss
from hessalign.head.losses import resolve_loss
from hessalign.head.precision import without_autocast

Method = Literal["gradient", "hgp", "hutchinson", "diagonal", "frobenius", "spectral"]
Reduction = Literal["mean", "sum"]
Distances = Callable[[Sequence[HeadDerivatives]], Tensor]


class HessianAlignment(nn.Module):
    r"""Penalty ``Σ_e α·(Hessian distance of domain e) + β·‖G_e − Ḡ‖²``, summed or averaged over domains.

    ``G_e`` and ``H_e`` are gradient and Hessian of domain ``e``'s mean loss with respect to the linear head,
    in closed form; a bar is the mean over domains, all with equal weight. The Hessian distance is

    | method | distance of domain e |
    |---|---|
    | ``"gradient"`` | none: α is not used |
    | ``"hgp"`` | ``‖H_e G_e − c‖²``, the Hessian-gradient product |
    | ``"hutchinson"`` | ``‖D̂_e − D̂‖²``, diagonals estimated with probes, or the expectation of that |
    | ``"diagonal"`` | ``‖D_e − D̄‖²``, exact diagonals |
    | ``"frobenius"`` | ``‖H_e − H̄‖_F²``, the whole Hessian, exact |
    | ``"spectral"`` | ``‖H_e − H̄‖₂²``, matrix-free |

    The two published scripts of "Understanding Hessian Alignment for Domain Generalization" (Hemati et
    al., ICCV 2023) differ: the defaults are those of the DomainBed one (``detach_centre=True``,
    ``reduction="mean"``); the Colored MNIST one is ``detach_centre=False, reduction="sum"``.

    A batch with a single domain has nothing to align: the penalty is exactly 0 for every method, and its
    derivatives are defined and zero.

    Args:
        method: Which Hessian distance.
        alpha: Weight of the Hessian distance, default 1e-4; 0 skips it.
        beta: Weight of the gradient distance, default 5e-3; 0 skips it. Both defaults are those of the
            published DomainBed runs of HGP.
        probes: ``k``, probes for each estimate; required by ``"hutchinson"``, not allowed elsewhere.
        expected: ``"hutchinson"`` only: the closed-form expectation over the probes instead of a sample.
        centre: ``"hgp"`` only: ``"mean_loss"`` (default), ``c = H̄ Ḡ``, or ``"mean_product"``,
            ``c = (1/m) Σ_e H_e G_e``.
        detach_centre: No derivative flows through the centre. Matters for HGP with ``"mean_loss"``, for
            Hutchinson and for spectral; elsewhere the derivative is the same either way.
        reduction: ``"mean"`` (default) or ``"sum"`` over domains.
        loss: Loss of the head, as
            [HeadDerivatives.from_logits][hessalign.HeadDerivatives.from_logits] takes it.

    Raises:
        ValueError: If an argument is unknown, out of range or does not belong to the method.

    Example:
        >>> import torch
        >>> from hessalign import HessianAlignment
        >>> head = torch.nn.Linear(16, 4)
        >>> features, targets = torch.randn(30, 16), torch.randint(0, 4, (30,))
        >>> domains = torch.arange(30) % 3
        >>> penalty = HessianAlignment("diagonal", alpha=1e-3, beta=1e-2)
        >>> logits = head(features)
        >>> loss = torch.nn.functional.cross_entropy(logits, targets)
        >>> loss = loss + penalty(features, logits, targets, domains)
        >>> loss.backward()
    """

    def __init__(
        self,
        method: Method,
        alpha: float = 1e-4,
        beta: float = 5e-3,
        *,
        probes: int | None = None,
        expected: bool = False,
        centre: Centre = "mean_loss",
        detach_centre: bool = True,
        reduction: Reduction = "mean",
        loss: str | HeadLoss = "cross_entropy",
    ) -> None:
        super().__init__()
        require_choice("method", method, get_args(Method))
        require_choice("centre", centre, get_args(Centre))
        require_choice("reduction", reduction, get_args(Reduction))
        for name, weight in (("alpha", alpha), ("beta", beta)):
            if not (math.isfinite(weight) and weight >= 0):
                raise ValueError(f"{name}: must be a finite number of at least 0, got {weight!r}")
        _check_probes(method, probes, expected)
        self.method: Method = method
        self.alpha = alpha
        self.beta = beta
        self.probes = probes
        self.expected = expected
        self.centre: Centre = centre
        self.detach_centre = detach_centre
        self.reduction: Reduction = reduction
        self.loss = resolve_loss(loss)

    def forward(
        self,
        features: Tensor,
        logits: Tensor,
        targets: Tensor,
        domains: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The penalty alone of what [with_parts][] gives, from the same arguments."""
        return self.with_parts(features, logits, targets, domains, generator=generator)[0]

    def with_parts(
        self,
        features: Tensor,
        logits: Tensor,
        targets: Tensor,
        domains: Tensor,
        *,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The penalty of a batch, and what it is made of.

        Args:
            features: Input of the linear head, ``(n, d)``.
            logits: Output of the linear head, ``(n, C)``; ``(n,)`` for one logit.
            targets: As the loss takes them, ``(n,)`` or ``(n, C)``.
            domains: Integer domain id of each sample, ``(n,)``, in any order; ids need not be contiguous
                and domains need not be of one size.
            generator: Source of sampled Hutchinson probes; torch's global one by default.

        Returns:
            Scalar, differentiable with respect to features and logits; in float32 at least. And, detached,
            the unweighted distances of each domain, in ascending order of the ids, by the names
            ``"gradient"`` and ``"hessian"``; a part that the penalty does without is left out.

        Raises:
            ValueError: If lengths or shapes do not match, a value is NaN or infinite, or a target is out of
                range.
        """
        # Mixed precision would round the differences of Hessians away.
        with without_autocast(features.device):
            parts = derivatives_by_domain(features, logits, targets, domains, self.loss)
            distances = self.distances(parts, generator)
            penalty = self._weigh(parts, distances)
        return penalty, {name: distance.detach() for name, distance in distances.items()}

    def from_derivatives(
        self, domains: Sequence[HeadDerivatives], generator: torch.Generator | None = None
    ) -> Tensor:
        """The penalty of domains whose head derivatives are at hand.

        Args:
            domains: Derivatives of each domain, at least one.
            generator: Source of sampled Hutchinson probes; torch's global one by default.

        Returns:
            Scalar.

        Raises:
            ValueError: If there is no domain.
        """
        if not domains:
            raise ValueError("domains: at least 1 is needed, got none")
        return self._weigh(domains, self.distances(domains, generator))

    def distances(
        self, domains: Sequence[HeadDerivatives], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """What is weighted and reduced: distances ``(m,)`` of the domains by the names of [with_parts][].

        A part whose weight is 0 is left out, and so are both where there is one domain.

        Args:
            domains: Derivatives of each domain.
            generator: Source of sampled Hutchinson probes; torch's global one by default.
        """
        distances = {}
        if len(domains) > 1 and self.beta > 0:
            distances["gradient"] = gradient_distances(domains)
        if len(domains) > 1 and self.alpha > 0 and self.method != "gradient":
            distances["hessian"] = self._hessian_distances(generator)(domains)
        return distances

    def extra_repr(self) -> str:
        """Settings, as ``print(penalty)`` shows them."""
        return (
            f"{self.method!r}, alpha={self.alpha}, beta={self.beta}, probes={self.probes}, "
            f"expected={self.expected}, centre={self.centre!r}, detach_centre={self.detach_centre}, "
            f"reduction={self.reduction!r}, loss={self.loss}"
        )

    def _weigh(self, domains: Sequence[HeadDerivatives], distances: Mapping[str, Tensor]) -> Tensor:
        weights = {"gradient": self.beta, "hessian": self.alpha}
        parts = [weights[name] * self._reduce(distance) for name, distance in distances.items()]
        return torch.stack(parts).sum() if parts else _connected_zero(domains)

    def _hessian_distances(self, generator: torch.Generator | None) -> Distances:
        if self.method == "hgp":
            return partial(hgp_distances, centre=self.centre, detach_centre=self.detach_centre)
        if self.method == "hutchinson":
            assert self.probes is not None
            if self.expected:
                return partial(
                    expected_hutchinson_distances, probes=self.probes, detach_centre=self.detach_centre
                )
            return partial(
                sampled_hutchinson_distances,
                probes=self.probes,
                generator=generator,
                detach_centre=self.detach_centre,
            )
        if self.method == "spectral":
            return partial(spectral_distances, detach_centre=self.detach_centre)
        return diagonal_distances if self.method == "diagonal" else frobenius_distances

    def _reduce(self, distances: Tensor) -> Tensor:
        return distances.mean() if self.reduction == "mean" else distances.sum()


def _connected_zero(domains: Sequence[HeadDerivatives]) -> Tensor:
    """Exactly 0 whatever the values, with a derivative of 0 for features and logits: sums of no rows."""
    empty = [domain.features[:0].sum() + domain.residual[:0].sum() for domain in domains]
    return torch.stack(empty).sum()


def _check_probes(method: Method, probes: int | None, expected: bool) -> None:
    if method == "hutchinson":
        if not isinstance(probes, int) or probes < 1:
            raise ValueError(
                f"probes: 'hutchinson' needs a whole number of at least 1, got {probes!r} "
                "(for the limit of many probes use method='diagonal')"
            )
    elif probes is not None or expected:
        raise ValueError(
            f"probes, expected: only 'hutchinson' takes them, got probes={probes!r} and "
            f"expected={expected!r} for {method!r}"
        )
