"""Every algorithm learns: domains that differ a little, classes that differ a lot, a target never seen."""

import pytest
import torch

from hessalign.algorithms import algorithm_names
from tests.algorithms.images import DOMAINS, SAMPLES, draw_batch, draw_images, make_on_images

STEPS = 150
FASTER = {
    "irm": {"anneal_steps": 50},
    "vrex": {"anneal_steps": 50},
    "fishr": {"anneal_steps": 50},
    "dann": {"generator_lr": 0.01, "discriminator_lr": 0.01},
    "cdann": {"generator_lr": 0.01, "discriminator_lr": 0.01},
    "arm": {"batch_size": SAMPLES},
    "cma": {"anneal_steps": 100},
    "ib_erm": {"anneal_steps": 50, "penalty_weight": 1.0},
    "ib_irm": {"irm_anneal_steps": 50, "ib_anneal_steps": 100, "irm_weight": 10.0, "ib_weight": 1.0},
    "iga": {"penalty_weight": 10.0},
    "eqrm": {"burn_in_steps": 50, "late_lr": 0.01},
    "rdm": {"anneal_steps": 50, "late_lr": 0.01},
    "trm": {"erm_steps": 50},
    "erm_plus_plus": {"linear_steps": 30, "linear_lr": 0.01, "average_from": 60},
    "urm": {"discriminator_lr": 0.01},
}


@pytest.mark.no_cover  # updates are measured elsewhere
@pytest.mark.parametrize("name", algorithm_names())
def test_learns_and_carries_over_to_an_unseen_domain(name: str) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    algorithm = make_on_images(name, {"lr": 0.01, **FASTER.get(name, {})})
    optimizers = algorithm.make_optimizers()
    for _ in range(STEPS):
        metrics = algorithm.update(draw_batch(generator), optimizers)
        assert all(value.isfinite() and not value.requires_grad for value in metrics.values())
    assert algorithm.steps_done == STEPS
    algorithm.eval()
    inputs, targets = draw_images(DOMAINS, 512, generator)
    accuracy = (algorithm(inputs).argmax(1) == targets).float().mean()
    assert accuracy >= 0.95
