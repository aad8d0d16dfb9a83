"""What determines a run, and so its result; and the network that it says."""

import hashlib
import json
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hessalign.algorithms import Algorithm, get_algorithm
from hessalign.algorithms.registry import registered_name
from hessalign.backbones import BackboneSpec, make_backbone
from hessalign.backbones.base import IDENTITY, OWN_NETWORKS
from hessalign.backbones.weights import file_sha256
from hessalign.checks import did_you_mean
from hessalign.datasets.base import DomainDataset
from hessalign.exceptions import NoEffectWarning
from hessalign.runs.recipe import MeanOfRuns, Recipe
from hessalign.runs.records import evaluated_steps

REMEDY = "let it begin sooner, or train longer"
"""Ends what is said of that which never comes in a run."""


class RunSpec(BaseModel):
    """One training run. Equal specs give equal results on one machine.

    What makes no difference is not told apart: the order of target domains, and 1 from 1.0.

    Attributes:
        dataset: Name of the dataset.
        data: Fingerprint of the data where the name does not settle it (a folder, a file), not its place.
        algorithm: Name of the algorithm.
        target_domains: Indices of the domains that are never trained on, in ascending order.
        backbone: The backbone, its weights and what becomes of its batch normalisation.
        hparams: Every hyper-parameter of the algorithm.
        hparams_seed: Which draw of a search the hyper-parameters are; 0 for defaults and hand-set ones.
        seed: Of weights, batches and the algorithm's own draws.
        trial_seed: Of the splits into in and out and of drawn data, shared by all runs of a trial.
        steps: Number of updates.
        evaluate_every: Steps between evaluations; the last step is always evaluated.
        holdout_fraction: Share of each domain that is kept out of training.
        validation_images: ``"plain"`` (default) measures source accuracies on un-augmented images;
            ``"augmented"`` on augmented ones, as DomainBed does.
        evaluation_samples: At most so many samples of each part of each domain are evaluated, the first of
            its random order; None (default) for all.
        recipe: How the run starts, steps and averages beside its algorithm's rule; None (default) for the
            plain way. Left out of records where it is None, as of runs from before there were recipes.
        average: Of what trained runs this is the mean; None (default) for a run that is trained itself. Left
            out of records likewise.

    Examples:
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.training import RunSpec
        >>> hparams = get_algorithm("hgp").hparams_class.with_defaults("small").model_dump()
        >>> spec = RunSpec(
        ...     dataset="colored_mnist",
        ...     algorithm="hgp",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="mnist_cnn"),
        ...     hparams=hparams,
        ...     steps=300,
        ...     evaluate_every=100,
        ... )
        >>> len(spec.identity()) > 8
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    dataset: str
    data: str = ""
    algorithm: str
    target_domains: tuple[int, ...]
    backbone: BackboneSpec
    hparams: dict[str, bool | int | float | str]
    hparams_seed: int = Field(0, ge=0)
    seed: int = Field(0, ge=0)
    trial_seed: int = Field(0, ge=0)
    steps: int = Field(ge=1)
    evaluate_every: int = Field(ge=1)
    holdout_fraction: float = Field(0.2, gt=0, lt=1)
    validation_images: Literal["plain", "augmented"] = "plain"
    evaluation_samples: int | None = Field(None, ge=1)
    recipe: Recipe | None = None
    average: MeanOfRuns | None = None

    @model_serializer(mode="wrap")
    def _plain_as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {
            name: value
            for name, value in content.items()
            if name not in ("recipe", "average") or value is not None
        }

    @field_validator("algorithm")
    @classmethod
    def _one_spelling(cls, algorithm: str) -> str:
        return registered_name(algorithm)

    @field_validator("target_domains")
    @classmethod
    def _in_order(cls, target_domains: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(target_domains))

    @model_validator(mode="after")
    def _numbers_of_their_types(self) -> Self:
        """Numbers as the algorithm has them; what it does not know or allow is for it to refuse."""
        try:
            fields = get_algorithm(self.algorithm).hparams_class.model_fields
        except ValueError:  # of a plug-in that is not installed
            return self
        for name, value in self.hparams.items():
            kind = fields[name].annotation if name in fields else None
            if kind is float and type(value) is int and abs(value) < 2**53:
                self.hparams[name] = float(value)
            elif kind is int and type(value) is float and value.is_integer():
                self.hparams[name] = int(value)
        return self

    def identity(self) -> str:
        """Short hash of everything above; of a weights file it takes the content, not the path."""
        content = self.model_dump(mode="json")
        if self.backbone.weights_sha256:
            del content["backbone"]["weights"]
        if self.recipe is not None:
            content["recipe"] = self.recipe.content()
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]

    def never_comes(self) -> dict[str, str]:
        """What begins only after the run's end, and so never.

        Returns:
            A sentence by the name of what was asked for. A hyper-parameter that a search has drawn was not.
        """
        late = {}
        if self.hparams_seed == 0:
            algorithm = get_algorithm(self.algorithm)
            hparams = algorithm.hparams_class(**self.hparams)
            for name, what in algorithm.sets_in:
                if (after := getattr(hparams, name)) >= self.steps:
                    late[name] = (
                        f"algorithm: {self.algorithm} waits {after:g} steps ({name}) of {self.steps}, so "
                        f"{what} never sets in"
                    )
        recipe = self.recipe or Recipe()
        if recipe.linear_probe_steps > self.steps:
            late["linear_probe_steps"] = (
                f"linear_probe_steps: {recipe.linear_probe_steps} of {self.steps} steps, so the head alone "
                "is trained to the end"
            )
        if recipe.average == "sma" and recipe.average_from >= self.steps:
            late["average"] = (
                f"average_from: {recipe.average_from} of {self.steps} steps, so there is nothing to average, "
                "and the latest network predicts"
            )
        looks = len(evaluated_steps(self.steps, self.evaluate_every))
        if recipe.average == "swad" and recipe.swad_converge > looks:
            late["average"] = (
                f"swad_converge: {recipe.swad_converge} of {looks} evaluations, so SWAD never begins, and "
                "the latest network predicts"
            )
        return {name: f"{words}; {REMEDY}" for name, words in late.items()}

    def evaluated_on(self) -> str:
        """What accuracies in and out of a domain are measured on, in words for people."""
        trained, held_out = (
            f"{100 * share:g} %" for share in (1 - self.holdout_fraction, self.holdout_fraction)
        )
        words = f"in: the {trained} of a domain that sources train on; out: the {held_out} held out"
        if self.evaluation_samples is not None:
            words += f"; of both at most {self.evaluation_samples:,} samples"
        if self.validation_images == "augmented":
            words += "; source domains on augmented images"
        return words

    def with_steps(self, steps: int) -> "RunSpec":
        """The same run with another number of steps."""
        return self.model_copy(update={"steps": steps})

    def extends(self, other: "RunSpec | None") -> bool:
        """Whether this is the other run with as many or more steps, and so begins as it does."""
        if other is None or other.steps > self.steps:
            return False
        return other.with_steps(self.steps).identity() == self.identity()


class CheckpointMetadata(BaseModel):
    """What a checkpoint tells of its run, enough to rebuild the network.

    Attributes:
        step: Number of updates done; set by the checkpoint itself.
        run: The run.
        class_names: By class id.
        input_shape: ``(channels, height, width)`` of an input, or ``(d,)`` of a feature vector.
        source_domains: Number of domains trained on.

    Examples:
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.training import CheckpointMetadata, RunSpec
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
        >>> metadata = CheckpointMetadata(
        ...     step=300, run=spec, class_names=("healthy", "ill"), input_shape=(3,), source_domains=2
        ... )
        >>> CheckpointMetadata.model_validate_json(metadata.model_dump_json()) == metadata
        True
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = 0
    run: RunSpec
    class_names: tuple[str, ...] = Field(min_length=1)
    input_shape: tuple[Annotated[int, Field(ge=1, lt=2**31)], ...] = Field(min_length=1, max_length=3)
    source_domains: int = Field(ge=1)


def choose_backbone(
    dataset: DomainDataset | type[DomainDataset],
    name: str | None = None,
    weights: str | None = None,
    train_batch_norm: bool = False,
    dropout: float = 0.0,
    rank: int | None = None,
    normalization: str | None = None,
) -> BackboneSpec:
    """What is trained on a dataset.

    Args:
        dataset: Its class says which backbone is the default: the identity where inputs are features.
        name: Of the backbone; None for the default.
        weights: As ``BackboneSpec`` takes them; None for ``"hub"``, or ``"none"`` where there are none.
        train_batch_norm: Let running statistics move even with pretrained weights.
        dropout: The hyper-parameter; images of 28 pixels have none, as in DomainBed.
        rank: Of an adapter; None for the default.
        normalization: As [BackboneSpec][hessalign.backbones.BackboneSpec] takes it; None for the default.

    Returns:
        The choices that make the backbone.

    Raises:
        ValueError: If a choice is not allowed.
        OSError: If a weights file is missing.

    Examples:
        >>> from hessalign.datasets import get_dataset
        >>> from hessalign.training import choose_backbone
        >>> choose_backbone(get_dataset("features_file")).name
        'identity'
        >>> choose_backbone(get_dataset("colored_mnist")).name
        'mnist_cnn'
    """
    chosen = name or dataset.default_backbone
    source = weights or ("none" if chosen in OWN_NETWORKS else "hub")
    fields: dict[str, Any] = {"name": chosen, "weights": source, "rank": rank}
    if train_batch_norm:
        fields["frozen_batch_norm"] = False
        if source == "none":
            why = "has none" if chosen in OWN_NETWORKS else "trains it anyway, having no pretrained weights"
            warnings.warn(
                f"train_batch_norm: changes no batch normalisation, since {chosen} {why}",
                NoEffectWarning,
                stacklevel=2,
            )
    if normalization is not None:
        fields["normalization"] = normalization
    if dataset.search_space != "small":
        fields["dropout"] = dropout
    spec = BackboneSpec(**fields)
    if not isinstance(spec.weights, Path):
        return spec
    path = spec.weights.absolute()
    return spec.model_copy(update={"weights": path, "weights_sha256": file_sha256(path)})


def build_algorithm(
    spec: RunSpec, input_shape: tuple[int, ...], classes: int, source_domains: int
) -> Algorithm:
    """The untrained algorithm of a run.

    Args:
        spec: Names algorithm, hyper-parameters and backbone.
        input_shape: ``(channels, height, width)`` of an input, or ``(d,)`` of a feature vector.
        classes: Number of classes.
        source_domains: Number of domains to train on.

    Returns:
        In training mode.

    Raises:
        ValueError: If a name, a hyper-parameter or the backbone is not allowed, or does not go with such
            inputs.
        OSError: If the backbone's weights cannot be read.

    Examples:
        >>> import torch
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.training import RunSpec, build_algorithm
        >>> hparams = get_algorithm("hgp").hparams_class.with_defaults("features")
        >>> spec = RunSpec(
        ...     dataset="features_file",
        ...     algorithm="hgp",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="identity"),
        ...     hparams=hparams.model_dump(),
        ...     steps=300,
        ...     evaluate_every=100,
        ... )
        >>> algorithm = build_algorithm(spec, (3,), classes=4, source_domains=2)
        >>> algorithm.training, algorithm(torch.zeros(5, 3)).shape
        (True, torch.Size([5, 4]))
    """
    algorithm_class = get_algorithm(spec.algorithm)
    hparams = algorithm_class.hparams_class(**spec.hparams)
    spec.backbone.check_takes(input_shape)
    check_algorithm(spec.algorithm, spec.backbone.name, input_shape)
    backbone = make_backbone(spec.backbone, input_shape[0] + algorithm_class.extra_input_channels)
    algorithm = algorithm_class(backbone, backbone.width, classes, source_domains, hparams)
    algorithm.eval()
    with torch.no_grad():  # gives layers that learn their input's size from it their parameters
        algorithm(torch.zeros(1, *input_shape))
    return algorithm.train()


def check_algorithm(name: str, backbone: str, input_shape: tuple[int, ...]) -> None:
    """Refuse an algorithm that has nothing to do on such inputs with such a backbone.

    Args:
        name: Of the algorithm.
        backbone: Its name.
        input_shape: ``(channels, height, width)`` of an input, or ``(d,)`` of a feature vector.

    Raises:
        ValueError: Saying what it needs.

    Examples:
        >>> from hessalign.training import check_algorithm
        >>> check_algorithm("hgp", "identity", (512,))
        >>> check_algorithm("hgp", "mnist_cnn", (2, 28, 28))
    """
    algorithm = get_algorithm(name)
    if len(input_shape) == 1 and algorithm.needs_images:
        raise ValueError(f"algorithm: {name} works on images, not on feature vectors; choose another one")
    if backbone == IDENTITY and algorithm.needs_trainable_backbone:
        raise ValueError(
            f"algorithm: {name} trains the backbone, and 'identity' has nothing to train; choose "
            "the backbone adapter:linear or adapter:mlp, or another algorithm"
        )


def check_batch_norm(spec: BackboneSpec, backbone: nn.Module) -> None:
    """Tell where batch normalisation was to be trained with pretrained weights, and the network has none."""
    asked = spec.weights != "none" and not spec.frozen_batch_norm
    if asked and not any(isinstance(part, _BatchNorm) for part in backbone.modules()):
        warnings.warn(
            f"train_batch_norm: changes no batch normalisation, since {spec.name} has none",
            NoEffectWarning,
            stacklevel=4,
        )


def check_targets(spec: RunSpec, dataset: DomainDataset) -> None:
    """Refuse target domains that are not there, or leave none to train on.

    Raises:
        ValueError: Naming them.
    """
    count = len(dataset.domains)
    chosen = set(spec.target_domains)
    if not chosen <= set(range(count)) or len(chosen) != len(spec.target_domains) or len(chosen) >= count:
        raise ValueError(
            f"target_domains: must be different indices from 0 to {count - 1} that leave one to train on, "
            f"got {list(spec.target_domains)}"
        )


def target_indices(names: str, dataset: DomainDataset) -> tuple[int, ...]:
    """Indices of domains, in ascending order, from their names or numbers between commas.

    Returns:
        The indices.

    Raises:
        ValueError: If one is not a domain of the dataset.

    Examples:
        >>> import tempfile
        >>> import torch
        >>> from hessalign.datasets.features_file import FeaturesFile, save_features
        >>> from hessalign.training import target_indices
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/sites.safetensors"
        ...     written = save_features(path, torch.zeros(3, 2), [0, 1, 0], ["north", "south", "west"])
        ...     target_indices("west,0", FeaturesFile(path))
        (0, 2)
    """
    known = [domain.name for domain in dataset.domains]
    chosen = []
    for name in (given.strip() for given in names.split(",")):
        if name in known:
            chosen.append(known.index(name))
        elif name.isdecimal() and int(name) < len(known):
            chosen.append(int(name))
        else:
            raise ValueError(
                f"target: {name!r} is not a domain; allowed are {', '.join(known)} or 0 to {len(known) - 1}"
                f"{did_you_mean(name, known)}"
            )
    return tuple(sorted(chosen))
