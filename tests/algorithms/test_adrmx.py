"""ADRMX: its loss term by term, and which samples are remixed."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim import Adam

from hessalign.algorithms import DomainBatch
from hessalign.algorithms.adrmx import contrastive_loss, domainbeds_pairs, pairs_within_classes
from tests.algorithms.tiny import CLASSES, make_algorithm, make_batch

HPARAMS = {
    "lr": 0.01,
    "contrastive_weight": 0.2,
    "domain_weight": 0.3,
    "discriminator_weight": 0.4,
    "remix_weight": 0.5,
    "mlp_depth": 3,
    "mlp_width": 7,
}


def contrast(features: Tensor, batch: DomainBatch) -> Tensor:
    """Sample by sample."""
    unit = [z / z.norm() for z in features]
    targets, domains = batch.targets.tolist(), batch.domains.tolist()
    total, anchors = 0, 0
    for i, z in enumerate(unit):
        others = [j for j in range(len(unit)) if j != i]
        terms = {j: 0.5 * torch.exp(z @ unit[j] / 0.07) for j in others}
        positives = [j for j in others if targets[j] == targets[i]]
        if positives:
            anchors += 1
            sums = sum(terms.values()) + 1e-5
            total = total - sum(torch.log(terms[j] / sums + 1e-5) for j in positives) / len(positives)
    assert {*domains} == {0, 1, 2}
    return total / (anchors + 1)


def test_the_contrastive_loss_is_its_formula() -> None:
    batch = make_batch()
    targets = batch.targets.clone()
    targets[(targets == 0).nonzero()[1:].flatten()] = 1  # one sample is the only one of its class
    batch = DomainBatch(batch.inputs, targets, batch.domains, 3)
    torch.testing.assert_close(contrastive_loss(batch.inputs, batch), contrast(batch.inputs, batch))


@pytest.mark.parametrize("variant", ["paper", "domainbed"])
def test_six_updates(variant: str) -> None:
    ours = make_algorithm("adrmx", variant=variant, **HPARAMS)
    torch.nn.init.normal_(ours.domain_backbone[0].weight)  # it begins as a copy, and their difference as zero
    theirs = copy.deepcopy(ours)
    hidden = [theirs.hidden, theirs.head, theirs.invariant_classifier, theirs.domain_classifier]
    trained = [theirs.backbone, theirs.domain_backbone, *hidden]
    main = Adam([p for part in trained for p in part.parameters()], lr=0.01, betas=(0.5, 0.9))
    discriminator = Adam(theirs.discriminator.parameters(), lr=0.01, betas=(0.5, 0.9))
    optimizers = ours.make_optimizers()
    for step, who in enumerate("dgddgd"):  # counting from 1: the discriminator's where step mod 3 < 2
        batch = make_batch(seed=step)
        torch.manual_seed(step)
        ours.update(batch, optimizers)
        torch.manual_seed(step)
        z, d = theirs.backbone(batch.inputs), theirs.domain_backbone(batch.inputs)
        v = z - d
        fooled = F.cross_entropy(theirs.discriminator(v), batch.domains)
        theirs.zero_grad()
        if who == "d":
            fooled.backward()
            discriminator.step()
        else:
            draw = pairs_within_classes if variant == "paper" else domainbeds_pairs
            first, second, drawn = draw(batch, CLASSES)
            remix = 0
            for i, j, is_drawn in zip(first, second, drawn, strict=True):
                if is_drawn:
                    logits = theirs.head(theirs.hidden(v[i] + d[j]))
                    remix = remix + F.cross_entropy(logits.unsqueeze(0), batch.targets[i : i + 1]) / CLASSES
            loss = F.cross_entropy(theirs.head(theirs.hidden(z)), batch.targets)
            loss = loss + F.cross_entropy(theirs.invariant_classifier(v), batch.targets)
            loss = loss + 0.3 * F.cross_entropy(theirs.domain_classifier(d), batch.domains)
            loss = loss + 0.5 * remix + 0.2 * (contrast(z, batch) + contrast(v, batch)) - 0.4 * fooled
            loss.backward()
            main.step()
        for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(
                mine, other, rtol=0, atol=1e-7, msg=lambda said, name=name: name + said
            )


def test_remixed_are_two_samples_of_a_class_from_two_domains() -> None:
    """All pairs there are, about equally often; a class of one domain has none."""
    targets = torch.tensor([0, 0, 1, 2, 0, 1, 1, 2, 0, 1, 2, 2])
    domains = torch.arange(3).repeat_interleave(4)
    targets[targets == 2] = torch.where(domains[targets == 2] == 0, 2, 0)
    batch = DomainBatch(torch.zeros(12, 1), targets, domains, 3)
    torch.manual_seed(0)
    seen: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
    for _ in range(600):
        first, second, drawn = pairs_within_classes(batch, 3)
        assert drawn.tolist() == [True, True, False]
        for label in (0, 1):
            i, j = int(first[label]), int(second[label])
            assert targets[i] == targets[j] == label
            assert domains[i] != domains[j]
            seen[label].append((i, j))
    for label, pairs in seen.items():
        members = (targets == label).nonzero().flatten().tolist()
        possible = {(i, j) for i in members for j in members if domains[i] != domains[j]}
        assert {*pairs} == possible


def test_domainbeds_pairs_are_places_at_the_front_of_the_batch() -> None:
    """It draws numbers below the size of a class, and forgets to look up which samples they stand for."""
    batch = make_batch()
    counts = [int((batch.targets == label).sum()) for label in range(CLASSES)]
    torch.manual_seed(0)
    seen = [set() for _ in range(CLASSES)]
    for _ in range(400):
        first, second, drawn = domainbeds_pairs(batch, CLASSES)
        assert drawn.tolist() == [count >= 2 for count in counts]
        for label in range(CLASSES):
            seen[label].add((int(first[label]), int(second[label])))
    for pairs, count in zip(seen, counts, strict=True):
        assert pairs == {(i, j) for i in range(count) for j in range(count) if i != j}
    wrong = [(i, label) for label, pairs in enumerate(seen) for i, _ in pairs if batch.targets[i] != label]
    assert wrong
