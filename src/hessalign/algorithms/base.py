"""What an algorithm is: a network, hyper-parameters, and either an objective or a step of its own."""

from abc import ABC
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from hessalign.algorithms.hparams import HParams
from hessalign.algorithms.registry import register as register  # noqa: PLC0414 (mypy: exported from here, too)
from hessalign.head import CrossEntropy, HeadDerivatives

Optimizers = dict[str, Optimizer]
Metrics = dict[str, Tensor]


@dataclass(frozen=True, eq=False)
class DomainBatch:
    """A batch with the same number of samples from each source domain, sorted by domain.

    Attributes:
        inputs: ``(E·B, ...)``: ``B`` samples of domain 0, then of domain 1 ...
        targets: Class ids, ``(E·B,)``.
        domains: Domain of each sample, 0 to E − 1, ``(E·B,)``.
        domain_count: ``E``.
    """

    inputs: Tensor
    targets: Tensor
    domains: Tensor
    domain_count: int

    @property
    def samples_per_domain(self) -> int:
        """``B``."""
        return len(self.targets) // self.domain_count

    def by_domain(self, values: Tensor) -> tuple[Tensor, ...]:
        """Values of the samples, split by domain."""
        parts: tuple[Tensor, ...] = values.split(self.samples_per_domain)
        return parts

    def to(self, device: torch.device) -> "DomainBatch":
        """The same batch on a device."""
        return DomainBatch(
            self.inputs.to(device), self.targets.to(device), self.domains.to(device), self.domain_count
        )

    def domain_batches(self) -> list["DomainBatch"]:
        """One batch for each domain, with that domain alone."""
        parts = zip(*map(self.by_domain, (self.inputs, self.targets, self.domains)), strict=True)
        return [DomainBatch(inputs, targets, domains, 1) for inputs, targets, domains in parts]


class Algorithm(nn.Module, ABC):
    """A network with a rule to train it.

    A subclass implements [objective][] (the loss of a batch, minimised by one Adam), or overrides [step][]
    and [make_optimizers][] where its rule is more than that. Everything a run must remember between steps is
    a parameter or a buffer, so that ``state_dict`` holds all of it.

    Args:
        backbone: Maps inputs to features ``(n, width)``.
        width: Number of features.
        classes: Number of classes.
        domains: Number of source domains.
        hparams: Hyper-parameters, of the class that the algorithm's ``hparams_class`` names.

    Attributes:
        name: What ``register`` made it known by.
        reference_name: The class's name, which is DomainBed's spelling; it seeds the runs of a sweep.
        needs_images: Whether the rule works on images only, not on feature vectors.
        needs_trainable_backbone: Whether the rule trains the backbone in a way that a bare head on frozen
            features has no use for.
    """

    name: ClassVar[str]
    reference_name: ClassVar[str]
    hparams_class: ClassVar[type[HParams]] = HParams
    extra_input_channels: ClassVar[int] = 0
    needs_images: ClassVar[bool] = False
    needs_trainable_backbone: ClassVar[bool] = False
    steps_done: Tensor

    def __init__(self, backbone: nn.Module, width: int, classes: int, domains: int, hparams: HParams) -> None:
        super().__init__()
        self.backbone = backbone
        self.width = width
        self.classes = classes
        self.domains = domains
        self.head = self.make_head()
        self.hparams = hparams
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.long))
        self.backward: Callable[[Tensor], None] = torch.Tensor.backward
        self.build()

    @classmethod
    def batched_hparams(cls, hparams: HParams) -> tuple[str, ...] | None:
        """Hyper-parameters in which runs that are trained together may differ, learning rate etc. aside.

        Runs can be trained together where ``step`` and ``forward`` are this class's own and ``objective`` is
        a function of the batch, parameters, buffers and hyper-parameters that draws no random number and
        whose course does not depend on their values: then ``torch.func.vmap`` computes it for many runs at
        once, the named hyper-parameters being scalar tensors.

        Args:
            hparams: Of a run.

        Returns:
            Their names; None (default) where runs must be trained one by one.
        """
        return None

    def build(self) -> None:
        """Add modules and buffers beyond backbone and head; nothing by default."""

    def make_head(self) -> nn.Linear:
        """The linear classifier."""
        return nn.Linear(self.width, self.classes)

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits ``(n, C)``, as the trained algorithm predicts them."""
        logits: Tensor = self.head(self.backbone(inputs))
        return logits

    def make_optimizers(self) -> Optimizers:
        """The optimisers of [step][], by name."""
        return {"main": self.adam(self.parameters())}

    def adam(self, parameters: Iterable[nn.Parameter]) -> Adam:
        """Adam with the hyper-parameters' learning rate and L2 weight decay."""
        return Adam(parameters, lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)

    def objective(self, batch: DomainBatch) -> tuple[Tensor, Metrics]:
        """Loss of a batch, and what else is worth reporting.

        Args:
            batch: Of all source domains.

        Returns:
            Scalar loss, and detached scalars by name.
        """
        raise NotImplementedError(f"{type(self).__name__} implements neither objective nor step")

    def forgets_moments(self) -> bool | Tensor:
        """Whether Adam begins anew with the step that is about to be done; never by default."""
        return False

    def step(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        """One update.

        Args:
            batch: Of all source domains.
            optimizers: As [make_optimizers][] made them.

        Returns:
            Detached scalars by name, the loss among them.
        """
        if self.forgets_moments():
            reset(optimizers["main"])
        loss, metrics = self.objective(batch)
        self.minimise(loss, optimizers["main"])
        return {"loss": loss.detach(), **metrics}

    def update(self, batch: DomainBatch, optimizers: Optimizers) -> Metrics:
        """[step][], counted."""
        metrics = self.step(batch, optimizers)
        self.steps_done += 1
        return metrics

    def minimise(self, loss: Tensor, *optimizers: Optimizer) -> None:
        """One step of the optimisers on the gradient of the loss, all other gradients discarded."""
        self.zero_grad()
        self.backward(loss)
        for optimizer in optimizers:
            optimizer.step()


def cross_entropies(logits: Tensor, batch: DomainBatch) -> Tensor:
    """Mean cross-entropy ``R_e`` of each domain, ``(E,)``."""
    losses = F.cross_entropy(logits, batch.targets, reduction="none")
    return losses.view(batch.domain_count, -1).mean(1)


def head_derivatives(features: Tensor, logits: Tensor, batch: DomainBatch) -> list[HeadDerivatives]:
    """Derivatives of each domain's mean cross-entropy, in float32 at least; values are not checked.

    Unlike [HeadDerivatives.from_logits][hessalign.HeadDerivatives.from_logits] it never looks at a value:
    that would make a GPU wait, and runs that are trained together do not have a single one.
    """
    dtype = torch.promote_types(torch.promote_types(features.dtype, logits.dtype), torch.float32)
    classes = torch.arange(logits.shape[1], device=logits.device)
    one_hot = (batch.targets.unsqueeze(1) == classes).to(dtype)
    derivatives = HeadDerivatives(features.to(dtype), *CrossEntropy().derivatives(logits.to(dtype), one_hot))
    return derivatives.split([batch.samples_per_domain] * batch.domain_count)


def reset(optimizer: Optimizer) -> None:
    """Forget the moments, as if the optimiser had just been made."""
    optimizer.state.clear()
