"""CMA, closed-form moment alignment (Chen, Si, Zhang and Zhao, "Moment Alignment", UAI 2025).

arXiv 2506.07378: gradients and Hessians of the head, aligned across domains.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.aligned import AlignedHead, AlignedHParams
from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import LogUniform, hparam
from hessalign.alignment import HessianAlignment
from hessalign.head import HeadDerivatives
from hessalign.loop import WeightSchedule


class CMAHParams(AlignedHParams):
    """Hyper-parameters of CMA, as its published code names and draws them.

    Attributes:
        alpha: Weight of the Hessian distance (there ``hess_beta``).
        beta: Weight of the gradient distance (there ``grad_alpha``).
        anneal_steps: Steps without a penalty; Adam begins anew with the first step that has one.
        variant: ``"diagonal"``, what the released code aligns; ``"whole"``, what the paper's formula aligns;
            ``"probe"``, the whole Hessian as the code for linear probing scales it.
    """

    alpha: float = hparam(1000.0, LogUniform(1, 4), reference_name="hess_beta")
    beta: float = hparam(5000.0, LogUniform(1, 4), reference_name="grad_alpha")
    anneal_steps: int = hparam(0, LogUniform(2, 4, whole=True), reference_name="penalty_anneal_iters")
    variant: Literal["diagonal", "whole", "probe"] = "diagonal"


@register("cma", reference_name="CMA")
class CMA(AlignedHead):
    """``mean_e R_e + w_t mean_e [β ‖G_e − Ḡ‖² + α d_e]``, ``w_t`` 0 before ``anneal_steps``, then 1.

    Three things are published under the name:

    | variant | ``d_e`` | where |
    |---|---|---|
    | ``"diagonal"`` (default) | ``‖D_e − D̄‖²`` | the released DomainBed code |
    | ``"whole"`` | ``‖H_e − H̄‖_F²`` | the paper's formula, and a later version of that code |
    | ``"probe"`` | ``‖H_e − H̄‖_F² / (C(d+1))²``, a mean over elements | the code for linear probing |

    The first two are the distances of ``exact_diagonal`` and ``exact_hessian``. Weights and wait are CMA's:
    Adam begins anew with the first step that has a penalty.
    """

    hparams_class = CMAHParams
    hparams: CMAHParams
    batched = ("alpha", "beta", "anneal_steps")
    sets_in = (("anneal_steps", "the penalty"),)

    @override
    def alignment(self) -> HessianAlignment:
        alpha, beta = self.hparams.alpha, self.hparams.beta
        if self.hparams.variant == "diagonal":
            return HessianAlignment("diagonal", alpha, beta)
        if self.hparams.variant == "probe":
            alpha = alpha / (self.classes * (self.width + 1)) ** 2
        return HessianAlignment("frobenius", alpha, beta)

    @override
    def head_penalty(self, domains: Sequence[HeadDerivatives]) -> tuple[Tensor, Mapping[str, Tensor]]:
        penalty, terms = super().head_penalty(domains)
        weight = self.schedule()(self.steps_done)
        return (weight.to(penalty) if isinstance(weight, Tensor) else weight) * penalty, terms

    @override
    def resets_optimizer(self) -> bool | Tensor:
        return self.schedule().resets(self.steps_done)

    def schedule(self) -> WeightSchedule:
        """Waits, then jumps."""
        return WeightSchedule(1.0, 0.0, self.hparams.anneal_steps, reset_optimizer=True)
