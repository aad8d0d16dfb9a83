"""Domain-adversarial training: a discriminator learns to tell the domains, the backbone to hide them."""

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers
from hessalign.algorithms.hparams import Choice, Fixed, HParams, LogUniform, hparam


class AdversarialHParams(HParams):
    """Hyper-parameters of DANN and CDANN; ``lr`` and ``weight_decay`` are not used.

    Attributes:
        adversarial_weight: Weight of the discriminator's loss in the generator's.
        discriminator_steps: Discriminator steps for each generator step.
        gradient_penalty: Weight of the squared norm of the discriminator's input gradient.
        beta1: Decay rate of the first moment in both Adams.
        mlp_width: Hidden width of the discriminator.
        mlp_depth: Linear layers of the discriminator.
        mlp_dropout: Dropout of the discriminator.
        generator_lr: Learning rate of backbone and head.
        discriminator_lr: Learning rate of the discriminator.
        generator_weight_decay: Weight decay of backbone and head.
        discriminator_weight_decay: Weight decay of the discriminator.
    """

    unread = ("lr", "weight_decay")

    adversarial_weight: float = hparam(1.0, LogUniform(-2, 2), reference_name="lambda")
    discriminator_weight_decay: float = hparam(0.0, LogUniform(-6, -2), reference_name="weight_decay_d")
    discriminator_steps: int = hparam(
        1, LogUniform(0, 3, base=2, whole=True), reference_name="d_steps_per_g_step"
    )
    gradient_penalty: float = hparam(0.0, LogUniform(-2, 1), reference_name="grad_penalty")
    beta1: float = hparam(0.5, Choice((0.0, 0.5)), at_most=0.999999)
    mlp_width: int = hparam(256, LogUniform(6, 10, base=2, whole=True), at_least=1)
    mlp_depth: int = hparam(3, Choice((3, 4, 5)), at_least=2)
    mlp_dropout: float = hparam(0.0, Choice((0.0, 0.1, 0.5)), at_most=1)
    generator_lr: float = hparam(
        5e-5,
        LogUniform(-5, -3.5),
        small=(1e-3, LogUniform(-4.5, -2.5)),
        features=(1e-3, LogUniform(-4, -2)),
        reference_name="lr_g",
    )
    discriminator_lr: float = hparam(
        5e-5,
        LogUniform(-5, -3.5),
        small=(1e-3, LogUniform(-4.5, -2.5)),
        features=(1e-3, LogUniform(-4, -2)),
        reference_name="lr_d",
    )
    generator_weight_decay: float = hparam(
        0.0, LogUniform(-6, -2), small=(0.0, Fixed(0.0)), reference_name="weight_decay_g"
    )


class Adversarial(Algorithm):
    """``k`` discriminator steps for each generator step.

    Discriminator: minimise ``L_D = CE(D(z), domain) + gp · mean_i ‖∂ Σ CE/∂z_i‖²``. Generator: minimise
    ``CE(c(z), y) − λ L_D``. The first update is a generator step where ``k = 1``.
    """

    hparams_class = AdversarialHParams
    hparams: AdversarialHParams
    needs_trainable_backbone = True
    needs_domains = 2

    @override
    def build(self) -> None:
        self.discriminator = mlp(
            self.width,
            self.domains,
            self.hparams.mlp_width,
            self.hparams.mlp_depth,
            self.hparams.mlp_dropout,
        )

    def discriminator_input(self, features: Tensor, targets: Tensor) -> Tensor:
        """What the discriminator sees."""
        return features

    def sample_weights(self, targets: Tensor) -> Tensor:
        """Weights of the samples in the discriminator's loss, adding up to one."""
        return torch.full_like(targets, 1.0 / len(targets), dtype=torch.get_default_dtype())

    def discriminator_parameters(self) -> Iterable[nn.Parameter]:
        """What the discriminator's step changes."""
        return self.discriminator.parameters()

    def make_optimizers(self) -> Optimizers:
        """One Adam for backbone and head, one for the discriminator."""
        betas = (self.hparams.beta1, 0.9)
        generator = [*self.backbone.parameters(), *self.head.parameters()]
        return {
            "generator": Adam(
                generator,
                lr=self.hparams.generator_lr,
                betas=betas,
                weight_decay=self.hparams.generator_weight_decay,
            ),
            "discriminator": Adam(
                self.discriminator_parameters(),
                lr=self.hparams.discriminator_lr,
                betas=betas,
                weight_decay=self.hparams.discriminator_weight_decay,
            ),
        }

    @override
    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        features = self.backbone(batch.inputs)
        domain_loss = self._domain_loss(features, batch)
        cycle = 1 + self.hparams.discriminator_steps
        if (self.steps_done + 1) % cycle < self.hparams.discriminator_steps:
            self.minimise(domain_loss, optimizers["discriminator"])
            return {"loss": domain_loss.detach(), "domain_loss": domain_loss.detach()}
        risk = F.cross_entropy(self.head(features), batch.targets)
        loss = risk - self.hparams.adversarial_weight * domain_loss
        self.minimise(loss, optimizers["generator"])
        return {"loss": loss.detach(), "risk": risk.detach(), "domain_loss": domain_loss.detach()}

    def _domain_loss(self, features: Tensor, batch: DomainBatch) -> Tensor:
        inputs = self.discriminator_input(features, batch.targets)
        losses = F.cross_entropy(self.discriminator(inputs), batch.domains, reduction="none")
        # Not a matrix product, which mixed precision would round.
        loss = (self.sample_weights(batch.targets).to(losses) * losses).sum()
        if self.hparams.gradient_penalty == 0:
            return loss
        (slopes,) = torch.autograd.grad(losses.sum(), inputs, create_graph=True)
        return loss + self.hparams.gradient_penalty * slopes.square().sum(1).mean()


def mlp(inputs: int, outputs: int, width: int, depth: int, dropout: float) -> nn.Sequential:
    """A network of ``depth`` linear layers, with dropout and ReLU between them.

    Args:
        inputs: Number of inputs.
        outputs: Number of outputs.
        width: Units of each hidden layer.
        depth: Number of linear layers, at least 2.
        dropout: Probability of dropping a unit, before each ReLU.

    Returns:
        The network.
    """
    widths = [inputs, *[width] * (depth - 1)]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.Dropout(dropout), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], outputs))
