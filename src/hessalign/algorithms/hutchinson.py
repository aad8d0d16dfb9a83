"""Hutchinson alignment (Hemati, Zhang, Estiri and Chen, ICCV 2023)."""

from typing import Literal

from pydantic import Field

from hessalign.algorithms.aligned import AlignedHead
from hessalign.algorithms.base import register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam
from hessalign.alignment import HessianAlignment

PUBLISHED_PROBES = 300


class HutchinsonHParams(HParams):
    """Hyper-parameters of Hutchinson.

    Attributes:
        alpha: Weight of the distance between estimated diagonals.
        beta: Weight of the gradient distance.
        probes: For each estimate.
        variant: ``"expected"`` (default): the expectation over the probes in closed form, the probes' noise
            term included. ``"domainbed"``: drawn probes, as the published code has them.
    """

    alpha: float = hparam(1e-3, LogUniform(4, 1), reference_name="penalty_alpha")
    beta: float = hparam(5e-3, LogUniform(6, 2), reference_name="penalty_beta")
    probes: int = Field(PUBLISHED_PROBES, ge=1)
    variant: Literal["expected", "domainbed"] = "expected"


@register("hutchinson")
class Hutchinson(AlignedHead):
    """Hessian distance ``‖D̂_e − sg(D̂)‖²``, diagonals as Hutchinson's ``k`` probes estimate them."""

    hparams_class = HutchinsonHParams
    hparams: HutchinsonHParams

    @classmethod
    def batched_hparams(cls, hparams: HParams) -> tuple[str, ...] | None:
        """None where probes are drawn."""
        assert isinstance(hparams, HutchinsonHParams)
        return super().batched_hparams(hparams) if hparams.variant == "expected" else None

    def alignment(self) -> HessianAlignment:
        """See the class."""
        return HessianAlignment(
            "hutchinson",
            self.hparams.alpha,
            self.hparams.beta,
            probes=self.hparams.probes,
            expected=self.hparams.variant == "expected",
        )
