"""Many runs on features trained together: one batched computation instead of one run after the other.

Runs of one algorithm that differ in targets, seeds and hyper-parameters take the same steps on other numbers.
Their parameters and buffers are stacked along a first axis of runs, ``torch.func.vmap`` computes all their
losses at once, and an Adam written in plain operations updates them with learning rates of their own. Every
run has the initial weights and the batches that it has alone, and ends with the same numbers but for
rounding.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Adam

from hessalign.algorithms import Algorithm, DomainBatch, get_algorithm
from hessalign.datasets.base import DomainDataset
from hessalign.datasets.features_file import FeaturesFile
from hessalign.exceptions import DivergedError
from hessalign.runs.layout import CHECKPOINTS, hold, is_finished, remove_leftovers
from hessalign.runs.records import DIVERGED, read_records, write_records
from hessalign.runs.seals import finish
from hessalign.training.batched_adam import BatchedAdam
from hessalign.training.checkpoint import save_checkpoint
from hessalign.training.doubts import Doubts
from hessalign.training.evaluation import predicted_classes
from hessalign.training.feature_batches import FeatureBatches
from hessalign.training.machine import Machine, make_fabric
from hessalign.training.spec import CheckpointAbout, RunSpec
from hessalign.training.trainer import (
    build_algorithm,
    check_targets,
    claim,
    last_record,
    make_record,
    what_diverged,
)

ROWS_AT_ONCE = 1024
"""Of an evaluation, which bounds its memory."""
OPTIMIZER = ("lr", "weight_decay")
OWN_RULES = ("step", "make_optimizers", "adam", "forward")
"""Methods that the batched computation replaces: an algorithm that overrides one is trained alone."""
Values = dict[str, Tensor]


def can_train_together(spec: RunSpec) -> str | None:
    """What runs must have in common to be trained together.

    Args:
        spec: A run.

    Returns:
        Equal for runs that can be trained together; None for a run that must be trained alone, since its
        inputs are images, it draws random numbers, or its algorithm's rule cannot be vectorised.
    """
    algorithm = get_algorithm(spec.algorithm)
    batched = algorithm.batched_hparams(algorithm.hparams_class(**spec.hparams))
    own_rule = any(getattr(algorithm, name) is not getattr(Algorithm, name) for name in OWN_RULES)
    draws = spec.backbone.dropout > 0 or spec.validation_images == "augmented"
    on_features = spec.dataset == FeaturesFile.name and spec.backbone.takes_features
    if batched is None or own_rule or draws or not on_features:
        return None
    common = spec.model_dump(mode="json", exclude={"target_domains", "seed", "trial_seed", "hparams_seed"})
    common["targets"] = len(spec.target_domains)
    for name in OPTIMIZER:
        del common["hparams"][name]
    for name in batched:  # a part of a penalty whose weight is 0 is never computed
        common["hparams"][name] = common["hparams"][name] != 0
    return json.dumps(common, sort_keys=True)


def train_together(
    specs: Sequence[RunSpec],
    dataset: DomainDataset,
    folders: Sequence[Path],
    machine: Machine,
    report: Callable[[int], None] | None = None,
    *,
    checkpoints: bool = True,
) -> list[dict[str, Any]]:
    """Do what [train][] does for each of several runs, all at once.

    Runs that are finished stay as they are. All others begin anew, and their folders are written at the end:
    what was killed is as if it had not begun. A run that diverges ends there, whatever becomes of the others.

    Args:
        specs: Runs that are alike for [can_train_together][].
        dataset: Of features, which all of them name.
        folders: One for each run.
        machine: Where to run them; one device.
        report: Called with the number of each step that is done.
        checkpoints: Leave each run's last checkpoint.

    Returns:
        The record of the last evaluation of each run, those of runs that diverged among them, which say so.
        ``step_seconds`` is its share of the time of a step.

    Raises:
        ValueError: If the runs cannot be trained together, do not go with dataset, folders and machine, or
            what is in a folder is damaged.
        OSError: If the disk cannot be written, or another process writes to a folder.
    """
    _check(specs, dataset, folders, machine)
    left = [place for place, folder in enumerate(folders) if not is_finished(folder)]
    if left:
        runs = _Runs([specs[place] for place in left], dataset, machine)
        with ExitStack() as locks:
            for place in left:
                locks.enter_context(hold(folders[place]))
                claim(folders[place], specs[place])
                remove_leftovers(folders[place])
            records = runs.train(report)
            for number, place in enumerate(left):
                shutil.rmtree(folders[place] / CHECKPOINTS, ignore_errors=True)
                write_records(folders[place], records[number])
                if checkpoints and DIVERGED not in records[number][-1]:
                    runs.save(number, folders[place])
            # Together at the very end: what a kill leaves undone is trained in other company the next time,
            # which changes last bits.
            for place in left:
                finish(folders[place], len(left))
    return [_last_record(folder, spec) for folder, spec in zip(folders, specs, strict=True)]


def _last_record(folder: Path, spec: RunSpec) -> dict[str, Any]:
    with suppress(DivergedError):
        return last_record(folder, spec)
    return read_records(folder)[-1]


def _check(
    specs: Sequence[RunSpec], dataset: DomainDataset, folders: Sequence[Path], machine: Machine
) -> None:
    keys = {can_train_together(spec) for spec in specs}
    if len(keys) != 1 or None in keys:
        raise ValueError("specs: these runs cannot be trained together; train them one by one")
    if len(folders) != len(specs) or len(set(folders)) != len(specs):
        raise ValueError(
            f"folders: each of the {len(specs)} runs needs a folder of its own, got {len(set(folders))}"
        )
    if machine.devices != 1:
        raise ValueError(f"devices: runs are trained together on 1 device, got {machine.devices}")
    if not isinstance(dataset, FeaturesFile):
        raise ValueError(f"dataset: {dataset.name} does not hold features; allowed are features files")
    for spec in specs:
        check_targets(spec, dataset)


class _Objective(nn.Module):
    """An algorithm's objective as a forward pass, which is what functional_call calls."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__()
        self.algorithm = algorithm

    def forward(self, hparams: Values, batch: DomainBatch) -> tuple[Tensor, Values]:
        """Loss and metrics with some hyper-parameters replaced by tensors."""
        with _replaced(self.algorithm, hparams):
            return self.algorithm.objective(batch)


@contextmanager
def _replaced(algorithm: Algorithm, hparams: Mapping[str, Tensor]) -> Iterator[None]:
    """Let tensors stand for some hyper-parameters for a while."""
    written = algorithm.hparams
    algorithm.hparams = written.model_copy(update=dict(hparams))
    try:
        yield
    finally:
        algorithm.hparams = written


class _Runs:
    """The state of all runs, stacked, and the data that they draw from."""

    def __init__(self, specs: Sequence[RunSpec], dataset: DomainDataset, machine: Machine) -> None:
        self.specs, self.dataset = specs, dataset
        self.fabric = make_fabric(machine)
        self.algorithms = [self._build(spec) for spec in specs]
        self.algorithm = self.algorithms[0]  # whose code computes all
        self.algorithm.check_start()
        self.objective = _Objective(self.algorithm)
        self.data = FeatureBatches(specs, dataset, self.algorithm.hparams.batch_size)
        self.parameters = self._stack([dict(one.named_parameters()) for one in self.algorithms])
        self.buffers = self._stack([dict(one.named_buffers()) for one in self.algorithms])
        for parameter in self.parameters.values():
            parameter.requires_grad_()
        names = self.algorithm.batched_hparams(self.algorithm.hparams) or ()
        self.hparams = {name: self._values(name) for name in names}
        self.hparams_at_hand = {name: value.cpu() for name, value in self.hparams.items()}
        self.adam = BatchedAdam(self.parameters, *(self._values(name) for name in OPTIMIZER))

    def train(self, report: Callable[[int], None] | None) -> list[list[dict[str, Any]]]:
        """All steps; the records of each run."""
        spec = self.specs[0]
        records: list[list[dict[str, Any]]] = [[] for _ in self.specs]
        sums: Values = {}
        doubts = Doubts(self.algorithm, speak=True)
        since, started = 0, time.perf_counter()
        for step in range(spec.steps):
            metrics = self._step(step)
            sums = {name: sums[name] + value if name in sums else value for name, value in metrics.items()}
            since += 1
            if step % spec.evaluate_every == 0 or step == spec.steps - 1:
                means = {name: (total / since).tolist() for name, total in sums.items()}
                seconds = (time.perf_counter() - started) / since / len(self.specs)
                predicted = self._predict()
                accuracies = self.data.accuracies(predicted)
                every = [{name: values[run] for name, values in means.items()} for run in range(len(records))]
                for run, (record, own) in enumerate(zip(records, every, strict=True)):
                    if record and DIVERGED in record[-1]:
                        continue
                    problem = what_diverged(own, self._state(run), accuracies[run])
                    record.append(
                        make_record(step, {**own, "step_seconds": seconds}, accuracies[run], problem)
                    )
                doubts.of_runs(step, every, *self.data.in_source_domains(predicted))
                sums, since, started = {}, 0, time.perf_counter()
            if report is not None:
                report(step)
        return records

    def save(self, run: int, folder: Path) -> None:
        """Leave the checkpoint that training the run alone leaves."""
        algorithm, steps = self.algorithms[run], self.specs[run].steps
        algorithm.steps_done = steps
        state = _Objective(algorithm).state_dict(keep_vars=True)
        with torch.no_grad():
            for name, stacked in {**self.parameters, **self.buffers}.items():
                state[name].copy_(stacked[run])
        optimizers = algorithm.make_optimizers()
        (optimizer,) = optimizers.values()
        assert isinstance(optimizer, Adam)
        optimizer.param_groups[0]["lr"] = float(self.adam.lr[run])
        for name, parameter in algorithm.named_parameters():
            optimizer.state[parameter] = self.adam.state_of(f"algorithm.{name}", run)
        about = CheckpointAbout(
            run=self.specs[run],
            class_names=self.dataset.class_names,
            input_shape=self.dataset.input_shape,
            source_domains=algorithm.domains,
        )
        save_checkpoint(folder / CHECKPOINTS, steps, algorithm, optimizers, about.model_dump(mode="json"))

    def _build(self, spec: RunSpec) -> Algorithm:
        torch.manual_seed(spec.seed)
        sources = len(self.dataset.domains) - len(spec.target_domains)
        algorithm = build_algorithm(spec, self.dataset.input_shape, len(self.dataset.class_names), sources)
        self.fabric.strategy.precision.convert_module(algorithm.to(self.fabric.device))
        return algorithm

    def _stack(self, states: Sequence[Values]) -> Values:
        return {
            f"algorithm.{name}": torch.stack([state[name].detach() for state in states]) for name in states[0]
        }

    def _state(self, run: int) -> Values:
        """Parameters and buffers of a run."""
        return {name: value[run] for name, value in (*self.parameters.items(), *self.buffers.items())}

    def _values(self, name: str) -> Tensor:
        """One hyper-parameter of all runs, ``(R,)``."""
        values = [spec.hparams[name] for spec in self.specs]
        whole = isinstance(values[0], int)
        return torch.tensor(values, dtype=torch.long if whole else torch.float64, device=self.fabric.device)

    def _step(self, step: int) -> Values:
        """One update of all runs; their metrics, ``(R,)`` each."""
        self.algorithm.steps_done = step
        inputs, targets = (part.to(self.fabric.device) for part in self.data.batches(step))
        inputs = self.fabric.strategy.precision.convert_input(inputs)
        domains = self.data.domain_ids.to(self.fabric.device)

        def of_one(
            parameters: Values, buffers: Values, hparams: Values, inputs: Tensor, targets: Tensor
        ) -> tuple[Tensor, Values, Values]:
            state = {**parameters, **buffers}  # functional_call leaves buffers here as the objective set them
            batch = DomainBatch.balanced(inputs, targets, domains, self.algorithm.domains)
            with self.fabric.autocast():
                loss, metrics = functional_call(self.objective, state, (hparams, batch))
            return loss, metrics, {name: state[name].detach() for name in buffers}

        losses, metrics, self.buffers = vmap(of_one)(
            self.parameters, self.buffers, self.hparams, inputs, targets
        )
        gradients = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        self.adam.forget(*self._beginning_anew())
        self.adam.step(dict(zip(self.parameters, gradients, strict=True)))
        return {"loss": losses.detach(), **metrics}

    def _beginning_anew(self) -> tuple[Tensor, Tensor | None]:
        """Which runs' Adam begins anew with this step, ``(R,)``, and its learning rates, on the host."""
        with _replaced(self.algorithm, self.hparams_at_hand):
            forgetting = torch.as_tensor(self.algorithm.resets_optimizer())
            lr = self.algorithm.lr_from_now()
        return forgetting.expand(len(self.specs)), None if lr is None else torch.as_tensor(lr)

    @torch.no_grad()
    def _predict(self) -> Tensor:
        """Class of every sample of the dataset according to every run, ``(R, N)``; see predicted_classes."""
        self.algorithm.eval()
        parameters = {name.removeprefix("algorithm."): value for name, value in self.parameters.items()}
        parts = []
        for rows in self.data.plain.split(ROWS_AT_ONCE):
            inputs = self.fabric.strategy.precision.convert_input(rows.float().to(self.fabric.device))
            logits = vmap(
                lambda state, given: functional_call(self.algorithm, state, (given,)), in_dims=(0, None)
            )(parameters, inputs)
            parts.append(predicted_classes(logits).cpu())
        self.algorithm.train()
        return torch.cat(parts, dim=1)
