"""What training changes, and that state_dict holds all of what the next update depends on."""

import copy

import pytest
import torch

from hessalign.algorithms import Algorithm, DomainBatch, algorithm_names
from hessalign.algorithms.base import Optimizers
from hessalign.training.seeds import seeded
from tests.algorithms.images import WAITS, draw_batch, drawn_hparams, make_on_images
from tests.algorithms.tiny import make_algorithm, make_batch

UPDATES = 5
DRAWS = [
    pytest.param(range(1), id="defaults"),
    pytest.param(range(1, 2), id="one draw"),
    pytest.param(range(2, 21), id="all others", marks=pytest.mark.slow),
]


def train(algorithm: Algorithm, optimizers: Optimizers, batches: list[DomainBatch]) -> None:
    with seeded(1):
        for batch in batches:
            algorithm.update(batch, optimizers)


@pytest.mark.parametrize("draws", DRAWS)
@pytest.mark.parametrize("name", algorithm_names())
def test_every_parameter_moves_and_the_state_is_whole(name: str, draws: range) -> None:
    """A fresh algorithm with the state of a trained one goes on to the same bits."""
    for hparams_seed in draws:
        hparams = {**drawn_hparams(name, hparams_seed), **WAITS.get(name, {})}
        with seeded(hparams_seed):
            first = make_on_images(name, hparams)
        optimizers = first.make_optimizers()
        before = {key: value.clone() for key, value in first.named_parameters()}
        generator = torch.Generator().manual_seed(hparams_seed)
        # Adversarial training does some discriminator steps before its first step of the backbone.
        updates = max(UPDATES, hparams.get("discriminator_steps", 0) + 1)
        train(first, optimizers, [draw_batch(generator) for _ in range(updates)])
        assert first.steps_done == updates
        unmoved = [key for key, value in first.named_parameters() if torch.equal(value, before[key])]
        assert unmoved == [], (hparams_seed, hparams)

        second = make_on_images(name, hparams)
        others = second.make_optimizers()
        second.load_state_dict(copy.deepcopy(first.state_dict()))
        for key, optimizer in others.items():
            optimizer.load_state_dict(copy.deepcopy(optimizers[key].state_dict()))
        batches = [draw_batch(generator) for _ in range(3)]
        train(first, optimizers, batches)
        train(second, others, batches)
        state = second.state_dict()
        for key, value in first.state_dict().items():
            assert torch.equal(value, state[key]), (hparams_seed, key)


def test_the_number_of_steps_is_part_of_the_state() -> None:
    algorithm = make_on_images("irm", {"anneal_steps": 2})
    train(algorithm, algorithm.make_optimizers(), [draw_batch(torch.Generator().manual_seed(0))] * 3)
    state = algorithm.state_dict()
    assert state["steps_done"].equal(torch.tensor(3))
    other = make_on_images("irm", {"anneal_steps": 2})
    other.load_state_dict(state)
    assert other.steps_done == 3
    del state["steps_done"]
    with pytest.raises(RuntimeError, match=r'Missing key.*"steps_done"'):
        other.load_state_dict(state)


def test_a_plug_in_may_say_forgets_moments() -> None:
    """What ``resets_optimizer`` was called in the first version."""

    class Forgetful(type(make_algorithm("erm"))):
        def forgets_moments(self) -> bool:
            return self.steps_done == 1

    algorithm = make_algorithm("erm")
    algorithm.__class__ = Forgetful
    optimizers = algorithm.make_optimizers()
    steps = []
    for _ in range(3):
        algorithm.update(make_batch(), optimizers)
        steps.append({int(state["step"]) for state in optimizers["main"].state.values()})
    assert steps == [{1}, {1}, {2}]
