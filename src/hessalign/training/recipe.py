"""What a run does beside its algorithm's rule: how it starts, steps, and averages."""

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hessalign.algorithms import Algorithm
from hessalign.algorithms.base import Optimizers, known_as
from hessalign.algorithms.sharpness import Sharpness
from hessalign.backbones import Backbone
from hessalign.backbones.weights import file_sha256
from hessalign.checks import problem_in_words
from hessalign.exceptions import UntrustworthyWarning
from hessalign.runs.checkpoints import WEIGHTS, check_whole
from hessalign.runs.layout import CHECKPOINTS, is_finished, is_started, latest_checkpoint, what_lies_there
from hessalign.runs.recipe import Recipe as Recipe  # noqa: PLC0414 (mypy: exported from here, too)
from hessalign.runs.recipe import check_owners

STARTED = ("backbone.", "head.")
"""What a run takes from another one that it starts from."""


def make_recipe(start_from: Path | None = None, **choices: Any) -> Recipe | None:
    """A recipe of the choices that were made.

    Args:
        start_from: As [Recipe][hessalign.training.Recipe] has it; the digest is that of what lies there.
        **choices: The others by name; None for one that was not made.

    Returns:
        The recipe; None where nothing differs from the default.

    Raises:
        ValueError: If a choice is not allowed.

    Examples:
        >>> from hessalign.training import make_recipe
        >>> make_recipe(average=None, head_lr_factor=10.0).content()
        {'head_lr_factor': 10.0}
    """
    made = {name: value for name, value in choices.items() if value is not None}
    if start_from is not None:
        if is_started(start_from) and not is_finished(start_from):
            warnings.warn(
                f"start_from: the run in {start_from} is not finished; its latest checkpoint is taken",
                UntrustworthyWarning,
                stacklevel=2,
            )
        made["start_from"] = start_from.absolute()
        made["start_sha256"] = file_sha256(started_weights(start_from))
    check_owners(made)  # here also those at their defaults
    try:
        recipe = Recipe(**made)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        given = f", got {problem['input']!r}" if problem["loc"] else ""
        raise ValueError(problem_in_words(problem) + given) from error
    return None if recipe == Recipe() else recipe


def check_recipe(recipe: Recipe, algorithm: type[Algorithm], domains: int) -> None:
    """Refuse an algorithm that a recipe does not go with.

    Args:
        recipe: The recipe.
        algorithm: Its class.
        domains: Number of source domains.

    Raises:
        ValueError: Naming the choice.

    Examples:
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.training import check_recipe, make_recipe
        >>> check_recipe(make_recipe(head_lr_factor=10.0), get_algorithm("erm"), domains=3)
    """
    name = getattr(algorithm, "name", algorithm.__name__)
    if recipe.average is not None and algorithm.averages_itself:
        raise ValueError(f"average: {name} predicts with a mean of its own; leave it out")
    if recipe.linear_probe_steps and not algorithm.can_probe:
        raise ValueError(
            f"linear_probe_steps: {name} cannot train with a backbone that is held fast, or has such a "
            "phase of its own among its hyper-parameters; leave it out"
        )
    if recipe.sharpness is not None and algorithm.step is not Algorithm.step:
        raise ValueError(
            f"sharpness: {name} has a step of its own; allowed are algorithms with one objective and one "
            "optimiser"
        )
    if recipe.sharpness == "disam" and domains < 2:
        raise ValueError("sharpness: 'disam' compares source domains, of which there is 1; allowed is 'sam'")


def started_weights(path: Path) -> Path:
    """The file of weights in the folder of a run or of a checkpoint.

    Returns:
        Its path.

    Raises:
        ValueError: If there is none, or the checkpoint is damaged.
    """
    checkpoint = latest_checkpoint(path / CHECKPOINTS) or path
    if not (checkpoint / WEIGHTS).is_file():
        raise ValueError(f"start_from: {what_lies_there(path)}")
    check_whole(checkpoint)
    return checkpoint / WEIGHTS


class Practice:
    """A recipe at work on an algorithm.

    Args:
        recipe: None for one that says nothing.
        algorithm: In training mode; it is given the weights that it starts from.
        begins: Whether the run begins now; one that goes on has its weights in its checkpoint.

    Raises:
        ValueError: If the recipe does not go with the algorithm, before any work is done.
    """

    def __init__(self, recipe: Recipe | None, algorithm: Algorithm, *, begins: bool = True) -> None:
        self._recipe, self._algorithm = recipe or Recipe(), algorithm
        self._backbones = [part for part in algorithm.modules() if isinstance(part, Backbone)]
        self._trained = [
            parameter
            for part in self._backbones
            for parameter in part.parameters()
            if parameter.requires_grad
        ]
        check_recipe(self._recipe, type(algorithm), algorithm.domains)
        if self._recipe.linear_probe_steps and not self._trained:
            raise ValueError(
                "linear_probe_steps: the backbone has nothing to train, so the head is trained alone anyway; "
                "leave it out"
            )
        if self._recipe.start_from is not None and begins:
            self._start(self._recipe.start_from)
        if self._recipe.sharpness is not None:
            weight = self._recipe.disam_weight if self._recipe.sharpness == "disam" else None
            algorithm.sharpness = Sharpness(self._recipe.rho, weight)

    def make_optimizers(self) -> Optimizers:
        """The algorithm's optimisers, the head with a learning rate of its own."""
        optimizers = self._algorithm.make_optimizers()
        factor = self._recipe.head_lr_factor
        if factor != 1:
            head = {id(parameter) for parameter in self._algorithm.head.parameters()}
            found = False
            for optimizer in optimizers.values():
                for group in list(optimizer.param_groups):
                    heads = [parameter for parameter in group["params"] if id(parameter) in head]
                    if not heads:
                        continue
                    found = True
                    group["params"] = [each for each in group["params"] if id(each) not in head]
                    options = {name: value for name, value in group.items() if name != "params"}
                    optimizer.add_param_group(
                        {**options, "params": heads, "lr": factor * group["lr"], "lr_factor": factor}
                    )
            if not found:
                raise ValueError(
                    f"head_lr_factor: no optimiser of {known_as(self._algorithm)} trains the head that "
                    "predicts; leave it out"
                )
        return optimizers

    def before_update(self, step: int) -> None:
        """Hold backbones fast, or let them go."""
        if not self._recipe.linear_probe_steps:
            return
        is_probing = step < self._recipe.linear_probe_steps
        for parameter in self._trained:
            parameter.requires_grad_(not is_probing)
        for part in self._backbones:
            part.train(not is_probing)

    def _start(self, path: Path) -> None:
        file = started_weights(path)
        if file_sha256(file) != self._recipe.start_sha256:
            raise ValueError(f"start_from: {file} is not what the run started from (its SHA-256 differs)")
        try:
            found = load_file(file)
        except (OSError, SafetensorError, ValueError) as error:
            raise ValueError(f"start_from: {file} cannot be read ({error})") from error
        wanted = dict(_of_network(self._algorithm.state_dict()))
        given = dict(_of_network(found))
        differing = sorted(
            name
            for name in wanted.keys() | given.keys()
            if name not in wanted or name not in given or wanted[name].shape != given[name].shape
        )
        if differing:
            raise ValueError(
                f"start_from: the network in {path} has another architecture (it differs in {differing[0]})"
            )
        with torch.no_grad():
            for name, value in wanted.items():
                value.copy_(given[name])
        _start_copies(self._algorithm)


def _of_network(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in state.items() if name.startswith(STARTED))


def _start_copies(algorithm: Algorithm) -> None:
    """Let copies of the network, which some algorithms train, start as it does."""
    network = nn.Sequential(algorithm.backbone, algorithm.head)
    for part in algorithm.children():
        if isinstance(part, nn.Sequential) and part.state_dict().keys() == network.state_dict().keys():
            part.load_state_dict(network.state_dict())
