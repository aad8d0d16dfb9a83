"""What determines a run, and so its result."""

import hashlib
import json
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hessalign.algorithms import get_algorithm
from hessalign.algorithms.registry import registered_name
from hessalign.backbones import BackboneSpec


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
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


class CheckpointAbout(BaseModel):
    """What a checkpoint tells of its run, enough to rebuild the network.

    Attributes:
        step: Number of updates done; set by the checkpoint itself.
        run: The run.
        class_names: By class id.
        input_shape: ``(channels, height, width)`` of an input, or ``(d,)`` of a feature vector.
        source_domains: Number of domains trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int = 0
    run: RunSpec
    class_names: tuple[str, ...] = Field(min_length=1)
    input_shape: tuple[Annotated[int, Field(ge=1, lt=2**31)], ...] = Field(min_length=1, max_length=3)
    source_domains: int = Field(ge=1)
