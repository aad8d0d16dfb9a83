"""Transfer: its three kinds of steps, and the optimiser that DomainBed gives the wrong parameters."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import SGD, Adam

from hessalign.algorithms import Algorithm, DomainBatch
from hessalign.exceptions import NoEffectWarning
from tests.algorithms.tiny import make_algorithm, make_batch, parts, snapshot

HPARAMS = {"lr": 0.01, "weight_decay": 0.1, "gap_weight": 0.7, "adversary_lr": 0.5, "adversary_steps": 3}


def gap(algorithm: Algorithm, batch: DomainBatch) -> Tensor:
    every = torch.stack(
        [F.cross_entropy(algorithm.adversary(algorithm.backbone(x)), y) for x, y in parts(batch)]
    )
    return every.max() - every.min()


def distance(algorithm: Algorithm) -> float:
    pairs = zip(algorithm.adversary.parameters(), algorithm.head.parameters(), strict=True)
    return float(sum(((a - b) ** 2).sum() for a, b in pairs).sqrt().detach())


@pytest.mark.parametrize("gda", [False, True])
@pytest.mark.parametrize("radius", [0.05, 50.0])
def test_the_three_steps_of_two_updates(radius: float, gda: bool) -> None:
    ours = make_algorithm("transfer", radius=radius, gda=gda, **HPARAMS)
    theirs = copy.deepcopy(ours)
    network = [*theirs.backbone.parameters(), *theirs.head.parameters()]
    main = SGD(network, lr=0.01) if gda else Adam(network, lr=0.01, weight_decay=0.1)
    adversary = SGD(theirs.adversary.parameters(), lr=0.5)
    optimizers = ours.make_optimizers()
    for seed in (1, 2):
        batch = make_batch(seed=seed)
        ours.update(batch, optimizers)
        steps = [("risk", main), ("gap", main), *[("adversary", adversary)] * 3]
        for number, (what, optimizer) in enumerate(steps):
            if number == 2:
                theirs.adversary.load_state_dict(theirs.head.state_dict())
            theirs.zero_grad()
            if what == "risk":
                F.cross_entropy(theirs(batch.inputs), batch.targets).backward()
            else:
                (gap(theirs, batch) * (0.7 if what == "gap" else -0.7)).backward()
            optimizer.step()
            if number >= 2 and distance(theirs) > radius:
                share = radius / distance(theirs)
                with torch.no_grad():
                    pairs = zip(theirs.adversary.parameters(), theirs.head.parameters(), strict=True)
                    for mine, centre in pairs:
                        mine.copy_(centre + share * (mine - centre))
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=1e-8)
    assert distance(ours) == pytest.approx(radius) if radius < 1 else 0 < distance(ours) < radius


@pytest.mark.parametrize(("variant", "trained"), [("paper", True), ("domainbed", False)])
def test_gda_trains_the_network_in_our_variant_only(variant: str, trained: bool) -> None:
    """All draws of the reference's search have it, and so none of them learns anything."""
    algorithm = make_algorithm("transfer", gda=True, variant=variant, **HPARAMS)
    before, batch = snapshot(algorithm), make_batch()
    optimizers = algorithm.make_optimizers()
    if trained:
        algorithm.update(batch, optimizers)
    else:
        with pytest.warns(NoEffectWarning, match='gda: with variant "domainbed" nothing is trained but'):
            algorithm.update(batch, optimizers)
    for name in ("backbone.0.weight", "head.weight"):
        assert torch.equal(algorithm.state_dict()[name], before[name]) is not trained
    assert not torch.equal(algorithm.adversary.weight, before["adversary.weight"])
