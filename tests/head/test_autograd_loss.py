"""Losses by automatic differentiation: what they cannot be is said in one sentence."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import hessalign as ha

FEATURES, LOGITS = torch.eye(4, dtype=torch.float64), torch.zeros(4, 3, dtype=torch.float64)
TARGETS = torch.tensor([0, 1, 2, 1])


@pytest.mark.parametrize(
    "function",
    [
        lambda logits, target: -(F.one_hot(target) * logits.log_softmax(0)).sum(),
        lambda logits, target: -logits.log_softmax(0)[int(target)],
        lambda logits, target: logits - target,
        lambda logits, target: (logits - torch.zeros(7)).sum(),
    ],
    ids=["one_hot", "int", "no scalar", "shapes"],
)
def test_a_function_that_cannot_be_batched_is_refused(function: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"^loss: the function must give a scalar for logits \(C,\)"):
        ha.HeadDerivatives.from_logits(FEATURES, LOGITS, TARGETS, ha.AutogradLoss(function)).gradient()
    with pytest.raises(ValueError, match="loss: the function must give a scalar"):
        ha.HessianAlignment("diagonal", loss=ha.AutogradLoss(function))(
            FEATURES, LOGITS, TARGETS, torch.arange(4) % 2
        )


def test_what_the_sentence_advises_is_the_cross_entropy() -> None:
    def advised(logits: Tensor, target: Tensor) -> Tensor:
        return -((torch.arange(3) == target) * logits.log_softmax(0)).sum()

    ours = ha.HeadDerivatives.from_logits(FEATURES, LOGITS, TARGETS, ha.AutogradLoss(advised))
    theirs = ha.HeadDerivatives.from_logits(FEATURES, LOGITS, TARGETS)
    torch.testing.assert_close(ours.gradient(), theirs.gradient())
    torch.testing.assert_close(ours.hessian(), theirs.hessian())
