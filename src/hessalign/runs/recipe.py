"""What a run does beside its algorithm's rule, as it is recorded: how it starts, steps, and averages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Recipe(BaseModel):
    """Choices of a run that go with any algorithm. By default none is made.

    Attributes:
        average: ``"sma"`` or ``"swad"``: the network that is evaluated, kept and predicted with is a mean
            over training; None (default) for the latest.
        average_from: Of SMA: number of updates after which the mean begins; 100, as published.
        swad_converge: Of SWAD: evaluations that no lower loss must follow, ``N_s``; 3, as published.
        swad_tolerance: Of SWAD: evaluations above the limit that end the mean, ``N_e``; 6, as published.
        swad_ratio: Of SWAD: the limit in units of the mean loss of the first ``N_s`` evaluations, ``r``;
            1.3, as published (1.2 for VLCS).
        sharpness: ``"sam"`` or ``"disam"``: the gradient is taken where the loss is worst nearby; None
            (default) where the network is.
        rho: How far that is, ``ρ``; 0.05, as published.
        disam_weight: Of DISAM: weight ``λ`` of the domains' variance; 0.1, as published.
        linear_probe_steps: Updates in which backbones stay as they are and in evaluation mode; 0 by default.
        head_lr_factor: Learning rate of the head in units of ``lr``; 1 by default.
        start_from: Folder of a run, or of a checkpoint, whose backbone and head the run starts with.
        start_sha256: Digest of these weights, which tells them wherever they lie.

    Examples:
        >>> from hessalign.training import Recipe
        >>> Recipe(average="sma", average_from=50, sharpness="sam").words()
        ['SAM', 'SMA from 50']
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    average: Literal["sma", "swad"] | None = None
    average_from: int = Field(100, ge=0)
    swad_converge: int = Field(3, ge=1)
    swad_tolerance: int = Field(6, ge=1)
    swad_ratio: float = Field(1.3, ge=1, allow_inf_nan=False)
    sharpness: Literal["sam", "disam"] | None = None
    rho: float = Field(0.05, gt=0, allow_inf_nan=False)
    disam_weight: float = Field(0.1, ge=0, allow_inf_nan=False)
    linear_probe_steps: int = Field(0, ge=0)
    head_lr_factor: float = Field(1.0, gt=0, allow_inf_nan=False)
    start_from: Path | None = None
    start_sha256: str = ""

    @model_validator(mode="after")
    def _nothing_without_effect(self) -> Self:
        fields = type(self).model_fields
        check_owners({name: value for name, value in self if value != fields[name].default})
        return self

    def words(self) -> list[str]:
        """The choices as tables name them: ``["SMA"]``, say, ``["SAM", "SWAD ratio 1.2"]``."""
        found = []
        if self.linear_probe_steps:
            found.append(f"LP {self.linear_probe_steps}")
        if self.head_lr_factor != 1:
            found.append(f"head lr x{self.head_lr_factor:g}")
        if self.start_from is not None:
            found.append(f"start {self.start_sha256[:8]}")
        for kind, names in OWN.items():
            if kind in (self.average, self.sharpness):
                said = [
                    f"{label} {value:g}"
                    for name, label in names.items()
                    if (value := getattr(self, name)) != type(self).model_fields[name].default
                ]
                found.append(f"{kind.upper()} {' '.join(said)}".strip())
        return found

    def content(self) -> dict[str, Any]:
        """What makes a difference, as JSON: choices that differ from the default; of weights the digest."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        if self.start_sha256:
            content.pop("start_from", None)
        return content


OWNERS = {
    "average_from": ("average", ("sma",)),
    "swad_converge": ("average", ("swad",)),
    "swad_tolerance": ("average", ("swad",)),
    "swad_ratio": ("average", ("swad",)),
    "rho": ("sharpness", ("sam", "disam")),
    "disam_weight": ("sharpness", ("disam",)),
}
"""Choices that only go with another one."""


def check_owners(choices: Mapping[str, Any]) -> None:
    """Refuse choices without the one that they belong to.

    Args:
        choices: All that were made, by name.

    Raises:
        ValueError: Naming the choice and what it belongs to.
    """
    for name in choices:
        owner, kinds = OWNERS.get(name, ("", ()))
        if owner and choices.get(owner) not in kinds:
            chosen = f"{owner} is {choices[owner]!r}" if owner in choices else f"no {owner} is chosen"
            raise ValueError(
                f"{name}: belongs to {owner} {' or '.join(map(repr, kinds))}, and {chosen}; choose it, or "
                f"leave {name.replace('_', ' ')} out"
            )


OWN = {
    "sam": {"rho": "rho"},
    "disam": {"rho": "rho", "disam_weight": "weight"},
    "sma": {"average_from": "from"},
    "swad": {"swad_converge": "converge", "swad_tolerance": "tolerance", "swad_ratio": "ratio"},
}
"""Choices of each kind of step and average, and how tables call them."""


class MeanOfRuns(BaseModel):
    """Of what trained runs a network is the mean.

    Attributes:
        members: Identity of each run and digest of its weights, in the order in which they were taken.
        selection: ``"uniform"`` (all that were given) or ``"restricted"`` (those that helped).
        wise_ft: Share of the trained backbone; what is left is the pretrained one's. 1 for the trained alone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    members: tuple[tuple[str, str], ...] = Field(min_length=1)
    selection: Literal["uniform", "restricted"] = "uniform"
    wise_ft: float = Field(1.0, ge=0, le=1)

    def words(self) -> str:
        """As tables name it: ``"DiWA restricted 3"``, say, or ``"WiSE-FT 0.5"``."""
        found = [f"DiWA {self.selection} {len(self.members)}"] if len(self.members) > 1 else []
        if self.wise_ft != 1:
            found.append(f"WiSE-FT {self.wise_ft:g}")
        return " + ".join(found) or "DiWA 1"
