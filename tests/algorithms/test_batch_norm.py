"""BatchNorm that is trained: which algorithms normalise each domain by statistics of its own."""

import copy

import pytest
import torch
from torch import Tensor, nn

from hessalign.algorithms import Algorithm, DomainBatch, get_algorithm
from tests.algorithms.test_objectives import aligned_loss, mean_risk
from tests.algorithms.tiny import CLASSES, DOMAINS, INPUTS, WIDTH, make_batch, parts, risks

BY_DOMAIN = {"group_dro", "coral", "mmd", "mtl", "hgp", "hutchinson", "causirl_coral", "causirl_mmd", "eqrm"}
"""Their DomainBed code, or the paper's, sends each domain through the network by itself."""
OURS = {"cma", "exact_diagonal", "exact_hessian", "flat_head"}
"""Not in DomainBed; they go with Hutchinson."""
MIXED = {"transfer": [18, 6, 6, 6, 6, 6, 6], "erm_plus_plus": [18]}
"""Transfer's risk is pooled and its gaps are by domain; ERM++'s mean network sees the batch once more."""
POOLED = {"erm", "irm", "dann", "cdann", "sagnet", "vrex", "rsc", "fishr", "sd", "ib_erm", "ib_irm", "rdm"}
POOLED |= {"trm", "cad", "cond_cad", "self_reg", "urm", "adrmx"}


def make(name: str, trained: bool = True, **hparams) -> Algorithm:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(INPUTS, WIDTH), nn.BatchNorm1d(WIDTH), nn.Tanh())
    algorithm_class = get_algorithm(name)
    chosen = algorithm_class.hparams_class.with_defaults("large", hparams)
    algorithm = algorithm_class(backbone, WIDTH, CLASSES, DOMAINS, chosen).double()
    backbone[1].train(trained)
    return algorithm


def passes(algorithm: Algorithm, batch: DomainBatch) -> list[int]:
    """Number of samples of each pass through the backbone in an update."""
    seen: list[int] = []
    algorithm.backbone.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    algorithm.update(batch, algorithm.make_optimizers())
    return seen


@pytest.mark.parametrize("name", sorted(BY_DOMAIN | OURS))
def test_each_domain_passes_alone_where_batch_norm_is_trained(name: str) -> None:
    batch = make_batch()
    assert passes(make(name), batch) == [6, 6, 6]
    assert passes(make(name, trained=False), batch) == [18]


@pytest.mark.parametrize("name", sorted(POOLED))
def test_the_others_pool_as_the_reference_does(name: str) -> None:
    assert {*passes(make(name), make_batch())} == {18}


@pytest.mark.parametrize("name", MIXED)
def test_some_do_both(name: str) -> None:
    assert passes(make(name), make_batch()) == MIXED[name]


def test_a_batch_norm_without_running_statistics_is_never_frozen() -> None:
    algorithm = make("coral")
    algorithm.backbone[1] = nn.BatchNorm1d(WIDTH, track_running_stats=False).double().eval()
    assert passes(algorithm, make_batch()) == [6, 6, 6]


def reference(algorithm: Algorithm, batch: DomainBatch) -> Tensor:
    """The loss of the reference, each domain by itself."""
    name, mean = algorithm.name, mean_risk(algorithm, batch)
    if name == "group_dro":
        every = torch.stack(risks(algorithm, batch))
        raised = (algorithm.hparams.eta * every.detach()).exp()
        return raised / raised.sum() @ every
    if name == "coral":
        features = [algorithm.backbone(inputs) for inputs, _ in parts(batch)]
        total = 0
        for i, j in ((0, 1), (0, 2), (1, 2)):
            first, second = features[i], features[j]
            total = total + ((first.mean(0) - second.mean(0)) ** 2).mean()
            total = total + ((torch.cov(first.T) - torch.cov(second.T)) ** 2).mean()
        return mean + total / 3
    return aligned_loss(algorithm, batch, lambda g, h: h @ g, 0.5, 0.2)


@pytest.mark.parametrize(
    ("name", "hparams"), [("group_dro", {}), ("coral", {}), ("hgp", {"alpha": 0.5, "beta": 0.2})]
)
def test_the_update_is_the_references_with_trained_batch_norm(name: str, hparams: dict) -> None:
    batch = make_batch()
    ours = make(name, lr=0.01, **hparams)
    theirs = copy.deepcopy(ours)
    metrics = ours.update(batch, ours.make_optimizers())
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.01)
    loss = reference(theirs, batch)
    loss.backward()
    optimizer.step()
    torch.testing.assert_close(metrics["loss"], loss.detach(), rtol=1e-10, atol=1e-12)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-8)


def test_running_statistics_move_once_for_each_domain() -> None:
    batch, algorithm = make_batch(), make("hgp")
    norm = copy.deepcopy(algorithm.backbone)
    algorithm.update(batch, algorithm.make_optimizers())
    for inputs, _ in parts(batch):
        norm(inputs)
    for buffer, other in zip(algorithm.backbone.buffers(), norm.buffers(), strict=True):
        torch.testing.assert_close(buffer, other)


def test_shifted_domains_differ_little_once_each_is_normalised() -> None:
    """Two domains of eight samples, one shifted by 3: BatchNorm removes the shift where it sees it."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU())
    algorithm_class = get_algorithm("coral")
    algorithm = algorithm_class(backbone, 6, 3, 2, algorithm_class.hparams_class.with_defaults("large"))
    ids = torch.arange(2).repeat_interleave(8)
    inputs = torch.randn(16, 4) + 3 * ids.unsqueeze(1)
    batch = DomainBatch(inputs, torch.arange(16) % 3, ids, 2)
    found = algorithm.objective(batch)[1]["penalty"]
    alone, pooled = (
        features.detach().split(8)
        for features in (torch.cat([backbone(part) for part in inputs.split(8)]), backbone(inputs))
    )

    def distance(first: Tensor, second: Tensor) -> Tensor:
        means = (first.mean(0) - second.mean(0)).square().mean()
        return means + (torch.cov(first.T) - torch.cov(second.T)).square().mean()

    torch.testing.assert_close(found, distance(*alone))
    assert distance(*pooled) > 10 * found


@pytest.mark.parametrize("name", sorted(BY_DOMAIN - {"hutchinson"}))
def test_with_frozen_batch_norm_one_pass_is_the_same(name: str) -> None:
    batch = make_batch()
    algorithm = make(name, trained=False)
    pooled = algorithm.domain_features(batch)
    alone = torch.cat([algorithm.backbone(inputs) for inputs, _ in parts(batch)])
    torch.testing.assert_close(pooled, alone, rtol=1e-14, atol=1e-14)
