"""What a dataset made of domains is: samples, names, splits, and what a benchmark must know of the whole."""

import hashlib
import unicodedata
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Literal, Self

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from hessalign.checks import require_number, require_whole
from hessalign.exceptions import HessalignWarning
from hessalign.files import shown

SearchSpace = Literal["small", "large", "domain_net", "features"]
"""A search space of hyper-parameters: for images of 28 and of 224 pixels, DomainNet, or frozen features."""


class Samples(Dataset[tuple[Tensor, int]], ABC):
    """Samples read by index: an input, ``(channels, height, width)`` or ``(d,)``, float32, and a class id.

    Attributes:
        preprocessing: How inputs are made of what is on disk, in words, for the record.

    Examples:
        >>> import torch
        >>> from hessalign.datasets import Samples
        >>> class Corners(Samples):
        ...     def __len__(self):
        ...         return 4
        ...
        ...     def __getitem__(self, index):
        ...         return torch.tensor([index % 2, index // 2]).float(), index
        >>> corners = Corners()
        >>> corners[3], corners.file_of(3)
        ((tensor([1., 1.]), 3), None)
    """

    preprocessing: str = "none"

    @abstractmethod
    def __len__(self) -> int:
        """Number of samples."""

    @abstractmethod
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Input and class id of one sample.

        Raises:
            OSError: If it cannot be read, naming the file.
        """

    def check(self, index: int) -> None:
        """Read a sample only to find out that it can be read; override where that is cheaper than an input.

        Raises:
            OSError: If it cannot be read, naming the file.
        """
        self[index]

    def file_of(self, index: int) -> str | None:
        """File of a sample; None where samples have no files of their own."""
        return None

    def content_of(self, index: int) -> tuple[str, bytes] | None:
        """What a sample is called, and the bytes that it is decoded from, where these lie in memory."""
        return None

    def with_transform(self, transform: Callable[[Image.Image], Tensor]) -> "Samples | None":
        """The same RGB images made into inputs otherwise; None where inputs are not made of RGB images."""
        return None


class BatchedSamples(Samples):
    """Samples in memory or in mapped memory, which can be read many at once.

    Attributes:
        targets: Class ids, ``(n,)``, int64.

    Examples:
        >>> import torch
        >>> from hessalign.datasets import BatchedSamples
        >>> class Vectors(BatchedSamples):
        ...     def __init__(self, inputs, targets):
        ...         self.inputs, self.targets = inputs, targets
        ...
        ...     def __getitem__(self, index):
        ...         return self.inputs[index], int(self.targets[index])
        ...
        ...     def take(self, indices, seeds):
        ...         return self.inputs[indices]
        >>> samples = Vectors(torch.eye(3), torch.tensor([0, 1, 0]))
        >>> len(samples), samples.take(torch.tensor([2, 0]), torch.zeros(2, dtype=torch.int64))
        (3, tensor([[0., 0., 1.],
                [1., 0., 0.]]))
    """

    targets: Tensor

    @abstractmethod
    def take(self, indices: Tensor, seeds: Tensor) -> Tensor:
        """Inputs of several samples, ``(k, ...)``, float32.

        Args:
            indices: Which samples, ``(k,)``, int64.
            seeds: What the augmentation of each depends on, ``(k,)``, int64, at least 0; unused where there
                is none.
        """

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.targets)


@dataclass(frozen=True, eq=False)
class Domain:
    """One domain.

    Attributes:
        name: What the dataset's authors call it.
        targets: Class ids, ``(n,)``, int64; known without decoding an image.
        plain: The samples as they are, for validation and test.
        augmented: The same samples in the same order as training sees them, drawn anew at every access from
            torch's global generator; ``plain`` itself where the dataset has no augmentation.

    Examples:
        >>> import torch
        >>> from hessalign.datasets import BatchedSamples, Domain
        >>> class Vectors(BatchedSamples):
        ...     def __init__(self, inputs, targets):
        ...         self.inputs, self.targets = inputs, targets
        ...
        ...     def __getitem__(self, index):
        ...         return self.inputs[index], int(self.targets[index])
        ...
        ...     def take(self, indices, seeds):
        ...         return self.inputs[indices]
        >>> samples = Vectors(torch.eye(3), torch.tensor([0, 1, 0]))
        >>> north = Domain("north", samples.targets, plain=samples, augmented=samples)
        >>> north.name, len(north)
        ('north', 3)
    """

    name: str
    targets: Tensor
    plain: Samples
    augmented: Samples

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.targets)


@dataclass(frozen=True)
class PublishedCounts:
    """Numbers of images as they were published, to compare a copy on disk with.

    Attributes:
        totals: Allowed totals; more than one where the published data changed.
        by_domain: Number of images in each domain; empty where it is not published.

    Examples:
        >>> from hessalign.datasets import PublishedCounts, get_dataset
        >>> counts = PublishedCounts((9_991,), {"photo": 1_670})
        >>> counts.totals == get_dataset("pacs").expected_counts.totals
        True
    """

    totals: tuple[int, ...]
    by_domain: Mapping[str, int] = field(default_factory=dict)


def require_root(dataset: str, root: Path | None, wanted: str) -> Path:
    """The place of data that lies on disk.

    Args:
        dataset: Name of the dataset.
        root: As it was given.
        wanted: What to give, for the message: ``"the path of the data"``.

    Returns:
        The path.

    Raises:
        ValueError: If none was given.
    """
    if root is None:
        raise ValueError(f"root: {dataset} is read from disk and none was given; give {wanted}")
    return root


class DomainDataset(ABC):
    """A classification dataset made of domains.

    Names that look like a mistake (``cat`` and ``Cat``, ``nan``) give a warning.

    Args:
        class_names: Name of each class, by class id.
        domains: The domains in index order, which splits and records refer to.
        doubts: One sentence for each mistake that the data look like, names aside.

    Raises:
        ValueError: If two domains or two classes have one name.

    Attributes:
        doubts: What the data, and the names, look mistaken in; a warning each, and wrong for ``verify``.
        left_out: Number of files among the data that are not read, by what they are.
        name: What ``register`` made it known by.
        reference_name: What seeds the runs of a sweep: DomainBed's spelling of the name.
        default_backbone: Name of the backbone that is trained on it where none is chosen; ``"identity"`` for
            inputs that are features.
        search_space: Which search space of hyper-parameters fits.
        input_shape: ``(channels, height, width)`` of an input, or ``(d,)``; empty where the data decides.
        steps: Training steps of a benchmark run; DomainBed's.
        checkpoint_every: Steps between two evaluations of a benchmark run; DomainBed's.
        domain_names: Known before the data is read; empty where the data decides.
        class_count: Number of classes, likewise; None where the data decides.
        expected_counts: Published numbers of images, where known.

    Examples:
        >>> import torch
        >>> from hessalign.datasets import BatchedSamples, Domain, DomainDataset
        >>> class Vectors(BatchedSamples):
        ...     def __init__(self, inputs, targets):
        ...         self.inputs, self.targets = inputs, targets
        ...
        ...     def __getitem__(self, index):
        ...         return self.inputs[index], int(self.targets[index])
        ...
        ...     def take(self, indices, seeds):
        ...         return self.inputs[indices]
        >>> class TwoSites(DomainDataset):
        ...     name, reference_name = "two_sites", "TwoSites"
        ...     search_space, default_backbone, input_shape = "features", "identity", (3,)
        ...     checkpoint_every = 100
        ...
        ...     @classmethod
        ...     def make(cls, root, seed):
        ...         samples = Vectors(torch.eye(3), torch.tensor([0, 1, 0]))
        ...         sites = [Domain(name, samples.targets, samples, samples) for name in ("north", "west")]
        ...         return cls(("healthy", "ill"), tuple(sites))
        >>> dataset = TwoSites.make(None, seed=0)
        >>> [domain.name for domain in dataset.domains], dataset.class_names
        (['north', 'west'], ('healthy', 'ill'))
    """

    name: ClassVar[str]
    reference_name: ClassVar[str]
    default_backbone: ClassVar[str] = "resnet50"
    search_space: ClassVar[SearchSpace]
    input_shape: tuple[int, ...]
    steps: ClassVar[int] = 5001
    checkpoint_every: ClassVar[int]
    domain_names: ClassVar[tuple[str, ...]] = ()
    class_count: ClassVar[int | None] = None
    expected_counts: ClassVar[PublishedCounts | None] = None
    doubts: tuple[str, ...] = ()
    left_out: Mapping[str, int] = MappingProxyType({})

    def __init__(
        self, class_names: tuple[str, ...], domains: tuple[Domain, ...], doubts: tuple[str, ...] = ()
    ) -> None:
        self.class_names = check_names("class_names", class_names)
        domain_names = check_names("domains", [domain.name for domain in domains])
        self.domains = domains
        self.doubts = (
            *doubts,
            *name_doubts("domain", domain_names),
            *name_doubts("class", self.class_names),
        )
        for doubt in self.doubts:
            warnings.warn(doubt, HessalignWarning, stacklevel=2)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "images" in vars(cls):  # what search_space was called; there are plug-ins that say it so
            cls.search_space = vars(cls)["images"]

    @property
    def fingerprint(self) -> str:
        """Short hash of what name and seed do not settle, never of where it lies; empty if nothing."""
        return ""

    @classmethod
    @abstractmethod
    def make(cls, root: Path | None, seed: int) -> Self:
        """The dataset, from whichever of the arguments it needs.

        Args:
            root: Where the data lies on disk; unused by data that ships with the package.
            seed: Seed of the random draws that make the data; unused by data on disk.

        Raises:
            ValueError: If the dataset needs a root and has none, or what lies there is not the dataset.
        """


MISSING = ("nan", "nat", "<na>", "n/a", "null", "")
"""What other programs write where a value is missing, in small letters."""


def check_names(argument: str, names: Sequence[object]) -> tuple[str, ...]:
    """The names, if each is a text that can be written and none is there twice.

    Args:
        argument: What they are called.
        names: What is checked, by id.

    Returns:
        The names.

    Raises:
        ValueError: If a name is no text, no UTF-8 (as folders may be called), or there twice.
    """
    if isinstance(names, str):
        raise ValueError(f"{argument}: must be a list of names, got the text {names!r}")
    checked: list[str] = []
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str):
            raise ValueError(f"{argument}: every name must be a text, got {name!r}")
        if shown(name) != name:
            raise ValueError(
                f"{argument}: {shown(name)} is not UTF-8, and no record could hold it; choose another name"
            )
        if name in seen:
            raise ValueError(f"{argument}: {name!r} is there twice; every name must be another one")
        checked.append(str(name))
        seen.add(str(name))
    return tuple(checked)


def name_doubts(kind: str, names: Sequence[str]) -> tuple[str, ...]:
    """One sentence for each mistake that names look like.

    Args:
        kind: What is named, for the sentences: ``"domain"`` or ``"class"``.
        names: All of them, each once.

    Returns:
        The sentences.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_essence(name), []).append(name)
    doubts = [
        f"{kind} names differ by capitals or blanks alone, and count as different: "
        f"{', '.join(map(repr, group))}"
        for group in alike.values()
        if len(group) > 1
    ]
    doubts += [
        f"a {kind} is called {name!r}, as other programs write a missing value"
        for name in names
        if name.strip().lower() in MISSING
    ]
    return tuple(doubts)


def _essence(name: str) -> str:
    """What is left without capitals, blanks and ways to write an accent."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def seed_hash(*args: object) -> int:
    """A seed from anything that prints the same everywhere.

    The MD5 of the printed tuple, modulo 2³¹. Numbers must be Python's own: NumPy's print differently.

    >>> seed_hash(0, 1)
    1514274641

    Returns:
        At least 0 and below 2³¹.
    """
    digest = hashlib.md5(str(args).encode("utf-8"), usedforsecurity=False).hexdigest()
    return int(digest, 16) % 2**31


def split_indices(
    samples: int, trial_seed: int, domain: int, holdout_fraction: float = 0.2
) -> tuple[list[int], list[int]]:
    """Split a domain's samples in two, at random and the same for every algorithm and hyper-parameter.

    Args:
        samples: Number of samples of the domain.
        trial_seed: Seed of the trial, at least 0.
        domain: Index of the domain, at least 0.
        holdout_fraction: Share of the samples that is held out, rounded down; at least 0 and below 1.

    Returns:
        Indices of the larger share (``in``: a source domain trains on it) and of the held-out one (``out``: a
        source domain validates on it).

    Raises:
        ValueError: If an argument is out of range.

    Examples:
        >>> from hessalign.datasets import split_indices
        >>> inside, held_out = split_indices(10, trial_seed=0, domain=1)
        >>> len(inside), len(held_out), sorted(inside + held_out) == list(range(10))
        (8, 2, True)
    """
    samples = require_whole("samples", samples, least=0)
    trial_seed = require_whole("trial_seed", trial_seed, least=0)
    domain = require_whole("domain", domain, least=0)
    holdout_fraction = require_number("holdout_fraction", holdout_fraction, least=0, below=1)
    order = list(range(samples))
    np.random.RandomState(seed_hash(trial_seed, domain)).shuffle(order)
    held_out = held_out_count(samples, holdout_fraction)
    return order[held_out:], order[:held_out]


def held_out_count(samples: int, holdout_fraction: float) -> int:
    """How many of a domain's samples are held out, as ``split_indices`` does it."""
    return int(samples * holdout_fraction)
