"""CMA: its three published forms, against dense Hessians by torch.func, and its wait."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from hessalign.algorithms import get_algorithm
from tests.algorithms.tiny import make_algorithm, make_batch

ALPHA, BETA = 0.7, 0.3


def dense_loss(algorithm, batch, size) -> Tensor:
    """The formula written out: ``size`` measures differences of Hessians."""

    def loss(theta: Tensor, features: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(features @ theta[:, :-1].T + theta[:, -1], targets)

    theta = torch.cat([algorithm.head.weight, algorithm.head.bias.unsqueeze(1)], dim=1)
    risks, gradients, hessians = [], [], []
    for part in batch.domain_batches():
        features = algorithm.backbone(part.inputs)
        risks.append(loss(theta, features, part.targets))
        gradients.append(torch.func.grad(loss)(theta, features, part.targets).flatten())
        hessian = torch.func.hessian(loss)(theta, features, part.targets)
        hessians.append(hessian.reshape(theta.numel(), theta.numel()))
    gradient, hessian = torch.stack(gradients), torch.stack(hessians)
    distances = BETA * (gradient - gradient.mean(0)).square().sum(1) + ALPHA * size(hessian - hessian.mean(0))
    return torch.stack(risks).mean() + distances.mean()


@pytest.mark.parametrize(
    ("variant", "size"),
    [
        ("diagonal", lambda h: h.diagonal(dim1=1, dim2=2).square().sum(1)),
        ("whole", lambda h: h.square().sum((1, 2))),
        ("probe", lambda h: h.square().mean((1, 2))),
    ],
)
def test_each_form_is_its_formula(variant: str, size) -> None:
    algorithm, batch = make_algorithm("cma", variant=variant, alpha=ALPHA, beta=BETA), make_batch()
    ours, _ = algorithm.objective(batch)
    expected = dense_loss(algorithm, batch, size)
    torch.testing.assert_close(ours, expected, rtol=1e-10, atol=0)
    parameters = list(algorithm.parameters())
    for one, other in zip(
        torch.autograd.grad(ours, parameters), torch.autograd.grad(expected, parameters), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("variant", "other"), [("diagonal", "exact_diagonal"), ("whole", "exact_hessian")])
def test_its_distances_are_those_of_our_exact_algorithms(variant: str, other: str) -> None:
    batch = make_batch()
    ours, _ = make_algorithm("cma", variant=variant, alpha=ALPHA, beta=BETA).objective(batch)
    theirs, _ = make_algorithm(other, alpha=ALPHA, beta=BETA).objective(batch)
    assert torch.equal(ours, theirs)


def test_it_waits_and_adam_begins_anew() -> None:
    algorithm = make_algorithm("cma", anneal_steps=2, alpha=ALPHA, beta=BETA)
    optimizers, batch = algorithm.make_optimizers(), make_batch()
    weighted, steps = [], []
    for _ in range(4):
        metrics = algorithm.update(batch, optimizers)
        weighted.append(float(metrics["penalty"]))
        steps.append(next(iter(optimizers["main"].state.values()))["step"].item())
    assert weighted[:2] == [0, 0]
    assert min(weighted[2:]) > 0
    assert steps == [1, 2, 1, 2]


def test_defaults_and_names_are_the_published_ones() -> None:
    hparams = get_algorithm("cma").hparams_class.with_defaults("large")
    assert (hparams.beta, hparams.alpha, hparams.anneal_steps, hparams.variant) == (5000, 1000, 0, "diagonal")
    names = get_algorithm("cma").hparams_class.reference_names()
    assert (names["beta"], names["alpha"]) == ("grad_alpha", "hess_beta")
    assert names["anneal_steps"] == "penalty_anneal_iters"
