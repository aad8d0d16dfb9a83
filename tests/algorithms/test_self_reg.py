"""SelfReg against its formula, and the projection that DomainBed forgets."""

import pytest
import torch
import torch.nn.functional as F
from torch.distributions import Beta

from hessalign.algorithms import get_algorithm
from hessalign.algorithms.self_reg import _within_classes
from tests.algorithms.tiny import assert_objective, make_algorithm, make_batch, snapshot


def test_self_reg() -> None:
    algorithm, batch = make_algorithm("self_reg"), make_batch()
    torch.manual_seed(4)
    found = algorithm.objective(batch)[0]
    torch.manual_seed(4)
    share = Beta(0.5, 0.5).sample().item()
    first, second = _within_classes(batch.targets), _within_classes(batch.targets)
    features = algorithm.backbone(batch.inputs)
    logits, projected = algorithm.head(features), algorithm.projection(features)
    penalty = 0
    for weight, values, others in ((1.0, logits, logits), (0.3, features, projected)):
        mixed = share * others[first] + (1 - share) * others[second]
        individual, mixture = ((values - others[first]) ** 2).mean(), ((values - mixed) ** 2).mean()
        penalty = penalty + weight * (share * individual + (1 - share) * mixture)
    risk = F.cross_entropy(logits, batch.targets)
    assert_objective(algorithm, found, risk + min(float(risk.detach()), 1.0) * penalty)


def test_permutations_stay_within_classes_and_are_all_equally_likely() -> None:
    targets = torch.tensor([1, 0, 1, 2, 1])
    torch.manual_seed(0)
    drawn = [tuple(_within_classes(targets).tolist()) for _ in range(3000)]
    assert all(sorted(order) == list(range(5)) for order in drawn)
    assert all((targets[list(order)] == targets).all() for order in set(drawn))
    counts = [drawn.count(order) for order in set(drawn)]
    assert len(counts) == 6
    assert all(abs(count - 500) < 4 * (500 * 5 / 6) ** 0.5 for count in counts)


@pytest.mark.parametrize(("variant", "trained"), [("paper", True), ("domainbed", False)])
def test_the_projection_is_trained_in_our_variant_only(variant: str, trained: bool) -> None:
    algorithm = make_algorithm("self_reg", variant=variant)
    before = snapshot(algorithm.projection)
    algorithm.update(make_batch(), algorithm.make_optimizers())
    assert torch.equal(algorithm.projection[0].weight, before["0.weight"]) is not trained
    assert not torch.equal(algorithm.projection[1].running_mean, before["1.running_mean"])


def test_the_projection_of_a_resnet_50_is_as_wide_as_its_features() -> None:
    widths = [make_width(width) for width in (8, 2048)]
    assert widths == [16, 2048]


def make_width(width: int) -> int:
    made = get_algorithm("self_reg")
    with torch.device("meta"):
        algorithm = made(torch.nn.Identity(), width, 3, 2, made.hparams_class.with_defaults("large"))
    return algorithm.projection[0].out_features
