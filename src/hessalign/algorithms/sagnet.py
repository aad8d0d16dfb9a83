"""Style-agnostic networks (Nam et al., "Reducing Domain Gap by Reducing Style Bias", CVPR 2021)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers, register
from hessalign.algorithms.hparams import HParams, LogUniform, hparam
from hessalign.head.derivatives import at_least_single

EPSILON = 1e-5


class SagNetHParams(HParams):
    """Hyper-parameters of SagNet.

    Attributes:
        adversarial_weight: Weight of the adversarial step.
    """

    adversarial_weight: float = hparam(0.1, LogUniform(-2, 1), reference_name="sag_w_adv")


@register("sagnet", reference_name="SagNet")
class SagNet(Algorithm):
    """Three steps in each update, with a content head ``c`` and a style head ``s``.

    1. ``CE(c(style-randomised z), y)`` on backbone and ``c``,
    2. ``CE(s(content-randomised z), y)`` on ``s``,
    3. ``w · mean_i mean_k −log softmax(s(content-randomised z_i))_k`` on the backbone.

    A sample's style is mean and (unbiased) variance of its features. Style randomisation mixes it, by a
    uniform share, with that of a random other sample; content randomisation replaces the normalised
    features by a random other sample's, without derivative, and keeps the style.
    """

    hparams_class = SagNetHParams
    hparams: SagNetHParams
    needs_trainable_backbone = True

    @override
    def build(self) -> None:
        self.style_head = nn.Linear(self.width, self.classes)

    def make_optimizers(self) -> Optimizers:
        """One Adam each for backbone, content head and style head."""
        return {
            "backbone": self.adam(self.backbone.parameters()),
            "content": self.adam(self.head.parameters()),
            "style": self.adam(self.style_head.parameters()),
        }

    @override
    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        content_loss = F.cross_entropy(
            self.head(_style_randomised(self.backbone(batch.inputs))), batch.targets
        )
        self.minimise(content_loss, optimizers["backbone"], optimizers["content"])

        with torch.no_grad():  # this step is the style head's alone
            features = self.backbone(batch.inputs)
        style_logits = self.style_head(_content_randomised(features))
        style_loss = F.cross_entropy(style_logits, batch.targets)
        self.minimise(style_loss, optimizers["style"])

        adversarial_logits = self.style_head(_content_randomised(self.backbone(batch.inputs)))
        adversarial_loss = -at_least_single(adversarial_logits).log_softmax(1).mean(1).mean()
        self.minimise(self.hparams.adversarial_weight * adversarial_loss, optimizers["backbone"])
        return {
            "loss": content_loss.detach(),
            "style_loss": style_loss.detach(),
            "adversarial_loss": adversarial_loss.detach(),
        }


def _normalised(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised features, and mean and variance of each sample."""
    variance, mean = torch.var_mean(features, dim=1, keepdim=True)
    return (features - mean) / (variance + EPSILON).sqrt(), mean, variance


def _style_randomised(features: Tensor) -> Tensor:
    normalised, mean, variance = _normalised(features)
    share = torch.rand(len(features), 1, device=features.device, dtype=features.dtype)
    others = torch.randperm(len(features), device=features.device)
    mixed_mean = share * mean + (1 - share) * mean[others]
    mixed_variance = share * variance + (1 - share) * variance[others]
    return normalised * (mixed_variance + EPSILON).sqrt() + mixed_mean


def _content_randomised(features: Tensor) -> Tensor:
    normalised, mean, variance = _normalised(features)
    others = torch.randperm(len(features), device=features.device)
    return normalised[others].detach() * (variance + EPSILON).sqrt() + mean
