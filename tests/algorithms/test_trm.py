"""TRM: its loss, its heads and its weights against automatic differentiation, twice where it must be."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hessalign.algorithms import Algorithm, DomainBatch
from hessalign.algorithms.trm import _domainbeds_product
from hessalign.head import HeadDerivatives
from tests.algorithms.test_objectives import mean_risk
from tests.algorithms.tiny import DOMAINS, assert_objective, make_algorithm, make_batch, parts

HPARAMS = {"implicit_weight": 0.3, "erm_steps": 1, "eta": 0.5}


def risk(head: Tensor, features: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(features @ head[:, :-1].T + head[:, -1], targets)


def fitted(head: Tensor, features: Tensor, targets: Tensor) -> Tensor:
    """Thirty steps of SGD at 0.1."""
    parameter = head.clone().requires_grad_()
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        risk(parameter, features.detach(), targets).backward()
        optimizer.step()
    return parameter.detach()


def neumann(hessian: Tensor, vector: Tensor, features: Tensor) -> Tensor:
    """``s Σ_k≤10 (1 − s H)^k v``."""
    scale = min(1.0, 2 / float((1 + (features**2).sum(1)).mean()))
    matrix = torch.eye(len(hessian), dtype=hessian.dtype) - scale * hessian
    return scale * sum(torch.linalg.matrix_power(matrix, k) @ vector for k in range(11))


def domainbeds_series(hessian: Tensor, vector: Tensor, weights: Tensor) -> Tensor:
    """Its first two terms are one tensor, changed in place, so that the first term counts as the second."""
    kept = weights.flatten()
    term = kept * vector
    total = 0
    for number in range(10):
        term = term - kept * (hessian @ term)
        total = total + (2 if number == 0 else 1) * term
        if total.abs().max() > 10:
            break
    return total


def reference(algorithm: Algorithm, batch: DomainBatch, variant: str) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, heads and weights after an update with the transfer risks."""
    features = [algorithm.backbone(inputs) for inputs, _ in parts(batch)]
    targets = [labels for _, labels in parts(batch)]
    before, alphas, heads, loss = algorithm.transfers, algorithm.transfers.clone(), [], 0
    weights = torch.ones_like(algorithm.heads[0])
    if variant == "domainbed":
        weights[:, -1] = 0
    for q in range(DOMAINS):
        head = fitted(algorithm.heads[q], features[q], targets[q]).requires_grad_()
        heads.append(head.detach())
        every = [risk(head, z, y) for z, y in zip(features, targets, strict=True)]
        own = torch.autograd.grad(every[q], head, create_graph=True)[0]
        swapped = sum(before[q, f] * every[f] for f in range(DOMAINS) if f != q)
        wanted = torch.autograd.grad(swapped, head, retain_graph=True)[0].flatten()
        own_risk = partial(risk, features=features[q].detach(), targets=targets[q])
        hessian = torch.autograd.functional.hessian(own_risk, head.detach())
        hessian = hessian.reshape(head.numel(), head.numel())
        if variant == "paper":
            product = neumann(hessian, wanted, features[q].detach())
        else:
            product = domainbeds_series(hessian, wanted, weights)
        loss = loss + (swapped - 0.3 * product.detach() @ own.flatten()) / DOMAINS
        for f in range(DOMAINS):
            followed = every[f].detach() * (before[q, f] if variant == "domainbed" else 1)
            alphas[q, f] = before[q, f] * torch.exp(0.5 * followed)
        alphas[q] = alphas[q] / alphas[q].sum()
    return mean_risk(algorithm, batch) + loss, torch.stack(heads), alphas.detach()


@pytest.mark.parametrize("variant", ["paper", "domainbed"])
def test_loss_heads_and_weights_over_two_updates(variant: str) -> None:
    algorithm = make_algorithm("trm", variant=variant, **HPARAMS)
    algorithm.steps_done = 1
    for seed in (1, 2):
        batch = make_batch(seed=seed)
        expected, heads, alphas = reference(algorithm, batch, variant)
        found, metrics = algorithm.objective(batch)
        assert_objective(algorithm, found, expected)
        torch.testing.assert_close(algorithm.heads, heads, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(algorithm.transfers, alphas, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(metrics["risk"] + metrics["transfer"], found.detach())


def test_before_the_transfer_risks_nothing_but_the_network_moves() -> None:
    algorithm, batch = make_algorithm("trm", erm_steps=2), make_batch()
    heads, transfers = algorithm.heads.clone(), algorithm.transfers.clone()
    assert_objective(algorithm, algorithm.objective(batch)[0], mean_risk(algorithm, batch))
    assert torch.equal(algorithm.heads, heads)
    assert torch.equal(algorithm.transfers, transfers)
    torch.testing.assert_close(transfers.diagonal(), torch.zeros(DOMAINS, dtype=torch.float64))


def test_the_series_converges_whatever_the_size_of_the_features() -> None:
    """Where the reference's has been broken off: its terms grow without end."""
    algorithm = make_algorithm("trm")
    torch.manual_seed(0)
    features = 30 * torch.randn(12, 5, dtype=torch.float64)
    logits, targets = torch.randn(12, 3, dtype=torch.float64), torch.arange(12) % 3
    derivatives = HeadDerivatives.from_logits(features, logits, targets)
    vector = derivatives.gradient()
    ours = algorithm._inverse_product(derivatives, vector)
    exact = neumann(derivatives.hessian(), vector.flatten(), features)
    torch.testing.assert_close(ours.flatten(), exact, rtol=1e-8, atol=1e-12)
    theirs = _domainbeds_product(derivatives, vector)
    assert theirs.abs().max() > 10
    # Of a vector in the range of the Hessian, and with terms enough, it is the inverse's product.
    residual = derivatives.hvp(ours) - vector
    assert residual.norm() < vector.norm()


def test_nothing_is_differentiated_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, batch = make_algorithm("trm", erm_steps=0), make_batch()

    def refused(*args, **kwargs):
        raise AssertionError("autograd.grad was called")

    monkeypatch.setattr(torch.autograd, "grad", refused)
    algorithm.update(batch, algorithm.make_optimizers())
