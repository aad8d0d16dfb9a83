"""Hyper-parameters: each field carries its default and its search distribution.

The search spaces are DomainBed's (Gulrajani and Lopez-Paz, "In Search of Lost Domain Generalization", ICLR
2021); images of 28 pixels and larger ones have spaces of their own where DomainBed's differ. Frozen features,
which DomainBed does not have, get spaces of ours: only a head is trained, so learning rates are larger, and
the batch size and the dropout are fixed, so that all draws of a search can be trained together.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, get_args

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from hessalign.checks import require_choice
from hessalign.datasets.base import SearchSpace
from hessalign.exceptions import NoEffectWarning

Value = float | int | bool | str

SMALLEST, LARGEST = 1e-37, 1e37
"""What a 32-bit number holds, less a factor of ten: Adam divides the learning rate by 1 − β₁ = 0.1."""


@dataclass(frozen=True)
class LogUniform:
    """``base`` to the power of a uniform exponent.

    Bounds may be given high to low, as some published ranges are: the draw then mirrors its random number.
    """

    first_exponent: float
    second_exponent: float
    base: float = 10
    whole: bool = False

    def draw(self, random: np.random.RandomState) -> Value:
        """One value, from one random number; cut to a whole number where the parameter is one."""
        value = self.base ** random.uniform(self.first_exponent, self.second_exponent)
        return int(value) if self.whole else float(value)


@dataclass(frozen=True)
class Uniform:
    """Uniform between two bounds."""

    low: float
    high: float
    whole: bool = False

    def draw(self, random: np.random.RandomState) -> Value:
        """One value, from one random number; cut to a whole number where the parameter is one."""
        value = random.uniform(self.low, self.high)
        return int(value) if self.whole else float(value)


@dataclass(frozen=True)
class Choice:
    """One of some values, all equally likely."""

    values: tuple[Value, ...]

    def draw(self, random: np.random.RandomState) -> Value:
        """One value."""
        chosen: Value = random.choice(self.values).item()
        return chosen


@dataclass(frozen=True)
class Fixed:
    """Always the same value."""

    value: Value

    def draw(self, random: np.random.RandomState) -> Value:
        """The value."""
        return self.value


Distribution = LogUniform | Uniform | Choice | Fixed


@dataclass(frozen=True)
class Space:
    """Default and search distribution of one hyper-parameter in one search space."""

    default: Value
    search: Distribution


@dataclass(frozen=True)
class Search:
    """What a field of [HParams][hessalign.algorithms.HParams] carries.

    Attributes:
        small: Space for images of 28 pixels.
        large: Space for images of 224 pixels.
        domain_net: Space for DomainNet, where batches of large images must be smaller.
        features: Space for frozen features; ours, not DomainBed's.
        reference_name: DomainBed's name, which seeds its draw.
    """

    small: Space
    large: Space
    domain_net: Space
    features: Space
    reference_name: str | None


def hparam(
    default: Value,
    search: Distribution,
    *,
    small: tuple[Value, Distribution] | None = None,
    domain_net: tuple[Value, Distribution] | None = None,
    features: tuple[Value, Distribution] | None = None,
    reference_name: str | None = None,
    at_least: float | None = 0,
    at_most: float | None = None,
) -> Any:
    """A hyper-parameter with its default and search distribution.

    Args:
        default: Default for images of 224 pixels, and for all others unless given below.
        search: Distribution of a random search, likewise.
        small: Default and distribution for images of 28 pixels.
        domain_net: Default and distribution for DomainNet.
        features: Default and distribution for frozen features.
        reference_name: DomainBed's name where it is another one.
        at_least: Smallest allowed value.
        at_most: Largest allowed value.

    Returns:
        A field of pydantic that carries default, bounds and ``Search``.

    Examples:
        >>> from hessalign.algorithms import HParams, hparam
        >>> from hessalign.algorithms.hparams import LogUniform
        >>> class Own(HParams):
        ...     strength: float = hparam(1.0, LogUniform(-1, 1), features=(0.5, LogUniform(-2, 0)))
        >>> Own.with_defaults("large").strength, Own.with_defaults("features").strength
        (1.0, 0.5)
    """
    large = (default, search)
    field: Any = Field(default, ge=at_least, le=at_most)
    field.metadata.append(
        Search(
            small=Space(*(small or large)),
            large=Space(*large),
            domain_net=Space(*(domain_net or large)),
            features=Space(*(features or large)),
            reference_name=reference_name,
        )
    )
    return field


class HParams(BaseModel):
    """Hyper-parameters that every algorithm has.

    Attributes:
        lr: Learning rate of Adam.
        weight_decay: Adam's L2 weight decay.
        batch_size: Samples of each source domain in a batch.
        dropout: After the backbone's pooling; images of 28 pixels have none.
        unread: Names of those that the algorithm does not read.

    Examples:
        >>> from hessalign.algorithms import HParams
        >>> HParams.with_defaults("features", {"lr": 0.01}).model_dump()
        {'lr': 0.01, 'weight_decay': 0.0, 'batch_size': 32, 'dropout': 0.0}
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)
    unread: ClassVar[tuple[str, ...]] = ()

    lr: float = hparam(
        5e-5,
        LogUniform(-5, -3.5),
        small=(1e-3, LogUniform(-4.5, -2.5)),
        features=(1e-3, LogUniform(-4, -2)),
    )
    weight_decay: float = hparam(0.0, LogUniform(-6, -2), small=(0.0, Fixed(0.0)))
    batch_size: int = hparam(
        32,
        LogUniform(3, 5.5, base=2, whole=True),
        small=(64, LogUniform(3, 9, base=2, whole=True)),
        domain_net=(32, LogUniform(3, 5, base=2, whole=True)),
        features=(32, Fixed(32)),
        at_least=1,
    )
    dropout: float = hparam(
        0.0,
        Choice((0.0, 0.1, 0.5)),
        features=(0.0, Fixed(0.0)),
        reference_name="resnet_dropout",
        at_most=1,
    )

    @model_validator(mode="after")
    def _numbers_that_can_be_used(self) -> Self:
        """Refuse what 32-bit arithmetic turns into infinity, or silently into 0."""
        for name, value in self:
            if isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if abs(value) > LARGEST or 0 < abs(value) < SMALLEST:
                raise ValueError(
                    f"{name}: must be 0 or of a size from {SMALLEST:g} to {LARGEST:g}, which 32-bit numbers "
                    f"can hold, got {value!r:.40}"
                )
        return self

    @classmethod
    def spaces(cls, search_space: SearchSpace) -> dict[str, Space]:
        """Default and search distribution of each hyper-parameter, by field name.

        Returns:
            A ``Space`` for each hyper-parameter that is searched.

        Raises:
            ValueError: If there is no such search space.
        """
        require_choice("search_space", search_space, get_args(SearchSpace))
        return {name: getattr(search, search_space) for name, search in cls._searches().items()}

    @classmethod
    def reference_names(cls) -> dict[str, str]:
        """DomainBed's name of each hyper-parameter, by field name."""
        return {name: search.reference_name or name for name, search in cls._searches().items()}

    @classmethod
    def with_defaults(
        cls, search_space: SearchSpace, overrides: Mapping[str, Value | str] | None = None
    ) -> "HParams":
        """Defaults of a search space, with some values replaced.

        Returns:
            Hyper-parameters of this class.

        Raises:
            ValueError: Naming the hyper-parameter that is unknown or out of range.
        """
        values: dict[str, Any] = {name: space.default for name, space in cls.spaces(search_space).items()}
        return cls(**{**values, **(overrides or {})})

    @classmethod
    def check_read(cls, algorithm: str, search_space: SearchSpace, asked: Mapping[str, Value | str]) -> None:
        """Warn of what somebody has set and nothing reads.

        Args:
            algorithm: Its name.
            search_space: Of the dataset.
            asked: What was set by hand, by name.
        """
        for name, value in asked.items():
            if name in cls.unread:
                others = [field for field in cls.model_fields if name in field and field != name]
                reason = f"{algorithm} does not read {name}"
                reason += f"; it has {' and '.join(others)}" if others else ""
            elif name == "dropout" and search_space == "small" and str(value) not in ("0", "0.0"):
                reason = "images of 28 pixels are trained without dropout"
            else:
                continue
            warnings.warn(f"settings: {reason}", NoEffectWarning, stacklevel=3)

    @classmethod
    def _searches(cls) -> dict[str, Search]:
        return {
            name: next(item for item in field.metadata if isinstance(item, Search))
            for name, field in cls.model_fields.items()
            if any(isinstance(item, Search) for item in field.metadata)
        }
