r"""One restart: full-batch training of the network with one method's penalty.

Loss at step ``t``: ``mean_e R_e + c Σ‖w‖² + λ_t · penalty``, ``λ_t = 1`` before the anneal step and
``λ`` from there on, where the whole is divided by ``λ``; ERM has no penalty and is never divided.
"""

import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from hessalign.exceptions import DivergedError
from hessalign.experiments.colored_mnist.config import PLAIN_HUTCHINSON, RestartSpec
from hessalign.experiments.colored_mnist.data import ColoredImages, make_colored_mnist, make_held_out_sources
from hessalign.experiments.colored_mnist.methods import (
    DomainOutput,
    Penalty,
    PenaltyTerms,
    make_penalty,
    measure_terms,
)
from hessalign.experiments.colored_mnist.network import ColoredMLP
from hessalign.loop import WeightSchedule

STEPS_BETWEEN_EVALUATIONS = 10
TERMS_ON_DISK = "parts"
"""What records call the terms: those on disk are found and sealed by it."""
HELD_OUT_SEED = 2**32
"""Added to a restart's seed: no restart's own generator starts there."""


class Metrics(BaseModel):
    """State of a run at one step; accuracies in percent.

    Examples:
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartSpec, run_restart
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> record = run_restart(spec, torch.device("cpu"))
        >>> [metrics.step for metrics in record.history], record.final == record.history[-1]
        ([0, 1], True)
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    step: int
    loss: float
    penalty: float
    source_accuracy: float
    source_accuracies: tuple[float, ...]
    target_accuracy: float


class RestartRecord(BaseModel):
    """A finished restart, as written to disk.

    Attributes:
        spec: What was run.
        final: Metrics of the last step.
        history: Metrics of every tenth step.
        seconds: Wall time.
        finished: When, UTC.
        environment: Versions, device and threads: results repeat bit for bit where these are equal.
        terms: Terms of the penalty at the steps of the history, where they were asked for.

    Examples:
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartRecord, RestartSpec, run_restart
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> record = run_restart(spec, torch.device("cpu"))
        >>> RestartRecord.model_validate_json(record.model_dump_json()) == record
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    spec: RestartSpec
    final: Metrics
    history: tuple[Metrics, ...]
    seconds: float
    finished: str
    environment: dict[str, str | int]
    terms: tuple[PenaltyTerms, ...] = Field((), alias=TERMS_ON_DISK)


class DivergedRestart(BaseModel):
    """A restart that ended early, as written to disk: a result, though not one for a table.

    Attributes:
        spec: What was run.
        step: The step at which it was found out.
        problem: What was no longer finite, in words.
        finished: When, UTC.
        environment: As of a [RestartRecord][hessalign.experiments.colored_mnist.RestartRecord].

    Examples:
        >>> from hessalign.experiments.colored_mnist import DivergedRestart, RestartSpec
        >>> spec = RestartSpec(method="hgp", seed=3)
        >>> restart = DivergedRestart(
        ...     spec=spec, step=200, problem="the loss is nan", finished="", environment={}
        ... )
        >>> print(restart)
        hgp, seed 3, diverged: the loss is nan at step 200
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: RestartSpec
    step: int = Field(ge=0)
    problem: str
    finished: str
    environment: dict[str, str | int]

    def __str__(self) -> str:
        """For a person."""
        return f"{self.spec.method}, seed {self.spec.seed}, diverged: {self.problem} at step {self.step}"


class RestartDivergedError(DivergedError):
    """A restart diverged.

    Attributes:
        restart: What is to be kept of it.

    Examples:
        >>> from hessalign.experiments.colored_mnist import DivergedRestart, RestartDivergedError, RestartSpec
        >>> spec = RestartSpec(method="hgp", seed=3)
        >>> restart = DivergedRestart(
        ...     spec=spec, step=200, problem="the loss is nan", finished="", environment={}
        ... )
        >>> try:
        ...     raise RestartDivergedError(restart)
        ... except RestartDivergedError as error:
        ...     print(error.restart.step)
        200
    """

    def __init__(self, restart: DivergedRestart) -> None:
        super().__init__(str(restart))
        self.restart = restart


Update = Callable[[int, Tensor, Sequence[DomainOutput]], None]
"""One step of an optimizer, given the number of the step, the objective and the source domains' outputs."""


def adam(spec: RestartSpec, network: ColoredMLP, generator: torch.Generator) -> Update:
    """Steps of Adam down the objective.

    Args:
        spec: Gives the learning rate.
        network: What to train.
        generator: Source of the probes; not used.

    Returns:
        What does a step.

    Raises:
        ValueError: If the restart is one whose steps another gradient sizes.
    """
    if spec.hutchinson not in PLAIN_HUTCHINSON:
        raise ValueError(
            f"hutchinson: {spec.hutchinson!r} needs an optimizer of its own, which python -m "
            f"papers.colored_mnist has in a checkout of hessalign; here {', '.join(PLAIN_HUTCHINSON)} can run"
        )
    optimizer = torch.optim.Adam(network.parameters(), lr=spec.learning_rate)

    def update(_step: int, loss: Tensor, _outputs: Sequence[DomainOutput]) -> None:
        network.zero_grad()
        loss.backward()
        optimizer.step()

    return update


def run_restart(
    spec: RestartSpec,
    device: torch.device,
    report: Callable[[int, Metrics], None] | None = None,
    log_terms: bool = False,
    keep: Callable[[ColoredMLP], None] | None = None,
    make_update: Callable[[RestartSpec, ColoredMLP, torch.Generator], Update] = adam,
) -> RestartRecord:
    """Train and evaluate one restart.

    Args:
        spec: What to run.
        device: Where to run it.
        report: Called at every step with the step and the latest metrics; None (default) for silence.
        log_terms: Whether to measure the terms of the penalty wherever accuracies are; training is the same.
        keep: Called with the trained network; None (default) to drop it.
        make_update: Makes the optimizer, once more where it starts afresh; ``adam`` by default.

    Returns:
        What is to be kept of it.

    Raises:
        RestartDivergedError: If a loss, the penalty or a weight is no longer finite.

    Examples:
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RestartSpec, run_restart
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> record = run_restart(spec, torch.device("cpu"))
        >>> record.final.step, len(record.final.source_accuracies), 0 <= record.final.target_accuracy <= 100
        (1, 2, True)
    """
    started = time.perf_counter()
    generator = torch.Generator().manual_seed(spec.seed)
    data = make_colored_mnist(spec.split, generator, spec.subsample).to(device)
    network = ColoredMLP(spec.hidden, generator).to(device)
    penalty_of = make_penalty(spec, generator)
    update, schedule = make_update(spec, network, generator), schedule_of(spec)
    held_out = _held_out_sources(spec, device) if log_terms else ()
    history: list[Metrics] = []
    terms: list[PenaltyTerms] = []
    for step in range(spec.steps):
        if schedule.resets(step):
            update = make_update(spec, network, generator)
        outputs = [forward_domain(network, images) for images in data.sources]
        losses = {f"loss of source domain {place}": output.loss for place, output in enumerate(outputs)}
        _require_finite(spec, step, device, losses)
        loss, penalty = objective(spec, step, outputs, network, penalty_of)
        _require_finite(spec, step, device, {"objective": loss})
        last = step == spec.steps - 1
        if last or step % STEPS_BETWEEN_EVALUATIONS == 0:
            history.append(_evaluate(step, loss, penalty, outputs, network, data.target))
            if log_terms:
                unseen = [_without_gradients(network, images) for images in held_out]
                terms.append(measure_terms(step, outputs, unseen))
        if report is not None:
            report(step, history[-1])
        if not last:
            update(step, loss, outputs)
    if keep is not None:
        keep(network)
    return RestartRecord(
        spec=spec,
        final=history[-1],
        history=tuple(history),
        seconds=round(time.perf_counter() - started, 1),
        finished=_now(),
        environment=_environment(device),
        terms=tuple(terms),
    )


def forward_domain(network: ColoredMLP, images: ColoredImages) -> DomainOutput:
    """What the network makes of a domain."""
    features, logits = network(images)
    loss = F.binary_cross_entropy_with_logits(logits, images.labels)
    return DomainOutput(features, logits, images.labels, loss)


def objective(
    spec: RestartSpec,
    step: int,
    outputs: Sequence[DomainOutput],
    network: ColoredMLP,
    penalty_of: Penalty | None,
) -> tuple[Tensor, Tensor]:
    """Loss to minimise at a step, and the penalty before its weight.

    Args:
        spec: Gives the weights and the anneal step.
        step: Counted from 0.
        outputs: What the network makes of each source domain.
        network: Its weights have the norm.
        penalty_of: The method's penalty; None for ERM.

    Returns:
        Loss and penalty, scalars.
    """
    weight_norm = torch.stack([weights.square().sum() for weights in network.parameters()]).sum()
    loss = torch.stack([output.loss for output in outputs]).mean() + spec.weight_norm * weight_norm
    if penalty_of is None:
        return loss, torch.zeros_like(loss)
    penalty = penalty_of(outputs)
    return schedule_of(spec).combine(loss, penalty, step), penalty


def schedule_of(spec: RestartSpec) -> WeightSchedule:
    """``λ_t``: 1, then the penalty's full weight, by which the whole objective is divided."""
    return WeightSchedule(
        spec.penalty_weight,
        before=1.0,
        start=spec.anneal_step,
        divide=True,
        reset_optimizer=spec.fresh_optimizer,
    )


def _require_finite(spec: RestartSpec, step: int, device: torch.device, losses: Mapping[str, Tensor]) -> None:
    values = {name: loss.item() for name, loss in losses.items()}
    wrong = [f"the {name} was {value}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise RestartDivergedError(
            DivergedRestart(
                spec=spec,
                step=step,
                problem=wrong[0],
                finished=_now(),
                environment=_environment(device),
            )
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _evaluate(
    step: int,
    loss: Tensor,
    penalty: Tensor,
    outputs: Sequence[DomainOutput],
    network: ColoredMLP,
    target: ColoredImages,
) -> Metrics:
    source_accuracies = tuple(output.accuracy() for output in outputs)
    return Metrics(
        step=step,
        loss=loss.item(),
        penalty=penalty.item(),
        source_accuracy=sum(source_accuracies) / len(source_accuracies),
        source_accuracies=source_accuracies,
        target_accuracy=_without_gradients(network, target).accuracy(),
    )


@torch.no_grad()
def _without_gradients(network: ColoredMLP, images: ColoredImages) -> DomainOutput:
    return forward_domain(network, images)


def _held_out_sources(spec: RestartSpec, device: torch.device) -> tuple[ColoredImages, ...]:
    """From a generator of their own: training draws the same numbers whether these are asked for or not."""
    generator = torch.Generator().manual_seed(HELD_OUT_SEED + spec.seed)
    return tuple(images.to(device) for images in make_held_out_sources(spec.split, generator))


def _environment(device: torch.device) -> dict[str, str | int]:
    return {
        "hessalign": version("hessalign"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": str(device),
        "threads": torch.get_num_threads(),
    }
