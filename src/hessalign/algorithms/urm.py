"""Uniform risk minimisation (Krishnamachari, Ng and Foo, "Uniformly Distributed Features", TMLR 2024)."""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam
from typing_extensions import override

from hessalign.algorithms.base import Algorithm, DomainBatch, Metrics, Optimizers, register
from hessalign.algorithms.hparams import Choice, HParams, LogUniform, Uniform, hparam

HIDDEN = 100
RANGES: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "tanh": (torch.tanh, -1.0),
    "relu": (torch.relu, 0.0),
    "sigmoid": (torch.sigmoid, 0.0),
}
"""Of each activation: its function, and where the noise that goes with it begins; it ends at 1."""


class URMHParams(HParams):
    """Hyper-parameters of URM.

    Attributes:
        adversarial_weight: Weight ``λ`` of the adversarial loss.
        hidden_layers: Layers of the discriminator beyond its first and its last.
        activation: Last layer of the features.
        discriminator_lr: Learning rate of the discriminator.
    """

    adversarial_weight: float = hparam(0.1, Uniform(0, 0.2), reference_name="urm_adv_lambda")
    hidden_layers: int = hparam(1, Choice((1, 2, 3)), reference_name="urm_discriminator_hidden_layers")
    activation: Literal["tanh", "relu", "sigmoid"] = hparam(
        "tanh", Choice(("tanh", "relu")), reference_name="urm_generator_output", at_least=None
    )
    discriminator_lr: float = hparam(
        5e-5,
        LogUniform(-6, -4.5),
        small=(1e-3, LogUniform(-5.5, -3.5)),
        features=(1e-3, LogUniform(-4, -2)),
        reference_name="urm_discriminator_lr",
    )


@register("urm", reference_name="URM")
class URM(Algorithm):
    """``CE(c(z), y) + λ BCE(D(z), 1)``: features that a discriminator takes for uniform noise.

    ``z`` is the activation of the backbone's features. After each step of backbone and head ``D`` takes one
    on ``BCE(D(u), 1) + λ BCE(D(z), 0)``, ``z`` as it was, ``u`` uniform over the activation's range (0 to 1
    for ``relu``). ``D`` has layers of 100 with leaky ReLUs.
    """

    hparams_class = URMHParams
    hparams: URMHParams
    needs_trainable_backbone = True

    @override
    def build(self) -> None:
        layers: list[nn.Module] = [nn.Linear(self.width, HIDDEN), nn.LeakyReLU()]
        for _ in range(self.hparams.hidden_layers):
            layers += [nn.Linear(HIDDEN, HIDDEN), nn.LeakyReLU()]
        self.discriminator = nn.Sequential(*layers, nn.Linear(HIDDEN, 1))

    @override
    def make_optimizers(self) -> Optimizers:
        discriminator = Adam(
            self.discriminator.parameters(),
            lr=self.hparams.discriminator_lr,
            weight_decay=self.hparams.weight_decay,
        )
        network = [*self.backbone.parameters(), *self.head.parameters()]
        return {"main": self.adam(network), "discriminator": discriminator}

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self._features(inputs))
        return logits

    @override
    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        features = self._features(batch.inputs)
        risk = F.cross_entropy(self.head(features), batch.targets)
        adversarial = self._taken_for(features, 1.0)
        weight = self.hparams.adversarial_weight
        self.minimise(risk + weight * adversarial, optimizers["main"])

        features = features.detach()
        _, low = RANGES[self.hparams.activation]
        noise = low + (1 - low) * torch.rand_like(features)
        loss = self._taken_for(noise, 1.0) + weight * self._taken_for(features, 0.0)
        self.minimise(loss, optimizers["discriminator"])
        return {
            "loss": (risk + weight * adversarial).detach(),
            "risk": risk.detach(),
            "discriminator_loss": loss.detach(),
        }

    def _features(self, inputs: Tensor) -> Tensor:
        activation, _ = RANGES[self.hparams.activation]
        return activation(self.backbone(inputs))

    def _taken_for(self, values: Tensor, what: float) -> Tensor:
        """Cross-entropy of taking values for noise (1) or features (0)."""
        logits: Tensor = self.discriminator(values).squeeze(1)
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, what))
