"""The file of a dataset's features: one safetensors file, written piece by piece, read by memory mapping.

Its tensors are ``labels`` ``(n,)`` and ``domains`` ``(n,)``, int64, ``features`` ``(n, d)`` and, where there
are any, ``views`` ``(n, K, d)``, both float16 or float32; rows are sorted by domain. Row ``i`` of
``views`` holds the views of sample ``i``, so no view can be taken for a sample of its own. The header holds,
under ``hessalign``, a ``FeaturesMetadata`` as JSON. safetensors' own writer needs whole tensors in memory,
which is why this one exists; the layout of the file is safetensors' (https://huggingface.co/docs/safetensors).
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from safetensors import safe_open
from torch import Tensor

from hessalign.files import replacing, shown

FORMAT_VERSION: Literal[1] = 1
KEY = "hessalign"
SUFFIX = ".safetensors"
DTYPES = {"float16": torch.float16, "float32": torch.float32}
_CODES = {torch.int64: "I64", torch.float32: "F32", torch.float16: "F16"}
_UNKNOWN = "0" * 64


class FeaturesMetadata(BaseModel):
    """What a features file tells of itself.

    Attributes:
        format_version: Version of the file's layout.
        class_names: Name of each class, by class id.
        domain_names: Name of each domain, by domain id.
        dataset: Name of the dataset that the features were extracted from; empty where it has none.
        fingerprint: Hash of that dataset's data, where its name does not settle it.
        backbone: The choices that made the backbone, as JSON; empty where the features come from elsewhere.
        weights_sha256: SHA-256 of the backbone's weights; empty likewise.
        preprocessing: What was done to an image before the backbone saw it, plain and augmented, and what
            the backbone itself did first, if anything.
        augment: What the views were drawn by: empty for what training sees of the data (DomainBed's
            augmentation of photographs), or a name as ``hessalign features --augment`` takes it.
        columns: First column and the one after the last of each layer that was pooled, and of the network's
            own ``features``; empty where there are only these. This and ``augment`` are left out of the file
            where they are empty.
        seed: Seed of the augmented views.
        versions: Versions of the programs that made the features, by name.
        content_sha256: SHA-256 of class names, domain names and all tensors.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = FORMAT_VERSION
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    dataset: str = ""
    fingerprint: str = ""
    backbone: dict[str, str | int | float | bool | None] = {}
    weights_sha256: str = ""
    preprocessing: dict[str, str] = {}
    augment: str = ""
    columns: dict[str, tuple[int, int]] = {}
    seed: int = 0
    versions: dict[str, str] = {}
    content_sha256: str = _UNKNOWN

    @model_serializer(mode="wrap")
    def _without_what_is_empty(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Files without layers are those of before there were any, and older versions read them."""
        fields: dict[str, Any] = write(self)
        return {name: value for name, value in fields.items() if value or name not in ("augment", "columns")}


@dataclass(frozen=True)
class Pieces:
    """A tensor that is written without ever being whole in memory.

    Attributes:
        dtype: Type of every piece.
        shape: Shape of the tensor, its pieces joined.
        pieces: Parts along the first axis, in order.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]
    pieces: Iterable[Tensor]

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize


def write_features(path: Path, metadata: FeaturesMetadata, tensors: Mapping[str, Pieces]) -> FeaturesMetadata:
    """Write a features file and put it in its place at once.

    Args:
        path: Where to write; what is there is replaced.
        metadata: What it tells of itself; the hash of the content is filled in here.
        tensors: ``labels``, ``domains``, ``features`` and perhaps ``views``, in this order: eight-byte
            numbers come first, so that all are aligned.

    Returns:
        What was written, with the hash.

    Raises:
        OSError: If the file cannot be written; what was at the path stays.
    """
    digest = _named_digest(metadata)
    with replacing(path) as draft, draft.open("wb") as file:
        file.write(_header(metadata, tensors))
        for tensor in tensors.values():
            for piece in tensor.pieces:
                content = _bytes(piece.to(tensor.dtype))
                digest.update(content)
                file.write(content)
        whole = metadata.model_copy(update={"content_sha256": digest.hexdigest()})
        file.seek(0)
        file.write(_header(whole, tensors))
    return whole


def read_features(path: Path) -> tuple[FeaturesMetadata, dict[str, Tensor]]:
    """A features file, its tensors mapped into memory: only what is used is read.

    The content is hashed once here, about a second for each gigabyte, so that a file that was changed or
    damaged is never trained on.

    Returns:
        What the file tells of itself, and its tensors by name. Writing to them does not change the file.

    Raises:
        ValueError: If the file is missing, cut short, changed since it was written, or no features file.
    """
    metadata, tensors = _open(path)
    _check_tensors(path, metadata, tensors)
    _check_content(path, metadata, tensors)
    return metadata, tensors


def read_metadata(path: Path) -> FeaturesMetadata:
    """What a features file tells of itself, from its header alone.

    Returns:
        Its description.

    Raises:
        ValueError: If the file is missing, cut short or no features file.
    """
    return _open(path)[0]


def _open(path: Path) -> tuple[FeaturesMetadata, dict[str, Tensor]]:
    if not path.is_file():
        raise ValueError(
            f"path: {shown(path)} is not a file; allowed is a file that hessalign features wrote"
        )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # safetensors and torch raise whatever they stumble over
        reason = " ".join(str(error).split()) or type(error).__name__
        raise _refused(path, f"it is cut short or no safetensors file ({reason})") from None
    if KEY not in metadata:
        raise _refused(path, "it is a safetensors file of another program")
    try:
        return FeaturesMetadata.model_validate_json(metadata[KEY]), tensors
    except ValidationError as error:
        fields = ", ".join(
            repr(".".join(map(str, problem["loc"])) or "JSON") for problem in error.errors()[:3]
        )
        raise _refused(path, f"its description is of another version (see {fields})") from None


def _check_tensors(path: Path, metadata: FeaturesMetadata, tensors: Mapping[str, Tensor]) -> None:
    missing = [name for name in ("labels", "domains", "features") if name not in tensors]
    if missing:
        raise _refused(path, f"it lacks the tensors {', '.join(missing)}")
    features, views = tensors["features"], tensors.get("views")
    if features.ndim != 2 or features.dtype not in DTYPES.values() or not features.numel():
        raise _refused(path, f"features are {features.dtype} of shape {tuple(features.shape)}")
    samples = len(features)
    if views is not None and (
        views.dtype != features.dtype
        or views.ndim != 3
        or views.shape[::2] != features.shape
        or not views.numel()
    ):
        raise _refused(path, f"views are {views.dtype} of shape {tuple(views.shape)}")
    ends = [0, *(end for _, end in metadata.columns.values())]
    if metadata.columns and (
        [start for start, _ in metadata.columns.values()] != ends[:-1]
        or ends != sorted({*ends})
        or ends[-1] != features.shape[1]
    ):
        raise _refused(path, f"its layers' columns do not make the {features.shape[1]} that it has")
    for name, names in (("labels", metadata.class_names), ("domains", metadata.domain_names)):
        if len({*names}) < len(names):
            raise _refused(path, f"a name of its {name} is there twice")
        ids = tensors[name]
        if ids.dtype != torch.int64 or ids.shape != (samples,) or not samples:
            raise _refused(path, f"{name} are {ids.dtype} of shape {tuple(ids.shape)}")
        if int(ids.min()) < 0 or int(ids.max()) >= len(names):
            raise _refused(path, f"{name} lie outside 0 to {len(names) - 1}")
    if bool((tensors["domains"].diff() < 0).any()):
        raise _refused(path, "its rows are not sorted by domain")
    if len(tensors["domains"].unique()) != len(metadata.domain_names):
        raise _refused(path, "it has a domain without a sample")


def _check_content(path: Path, metadata: FeaturesMetadata, tensors: Mapping[str, Tensor]) -> None:
    digest = _named_digest(metadata)
    for name in ("labels", "domains", "features", "views"):
        if name in tensors:
            digest.update(_bytes(tensors[name]))
    if digest.hexdigest() != metadata.content_sha256:
        raise _refused(path, "its content was changed after it was written; extract the features again")


def _refused(path: Path, reason: str) -> ValueError:
    return ValueError(f"path: {shown(path)} is not a whole features file: {reason}")


def _header(metadata: FeaturesMetadata, tensors: Mapping[str, Pieces]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {KEY: metadata.model_dump_json()}}
    start = 0
    for name, tensor in tensors.items():
        end = start + tensor.size
        entries[name] = {
            "dtype": _CODES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _named_digest(metadata: FeaturesMetadata) -> Any:
    return hashlib.sha256(json.dumps([metadata.class_names, metadata.domain_names]).encode())


def _bytes(tensor: Tensor) -> memoryview:
    content: memoryview = tensor.contiguous().flatten().view(torch.uint8).numpy().data
    return content
