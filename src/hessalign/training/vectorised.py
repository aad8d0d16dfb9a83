"""Many runs on features trained together: one batched computation instead of one run after the other.

Runs of one algorithm that differ in targets, seeds and hyper-parameters take the same steps on other numbers.
Their parameters and buffers are stacked along a first axis of runs, ``torch.func.vmap`` computes all their
losses at once, and an Adam written in plain operations updates them with learning rates of their own. Every
run has the initial weights and the batches that it has alone, and ends with the same numbers but for
rounding.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Adam

from hessalign.algorithms import Algorithm, DomainBatch, get_algorithm
from hessalign.datasets.base import DomainDataset
from hessalign.datasets.features_file import FeatureSamples
from hessalign.datasets.splits import split_indices
from hessalign.training.batched_adam import BatchedAdam
from hessalign.training.batches import check_sizes, draw_samples
from hessalign.training.checkpoint import save_checkpoint, write_atomically
from hessalign.training.machine import Machine, make_fabric
from hessalign.training.records import FILE, read_records
from hessalign.training.spec import CheckpointAbout, RunSpec
from hessalign.training.trainer import (
    CHECKPOINTS,
    DONE,
    build_algorithm,
    check_targets,
    claim,
    is_finished,
)

ROWS_AT_ONCE = 1024
OPTIMIZER = ("lr", "weight_decay")
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
    hparams = algorithm.hparams_class(**spec.hparams)
    batched = algorithm.batched_hparams(hparams)
    own_rule = any(
        getattr(algorithm, name) is not getattr(Algorithm, name)
        for name in ("step", "make_optimizers", "adam", "forward")
    )
    drawn = spec.backbone.dropout > 0 or spec.validation_images == "augmented"
    if batched is None or own_rule or drawn or not spec.backbone.takes_features:
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
) -> list[dict[str, Any]]:
    """Do what [train][] does for each of several runs, all at once.

    Runs that are finished stay as they are. All others begin anew, and their folders are written at the end:
    what was killed is as if it had not begun.

    Args:
        specs: Runs that are alike for [can_train_together][].
        dataset: Of features, which all of them name.
        folders: One for each run.
        machine: Where to run them; one device.
        report: Called with the number of each step that is done.

    Returns:
        The record of the last evaluation of each run. ``step_seconds`` is its share of the time of a step.

    Raises:
        ValueError: If the runs cannot be trained together, or do not go with dataset, folders and machine.
        OSError: If the disk cannot be written.
    """
    _check(specs, dataset, folders, machine)
    left = [place for place, folder in enumerate(folders) if not is_finished(folder)]
    if left:
        runs = _Runs([specs[place] for place in left], dataset, machine)
        for place in left:
            claim(folders[place], specs[place])
        records = runs.train(report)
        for number, place in enumerate(left):
            runs.save(number, folders[place], records[number])
    return [read_records(folder)[-1] for folder in folders]


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
    if not all(isinstance(domain.augmented, FeatureSamples) for domain in dataset.domains):
        raise ValueError(f"dataset: {dataset.name} does not hold features; allowed are features files")
    for spec in specs:
        check_targets(spec, dataset)


class _Objective(nn.Module):
    """An algorithm's objective as a forward pass, which is what functional_call calls."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__()
        self.algorithm = algorithm
        self.written = algorithm.hparams

    def forward(self, hparams: Values, batch: DomainBatch) -> tuple[Tensor, Values]:
        """Loss and metrics with some hyper-parameters replaced by tensors."""
        self.algorithm.hparams = self.written.model_construct(**{**self.written.model_dump(), **hparams})
        return self.algorithm.objective(batch)


class _Runs:
    """The state of all runs, stacked, and the data that they draw from."""

    def __init__(self, specs: Sequence[RunSpec], dataset: DomainDataset, machine: Machine) -> None:
        self.specs, self.dataset = specs, dataset
        self.fabric = make_fabric(machine)
        self.algorithms = [self._build(spec) for spec in specs]
        self.data = _Data(specs, dataset, self.algorithms[0].hparams.batch_size)
        self.objective = _Objective(self.algorithms[0])
        self.parameters = self._stack([dict(one.named_parameters()) for one in self.algorithms])
        self.buffers = self._stack([dict(one.named_buffers()) for one in self.algorithms])
        del self.buffers["algorithm.steps_done"]  # the same for all: they keep step
        for parameter in self.parameters.values():
            parameter.requires_grad_()
        names = self.algorithms[0].batched_hparams(self.algorithms[0].hparams) or ()
        self.hparams = {name: self._values(name) for name in names}
        self.adam = BatchedAdam(self.parameters, *(self._values(name) for name in OPTIMIZER))

    def train(self, report: Callable[[int], None] | None) -> list[list[dict[str, Any]]]:
        """All steps; the records of each run."""
        spec = self.specs[0]
        records: list[list[dict[str, Any]]] = [[] for _ in self.specs]
        sums: Values = {}
        since, started = 0, time.perf_counter()
        for step in range(spec.steps):
            metrics = self._step(step)
            sums = {name: sums[name] + value if name in sums else value for name, value in metrics.items()}
            since += 1
            if step % spec.evaluate_every == 0 or step == spec.steps - 1:
                means = {name: (total / since).tolist() for name, total in sums.items()}
                seconds = (time.perf_counter() - started) / since / len(self.specs)
                accuracies = self.data.accuracies(self._predict())
                for run, record in enumerate(records):
                    own = {name: values[run] for name, values in means.items()}
                    record.append(
                        {"step": step, **own, "step_seconds": seconds, "accuracies": accuracies[run]}
                    )
                sums, since, started = {}, 0, time.perf_counter()
            if report is not None:
                report(step)
        return records

    def save(self, run: int, folder: Path, records: Sequence[dict[str, Any]]) -> None:
        """Leave in a run's folder what training it alone leaves there."""
        algorithm, steps = self.algorithms[run], self.specs[run].steps
        algorithm.hparams = type(algorithm.hparams)(**self.specs[run].hparams)
        with torch.no_grad():
            for name, value in _Objective(algorithm).state_dict(keep_vars=True).items():
                stacked = self.parameters.get(name, self.buffers.get(name))
                value.copy_(torch.tensor(steps) if stacked is None else stacked[run])
        optimizers = algorithm.make_optimizers()
        (optimizer,) = optimizers.values()
        assert isinstance(optimizer, Adam)
        for name, parameter in algorithm.named_parameters():
            optimizer.state[parameter] = self.adam.state_of(f"algorithm.{name}", run)
        write_atomically(folder / FILE, "".join(json.dumps(record) + "\n" for record in records))
        about = CheckpointAbout(
            run=self.specs[run],
            class_names=self.dataset.class_names,
            input_shape=self.dataset.input_shape,
            source_domains=algorithm.domains,
        )
        save_checkpoint(folder / CHECKPOINTS, steps, algorithm, optimizers, about.model_dump(mode="json"))
        (folder / DONE).touch()

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

    def _values(self, name: str) -> Tensor:
        """One hyper-parameter of all runs, ``(R,)``."""
        values = [spec.hparams[name] for spec in self.specs]
        whole = isinstance(values[0], int)
        return torch.tensor(values, dtype=torch.long if whole else torch.float64, device=self.fabric.device)

    def _step(self, step: int) -> Values:
        """One update of all runs; their metrics, ``(R,)`` each."""
        algorithm = self.algorithms[0]
        algorithm.steps_done.fill_(step)
        algorithm.hparams = algorithm.hparams.model_construct(**self.objective.written.model_dump())
        inputs, targets = (part.to(self.fabric.device) for part in self.data.batches(step))
        inputs = self.fabric.strategy.precision.convert_input(inputs)
        domains = self.data.domain_ids.to(self.fabric.device)

        def of_one(
            parameters: Values, buffers: Values, hparams: Values, inputs: Tensor, targets: Tensor
        ) -> tuple[Tensor, Values, Values]:
            state = {**parameters, **buffers}
            batch = DomainBatch(inputs, targets, domains, algorithm.domains)
            with self.fabric.autocast():
                loss, metrics = functional_call(self.objective, state, (hparams, batch))
            return loss, metrics, {name: state[name].detach() for name in buffers}

        losses, metrics, self.buffers = vmap(of_one)(
            self.parameters, self.buffers, self.hparams, inputs, targets
        )
        gradients = torch.autograd.grad(losses.sum(), list(self.parameters.values()))
        self.adam.forget(self._forgetting(algorithm))
        self.adam.step(dict(zip(self.parameters, gradients, strict=True)))
        return {"loss": losses.detach(), **metrics}

    def _forgetting(self, algorithm: Algorithm) -> Tensor:
        """Which runs' Adam begins anew with this step, ``(R,)``."""
        written = self.objective.written
        algorithm.hparams = written.model_construct(**{**written.model_dump(), **self.hparams})
        forgetting = torch.as_tensor(algorithm.forgets_moments(), device=self.fabric.device)
        return forgetting.expand(len(self.specs))

    @torch.no_grad()
    def _predict(self) -> Tensor:
        """Class of every sample of the dataset according to every run, ``(R, N)``."""
        algorithm = self.algorithms[0].eval()
        parameters = {name.removeprefix("algorithm."): value for name, value in self.parameters.items()}
        parts = []
        for rows in self.data.plain.split(ROWS_AT_ONCE):
            inputs = self.fabric.strategy.precision.convert_input(rows.float().to(self.fabric.device))
            logits = vmap(lambda state, given: functional_call(algorithm, state, (given,)), (0, None))(
                parameters, inputs
            )
            parts.append(logits.argmax(2).cpu())
        algorithm.train()
        return torch.cat(parts, dim=1)


class _Data:
    """Batches and accuracies of all runs, by row numbers of one table."""

    def __init__(self, specs: Sequence[RunSpec], dataset: DomainDataset, samples_per_domain: int) -> None:
        self.specs, self.dataset = specs, dataset
        self.samples_per_domain = samples_per_domain
        plain = [domain.plain for domain in dataset.domains]
        augmented = [domain.augmented for domain in dataset.domains]
        assert all(isinstance(samples, FeatureSamples) for samples in (*plain, *augmented))
        self.plain = torch.cat([samples.table[:, 0] for samples in plain])  # type: ignore[attr-defined]
        self.labels = torch.cat([domain.targets for domain in dataset.domains])
        self.views = augmented[0].table.shape[1]  # type: ignore[attr-defined]
        self.table = torch.cat([samples.table for samples in augmented]).flatten(0, 1)  # type: ignore[attr-defined]
        starts = np.cumsum([0, *map(len, dataset.domains)]).tolist()
        self.splits = [self._split(spec, starts) for spec in specs]
        self.sources = [
            [index for index in range(len(dataset.domains)) if index not in spec.target_domains]
            for spec in specs
        ]
        self.domain_ids = torch.arange(len(self.sources[0])).repeat_interleave(samples_per_domain)
        for sources, split in zip(self.sources, self.splits, strict=True):
            names = [dataset.domains[index].name for index in sources]
            check_sizes(names, [len(split[index][0]) for index in sources], samples_per_domain)

    def batches(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs ``(R, E·B, d)`` and targets ``(R, E·B)`` of a step, the same as the runs have alone."""
        rows = torch.stack([self._rows(run, step) for run in range(len(self.specs))])
        inputs = self.table.index_select(0, rows.flatten()).unflatten(0, rows.shape).float()
        return inputs, self.labels[rows // self.views]

    def accuracies(self, predicted: Tensor) -> list[dict[str, dict[str, float]]]:
        """Of each run: accuracies of every domain's in and out part, by domain name."""
        right = predicted == self.labels
        return [
            {
                domain.name: {
                    part: _share(right[run, samples[: self.specs[run].evaluation_samples]])
                    for part, samples in zip(("in", "out"), parts, strict=True)
                }
                for domain, parts in zip(self.dataset.domains, split, strict=True)
            }
            for run, split in enumerate(self.splits)
        ]

    def _rows(self, run: int, step: int) -> Tensor:
        rows = []
        for place, domain in enumerate(self.sources[run]):
            inside = self.splits[run][domain][0]
            indices, seeds = draw_samples(
                self.specs[run].seed, step, place, len(inside), self.samples_per_domain
            )
            rows.append(inside[indices] * self.views + seeds % self.views)
        return torch.cat(rows)

    def _split(self, spec: RunSpec, starts: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Samples in and out of each domain, counted over the whole dataset."""
        parts = []
        for index, domain in enumerate(self.dataset.domains):
            split = split_indices(len(domain), spec.trial_seed, index, spec.holdout_fraction)
            inside, outside = (starts[index] + torch.tensor(part, dtype=torch.long) for part in split)
            parts.append((inside, outside))
        return parts


def _share(right: Tensor) -> float:
    return int(right.sum()) / len(right) if len(right) else float("nan")
