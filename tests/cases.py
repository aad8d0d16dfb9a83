"""Random heads in float64 with losses written out independently of the library."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor

import hessalign as ha

SampleLoss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A linear head on random features, its loss by name or object, and the same loss as a plain function."""

    features: Tensor
    weight: Tensor  # (C, d+1), the bias last
    targets: Tensor
    loss: str | ha.HeadLoss
    sample_loss: SampleLoss  # (logits (C,), target) -> scalar

    @property
    def logits(self) -> Tensor:
        return self.features @ self.weight[:, :-1].T + self.weight[:, -1]

    def sample_losses(self, weight: Tensor) -> Tensor:
        logits = self.features @ weight[:, :-1].T + weight[:, -1]
        return torch.vmap(self.sample_loss)(logits, self.targets)

    def mean_loss(self, weight: Tensor) -> Tensor:
        return self.sample_losses(weight).mean()

    def dense_hessian(self) -> Tensor:
        size = self.weight.numel()
        return torch.func.hessian(self.mean_loss)(self.weight).reshape(size, size)

    def derivatives(self) -> ha.HeadDerivatives:
        return ha.HeadDerivatives.from_logits(self.features, self.logits, self.targets, self.loss)

    def rows(self, chosen: Tensor) -> "Case":
        return Case(self.features[chosen], self.weight, self.targets[chosen], self.loss, self.sample_loss)


def softmax_loss(logits: Tensor, target: Tensor) -> Tensor:
    return -(logits - logits.logsumexp(0)).gather(0, target.unsqueeze(0)).squeeze(0)


def soft_softmax_loss(logits: Tensor, target: Tensor) -> Tensor:
    return -(target * (logits - logits.logsumexp(0))).sum()


def sigmoid_loss(logits: Tensor, target: Tensor) -> Tensor:
    return (torch.log1p(torch.exp(logits)) - target * logits).sum()


def squared_loss(activation: Callable[[Tensor], Tensor]) -> SampleLoss:
    return lambda logits, target: 0.5 * (activation(logits) - target).square().sum()


def coupled_loss(logits: Tensor, target: Tensor) -> Tensor:
    """No closed form in the library: couples outputs and is not convex."""
    return torch.sin(logits.sum()) * target.sum() + (logits.cos() * target).sum() + logits.square().prod()


def wiggle(logits: Tensor) -> Tensor:
    return torch.sin(logits) + 0.1 * logits.pow(3)


SQUARED = {
    "identity": lambda a: a,
    "sigmoid": lambda a: 1 / (1 + torch.exp(-a)),
    "tanh": lambda a: (torch.exp(2 * a) - 1) / (torch.exp(2 * a) + 1),
    "softplus": lambda a: torch.log1p(torch.exp(a)),
}
KINDS = (
    "cross_entropy",
    "soft_cross_entropy",
    "binary_cross_entropy",
    *SQUARED,
    "callable_activation",
    "autograd",
)


def make_case(kind: str, samples: int, width: int, outputs: int, seed: int) -> Case:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    if "cross_entropy" in kind and kind != "binary_cross_entropy":
        outputs = max(outputs, 2)
    features, weight = normal(samples, width), 0.5 * normal(outputs, width + 1)
    real = normal(samples, outputs)
    if kind == "cross_entropy":
        targets = torch.randint(0, outputs, (samples,), generator=generator)
        return Case(features, weight, targets, "cross_entropy", softmax_loss)
    if kind == "soft_cross_entropy":
        return Case(features, weight, real.softmax(1), "cross_entropy", soft_softmax_loss)
    if kind == "binary_cross_entropy":
        return Case(features, weight, (real > 0).double(), "binary_cross_entropy", sigmoid_loss)
    if kind == "callable_activation":
        return Case(features, weight, real, ha.SquaredError(wiggle), squared_loss(wiggle))
    if kind == "autograd":
        return Case(features, weight, real, ha.AutogradLoss(coupled_loss), coupled_loss)
    return Case(features, weight, real, ha.SquaredError(kind), squared_loss(SQUARED[kind]))


def cases(min_samples: int = 1, max_samples: int = 7) -> st.SearchStrategy[Case]:
    return st.builds(
        make_case,
        st.sampled_from(KINDS),
        st.integers(min_samples, max_samples),
        st.integers(1, 5),
        st.integers(1, 4),
        st.integers(0, 2**20),
    )
