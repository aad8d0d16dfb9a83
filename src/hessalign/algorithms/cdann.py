"""Conditional domain-adversarial networks (Li et al., ECCV 2018)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from typing_extensions import override

from hessalign.algorithms.adversarial import Adversarial
from hessalign.algorithms.base import register


@register("cdann", reference_name="CDANN")
class CDANN(Adversarial):
    """The discriminator sees ``z + Emb(y)``, and its loss weighs all classes alike.

    ``w_i = 1 / (n_{y_i} K′)``, ``n_y`` the class's samples in the batch and ``K′`` one more than its largest
    label. The embedding is trained with the discriminator.
    """

    @override
    def build(self) -> None:
        super().build()
        self.class_embeddings = nn.Embedding(self.classes, self.width)

    def discriminator_input(self, features: Tensor, targets: Tensor) -> Tensor:
        """``z + Emb(y)``."""
        shifted: Tensor = features + self.class_embeddings(targets)
        return shifted

    @override
    def sample_weights(self, targets: Tensor) -> Tensor:
        # Not bincount, whose length depends on the largest label, for which a GPU would have to wait.
        counts = (targets.unsqueeze(1) == torch.arange(self.classes, device=targets.device)).sum(0)
        return 1.0 / (counts[targets] * (targets.max() + 1))

    def discriminator_parameters(self) -> Iterable[nn.Parameter]:
        """Discriminator and embedding."""
        return [*self.discriminator.parameters(), *self.class_embeddings.parameters()]
