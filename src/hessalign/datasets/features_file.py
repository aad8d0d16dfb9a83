"""Frozen features of a dataset, from one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from hessalign.datasets.base import BatchedSamples, Domain, DomainDataset, Images
from hessalign.datasets.features_format import (
    DTYPES,
    FeaturesAbout,
    Pieces,
    read_features,
    write_features,
)
from hessalign.datasets.registry import register


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


@register("features_file", reference_name="FeaturesFile")
class FeaturesFile(DomainDataset):
    """Features that ``hessalign features`` or [save_features][] wrote: images are seen once and never again.

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

    default_backbone: ClassVar[str] = "identity"
    images: ClassVar[Images] = "features"
    input_shape: tuple[int, ...] = ()
    checkpoint_every: ClassVar[int] = 300

    def __init__(self, path: Path | str) -> None:
        self.about, tensors = read_features(Path(path))
        plain = tensors["features"].unsqueeze(1)
        augmented = tensors.get("views", plain)
        self.input_shape = (plain.shape[2],)
        sizes = tensors["domains"].bincount().tolist()
        parts = zip(
            self.about.domain_names,
            tensors["labels"].split(sizes),
            plain.split(sizes),
            augmented.split(sizes),
            strict=True,
        )
        domains = tuple(
            Domain(name, targets, FeatureSamples(own, targets), FeatureSamples(views, targets))
            for name, targets, own, views in parts
        )
        super().__init__(self.about.class_names, domains)

    @property
    def fingerprint(self) -> str:
        """Hash of the file's content, wherever it lies."""
        return self.about.content_sha256

    @classmethod
    def make(cls, root: Path | None, seed: int) -> Self:
        """The dataset of a file; nothing is drawn, so the seed is unused.

        Raises:
            ValueError: If there is no file, or it is not whole.
        """
        if root is None:
            raise ValueError("root: features_file is read from disk and none was given; give the file's path")
        return cls(root)


def save_features(
    path: Path,
    features: Tensor,
    labels: Tensor,
    domains: Tensor,
    *,
    class_names: Sequence[str] | None = None,
    domain_names: Sequence[str] | None = None,
    views: Tensor | None = None,
) -> FeaturesAbout:
    """Write features of your own as a file that is a dataset anywhere.

    Args:
        path: Of the file.
        features: ``(n, d)``, float16 or float32, finite.
        labels: Class ids, ``(n,)``, integers from 0.
        domains: Domain ids, ``(n,)``, integers from 0, in any order, each used.
        class_names: By class id; the numbers by default.
        domain_names: By domain id; the numbers by default.
        views: Features of augmented inputs, ``(n, K, d)``, of the same type.

    Returns:
        What the file tells of itself.

    Raises:
        ValueError: If shapes do not match, a value is NaN or infinite, or an id is out of range.
        OSError: If the file cannot be written.
    """
    _check_values("features", features, "(n, d)")
    if views is not None:
        _check_values("views", views, "(n, K, d)")
        if views.dtype != features.dtype or views.shape[::2] != features.shape:
            raise ValueError(
                f"views: must be like features, {features.dtype} and (n, K, d) = ({len(features)}, K, "
                f"{features.shape[1]}), got {views.dtype} of shape {tuple(views.shape)}"
            )
    classes = _names("labels", labels, len(features), class_names)
    places = _names("domains", domains, len(features), domain_names)
    empty = sorted({*range(len(places))} - {*domains.unique().tolist()})
    if empty:
        raise ValueError(f"domains: {places[empty[0]]!r} has no sample; every domain needs one")
    order = domains.sort(stable=True).indices
    tensors = {
        "labels": labels.long()[order],
        "domains": domains.long()[order],
        "features": features.detach().cpu()[order],
    }
    if views is not None:
        tensors["views"] = views.detach().cpu()[order]
    pieces = {name: Pieces(value.dtype, tuple(value.shape), [value]) for name, value in tensors.items()}
    return write_features(path, FeaturesAbout(class_names=classes, domain_names=places), pieces)


def _check_values(name: str, values: Tensor, shape: str) -> None:
    axes = shape.count(",") + 1
    if values.dtype not in DTYPES.values() or values.ndim != axes or not values.numel():
        raise ValueError(
            f"{name}: must be {' or '.join(DTYPES)} of shape {shape}, none of them 0, "
            f"got {values.dtype} of shape {tuple(values.shape)}"
        )
    if not bool(values.isfinite().all()):
        row = int((~values.flatten(1).isfinite()).any(1).nonzero()[0])
        raise ValueError(f"{name}: all values must be finite, got NaN or infinity in row {row}")


def _names(name: str, ids: Tensor, samples: int, given: Sequence[str] | None) -> tuple[str, ...]:
    if not isinstance(ids, Tensor):
        other = {"labels": "class_names", "domains": "domain_names"}[name]
        raise ValueError(
            f"{name}: must be a tensor of integer ids, got {type(ids).__name__}; strings go to {other}"
        )
    if ids.shape != (samples,) or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(
            f"{name}: must hold one integer id for each of the {samples} samples, "
            f"got {ids.dtype} of shape {tuple(ids.shape)}"
        )
    names = tuple(given) if given is not None else tuple(map(str, range(int(ids.max()) + 1)))
    if int(ids.min()) < 0 or int(ids.max()) >= len(names):
        raise ValueError(
            f"{name}: ids must lie between 0 and {len(names) - 1}, "
            f"got values from {int(ids.min())} to {int(ids.max())}"
        )
    return names
