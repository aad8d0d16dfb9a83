"""URM: features that pass for noise, and the discriminator that tells them from it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Adam

from tests.algorithms.tiny import make_algorithm, make_batch

LOWEST = {"tanh": -1.0, "relu": 0.0, "sigmoid": 0.0}


@pytest.mark.parametrize("activation", LOWEST)
def test_two_updates(activation: str) -> None:
    ours = make_algorithm(
        "urm", adversarial_weight=0.3, activation=activation, lr=0.01, discriminator_lr=0.02, weight_decay=0.1
    )
    theirs = copy.deepcopy(ours)
    applied = getattr(torch, activation)
    main = Adam([*theirs.backbone.parameters(), *theirs.head.parameters()], lr=0.01, weight_decay=0.1)
    discriminator = Adam(theirs.discriminator.parameters(), lr=0.02, weight_decay=0.1)
    optimizers = ours.make_optimizers()

    def taken_for(values, what):
        logits = theirs.discriminator(values).squeeze(1)
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, what))

    for seed in (1, 2):
        batch = make_batch(seed=seed)
        torch.manual_seed(seed)
        ours.update(batch, optimizers)
        torch.manual_seed(seed)
        features = applied(theirs.backbone(batch.inputs))
        theirs.zero_grad()
        risk = F.cross_entropy(theirs.head(features), batch.targets)
        (risk + 0.3 * taken_for(features, 1.0)).backward()
        main.step()
        low = LOWEST[activation]
        noise = low + (1 - low) * torch.rand(features.shape, dtype=torch.float64)
        theirs.zero_grad()
        (taken_for(noise, 1.0) + 0.3 * taken_for(features.detach(), 0.0)).backward()
        discriminator.step()
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-8)
    expected = theirs.head(applied(theirs.backbone(batch.inputs)))
    torch.testing.assert_close(ours(batch.inputs), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("hidden", [0, 1, 3])
def test_the_discriminators_layers(hidden: int) -> None:
    algorithm = make_algorithm("urm", hidden_layers=hidden)
    layers = [layer for layer in algorithm.discriminator if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in layers] == [100] * (1 + hidden) + [1]
