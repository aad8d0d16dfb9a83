"""ERM++ (Teterwak, Saito, Tsiligkaridis, Saenko and Plummer, "An Improved Baseline", 2023)."""

import copy
from contextlib import nullcontext
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn
from typing_extensions import override

from hessalign.algorithms.base import (
    Algorithm,
    DomainBatch,
    Metrics,
    Optimizers,
    register,
    uses_batch_statistics,
)
from hessalign.algorithms.hparams import HParams, LogUniform, hparam


class ERMPlusPlusHParams(HParams):
    """Hyper-parameters of ERM++.

    Attributes:
        linear_lr: Learning rate of the head while it alone is trained.
        linear_steps: Steps in which the head alone is trained.
        average_from: Number of updates after which the average begins.
        variant: ``"paper"`` (default). ``"domainbed"``: one step more for the head alone, and an average that
            begins one update earlier.
    """

    linear_lr: float = hparam(5e-5, LogUniform(-5, -3.5), features=(1e-3, LogUniform(-4, -2)))
    linear_steps: int = Field(500, ge=0)
    average_from: int = Field(600, ge=1)
    variant: Literal["paper", "domainbed"] = "paper"


@register("erm_plus_plus", reference_name="ERMPlusPlus")
class ERMPlusPlus(Algorithm):
    """``mean_e R_e``: at first on the head alone, then on all; the mean of the networks predicts.

    The head's steps have an Adam and a learning rate of their own. From ``average_from`` updates on the
    network that predicts is the mean of those after each update; until then it is the latest. A BatchNorm
    that is trained sees each batch once more in the mean network, whose running statistics are so renewed.

    The method's other parts are choices of a run: weights that were trained well, a learning rate that falls
    where the validation loss does not, training on all data.
    """

    hparams_class = ERMPlusPlusHParams
    hparams: ERMPlusPlusHParams
    averages_itself = True
    can_probe = False
    sets_in = (("linear_steps", "the training of the backbone"), ("average_from", "the average"))

    @override
    def build(self) -> None:
        self.trained = copy.deepcopy(nn.Sequential(self.backbone, self.head))

    @override
    def make_optimizers(self) -> Optimizers:
        head = self.adam(self.trained[1].parameters())
        for group in head.param_groups:
            group["lr"] = self.hparams.linear_lr
        return {"main": self.adam(self.trained.parameters()), "head": head}

    @override
    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        extra = int(self.hparams.variant == "domainbed")
        is_linear = self.steps_done < self.hparams.linear_steps + extra
        backbone, head = self.trained
        with torch.no_grad() if is_linear else nullcontext():
            features = backbone(batch.inputs)
        risk = F.cross_entropy(head(features), batch.targets)
        self.minimise(risk, optimizers["head" if is_linear else "main"])
        self._take_in(self.steps_done + 2 + extra - self.hparams.average_from)
        if uses_batch_statistics(self.backbone):
            with torch.no_grad():
                self.backbone(batch.inputs)
        return {"loss": risk.detach()}

    @torch.no_grad()
    def _take_in(self, count: int) -> None:
        """Make the network that predicts the mean of ``count`` networks, the trained one the last of them."""
        predicting = nn.Sequential(self.backbone, self.head).state_dict()
        for mean, value in zip(predicting.values(), self.trained.state_dict().values(), strict=True):
            if count > 1 and mean.is_floating_point():
                mean.add_(value - mean, alpha=1 / count)
            else:
                mean.copy_(value)
