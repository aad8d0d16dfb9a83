"""The mean of several trained runs (DiWA), and of a trained and the pretrained backbone (WiSE-FT)."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors.torch import load_file
from torch import Tensor

from hessalign.algorithms import Algorithm
from hessalign.backbones import make_backbone
from hessalign.backbones.weights import file_sha256
from hessalign.checks import require_choice, require_number
from hessalign.datasets.base import DomainDataset
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning
from hessalign.files import write_atomically
from hessalign.runs.checkpoints import WEIGHTS
from hessalign.runs.layout import (
    CHECKPOINTS,
    SPEC,
    hold,
    is_finished,
    is_started,
    latest_checkpoint,
    of_sweep,
    what_lies_there,
)
from hessalign.runs.predictions import PredictionTable
from hessalign.runs.recipe import MeanOfRuns
from hessalign.runs.records import append_record, read_records, source_accuracy
from hessalign.runs.seals import finish
from hessalign.training.averaging import Mean, renew_statistics
from hessalign.training.checkpoint import save_checkpoint
from hessalign.training.evaluation import Evaluated, Outputs, make_record, outputs
from hessalign.training.machine import Machine, make_fabric
from hessalign.training.predictor import load_trained
from hessalign.training.spec import CheckpointMetadata, RunSpec
from hessalign.training.trainer import (
    batches_for_statistics,
    evaluation_splits,
    prediction_table,
    training_counts,
)

Selection = Literal["uniform", "restricted"]
ALIKE = (
    "dataset",
    "data",
    "algorithm",
    "target_domains",
    "trial_seed",
    "holdout_fraction",
    "validation_images",
    "evaluation_samples",
)
"""What runs must agree in beside the architecture: the held-out samples of all are then the same."""


@dataclass(frozen=True)
class Member:
    """A trained run.

    Attributes:
        folder: Where it lies.
        metadata: What it was trained on.
        weights: Of the network that predicts, by name.
        digest: SHA-256 of their file.
        validation: Mean accuracy on the held-out samples of its source domains, at its last evaluation.
    """

    folder: Path
    metadata: CheckpointMetadata
    weights: dict[str, Tensor]
    digest: str
    validation: float

    @classmethod
    def load(cls, folder: Path) -> "Member":
        """The member in a run's folder.

        Returns:
            The member.

        Raises:
            ValueError: If it holds no readable run with a checkpoint, or one that is not finished.
            OSError: If a file cannot be read.
            DivergedError: If the run diverged.
        """
        if not is_started(folder):
            raise ValueError(f"folders: there is no run in {folder}{of_sweep(folder)}")
        if not is_finished(folder):
            raise ValueError(
                f"folders: the run in {folder} is not finished; a mean is of runs that are, so go on with it "
                "first (hessalign train --resume), or leave it out"
            )
        checkpoint = latest_checkpoint(folder / CHECKPOINTS)
        if checkpoint is None:
            raise ValueError(f"folders: {what_lies_there(folder)}")
        _, metadata = load_trained(folder)
        validation = source_accuracy(read_records(folder)[-1], metadata.run.target_domains)
        path = checkpoint / WEIGHTS
        return cls(folder, metadata, load_file(path), file_sha256(path), validation)


def average_runs(
    folders: Sequence[Path],
    out: Path,
    find_data: Callable[[RunSpec], DomainDataset],
    machine: Machine,
    selection: Selection = "uniform",
    wise_ft: float = 1.0,
    *,
    save_predictions: bool = False,
) -> tuple[dict[str, Any], RunSpec]:
    r"""A network that is the mean of trained ones, as a run of its own.

    DiWA: ``θ = (1/M) Σ_m θ_m``. ``"restricted"`` goes through the runs from the best on the held-out samples
    of the source domains to the worst, and takes a run in if the mean's accuracy there does not fall
    (Rame, Kirchmeyer, Rahier, Rakotomamonjy, Gallinari and Cord, NeurIPS 2022, Algorithm 1).

    WiSE-FT: the backbone is then ``(1 − α) θ_0 + α θ``, with ``θ_0`` the pretrained one; the head stays
    (Wortsman et al., CVPR 2022).

    Args:
        folders: Of finished runs with checkpoints; of one architecture and one initialisation.
        out: Folder of the new run alone.
        find_data: The data of a run.
        machine: Where to evaluate.
        selection: ``"uniform"`` (default) takes all; or ``"restricted"``.
        wise_ft: ``α``, 0 to 1; 1 (default) for no pretrained part.
        save_predictions: As [train][hessalign.training.train] takes it.

    Returns:
        The record of the mean's evaluation, and the spec of the new run, which names the members. Its
        hyper-parameters and its seed are those of the first member, of ``"restricted"`` the best.

    Raises:
        ValueError: If the runs do not go together, before any work is done.
        OSError: If something cannot be read or written.
        DivergedError: If a run diverged.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, average_runs, train
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
        ...     runs = [place / f"run-{steps}" for steps in (4, 6)]
        ...     for steps, run in zip((4, 6), runs, strict=True):
        ...         record = train(spec.model_copy(update={"steps": steps}), dataset, run, Machine("cpu"))
        ...     record, mean = average_runs(runs, place / "mean", lambda spec: dataset, Machine("cpu"))
        >>> len(mean.average.members), mean.average.selection
        (2, 'uniform')
    """
    require_choice("selection", selection, get_args(Selection))
    wise_ft = require_number("wise_ft", wise_ft, least=0, most=1)
    if len({folder.resolve() for folder in folders}) < len(folders) or not folders:
        raise ValueError("folders: must be different runs, at least one")
    if out.exists() and any(out.iterdir()):
        raise ValueError(f"out: {out} is not empty; choose a folder of its own")
    if len(folders) == 1 and wise_ft == 1:
        raise ValueError(
            "folders: the mean of one run is that run; give more, or a share of the pretrained backbone"
        )
    members = [Member.load(folder) for folder in folders]
    _check_alike(members)
    _check_initialisation(members)
    selection = _possible(selection, members)
    if selection == "restricted":  # what the mean is recorded as is then a run that it holds
        members.sort(key=lambda member: -member.validation)
    first = members[0].metadata
    dataset = find_data(first.run)
    algorithm, _ = load_trained(members[0].folder)
    pretrained = _pretrained(first.run, first.input_shape, algorithm) if wise_ft < 1 else None
    soup = _Soup(algorithm.train(), first.run, dataset, machine, pretrained, wise_ft)
    chosen = members if selection == "uniform" else _restricted(members, soup)
    spec = first.run.model_copy(
        update={
            "average": MeanOfRuns(
                members=tuple((member.metadata.run.identity(), member.digest) for member in chosen),
                selection=selection,
                wise_ft=wise_ft,
            ),
            "recipe": None,
            "steps": max(member.metadata.run.steps for member in chosen),
        }
    )
    evaluated, state = soup.measure(chosen, prediction_table(dataset) if save_predictions else None)
    with hold(out):
        write_atomically(out / SPEC, spec.model_dump_json(indent=1))
        evaluated.keep(out, spec.steps - 1)
        record = make_record(spec.steps - 1, {}, evaluated, None)
        append_record(out, record)
        metadata = first.model_copy(update={"run": spec}).model_dump(mode="json")
        algorithm.load_state_dict(state)
        save_checkpoint(out / CHECKPOINTS, spec.steps, algorithm, {}, metadata)
        finish(out)
    return record, spec


def _possible(selection: Selection, members: Sequence[Member]) -> Selection:
    """What the members can be selected by."""
    if selection == "restricted" and len(members) == 1:
        warnings.warn(
            "selection: 'restricted' has one run to choose from, and takes it, as 'uniform' does",
            NoEffectWarning,
            stacklevel=3,
        )
        return "uniform"
    if selection == "restricted" and any(math.isnan(member.validation) for member in members):
        raise ValueError(
            "selection: 'restricted' needs held-out samples of every source domain, of which the runs have "
            "none in at least one; allowed is 'uniform'"
        )
    return selection


def _restricted(members: Sequence[Member], soup: "_Soup") -> list[Member]:
    """Greedily, from the first, which is the best."""
    chosen, best = [members[0]], soup.validation(members[:1])
    for member in members[1:]:
        value = soup.validation([*chosen, member])
        if value >= best:
            chosen, best = [*chosen, member], value
    return chosen


class _Soup:
    """Means of members, measured."""

    def __init__(
        self,
        algorithm: Algorithm,
        spec: RunSpec,
        dataset: DomainDataset,
        machine: Machine,
        pretrained: dict[str, Tensor] | None,
        wise_ft: float,
    ) -> None:
        self._device = make_fabric(machine).device
        self._algorithm, self._spec, self._dataset = algorithm.to(self._device), spec, dataset
        self._workers = machine.workers
        self._pretrained, self._wise_ft = pretrained, wise_ft
        self._training, self._evaluated = evaluation_splits(spec, dataset)
        self._training_counts = training_counts(spec, dataset)

    def validation(self, members: Sequence[Member]) -> float:
        """Mean accuracy on the held-out samples of the source domains."""
        evaluated, _ = self.measure(members, only_sources=True)
        return source_accuracy({"accuracies": evaluated.accuracies}, self._spec.target_domains)

    def measure(
        self, members: Sequence[Member], table: PredictionTable | None = None, *, only_sources: bool = False
    ) -> tuple[Evaluated, dict[str, Tensor]]:
        """How good the mean is, and its ``state_dict``."""
        mean = Mean()
        for member in members:
            mean.add({name: value for name, value in member.weights.items() if value.is_floating_point()})
        state = {name: mean.values.get(name, value) for name, value in members[0].weights.items()}
        for name, value in (self._pretrained or {}).items():
            state[name] = torch.lerp(value.to(state[name]), state[name], self._wise_ft)
        self._algorithm.load_state_dict(state)
        size = self._algorithm.hparams.batch_size
        batches = batches_for_statistics(self._training, size, self._spec, self._workers)
        renew_statistics(self._algorithm, (inputs.to(self._device) for inputs in batches))
        evaluated = Evaluated(table=table)
        for index, (domain, splits, counts) in enumerate(
            zip(self._dataset.domains, self._evaluated, self._training_counts, strict=True)
        ):
            for split, samples in splits.items():
                is_left_out = only_sources and (split == "in" or index in self._targets)
                evaluated.add(domain, split, samples.indices, self._outputs(samples, is_left_out), counts)
        return evaluated, {name: value.cpu().clone() for name, value in self._algorithm.state_dict().items()}

    @property
    def _targets(self) -> tuple[int, ...]:
        return self._spec.target_domains

    def _outputs(self, samples: Any, is_left_out: bool) -> Outputs | None:
        if is_left_out or not len(samples):
            return None
        return outputs(self._algorithm, samples, self._device, self._workers)


def _check_alike(members: Sequence[Member]) -> None:
    first = members[0]
    for member in members:
        run, other = first.metadata.run, member.metadata.run
        if other.average is not None and len(members) > 1:
            raise ValueError(f"folders: {member.folder} is itself a mean of runs; give its members")
        for name in ALIKE:
            if getattr(run, name) != getattr(other, name):
                raise ValueError(
                    f"folders: the runs differ in {name}: {getattr(run, name)!r} in {first.folder}, "
                    f"{getattr(other, name)!r} in {member.folder}"
                )
        shapes = [{name: value.shape for name, value in each.weights.items()} for each in (first, member)]
        if (
            shapes[0] != shapes[1]
            or first.metadata.class_names != member.metadata.class_names
            or run.backbone.model_copy(update={"dropout": 0.0})
            != other.backbone.model_copy(update={"dropout": 0.0})
        ):
            raise ValueError(
                f"folders: {first.folder} and {member.folder} are not of one architecture, backbone and "
                "classes"
            )


def _check_initialisation(members: Sequence[Member]) -> None:
    """Networks that began in different places do not lie in one basin, and their mean is no network."""
    starts: dict[str, Path] = {}
    for member in members:
        run = member.metadata.run
        shared = "" if run.recipe is None else run.recipe.start_sha256
        starts.setdefault(shared or f"seed {run.seed}", member.folder)
    if len(starts) == 1:
        return
    one, other = list(starts.values())[:2]
    said = f"{one} and {other} began with different weights"
    how = "train each with --start-from the same run, of a linear probe say"
    if members[0].metadata.run.backbone.weights == "none" and not any(
        member.metadata.run.recipe is not None and member.metadata.run.recipe.start_sha256
        for member in members
    ):
        raise ValueError(f"folders: {said}, all of them random, so that their mean is no network; {how}")
    warnings.warn(
        f"folders: {said}, at least of the head; their mean may be worse than each of them: {how}",
        UntrustworthyWarning,
        stacklevel=3,
    )


def _pretrained(spec: RunSpec, input_shape: tuple[int, ...], algorithm: Algorithm) -> dict[str, Tensor]:
    """The pretrained backbone's parameters, by their names in the algorithm."""
    if spec.backbone.weights == "none":
        raise ValueError("wise_ft: the run's backbone began with random weights, so nothing is pretrained")
    backbone = make_backbone(spec.backbone, input_shape[0] + algorithm.extra_input_channels)
    return {f"backbone.{name}": value.detach() for name, value in backbone.named_parameters()}
