"""IGA against its formula; for a head alone it is gradient alignment."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hessalign.algorithms import get_algorithm
from tests.algorithms.tiny import DOMAINS, assert_objective, make_algorithm, make_batch, parts


@pytest.mark.parametrize(("variant", "shares"), [("paper", DOMAINS), ("domainbed", 1)])
def test_iga(variant: str, shares: int) -> None:
    algorithm, batch = make_algorithm("iga", penalty_weight=0.7, variant=variant), make_batch()
    network = nn.Sequential(algorithm.backbone, algorithm.head)
    parameters = list(network.parameters())
    every = [F.cross_entropy(network(x), y) for x, y in parts(batch)]
    gradients = [
        torch.cat([g.flatten() for g in torch.autograd.grad(risk, parameters, create_graph=True)])
        for risk in every
    ]
    centre = (sum(gradients) / DOMAINS).detach()
    penalty = sum(((gradient - centre) ** 2).sum() for gradient in gradients) / shares
    found, metrics = algorithm.objective(batch)
    assert_objective(algorithm, found, sum(every) / DOMAINS + 0.7 * penalty)
    torch.testing.assert_close(metrics["penalty"], penalty.detach())


def test_of_a_head_alone_it_is_the_gradients_term_of_hgp() -> None:
    batch, losses = make_batch(), []
    for name, hparams in (("iga", {"penalty_weight": 0.7}), ("hgp", {"alpha": 0.0, "beta": 0.7})):
        torch.manual_seed(0)
        made = get_algorithm(name)
        chosen = made.hparams_class.with_defaults("features", hparams)
        algorithm = made(nn.Identity(), 4, 3, DOMAINS, chosen).double()
        loss = algorithm.objective(batch)[0]
        losses.append((loss.detach(), *torch.autograd.grad(loss, list(algorithm.parameters()))))
    torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-12)
