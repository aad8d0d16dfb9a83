"""Frozen features of a dataset, from one file."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
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
    require_root,
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

OWN = "features"
"""What the network's own features are called among the layers."""


class FeatureSamples(BatchedSamples):
    """Feature vectors in memory or in mapped memory.

    Args:
        table: ``K ≥ 1`` views of each sample, ``(n, K, d)``, floating point.
        targets: Class ids, ``(n,)``, int64.
        also: One view more of each sample, ``(n, 1, d)``, the last one; None for none. The two tables stay
            where they are, so that mapped memory is not read to join them.
    """

    def __init__(self, table: Tensor, targets: Tensor, also: Tensor | None = None) -> None:
        self.table = table
        self.targets = targets
        self.also = also

    @property
    def views(self) -> int:
        """Views of each sample."""
        return self.table.shape[1] + (self.also is not None)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A view ``(d,)``, float32, drawn from torch's global generator where there are several; class id."""
        view = torch.randint(self.views, ()) if self.views > 1 else torch.tensor(0)
        return self.take(torch.tensor([index]), view.unsqueeze(0))[0], int(self.targets[index])

    def take(self, indices: Tensor, seeds: Tensor) -> Tensor:
        """A view of each of several samples, ``(k, d)``: number ``seed mod K``."""
        views = seeds % self.views
        if self.also is None:
            return self.table[indices, views].float()
        own = views < self.table.shape[1]
        found = self.also[indices, 0].float()
        found[own] = self.table[indices[own], views[own]].float()
        return found

    def whole(self) -> Tensor:
        """All views in one table, ``(n, K, d)``."""
        return self.table if self.also is None else torch.cat([self.table, self.also], dim=1)

    def check(self, index: int) -> None:
        """Read a sample.

        Raises:
            OSError: If a value is NaN or infinite.
        """
        if not bool(
            self.table[index].isfinite().all() and (self.also is None or self.also[index].isfinite().all())
        ):
            raise OSError(f"sample {index}: its features hold NaN or infinity; extract them again")


class FeatureDomains(DomainDataset):
    """A dataset whose samples are all ``FeatureSamples``, so that runs on it can be trained together."""

    default_backbone: ClassVar[str] = "identity"
    search_space: ClassVar[SearchSpace] = "features"
    input_shape: tuple[int, ...] = ()
    checkpoint_every: ClassVar[int] = 300


@register("features_file", reference_name="FeaturesFile")
class FeaturesFile(FeatureDomains):
    """Features that ``hessalign features`` or ``save_features`` wrote: images are seen once and never again.

    * Domains, classes: those of the data that the features were extracted from, in the same order.
    * Input: ``(d,)``, float32. ``plain``: features of the plain images. ``augmented``: one of the file's
      views at random at every access, or the plain features where there are none. Views in other styles
      (``--augment`` with a name) show what the data do not, so there the plain features are drawn, too, as
      often as any view.
    * A sample with its views is one sample: splits are of samples, and nothing is evaluated on a view.
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
        views = tensors.get("views", plain)
        self.input_shape = (plain.shape[2],)
        sizes = tensors["domains"].bincount().tolist()
        columns = zip(
            self.metadata.domain_names,
            tensors["labels"].split(sizes),
            plain.split(sizes),
            views.split(sizes),
            strict=True,
        )
        domains = []
        for name, targets, own, drawn in columns:
            samples = FeatureSamples(own, targets)
            also = own if self.metadata.augment else None
            augmented = FeatureSamples(drawn, targets, also) if "views" in tensors else samples
            domains.append(Domain(name, targets, samples, augmented))
        super().__init__(self.metadata.class_names, tuple(domains))

    @property
    def fingerprint(self) -> str:
        """Hash of the file's content, wherever it lies."""
        return self.metadata.content_sha256

    @override
    @classmethod
    def make(cls, root: Path | None, seed: int) -> Self:
        return cls(require_root(cls.name, root, "the file's path"))


class FeatureRows(NamedTuple):
    """Features with their views as rows, for the estimators: ``fit(X, y, sample_domain=…, sample_id=…)``.

    Attributes:
        X: ``(m, d)``, float32; of each sample first the plain features, then its views.
        y: Name of each row's class, ``(m,)``.
        sample_domain: Name of each row's domain, ``(m,)``.
        sample_id: Number of each row's sample, ``(m,)``: views of one sample share it.
    """

    X: NDArray[np.float32]
    y: NDArray[np.str_]
    sample_domain: NDArray[np.str_]
    sample_id: NDArray[np.intp]


def feature_rows(
    path: Path | str,
    *,
    domains: Sequence[str] | None = None,
    views: bool = True,
    layers: Sequence[str] | None = None,
) -> FeatureRows:
    """A features file as rows, views among them.

    To evaluate a head take the rows without views: the sample itself is what a new domain holds.

    Args:
        path: A file of ``hessalign features`` or ``save_features``.
        domains: Names of the domains to take, in any order; None (default) for all.
        views: Whether views are rows, too; by default they are.
        layers: Which layers' columns to take, side by side in the file's order, ``"features"`` for the
            network's own; None (default) for all.

    Returns:
        The rows, sorted by domain as in the file.

    Raises:
        ValueError: If the file is no whole features file, or has no such domain or layer.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from hessalign import HessianAlignedClassifier
        >>> random = np.random.default_rng(0)
        >>> y, site = np.arange(40) % 2, np.arange(40) // 10
        >>> features = (random.normal(size=(40, 4)) + y[:, None]).astype("float32")
        >>> noisy = (features[:, None] + 0.1 * random.normal(size=(40, 2, 4))).astype("float32")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = save_features(f"{folder}/own.safetensors", features, y, site, views=noisy)
        ...     rows = feature_rows(f"{folder}/own.safetensors", domains=["0", "1", "2"])
        >>> rows.X.shape
        (90, 4)
        >>> head = HessianAlignedClassifier()
        >>> head.fit(rows.X, rows.y, sample_domain=rows.sample_domain, sample_id=rows.sample_id).converged_
        True
    """
    metadata, tensors = read_features(require_path("path", path))
    names, columns = metadata.domain_names, dict(metadata.columns) or {OWN: (0, tensors["features"].shape[1])}
    for argument, wanted, known in (("domains", domains, names), ("layers", layers, tuple(columns))):
        unknown = [name for name in wanted or () if name not in known]
        if unknown or (wanted is not None and not wanted):
            what = repr(unknown[0]) if unknown else "none"
            raise ValueError(f"{argument}: the file has {', '.join(map(repr, known))}, got {what}")
    chosen = [column for name, column in columns.items() if layers is None or name in layers]
    wanted_ids = [names.index(name) for name in (names if domains is None else domains)]
    samples = torch.isin(tensors["domains"], torch.tensor(wanted_ids)).nonzero().squeeze(1)
    tables = [tensors["features"].unsqueeze(1), *([tensors["views"]] if views and "views" in tensors else [])]
    table = torch.cat(
        [torch.cat([each[samples, :, start:end] for start, end in chosen], dim=2).float() for each in tables],
        dim=1,
    )
    ids = samples.repeat_interleave(table.shape[1])
    return FeatureRows(
        table.flatten(0, 1).numpy(),
        np.array(metadata.class_names)[tensors["labels"][ids].numpy()],
        np.array(names)[tensors["domains"][ids].numpy()],
        ids.numpy().astype(np.intp),
    )


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
