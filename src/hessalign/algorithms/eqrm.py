"""Empirical quantile risk minimisation (Eastwood et al., "Probable Domain Generalization", NeurIPS 2022)."""

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, cross_entropies, register
from hessalign.algorithms.hparams import HParams, LogUniform, Uniform, hparam
from hessalign.head.derivatives import precise_type

BISECTIONS = 32
TINY = 1e-16
"""Added to the variance of the risks, so that equal risks have a bandwidth, and it a derivative."""


class EQRMHParams(HParams):
    """Hyper-parameters of EQRM.

    Attributes:
        quantile: Level ``α`` of the quantile.
        burn_in_steps: Steps of plain risk minimisation, cut to a whole number.
        late_lr: Learning rate of the Adam that begins anew with the first step on the quantile.
        variant: ``"paper"`` (default). ``"domainbed"``: DomainBed's defects. A burn-in that is not whole, as
            all of its draws are, is not cut: Adam then never begins anew and never gets ``late_lr``. And the
            quantile's derivative is that of the bisection's two ends.
    """

    quantile: float = hparam(
        0.75, Uniform(0.5, 0.99), reference_name="eqrm_quantile", at_least=1e-6, at_most=0.999999
    )
    burn_in_steps: float = hparam(2500.0, LogUniform(2.5, 3.5), reference_name="eqrm_burnin_iters")
    late_lr: float = hparam(
        1e-6, LogUniform(-7, -5), features=(2e-5, LogUniform(-6, -4)), reference_name="eqrm_lr"
    )
    variant: Literal["paper", "domainbed"] = "paper"


@register("eqrm", reference_name="EQRM")
class EQRM(Algorithm):
    """The ``α``-quantile of the domains' risks, as a Gaussian kernel density estimate has it.

    ``q`` with ``mean_e Φ((q − R_e)/b) = α``, bandwidth ``b = 1.06 · std_e(R_e) · E^(−1/5)``. Until the
    burn-in is over it is ``mean_e R_e``. At a given ``b`` the derivative ``∂q/∂R_e`` is the share of ``e`` in
    the density at ``q``, ``φ((q − R_e)/b) / Σ_f φ((q − R_f)/b)``; that through ``b`` is added.
    """

    hparams_class = EQRMHParams
    hparams: EQRMHParams
    batched = ("quantile", "burn_in_steps", "late_lr")
    sets_in = (("burn_in_steps", "the quantile of the risks"),)
    needs_domains = 2

    @override
    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        risks = cross_entropies(self.head(self.domain_features(batch)), batch)
        mean = risks.mean()
        metrics = {"risk": mean.detach()}
        burning = self.steps_done < self._first_step()
        if burning is True or self.domains == 1:
            return mean, metrics
        values = risks.to(precise_type(risks))
        as_in_domainbed = self.hparams.variant == "domainbed"
        quantile = kernel_quantile(values, self.hparams.quantile, through_bisection=as_in_domainbed).to(mean)
        return (torch.where(burning, mean, quantile) if isinstance(burning, Tensor) else quantile), metrics

    @override
    def resets_optimizer(self) -> bool | Tensor:
        return (self._first_step() == self.steps_done) & (self.domains > 1)

    @override
    def lr_from_now(self) -> float | Tensor:
        return self.hparams.late_lr

    def _first_step(self) -> float | Tensor:
        """With the quantile."""
        burn_in = self.hparams.burn_in_steps
        return burn_in if self.hparams.variant == "domainbed" else burn_in // 1


def kernel_quantile(values: Tensor, level: float | Tensor, *, through_bisection: bool = False) -> Tensor:
    """Quantile of a Gaussian kernel density estimate, differentiable in the values.

    Args:
        values: ``(n,)``, at least 2.
        level: Level of the quantile, between 0 and 1.
        through_bisection: Let the derivative be that of the ends of the bisection, as automatic
            differentiation of it has it, instead of the quantile's.

    Returns:
        Scalar.
    """
    bandwidth = 1.06 * (values.var() + TINY).sqrt() * len(values) ** -0.2
    share = level.to(values) if isinstance(level, Tensor) else values.new_full((), level)

    def distribution(at: Tensor) -> Tensor:
        shares: Tensor = torch.special.ndtr((at - values) / bandwidth)
        return shares.mean()

    reach = bandwidth * torch.special.ndtri(share)
    low, high = values.amin() + reach, values.amax() + reach
    if through_bisection:
        return _bisection(distribution, share, low, high)
    with torch.no_grad():
        at = _bisection(distribution, share, low, high)
        scaled = (at - values) / bandwidth
        density = (-0.5 * scaled.square()).exp().mean() / (math.sqrt(2 * math.pi) * bandwidth)
    # A step of Newton's: its value has all digits, its derivative is the implicit function's.
    refined: Tensor = at - (distribution(at) - share) / density
    return refined


def _bisection(distribution: Callable[[Tensor], Tensor], level: Tensor, low: Tensor, high: Tensor) -> Tensor:
    middle = (low + high) / 2
    for _ in range(BISECTIONS):
        above = distribution(middle) > level
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        middle = (low + high) / 2
    return middle
