"""Many runs on features trained together: one batched computation instead of one run after the other.

Runs of one algorithm that differ in targets, seeds and hyper-parameters take the same steps on other numbers.
Their parameters and buffers are stacked along a first axis of runs, ``torch.func.vmap`` computes all their
losses at once, and an Adam written in plain operations updates them with learning rates of their own. Every
run has the initial weights and the batches that it has alone, and ends with the same numbers but for
rounding.
"""

import json
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.optim import Adam
from typing_extensions import override

from hessalign.algorithms import Algorithm, DomainBatch, get_algorithm
from hessalign.algorithms.base import Metrics
from hessalign.datasets.base import DomainDataset, Samples, split_indices
from hessalign.datasets.features_file import FeatureDomains, FeatureSamples
from hessalign.datasets.registry import DATASETS_OF_FEATURES
from hessalign.exceptions import DivergedError, NoEffectWarning
from hessalign.loop import draw_samples
from hessalign.runs.layout import (
    CHECKPOINTS,
    hold,
    is_finished,
    remove_leftovers,
    remove_predictions,
)
from hessalign.runs.records import (
    DIVERGED,
    SPLITS,
    check_predictions,
    keeps_predictions,
    read_records,
    remove_unrecorded,
    write_records,
)
from hessalign.runs.seals import finish
from hessalign.training.batches import check_sizes
from hessalign.training.checkpoint import claim, last_record, save_checkpoint
from hessalign.training.doubts import Predicted
from hessalign.training.evaluation import (
    Evaluated,
    Outputs,
    predicted_classes,
)
from hessalign.training.machine import Machine, make_fabric
from hessalign.training.meter import Meter
from hessalign.training.spec import RunSpec, build_algorithm, check_targets
from hessalign.training.trainer import Computation, metadata_of, perform, prediction_table, training_counts

ROWS_AT_ONCE = 1024
"""Of an evaluation, which bounds its memory."""
LOGITS_AT_ONCE = 2**28
"""Of an evaluation, which bounds its memory where samples, classes and runs are many: 1 GiB."""
OPTIMIZER = ("lr", "weight_decay")
OWN_RULES = ("step", "make_optimizers", "adam", "forward")
"""Methods that the batched computation replaces: an algorithm that overrides one is trained alone."""
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8
"""Of Adam, as ``torch.optim.Adam`` has them."""
Values = dict[str, Tensor]
Numbers = NDArray[np.int64]


def can_train_together(spec: RunSpec) -> str | None:
    """What runs must have in common to be trained together.

    Args:
        spec: A run.

    Returns:
        Equal for runs that can be trained together; None for a run that must be trained alone, since its
        inputs are images, it draws random numbers, its algorithm's rule cannot be vectorised, or it has a
        recipe beside that rule.

    Examples:
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.training import RunSpec, can_train_together
        >>> hparams = get_algorithm("erm").hparams_class.with_defaults("features")
        >>> spec = RunSpec(
        ...     dataset="features_file",
        ...     algorithm="erm",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="identity"),
        ...     hparams=hparams.model_dump(),
        ...     steps=300,
        ...     evaluate_every=100,
        ... )
        >>> other = spec.model_copy(update={"seed": 1})
        >>> can_train_together(spec) == can_train_together(other)
        True
        >>> longer = spec.model_copy(update={"steps": 600})
        >>> can_train_together(spec) == can_train_together(longer)
        False
    """
    algorithm = get_algorithm(spec.algorithm)
    batched = algorithm.batched_hparams(algorithm.hparams_class(**spec.hparams))
    own_rule = any(getattr(algorithm, name) is not getattr(Algorithm, name) for name in OWN_RULES)
    draws = spec.backbone.dropout > 0 or spec.validation_images == "augmented"
    on_features = spec.dataset in DATASETS_OF_FEATURES and spec.backbone.takes_features
    if batched is None or own_rule or draws or not on_features or spec.recipe is not None:
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
    save_predictions: bool = False,
) -> list[dict[str, Any]]:
    """Do what [train][hessalign.training.train] does for each of several runs, all at once.

    Runs that are finished stay as they are. All others begin anew, and their folders are written at the end:
    what was killed is as if it had not begun. A run that diverges ends there, whatever becomes of the others.

    Args:
        specs: Runs that are alike for [can_train_together][hessalign.training.can_train_together].
        dataset: Of features, which all of them name.
        folders: One for each run.
        machine: Where to run them; one device.
        report: Called with the number of each step that is done.
        checkpoints: Leave each run's last checkpoint.
        save_predictions: As [train][hessalign.training.train] takes it.

    Returns:
        The record of the last evaluation of each run, those of runs that diverged among them, which say so.
        ``step_seconds`` is its share of the time of a step.

    Raises:
        ValueError: If the runs cannot be trained together, do not go with dataset, folders and machine, or
            what is in a folder is damaged.
        OSError: If the disk cannot be written, or another process writes to a folder.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, train_together
        >>> y, site = np.arange(24) % 2, np.arange(24) // 8
        >>> X = (np.random.default_rng(0).normal(size=(24, 3)) + 3 * y[:, None]).astype("float32")
        >>> hparams = get_algorithm("erm").hparams_class.with_defaults("features", {"batch_size": 4})
        >>> spec = RunSpec(
        ...     dataset="features_file",
        ...     algorithm="erm",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="identity"),
        ...     hparams=hparams.model_dump(),
        ...     steps=4,
        ...     evaluate_every=2,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder)
        ...     written = save_features(place / "sites.safetensors", X, y, site)
        ...     dataset = find_data(f"{folder}/sites.safetensors").open(seed=0)
        ...     specs = [spec.model_copy(update={"seed": seed}) for seed in range(2)]
        ...     runs = [place / f"run-{seed}" for seed in range(2)]
        ...     records = train_together(specs, dataset, runs, Machine("cpu"))
        >>> [record["step"] for record in records]
        [3, 3]
    """
    _check(specs, dataset, folders, machine)
    left = [place for place, folder in enumerate(folders) if not is_finished(folder)]
    for place in {*range(len(folders))} - {*left}:
        claim(folders[place], specs[place])
        if save_predictions:
            check_predictions(folders[place])
    if left:
        keeping = [
            folders[place] if save_predictions or keeps_predictions(folders[place]) else None
            for place in left
        ]
        runs = _Stacked([specs[place] for place in left], dataset, machine, keeping)
        with ExitStack() as locks:
            for place in left:
                locks.enter_context(hold(folders[place]))
                claim(folders[place], specs[place])
                remove_leftovers(folders[place])
                remove_predictions(folders[place])
            steps, meter = range(specs[0].steps), Meter(len(left))
            perform(runs, steps, meter, None if report is None else lambda progress: report(progress.step))
            for number, place in enumerate(left):
                shutil.rmtree(folders[place] / CHECKPOINTS, ignore_errors=True)
                write_records(folders[place], runs.records[number])
                if keeping[number] is not None:
                    remove_unrecorded(folders[place])
                if checkpoints and DIVERGED not in runs.records[number][-1]:
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
    if not isinstance(dataset, FeatureDomains):
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


class _Stacked(Computation):
    """Several runs: their states, stacked, and the data that they draw from."""

    def __init__(
        self,
        specs: Sequence[RunSpec],
        dataset: DomainDataset,
        machine: Machine,
        keeping: Sequence[Path | None],
    ) -> None:
        self.specs, self.dataset = specs, dataset
        self.keeping = keeping  # folder of each run whose predictions are kept
        self.fabric = make_fabric(machine)
        self.algorithms = [self._build(spec) for spec in specs]
        self.algorithm = self.algorithms[0]  # whose code computes all
        self.algorithm.check_start()
        for sentence in dict.fromkeys(words for spec in specs for words in spec.never_comes().values()):
            warnings.warn(sentence, NoEffectWarning, stacklevel=3)
        self.objective = _Objective(self.algorithm)
        per_domain = self.algorithm.hparams.batch_size
        self.data = _Features(specs, dataset, per_domain)
        self.samples = len(specs) * per_domain * self.algorithm.domains
        self.parameters = self._stack([dict(one.named_parameters()) for one in self.algorithms])
        self.buffers = self._stack([dict(one.named_buffers()) for one in self.algorithms])
        for parameter in self.parameters.values():
            parameter.requires_grad_()
        names = self.algorithm.batched_hparams(self.algorithm.hparams) or ()
        self.hparams = {name: self._values(name) for name in names}
        self.hparams_at_hand = {name: value.cpu() for name, value in self.hparams.items()}
        self.adam = BatchedAdam(self.parameters, *(self._values(name) for name in OPTIMIZER))
        self.records: list[list[dict[str, Any]]] = [[] for _ in specs]
        self.sums: dict[int, Values] = {}

    @override
    def update(self, step: int) -> Metrics:
        self.algorithm.steps_done = step
        inputs, targets = (values.to(self.fabric.device) for values in self.data.batches(step))
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
        self.adam.reset(*self._resetting())
        self.adam.step(dict(zip(self.parameters, gradients, strict=True)))
        return {"loss": losses.detach(), **metrics}

    @override
    def evaluate(self, step: int) -> Sequence[Evaluated]:
        each = len(self.data.plain) * len(self.dataset.class_names)
        width = max(1, LOGITS_AT_ONCE // each)
        evaluated, classes = [], []
        for first in range(0, len(self.specs), width):
            runs = range(first, min(first + width, len(self.specs)))
            logits = self._predict(runs)
            classes.append(predicted_classes(logits))
            for place, run in enumerate(runs):
                folder = self.keeping[run]
                found = Evaluated(table=None if folder is None else prediction_table(self.dataset))
                self.data.evaluate(run, logits[place], found)
                if folder is not None:
                    found.keep(folder, step)
                evaluated.append(found)
        self.classes = torch.cat(classes)
        return evaluated

    @override
    def state(self, run: int) -> Values:
        return {name: value[run] for name, value in (*self.parameters.items(), *self.buffers.items())}

    @override
    def predicted(self) -> Predicted:
        return self.data.in_source_domains(self.classes)

    @override
    def keep(self, step: int, records: Mapping[int, dict[str, Any]], meter: Meter) -> None:
        # In memory: what is killed begins anew.
        for run, record in records.items():
            self.records[run].append(record)
            if step % self.specs[run].evaluate_every:
                self.sums[run] = meter.sums(run)

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
        metadata = metadata_of(self.specs[run], self.dataset)
        save_checkpoint(folder / CHECKPOINTS, steps, algorithm, optimizers, metadata, self.sums.get(run))

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
        dtype = torch.long if isinstance(values[0], int) else torch.float64
        return torch.tensor(values, dtype=dtype, device=self.fabric.device)

    def _resetting(self) -> tuple[Tensor, Tensor | None]:
        """Which runs' Adam begins anew with this step, ``(R,)``, and its learning rates, on the host."""
        with _replaced(self.algorithm, self.hparams_at_hand):
            resetting = torch.as_tensor(self.algorithm.resets_optimizer())
            lr = self.algorithm.lr_from_now()
        return resetting.expand(len(self.specs)), None if lr is None else torch.as_tensor(lr)

    @torch.no_grad()
    def _predict(self, runs: range) -> Tensor:
        """Logits of every sample of the dataset according to some runs, ``(R, N, C)``."""
        self.algorithm.eval()
        chosen = slice(runs.start, runs.stop)
        parameters = {
            name.removeprefix("algorithm."): value[chosen] for name, value in self.parameters.items()
        }
        found = []
        for rows in self.data.plain.split(ROWS_AT_ONCE):
            inputs = self.fabric.strategy.precision.convert_input(rows.float().to(self.fabric.device))
            logits = vmap(
                lambda state, given: functional_call(self.algorithm, state, (given,)), in_dims=(0, None)
            )(parameters, inputs)
            found.append(logits.cpu())
        self.algorithm.train()
        joined = torch.cat(found, dim=1)
        return joined if joined.dtype == torch.float64 else joined.float()


class BatchedAdam:
    """The rule of ``torch.optim.Adam`` with L2 weight decay (Kingma and Ba, ICLR 2015), run by run.

    ``g ← g + λ θ``, ``m ← β₁ m + (1 − β₁) g``, ``v ← β₂ v + (1 − β₂) g²``,
    ``θ ← θ − lr · m̂ / (√v̂ + ε)`` with ``m̂ = m / (1 − β₁ᵗ)``, ``v̂ = v / (1 − β₂ᵗ)``.

    Args:
        parameters: By name, ``(R, ...)``; changed in place.
        lr: Learning rates, ``(R,)``.
        weight_decay: ``λ``, ``(R,)``.
    """

    def __init__(self, parameters: Mapping[str, Tensor], lr: Tensor, weight_decay: Tensor) -> None:
        self.parameters = parameters
        self.lr = lr
        self.weight_decay = weight_decay
        self.steps = torch.zeros_like(lr)
        self.first = {name: torch.zeros_like(value) for name, value in parameters.items()}
        self.second = {name: torch.zeros_like(value) for name, value in parameters.items()}

    @torch.no_grad()
    def reset(self, runs: Tensor, lr: Tensor | None = None) -> None:
        """Let some runs begin anew.

        Args:
            runs: Which, ``(R,)``, bool; on the host, for it is read there.
            lr: Their learning rates from now on, ``(R,)``; None (default) for those they have.
        """
        if bool(runs.any()):
            for value in (self.steps, *self.first.values(), *self.second.values()):
                value[runs.to(value.device)] = 0
            if lr is not None:
                self.lr = torch.where(runs.to(self.lr.device), lr.to(self.lr), self.lr)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor]) -> None:
        """One update of all runs.

        Args:
            gradients: By name, shaped like the parameters.
        """
        self.steps += 1
        size = self.lr / (1 - BETA1**self.steps)
        root = (1 - BETA2**self.steps).sqrt()
        for name, parameter in self.parameters.items():
            decayed = gradients[name] + _along(self.weight_decay, parameter) * parameter
            first, second = self.first[name], self.second[name]
            first.lerp_(decayed, 1 - BETA1)
            second.mul_(BETA2).addcmul_(decayed, decayed, value=1 - BETA2)
            scale = second.sqrt() / _along(root, parameter) + EPSILON
            parameter.sub_(_along(size, parameter) * first / scale)

    def state_of(self, name: str, run: int) -> dict[str, Tensor]:
        """The state of a run's parameter, as ``torch.optim.Adam`` keeps it."""
        return {
            "step": self.steps[run].float().cpu(),
            "exp_avg": self.first[name][run].clone(),
            "exp_avg_sq": self.second[name][run].clone(),
        }


def _along(values: Tensor, like: Tensor) -> Tensor:
    """Values of the runs, ``(R,)``, of the type of ``(R, ...)`` and shaped to go with it."""
    return values.to(like.dtype).view(-1, *[1] * (like.ndim - 1))


class _Features:
    """What each of several runs trains on and is evaluated on, by row numbers of one table.

    Args:
        specs: The runs; all have equally many target domains.
        dataset: Of features.
        samples_per_domain: ``B``, of all runs.

    Attributes:
        plain: Features of all samples, ``(N, d)``.
        domain_ids: Of the rows of a batch, ``(E·B,)``.

    Raises:
        ValueError: If a source domain has fewer than ``B`` training samples.
    """

    def __init__(self, specs: Sequence[RunSpec], dataset: DomainDataset, samples_per_domain: int) -> None:
        self._specs, self._dataset = specs, dataset
        self._samples_per_domain = samples_per_domain
        views = torch.cat([_table(domain.augmented) for domain in dataset.domains])
        self._views = views.shape[1]
        self._table = views.flatten(0, 1)
        self._labels = torch.cat([domain.targets for domain in dataset.domains])
        self.plain = torch.cat([_table(domain.plain)[:, 0] for domain in dataset.domains])
        self._starts = np.cumsum([0, *map(len, dataset.domains)])[:-1].tolist()
        self._splits = [self._split(spec) for spec in specs]
        self._training_counts = [training_counts(spec, dataset) for spec in specs]
        self._sources = [
            [index for index in range(len(dataset.domains)) if index not in spec.target_domains]
            for spec in specs
        ]
        self.domain_ids = torch.arange(len(self._sources[0])).repeat_interleave(samples_per_domain)
        for sources, split in zip(self._sources, self._splits, strict=True):
            names = [dataset.domains[index].name for index in sources]
            check_sizes(names, [len(split[index][0]) for index in sources], samples_per_domain)

    def batches(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs ``(R, E·B, d)`` and targets ``(R, E·B)`` of a step, the same as the runs have alone."""
        rows = torch.from_numpy(np.stack([self._rows(run, step) for run in range(len(self._specs))]))
        inputs = self._table.index_select(0, rows.flatten()).unflatten(0, rows.shape).float()
        return inputs, self._labels[rows // self._views]

    def evaluate(self, run: int, logits: Tensor, evaluated: Evaluated) -> None:
        """A run on every domain's splits.

        Args:
            run: Its number.
            logits: Of all samples, ``(N, C)``.
            evaluated: Takes in what is found.
        """
        for domain, start, splits, counts in zip(
            self._dataset.domains,
            self._starts,
            self._splits[run],
            self._training_counts[run],
            strict=True,
        ):
            for name, rows in zip(SPLITS, splits, strict=True):
                chosen = rows[: self._specs[run].evaluation_samples]
                found = Outputs(logits[chosen], self._labels[chosen]) if len(chosen) else None
                evaluated.add(domain, name, (chosen - start).tolist(), found, counts)

    def in_source_domains(self, predicted: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of each run: predictions for its training samples, and their classes."""
        rows = [
            torch.from_numpy(np.concatenate([split[index][0] for index in sources]))
            for split, sources in zip(self._splits, self._sources, strict=True)
        ]
        predictions = [predicted[run, samples] for run, samples in enumerate(rows)]
        return predictions, [self._labels[samples] for samples in rows]

    def _rows(self, run: int, step: int) -> Numbers:
        rows = []
        for place, domain in enumerate(self._sources[run]):
            inside = self._splits[run][domain][0]
            indices, seeds = draw_samples(
                self._specs[run].seed, step, place, len(inside), self._samples_per_domain
            )
            rows.append(inside[indices] * self._views + seeds % self._views)
        return np.concatenate(rows)

    def _split(self, spec: RunSpec) -> list[tuple[Numbers, Numbers]]:
        """Samples in and out of each domain, counted over the whole dataset."""
        splits = []
        for index, domain in enumerate(self._dataset.domains):
            split = split_indices(len(domain), spec.trial_seed, index, spec.holdout_fraction)
            inside, outside = (self._starts[index] + np.array(places, dtype=np.int64) for places in split)
            splits.append((inside, outside))
        return splits


def _table(samples: Samples) -> Tensor:
    assert isinstance(samples, FeatureSamples)
    return samples.whole()
