"""Frozen features of a dataset, from one file."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from hessalign.checks import require_path
from hessalign.datasets.base import (
    BatchedSamples,
    Domain,
    DomainDataset,
    SearchSpace,
    check_names,
    name_doubts,
)
from hessalign.datasets.features_format import (
    DTYPES,
    SUFFIX,
    FeaturesMetadata,
    Pieces,
    read_features,
    write_features,
)
from hessalign.datasets.registry import register
from hessalign.exceptions import HessalignWarning
from hessalign.files import shown
from hessalign.inputs import as_tensor, read_domains

MOST_CLASSES = 1_000_000
"""A larger class id is a mistake, and its names would fill the memory."""


class FeatureSamples(BatchedSamples):
    """Feature vectors in memory or in mapped memory.

    Args:
        table: ``K ≥ 1`` views of each sample, ``(n, K, d)``, floating point.
        targets: Class ids, ``(n,)``, int64.
    """

    def __init__(self, table: Tensor, targets: Tensor) -> None:
        self.table = table
        self.targets = targets

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A view ``(d,)``, float32, drawn from torch's global generator where there are several; class id."""
        views = self.table.shape[1]
        view = int(torch.randint(views, ())) if views > 1 else 0
        return self.table[index, view].float(), int(self.targets[index])

    def take(self, indices: Tensor, seeds: Tensor) -> Tensor:
        """A view of each of several samples, ``(k, d)``: number ``seed mod K``."""
        return self.table[indices, seeds % self.table.shape[1]].float()

    def check(self, index: int) -> None:
        """Read a sample.

        Raises:
            OSError: If a value is NaN or infinite.
        """
        if not bool(self.table[index].isfinite().all()):
            raise OSError(f"sample {index}: its features hold NaN or infinity; extract them again")


class FeatureDomains(DomainDataset):
    """A dataset whose samples are all [FeatureSamples][], so that runs on it can be trained together."""

    default_backbone: ClassVar[str] = "identity"
    search_space: ClassVar[SearchSpace] = "features"
    input_shape: tuple[int, ...] = ()
    checkpoint_every: ClassVar[int] = 300


@register("features_file", reference_name="FeaturesFile")
class FeaturesFile(FeatureDomains):
    """Features that ``hessalign features`` or ``save_features`` wrote: images are seen once and never again.

    * Domains, classes: those of the data that the features were extracted from, in the same order.
    * Input: ``(d,)``, float32. ``plain``: features of the plain images. ``augmented``: one of the file's
      views at random at every access, or the plain features where there are none.
    * The file is mapped into memory, not read into it. Its content is compared with the hash in its header
      whenever it is opened (about a second for each gigabyte).

    Args:
        path: The file, ``.safetensors``.

    Raises:
        ValueError: If the file is missing, cut short, changed since it was written, or no features file.
    """

    def __init__(self, path: Path | str) -> None:
        self.metadata, tensors = read_features(require_path("path", path))
        plain = tensors["features"].unsqueeze(1)
        augmented = tensors.get("views", plain)
        self.input_shape = (plain.shape[2],)
        sizes = tensors["domains"].bincount().tolist()
        columns = zip(
            self.metadata.domain_names,
            tensors["labels"].split(sizes),
            plain.split(sizes),
            augmented.split(sizes),
            strict=True,
        )
        domains = tuple(
            Domain(name, targets, FeatureSamples(own, targets), FeatureSamples(views, targets))
            for name, targets, own, views in columns
        )
        super().__init__(self.metadata.class_names, domains)

    @property
    def fingerprint(self) -> str:
        """Hash of the file's content, wherever it lies."""
        return self.metadata.content_sha256

    @override
    @classmethod
    def make(cls, root: Path | None, seed: int) -> Self:
        if root is None:
            raise ValueError("root: features_file is read from disk and none was given; give the file's path")
        return cls(root)


def save_features(
    path: Path | str,
    features: Any,
    labels: Any,
    domains: Any,
    *,
    class_names: Sequence[str] | None = None,
    domain_names: Sequence[str] | None = None,
    views: Any = None,
) -> FeaturesMetadata:
    """Write features of your own as a file that is a dataset anywhere.

    Tensors, NumPy arrays, pandas and Polars objects and plain sequences are taken.

    Args:
        path: Where to write, ending in ``.safetensors``; what is there is replaced.
        features: ``(n, d)``, float16 or float32, finite. Plain Python numbers become float32; float64 is
            refused, for nothing is rounded unasked.
        labels: Class ids, ``(n,)``: integers from 0, or strings.
        domains: Domain ids, ``(n,)``, in any order: integers or strings.
        class_names: Name of each class, by class id; by default the numbers from 0 to the largest, or the
            strings, ascending. Labels that are strings must be among them.
        domain_names: Name of each domain, by domain id, each of them used; by default the ids themselves,
            ascending, so that hospitals 3 and 7 are called ``"3"`` and ``"7"``. With names, integer ids count
            from 0, and ids that are strings must be among the names.
        views: Features of augmented inputs, ``(n, K, d)``, of the same type.

    Returns:
        What the file tells of itself.

    Raises:
        ValueError: If shapes do not match, a value is NaN or infinite, an id is out of range, or a name is
            there twice.
        OSError: If the file cannot be written.

    Examples:
        >>> import tempfile
        >>> import numpy as np
        >>> features = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = save_features(
        ...         f"{folder}/own.safetensors", features, ["cat", "dog"] * 3, ["north"] * 2 + ["west"] * 4
        ...     )
        >>> written.domain_names
        ('north', 'west')
    """
    place = require_path("path", path)
    if place.suffix != SUFFIX:
        raise ValueError(f"path: {shown(place)} must end in {SUFFIX}")
    table = _values("features", features, "(n, d)")
    drawn = None if views is None else _values("views", views, "(n, K, d)")
    if drawn is not None and (drawn.dtype != table.dtype or drawn.shape[::2] != table.shape):
        raise ValueError(
            f"views: must be like features, {_dtype(table)} and (n, K, d) = ({len(table)}, K, "
            f"{table.shape[1]}), got {_dtype(drawn)} of shape {tuple(drawn.shape)}"
        )
    class_ids, classes = _ids("labels", labels, len(table), "class", class_names)
    domain_ids, places = _ids("domains", domains, len(table), "domain", domain_names)
    empty = sorted({*range(len(places))} - {*domain_ids.unique().tolist()})
    if empty:
        raise ValueError(f"domains: {places[empty[0]]!r} has no sample; every domain needs one")
    for doubt in (*name_doubts("domain", places), *name_doubts("class", classes)):
        warnings.warn(doubt, HessalignWarning, stacklevel=2)
    order = domain_ids.sort(stable=True).indices
    tensors = {"labels": class_ids[order], "domains": domain_ids[order], "features": table[order]}
    if drawn is not None:
        tensors["views"] = drawn[order]
    pieces = {name: Pieces(value.dtype, tuple(value.shape), [value]) for name, value in tensors.items()}
    return write_features(place, FeaturesMetadata(class_names=classes, domain_names=places), pieces)


def _values(name: str, given: Any, shape: str) -> Tensor:
    """Finite floats of a type that the file has, on the processor."""
    values = as_tensor(name, given).detach().cpu()
    if values.dtype == torch.float64 and not hasattr(given, "dtype") and not hasattr(given, "dtypes"):
        values = values.float()  # Python's numbers have no type that anybody chose
    axes = shape.count(",") + 1
    if values.dtype not in DTYPES.values():
        raise ValueError(
            f"{name}: must be {' or '.join(DTYPES)}, got {_dtype(values)}; convert it, for example with "
            "astype('float32') or .float()"
        )
    if values.ndim != axes or not values.numel():
        raise ValueError(f"{name}: must be of shape {shape}, none of them 0, got shape {tuple(values.shape)}")
    if not bool(values.isfinite().all()):
        row = int((~values.flatten(1).isfinite()).any(1).nonzero()[0])
        raise ValueError(f"{name}: all values must be finite, got NaN or infinity in row {row}")
    return values


def _dtype(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")


def _ids(
    name: str, given: Any, samples: int, kind: str, names: Sequence[str] | None
) -> tuple[Tensor, tuple[str, ...]]:
    """Ids from 0, int64, and the name of each."""
    found = read_domains(name, given, samples, kind)
    if found.names.dtype.kind == "b":
        raise ValueError(f"{name}: {kind} ids must be integers or strings, got booleans")
    known = None if names is None else check_names(f"{kind}_names", names)
    if found.names.dtype.kind == "U":
        texts = check_names(name, found.names.tolist())
        known = texts if known is None else known
        unknown = [text for text in texts if text not in known]
        if unknown:
            raise ValueError(f"{name}: {unknown[0]!r} is not among the {kind}_names {', '.join(known)}")
        ids = np.array([known.index(text) for text in texts])
    elif known is None and kind == "domain":
        known, ids = tuple(map(str, found.names.tolist())), np.arange(len(found.names))
    else:
        ids = found.names.astype(np.int64)
        least, most = int(found.names.min()), int(found.names.max())
        known = tuple(map(str, range(_most_classes(name, most) + 1))) if known is None else known
        if least < 0 or most >= len(known):
            raise ValueError(
                f"{name}: ids must lie between 0 and {len(known) - 1}, got values from {least} to {most}"
            )
    return torch.from_numpy(ids.astype(np.int64)[found.codes]), known


def _most_classes(name: str, largest: int) -> int:
    if largest >= MOST_CLASSES:
        raise ValueError(f"{name}: ids must lie between 0 and {MOST_CLASSES - 1}, got {largest}")
    return largest
