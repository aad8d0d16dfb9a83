"""Means of a network's weights over training: SMA and SWAD, and the statistics that belong to a mean."""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from typing_extensions import override

from hessalign.runs.recipe import Recipe
from hessalign.training.seeds import seeded

Values = dict[str, Tensor]
RENEWAL_BATCHES = 100
"""Batches of the source domains from which the running statistics of a mean are taken, at most."""


class Mean:
    """A running mean of networks' parameters, in float32 at least.

    Attributes:
        values: By name; empty before the first.
        count: Number of networks.
    """

    def __init__(self) -> None:
        self.values: Values = {}
        self.count = 0

    @torch.no_grad()
    def add(self, values: Mapping[str, Tensor], count: int = 1) -> None:
        """Take in a network, or the mean of several."""
        if not count:
            return
        self.count += count
        for name, value in values.items():
            exact = value.detach().to(torch.promote_types(value.dtype, torch.float32))
            if name in self.values:
                self.values[name].lerp_(exact, count / self.count)
            else:
                self.values[name] = exact.clone()

    def state(self, prefix: str) -> Values:
        """As tensors by name."""
        named = {f"{prefix} value {name}": value.cpu().clone() for name, value in self.values.items()}
        return {**named, f"{prefix} count": torch.tensor(self.count)}

    def load(self, prefix: str, state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
        """Go to a state, the values where the parameters of their names are.

        Raises:
            KeyError: If something is missing.
        """
        self.count = int(state[f"{prefix} count"])
        self.values = {}
        if self.count:
            self.values = {name: state[f"{prefix} value {name}"].to(like[name].device) for name in like}


class Averaging(ABC):
    """The mean that predicts.

    Attributes:
        no_mean: Why there is none at the end of a run whose spec did not tell so at its beginning.
    """

    no_mean: str = ""

    @abstractmethod
    def take_in(self, done: int, values: Mapping[str, Tensor]) -> None:
        """Look at the network after an update.

        Args:
            done: Number of updates.
            values: Its parameters by name.
        """

    def look(self, loss: float) -> None:  # noqa: B027 (nothing to do is a rule, too)
        """Look at the loss on the held-out part of the source domains, at a regular evaluation."""

    @property
    def needs_loss(self) -> bool:
        """Whether it looks at one."""
        return False

    @abstractmethod
    def mean(self) -> Mean | None:
        """What predicts; None where it is the latest network."""

    @abstractmethod
    def state(self) -> Values:
        """All that it remembers."""

    @abstractmethod
    def load(self, state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
        """Go to a state.

        Args:
            state: As ``state`` gave it.
            like: Parameters by name.

        Raises:
            KeyError: If something is missing.
        """


class SMA(Averaging):
    """Simple moving average: the mean of all networks from ``t₀`` updates on.

    ``θ̂_t = θ_t`` for ``t ≤ t₀``, then ``θ̂_t = ((t − t₀) θ̂_{t−1} + θ_t) / (t − t₀ + 1)`` (Arpit, Wang, Zhou
    and Xiong, "Ensemble of Averages", NeurIPS 2022).

    Args:
        start: ``t₀``.
    """

    def __init__(self, start: int) -> None:
        self._start = start
        self._mean = Mean()

    @override
    def take_in(self, done: int, values: Mapping[str, Tensor]) -> None:
        if done >= self._start:
            self._mean.add(values)

    @override
    def mean(self) -> Mean | None:
        return self._mean if self._mean.count else None

    @override
    def state(self) -> Values:
        return self._mean.state("mean")

    @override
    def load(self, state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
        self._mean.load("mean", state, like)


class SWAD(Averaging):
    """Stochastic weight averaging, densely: the mean of all networks while the validation loss is low.

    With ``v_k`` the loss at evaluation ``k``, the mean begins at the first ``k`` for which ``v_k`` is the
    least of ``v_k, ..., v_{k+N_s−1}``; the limit is ``r`` times their mean. It ends before the first ``N_e``
    evaluations in a row above the limit (Cha, Chun, Lee, Cho, Park, Lee and Park, NeurIPS 2021, Algorithm 1).
    Every network counts, those between two evaluations with the later one, as in the authors' code.

    Only the least loss so far can become a beginning: while a lower one comes, all before it is forgotten.
    And what is above the limit counts as soon as one evaluation is not. So a few means are all it remembers.

    Args:
        converge: ``N_s``.
        tolerance: ``N_e``.
        ratio: ``r``.
    """

    def __init__(self, converge: int, tolerance: int, ratio: float) -> None:
        self._converge, self._tolerance, self._ratio = converge, tolerance, ratio
        self.no_mean = f"SWAD found no evaluation whose source loss the next {converge - 1} did not go below"
        self._segment, self._sure, self._doubtful = Mean(), Mean(), Mean()
        self._sought: list[tuple[float, Mean]] = []  # from the least loss so far on
        self._limit = math.nan
        self._above = 0
        self._ended = False

    @override
    def take_in(self, done: int, values: Mapping[str, Tensor]) -> None:
        if not self._ended:
            self._segment.add(values)

    @property
    @override
    def needs_loss(self) -> bool:
        return not self._ended

    @override
    def look(self, loss: float) -> None:
        if self._ended:
            return
        segment, self._segment = self._segment, Mean()
        if not math.isnan(self._limit):
            self._follow(loss, segment)
            self._ended = self._above >= self._tolerance
            if self._ended:
                self._doubtful = Mean()
            return
        if self._sought and loss < self._sought[0][0]:
            self._sought = []
        self._sought.append((loss, segment))
        if len(self._sought) == self._converge:
            self._limit = self._ratio * math.fsum(each for each, _ in self._sought) / self._converge
            for place, (each, part) in enumerate(self._sought, start=1):
                # The soonest end, with the next evaluation, comes after these.
                is_sure = place <= self._converge + 1 - self._tolerance
                self._follow(0.0 if is_sure else each, part)
            self._sought = []

    def _follow(self, loss: float, segment: Mean) -> None:
        if loss > self._limit:
            self._doubtful.add(segment.values, segment.count)
            self._above += 1
            return
        self._sure.add(self._doubtful.values, self._doubtful.count)
        self._sure.add(segment.values, segment.count)
        self._doubtful, self._above = Mean(), 0

    @override
    def mean(self) -> Mean | None:
        if math.isnan(self._limit):
            return None
        if not self._doubtful.count:
            return self._sure
        both = copy.deepcopy(self._sure)
        both.add(self._doubtful.values, self._doubtful.count)
        return both

    @override
    def state(self) -> Values:
        means = {"segment": self._segment, "sure": self._sure, "doubtful": self._doubtful}
        means |= {f"sought{place}": mean for place, (_, mean) in enumerate(self._sought)}
        tensors = {
            name: value for prefix, mean in means.items() for name, value in mean.state(prefix).items()
        }
        return {
            **tensors,
            "losses": torch.tensor([loss for loss, _ in self._sought], dtype=torch.float64),
            "limit": torch.tensor(self._limit, dtype=torch.float64),
            "above": torch.tensor(self._above),
            "ended": torch.tensor(self._ended),
        }

    @override
    def load(self, state: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
        self._sought = [(loss, Mean()) for loss in state["losses"].tolist()]
        means = {"segment": self._segment, "sure": self._sure, "doubtful": self._doubtful}
        means |= {f"sought{place}": mean for place, (_, mean) in enumerate(self._sought)}
        for prefix, mean in means.items():
            mean.load(prefix, state, like)
        self._limit, self._above = float(state["limit"]), int(state["above"])
        self._ended = bool(state["ended"])


def make_averaging(recipe: Recipe | None) -> Averaging | None:
    """The mean that a recipe asks for; None where it asks for none."""
    if recipe is None or recipe.average is None:
        return None
    if recipe.average == "sma":
        return SMA(recipe.average_from)
    return SWAD(recipe.swad_converge, recipe.swad_tolerance, recipe.swad_ratio)


@contextmanager
def in_place(model: nn.Module, values: Mapping[str, Tensor], batches: Iterable[Tensor]) -> Iterator[None]:
    """Let a network have other parameters, and the running statistics that belong to them, for a while.

    Args:
        model: In training mode.
        values: Parameters by name.
        batches: Inputs to take running statistics from; looked at only if a BatchNorm is trained.
    """
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
    renew_statistics(model, batches)
    try:
        yield
    finally:
        model.load_state_dict(kept)


@torch.no_grad()
def renew_statistics(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Take the running statistics of each BatchNorm that is trained anew: their means over batches.

    ``torch.optim.swa_utils.update_bn`` would also reset those that are frozen, and nothing would fill them.

    Args:
        model: In training mode; random numbers that its layers draw are not training's.
        batches: Inputs.
    """
    norms = [
        part
        for part in model.modules()
        if isinstance(part, _BatchNorm) and part.training and part.running_mean is not None
    ]
    if not norms:
        return
    former = [
        (norm.momentum, {name: value.clone() for name, value in norm.named_buffers()}) for norm in norms
    ]
    device = next(model.parameters()).device
    with seeded(0, device):
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        for inputs in batches:
            model(inputs)
    for norm, (momentum, buffers) in zip(norms, former, strict=True):
        norm.momentum = momentum
        if norm.num_batches_tracked is not None and not int(norm.num_batches_tracked):
            norm.load_state_dict(buffers, strict=False)  # no part of what predicts
