"""Hutchinson alignment (Hemati, Zhang, Estiri and Chen, ICCV 2023)."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor
from typing_extensions import override

from hessalign.algorithms.aligned import AlignedHead, AlignedHParams
from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam
from hessalign.alignment import HessianAlignment, sampled_hutchinson_distances
from hessalign.head import HeadDerivatives

PUBLISHED_PROBES = 300


class HutchinsonHParams(AlignedHParams):
    """Hyper-parameters of Hutchinson.

    Attributes:
        alpha: Weight of the distance between estimated diagonals. The default and the range are the published
            code's, whose range does not contain its default.
        beta: Weight of the gradient distance, likewise.
        probes: Number of probes of each estimate.
        variant: ``"expected"`` (default): the expectation over the probes in closed form, the probes' noise
            term included. ``"domainbed"``: drawn probes, as the published code has them.
        unbiased: With ``"expected"`` only: U-statistics, whose expected value does not depend on the batch
            size. Needs 2 samples of each domain in a batch.
    """

    alpha: float = hparam(1e-3, LogUniform(4, 1), reference_name="penalty_alpha")
    beta: float = hparam(5e-3, LogUniform(6, 2), reference_name="penalty_beta")
    probes: int = Field(PUBLISHED_PROBES, ge=1)
    variant: Literal["expected", "domainbed"] = "expected"
    unbiased: bool = False


@register("hutchinson", reference_name="Hutchinson")
class Hutchinson(AlignedHead):
    """Hessian distance ``‖D̂_e − sg(D̂)‖²``, diagonals as Hutchinson's ``k`` probes estimate them.

    With one source domain there is nothing to compare and the penalty is 0. The published code keeps the
    noise of the probes there, and so does ``variant="domainbed"``: two estimates of one diagonal are
    ``(2/k) off(H)`` apart on average, ``off(H)`` the sum of the squared elements beside the diagonal.
    """

    hparams_class = HutchinsonHParams
    hparams: HutchinsonHParams

    @classmethod
    def batched_hparams(cls, hparams: HParams) -> tuple[str, ...] | None:
        """None where probes are drawn."""
        assert isinstance(hparams, HutchinsonHParams)
        return super().batched_hparams(hparams) if hparams.variant == "expected" else None

    @override
    def alignment(self) -> HessianAlignment:
        return HessianAlignment(
            "hutchinson",
            self.hparams.alpha,
            self.hparams.beta,
            probes=self.hparams.probes,
            expected=self.hparams.variant == "expected",
            unbiased=self.hparams.unbiased,
        )

    def no_effect(self) -> str | None:
        """None with drawn probes, whose noise is a penalty even with one domain."""
        return None if self._compares_draws() else super().no_effect()

    def head_penalty(self, domains: Sequence[HeadDerivatives]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """As for the others; with one domain and drawn probes, how far two estimates are apart."""
        if not self._compares_draws():
            return super().head_penalty(domains)
        distances = sampled_hutchinson_distances(domains, self.hparams.probes, detach_centre=True)
        return self.hparams.alpha * distances.mean(), {"hessian": distances.detach()}

    def _compares_draws(self) -> bool:
        return self.domains == 1 and self.hparams.variant == "domainbed" and self.hparams.alpha > 0
