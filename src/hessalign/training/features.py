"""Features of a whole dataset, extracted once.

Work goes on in chunks that are kept beside the file in ``NAME.part`` and put together at the end. A chunk is
finished or absent, and batches fall the same whatever was there before, so that an extraction that was killed
ends with the same file as one that was not.
"""

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from hessalign.backbones import Backbone, BackboneSpec, make_backbone, network_sha256
from hessalign.backbones.layers import with_layers
from hessalign.checks import require_path
from hessalign.datasets.augmentation import views_of
from hessalign.datasets.base import DomainDataset, Samples, seed_hash
from hessalign.datasets.features_format import (
    DTYPES,
    SUFFIX,
    FeaturesMetadata,
    Pieces,
    read_metadata,
    write_features,
)
from hessalign.datasets.registry import Augmentation
from hessalign.files import remove_drafts, write_atomically
from hessalign.runs import hold
from hessalign.training.machine import Machine, make_fabric
from hessalign.training.seeds import seeded

BATCHES_IN_CHUNK = 8
ABOUT = "about.json"


class FeaturesSpec(BaseModel):
    """What determines the features of a dataset.

    Attributes:
        backbone: The backbone, in evaluation mode.
        views: Augmented views of each sample, besides the plain one.
        augment: What they are drawn by: ``"domainbed"`` (default) for what training sees of the data, else as
            ``view_transform`` says.
        layers: Layers whose pooled outputs stand before the features, by the names of the network's modules;
            ``("stages",)`` for those after which the resolution changes. None by default.
        dtype: How features are kept.
        batch_size: Samples that go through the backbone together.
        seed: Of the augmentations, and of the weights where the backbone's are random.

    Examples:
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.training import FeaturesSpec
        >>> spec = FeaturesSpec(backbone=BackboneSpec(name="mnist_cnn"), views=2)
        >>> spec.dtype, spec.augment
        ('float16', 'domainbed')
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: BackboneSpec
    views: int = Field(0, ge=0)
    augment: Augmentation = "domainbed"
    layers: tuple[str, ...] = ()
    dtype: Literal["float16", "float32"] = "float16"
    batch_size: int = Field(64, ge=1)
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _augment_belongs_to_views(self) -> Self:
        if self.augment != "domainbed" and not self.views:
            raise ValueError(f"augment: {self.augment!r} is of views, and views is 0; ask for at least 1")
        return self

    @model_serializer(mode="wrap")
    def _without_the_defaults(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Unfinished extractions from before there was the choice can be gone on with."""
        fields: dict[str, Any] = write(self)
        return {name: value for name, value in fields.items() if (name, value) not in _LATER}


_LATER = (("augment", "domainbed"), ("layers", ()))


@dataclass(frozen=True)
class ExtractionProgress:
    """How far an extraction is.

    Attributes:
        done: Samples whose features are there.
        total: Samples of the dataset.
        images_per_second: Of this process, since the first batch; every view counts.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets.features_file import FeaturesFile, save_features
        >>> from hessalign.training import FeaturesSpec, Machine, extract_features
        >>> X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
        >>> spec = FeaturesSpec(backbone=BackboneSpec(name="adapter:linear", rank=2), batch_size=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder)
        ...     done = []
        ...     written = save_features(place / "raw.safetensors", X, [0, 1] * 4, [0] * 4 + [1] * 4)
        ...     dataset = FeaturesFile(place / "raw.safetensors")
        ...     metadata = extract_features(
        ...         dataset,
        ...         spec,
        ...         place / "features.safetensors",
        ...         Machine("cpu"),
        ...         report=lambda progress: done.append((progress.done, progress.total)),
        ...     )
        >>> done
        [(4, 8), (8, 8)]
    """

    done: int
    total: int
    images_per_second: float


class _Part(BaseModel):
    """What the folder beside the file belongs to."""

    spec: FeaturesSpec
    about: FeaturesMetadata
    sizes: tuple[int, ...]


def extract_features(
    dataset: DomainDataset,
    spec: FeaturesSpec,
    path: Path,
    machine: Machine,
    resume: bool = False,
    report: Callable[[ExtractionProgress], None] | None = None,
) -> FeaturesMetadata:
    """Write the features of all samples of a dataset to one file.

    Args:
        dataset: Of images, or of features where the backbone is an adapter.
        spec: Which features.
        path: Of the file, ``.safetensors``.
        machine: Where to compute and with how many loading processes.
        resume: Go on with an unfinished extraction.
        report: Called after every batch.

    Returns:
        What the file tells of itself.

    Raises:
        ValueError: If the path is taken, there is no such machine here, the dataset has no such views or the
            backbone no such layers, an unfinished extraction is another one, or a feature is not finite in
            the type asked for.
        OSError: If a sample cannot be read or a file cannot be written.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.datasets.features_file import FeaturesFile, save_features
        >>> from hessalign.training import FeaturesSpec, Machine, extract_features
        >>> X = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
        >>> spec = FeaturesSpec(backbone=BackboneSpec(name="adapter:linear", rank=2), batch_size=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder)
        ...     written = save_features(place / "raw.safetensors", X, [0, 1] * 4, [0] * 4 + [1] * 4)
        ...     dataset = FeaturesFile(place / "raw.safetensors")
        ...     metadata = extract_features(dataset, spec, place / "features.safetensors", Machine("cpu"))
        >>> metadata.domain_names
        ('0', '1')
    """
    path = require_path("out", path)
    _check_path(path, resume)
    device = make_fabric(machine).device
    drawn = views_of(dataset, spec.augment, spec.views)
    backbone = _backbone(spec, dataset)
    about = _about(dataset, spec, backbone, drawn[0])
    if spec.layers:
        backbone, columns = with_layers(backbone, spec.backbone, spec.layers, dataset.input_shape)
        about = about.model_copy(update={"columns": columns})
    part = _Part(spec=spec, about=about, sizes=tuple(map(len, dataset.domains)))
    folder = path.with_name(f"{path.name}.part")
    if path.exists():
        about = _finished(path, part.about)
        if folder.is_dir() and _is_of(folder, part):  # of an extraction that was killed at its very end
            with hold(folder):
                shutil.rmtree(folder)
        return about
    path.parent.mkdir(parents=True, exist_ok=True)
    with hold(folder, of=path):
        _claim(path, folder, part, resume)
        remove_drafts(folder)
        _extract(dataset, drawn, spec, backbone, folder, device, machine.workers, report)
        about = _assemble(dataset, part, backbone.width, folder, path)
        shutil.rmtree(folder)
    return about


def _check_path(path: Path, resume: bool) -> None:
    if path.suffix != SUFFIX:
        raise ValueError(f"out: {path} must end in {SUFFIX}")
    if path.exists() and not resume:
        raise ValueError(f"out: {path} exists; choose another name, or remove it to extract anew")


def _backbone(spec: FeaturesSpec, dataset: DomainDataset) -> Backbone:
    spec.backbone.check_takes(dataset.input_shape)
    torch.manual_seed(spec.seed)
    return make_backbone(spec.backbone, dataset.input_shape[0]).eval()


def _about(
    dataset: DomainDataset, spec: FeaturesSpec, backbone: Backbone, views: Samples
) -> FeaturesMetadata:
    """What the file will tell of itself, layers apart."""
    prepared = backbone.preparation and backbone.preparation.describe(dataset.input_shape[1:])
    return FeaturesMetadata(
        class_names=dataset.class_names,
        domain_names=tuple(domain.name for domain in dataset.domains),
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        backbone=spec.backbone.model_dump(mode="json"),
        weights_sha256=network_sha256(backbone.network),
        preprocessing={
            "plain": dataset.domains[0].plain.preprocessing,
            **({"views": views.preprocessing} if spec.views else {}),
            **({"backbone": prepared} if prepared else {}),
        },
        augment="" if spec.augment == "domainbed" else spec.augment,
        seed=spec.seed,
        versions={name: version(name) for name in ("hessalign", "torch", "torchvision", "timm")},
    )


def _finished(path: Path, about: FeaturesMetadata) -> FeaturesMetadata:
    found = read_metadata(path)
    if found.model_copy(update={"content_sha256": about.content_sha256}) != about:
        raise ValueError(f"out: {path} holds other features; choose another name")
    return found


def _claim(path: Path, folder: Path, part: _Part, resume: bool) -> None:
    about = folder / ABOUT
    if about.exists() and not resume:
        raise ValueError(f"out: {path} is extracted in part; add --resume to go on with it")
    if about.exists() and not _is_of(folder, part):
        raise ValueError(
            f"out: {path} is extracted in part, but with other features; remove the folder {folder}, or "
            "choose another name"
        )
    write_atomically(about, part.model_dump_json(indent=1))


def _is_of(folder: Path, part: _Part) -> bool:
    """Whether a folder of chunks belongs to an extraction."""
    path = folder / ABOUT
    return path.exists() and path.read_bytes() == part.model_dump_json(indent=1).encode()


class _AllViews(Dataset[Tensor | OSError]):
    """Every sample of every domain: the plain input and its augmented views, ``(1 + K, ...)``.

    What cannot be read is handed on as a value, for a loader would add a worker's traceback to it.
    """

    def __init__(self, dataset: DomainDataset, drawn: list[Samples], views: int, seed: int) -> None:
        self.domains = dataset.domains
        self.places = [
            (domain, index) for domain, whole in enumerate(dataset.domains) for index in range(len(whole))
        ]
        self.drawn = drawn
        self.views = views
        self.seed = seed

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> Tensor | OSError:
        try:
            return self._views(*self.places[place])
        except OSError as error:
            return error

    def _views(self, domain: int, index: int) -> Tensor:
        inputs = [self.domains[domain].plain[index][0]]
        for view in range(self.views):
            with seeded(seed_hash(self.seed, domain, index, view)):
                inputs.append(self.drawn[domain][index][0])
        return torch.stack(inputs)


def _stack(samples: Sequence[Tensor | OSError]) -> Tensor | OSError:
    """A batch, or the first error among its samples."""
    read = []
    for sample in samples:
        if isinstance(sample, OSError):
            return sample
        read.append(sample)
    batch: Tensor = default_collate(read)  # in a worker, into shared memory
    return batch


@torch.inference_mode()
def _extract(
    dataset: DomainDataset,
    drawn: list[Samples],
    spec: FeaturesSpec,
    backbone: Backbone,
    folder: Path,
    device: torch.device,
    workers: int,
    report: Callable[[ExtractionProgress], None] | None,
) -> None:
    """Compute the chunks that are missing."""
    samples = _AllViews(dataset, drawn, spec.views, spec.seed)
    backbone.to(device)
    chunks = torch.arange(len(samples)).split(spec.batch_size * BATCHES_IN_CHUNK)
    missing = [number for number in range(len(chunks)) if not _chunk(folder, number).exists()]
    batches = [batch.tolist() for number in missing for batch in chunks[number].split(spec.batch_size)]
    loader = iter(DataLoader(samples, batch_sampler=batches, num_workers=workers, collate_fn=_stack))
    done = len(samples) - sum(map(len, batches))
    computed, started = 0, time.perf_counter()
    for number in missing:
        parts = []
        for _ in chunks[number].split(spec.batch_size):
            inputs = next(loader)
            if isinstance(inputs, OSError):
                raise inputs
            views = [backbone(inputs[:, view].to(device)).cpu() for view in range(inputs.shape[1])]
            parts.append(torch.stack(views, dim=1))
            done, computed = done + len(inputs), computed + inputs.shape[0] * inputs.shape[1]
            if report is not None:
                speed = computed / (time.perf_counter() - started)
                report(ExtractionProgress(done, len(samples), speed))
        features = torch.cat(parts).to(DTYPES[spec.dtype])
        _check_finite(features, dataset, samples.places, int(chunks[number][0]), spec.dtype)
        tensors = {"features": features[:, 0].contiguous(), "views": features[:, 1:].contiguous()}
        write_atomically(_chunk(folder, number), save(tensors))


def _chunk(folder: Path, number: int) -> Path:
    return folder / f"{number:06d}.safetensors"


def _check_finite(
    features: Tensor, dataset: DomainDataset, places: list[tuple[int, int]], start: int, dtype: str
) -> None:
    wrong = ~features.flatten(1).isfinite().all(1)
    if bool(wrong.any()):
        domain, index = places[start + int(wrong.nonzero()[0])]
        hint = "; float32 may hold them" if dtype == "float16" else ""
        raise ValueError(
            f"dtype: the features of sample {index} of domain {dataset.domains[domain].name!r} are NaN, or "
            f"infinite in {dtype}{hint}"
        )


def _assemble(dataset: DomainDataset, part: _Part, width: int, folder: Path, path: Path) -> FeaturesMetadata:
    samples = sum(part.sizes)
    count = len(torch.arange(samples).split(part.spec.batch_size * BATCHES_IN_CHUNK))
    chunks = [_chunk(folder, number) for number in range(count)]
    dtype = DTYPES[part.spec.dtype]
    ids = torch.arange(len(part.sizes)).repeat_interleave(torch.tensor(part.sizes))
    labels = torch.cat([domain.targets for domain in dataset.domains])
    tensors = {
        "labels": Pieces(torch.int64, (samples,), [labels]),
        "domains": Pieces(torch.int64, (samples,), [ids]),
        "features": Pieces(dtype, (samples, width), _read(chunks, "features")),
    }
    if part.spec.views:
        tensors["views"] = Pieces(dtype, (samples, part.spec.views, width), _read(chunks, "views"))
    return write_features(path, part.about, tensors)


def _read(chunks: list[Path], name: str) -> Iterator[Tensor]:
    for path in chunks:
        with safe_open(path, framework="pt") as file:
            yield file.get_tensor(name)
