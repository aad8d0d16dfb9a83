"""Steps along one gradient that another one sizes."""

import pytest
import torch

from hessalign.experiments.colored_mnist import RestartSpec, run_restart
from papers.colored_mnist.sized_adam import SizedAdam, make_update


def test_sized_adam_is_adam_where_both_gradients_are_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (torch.ones(7, dtype=torch.float64, requires_grad=True) for _ in range(2))
    sized, adam = SizedAdam([ours], 0.01), torch.optim.Adam([theirs], lr=0.01)
    for _ in range(20):
        gradient = torch.randn(7, generator=generator, dtype=torch.float64)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        sized.step([gradient])
        adam.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=0)


def test_sized_adam_divides_by_the_other_gradient() -> None:
    weights = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    weights.grad = torch.tensor([3.0, -3.0], dtype=torch.float64)
    SizedAdam([weights], 0.01).step([torch.tensor([6.0, 1.5], dtype=torch.float64)])
    torch.testing.assert_close(weights.detach(), torch.tensor([-0.005, 0.02], dtype=torch.float64))
    weights.grad = None
    with pytest.raises(ValueError, match="parameters: one of them has no gradient to follow"):
        SizedAdam([weights], 0.01).step([torch.ones(2)])


def test_hutchinson_follows_one_variant_in_steps_of_the_other() -> None:
    """Adam moves first by ``−η g / |g|``, here by ``−η g / |g'|``: the two mixed forms multiply alike."""

    def moved(variant: str) -> torch.Tensor:
        ends: list[torch.Tensor] = []
        for steps in (1, 2):
            spec = RestartSpec(
                method="hutchinson",
                seed=0,
                hutchinson=variant,
                steps=steps,
                anneal_step=2,
                probes=1,
                weight_norm=0.1,
                hidden=8,
                subsample=2000,
            )
            run_restart(
                spec,
                torch.device("cpu"),
                keep=lambda network: ends.append(network.second.weight.detach().double()),
                make_update=make_update,
            )
        return ends[1] - ends[0]

    expected, sampled = moved("expected"), moved("sampled")
    one, other = moved("expected-sampled-steps"), moved("sampled-expected-steps")
    torch.testing.assert_close(one * other, expected * sampled, rtol=1e-2, atol=0)
    torch.testing.assert_close(one.sign(), expected.sign(), rtol=0, atol=0)
    torch.testing.assert_close(other.sign(), sampled.sign(), rtol=0, atol=0)
    assert (one / expected - 1).abs().max() > 0.1
