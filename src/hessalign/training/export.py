"""A trained network as one file for serving, without this package: ONNX, TorchScript, ``torch.export``."""

import json
import logging
import warnings
from collections.abc import Callable
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from hessalign.algorithms import Algorithm
from hessalign.algorithms.base import known_as
from hessalign.datasets.image_reading import IMAGE_SIZE, IMAGENET_MEAN, IMAGENET_STD
from hessalign.files import write_atomically
from hessalign.runs.layout import SUFFIXES
from hessalign.runs.seals import sha256
from hessalign.training.spec import CheckpointMetadata, RunSpec

Format = Literal["onnx", "torchscript", "torch-export"]
ABOUT = "hessalign.json"
"""Name of what a file tells of itself; in ONNX a property of the model's metadata."""
INPUT, OUTPUT = "inputs", "logits"
TOLERANCE = 1e-5
"""Of probabilities; of logits in units of the largest, where that is above 1."""
BATCHES = (1, 2, 5)
"""Sizes of the batches that a file is tried with."""

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: Of the file.
        format: Of the file.
        bytes: Its size.
        sha256: Its digest.
        difference: Largest difference of a probability from the network's own, over the batches that the file
            was tried with.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.training import CheckpointMetadata, RunSpec, build_algorithm, export_model
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
        >>> algorithm = build_algorithm(spec, (3,), classes=2, source_domains=2).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exported = export_model(algorithm, metadata, Path(folder) / "model.pt2", "torch-export")
        ...     exported.bytes == exported.path.stat().st_size
        True
        >>> exported.format, len(exported.sha256)
        ('torch-export', 64)
    """

    path: Path
    format: Format
    bytes: int
    sha256: str
    difference: float


def export_model(algorithm: Algorithm, metadata: CheckpointMetadata, path: Path, format: Format) -> Exported:
    """Write a trained network as one file, read it back, and compare it with the network.

    The file maps inputs ``(n, ...)``, float32, to logits ``(n, C)`` for any ``n``. It tells, as JSON by the
    name ``hessalign.json``, the classes, the run, and the transforms that make an input of an image.

    Args:
        algorithm: In evaluation mode, on the processor.
        metadata: What it was trained on.
        path: Where to write, with the format's ending; what is there is replaced.
        format: ``"onnx"`` (``.onnx``), ``"torchscript"`` (``.pt``) or ``"torch-export"`` (``.pt2``).

    Returns:
        What was written.

    Raises:
        ValueError: If the format is not known or not installed or does not go with the path, the network
            cannot be exported, or the file's probabilities differ from the network's by more than 1e-5;
            nothing is written then.
        OSError: If the file cannot be written.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.training import CheckpointMetadata, RunSpec, build_algorithm, export_model
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
        >>> algorithm = build_algorithm(spec, (3,), classes=2, source_domains=2).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     exported = export_model(algorithm, metadata, Path(folder) / "model.pt2", "torch-export")
        ...     read = torch.export.load(exported.path).module()
        >>> read(torch.zeros(5, 3)).shape, exported.difference < 1e-5
        (torch.Size([5, 2]), True)
    """
    check_export(path, format)
    inputs = torch.randn(max(BATCHES), *metadata.input_shape, generator=torch.Generator().manual_seed(0))
    expected = _expected(algorithm, inputs)
    about = {"format": format, **describe_export(metadata)}
    network = _Network(algorithm).eval()
    with _quiet(), torch.no_grad():
        try:
            content, run = _FORMATS[format](network, inputs[:2], json.dumps(about, indent=1))
            found = [run(inputs[:size]) for size in BATCHES]
        except Exception as error:  # exporters do not share a class of errors
            reason = " ".join(str(error).split())[:300]
            raise ValueError(
                f"format: {known_as(algorithm)} with the backbone {metadata.run.backbone.name} cannot be "
                f"exported to {format} ({type(error).__name__}: {reason})"
            ) from error
    difference = max(_difference(logits, expected[: len(logits)]) for logits in found)
    write_atomically(path, content)
    return Exported(path, format, len(content), sha256(content), difference)


def check_export(path: Path, format: Format) -> None:
    """Refuse a file that could not be written, before any work is done.

    Args:
        path: Where it is to be.
        format: As of [export_model][hessalign.training.export_model].

    Raises:
        ValueError: If the format is not known or not installed, or does not go with the path.

    Examples:
        >>> from pathlib import Path
        >>> from hessalign.training import check_export
        >>> check_export(Path("model.pt2"), "torch-export")
        >>> try:
        ...     check_export(Path("model.onnx"), "torch-export")
        ... except ValueError:
        ...     print("refused")
        refused
    """
    if format not in get_args(Format):
        raise ValueError(f"format: {format!r} is not known; allowed are {', '.join(get_args(Format))}")
    if path.suffix != SUFFIXES[format] or path.is_dir():
        raise ValueError(f"out: a file of the format {format} ends in {SUFFIXES[format]}, got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"out: there is no folder {path.parent}")
    if format == "onnx":
        _onnx_runtime()


def describe_export(metadata: CheckpointMetadata) -> dict[str, Any]:
    """What an exported file tells of itself.

    Args:
        metadata: What the network was trained on.

    Returns:
        As JSON: ``classes`` by id; ``input`` with name, shape and dtype; ``transforms``, in order, that make
        an input of an RGB image with values from 0 to 255, empty for feature vectors; ``output``; ``run`` and
        ``step``.

    Examples:
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.training import CheckpointMetadata, RunSpec, describe_export
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
        >>> described = describe_export(metadata)
        >>> described["classes"], described["input"]["shape"]
        (['healthy', 'ill'], ['n', 3])
    """
    photographs = metadata.input_shape == (3, IMAGE_SIZE, IMAGE_SIZE)
    transforms: list[dict[str, Any]] = [
        {
            "resize": [IMAGE_SIZE, IMAGE_SIZE],
            "interpolation": "bilinear",
            "antialias": True,
            "keep_aspect_ratio": False,
        },
        {"divide": 255},
        {"normalize": {"mean": list(IMAGENET_MEAN), "std": list(IMAGENET_STD)}},
        {"layout": "channels, height, width"},
    ]
    return {
        "classes": list(metadata.class_names),
        "input": {"name": INPUT, "shape": ["n", *metadata.input_shape], "dtype": "float32"},
        "transforms": transforms if photographs else [],
        "output": {"name": OUTPUT, "shape": ["n", len(metadata.class_names)], "probabilities": "softmax"},
        "step": metadata.step,
        "run": _without_places(metadata.run),
        "versions": {name: version(name) for name in ("hessalign", "torch")},
    }


def _without_places(spec: RunSpec) -> dict[str, Any]:
    """A run as JSON; of files and folders only the names, for where they lay here is nobody's affair."""
    run = spec.model_dump(mode="json")
    for where, name in ((run["backbone"], "weights"), (run.get("recipe"), "start_from")):
        if where and where.get(name):
            where[name] = Path(where[name]).name
    return run


class _Network(nn.Module):
    """The algorithm as nothing but a map of inputs to logits."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__()
        self.algorithm = algorithm

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.algorithm(inputs)
        return logits


@torch.no_grad()
def _expected(algorithm: Algorithm, inputs: Tensor) -> Tensor:
    """Logits ``(n, C)``, of a network whose answer to a sample does not depend on others or on chance."""
    together = algorithm(inputs)
    alone = torch.cat([algorithm(row.unsqueeze(0)) for row in inputs])
    again = algorithm(inputs)
    if not bool(together.isfinite().all()):
        raise ValueError(f"checkpoint: {known_as(algorithm)} gives logits that are not finite")
    scale = max(1.0, float(together.abs().max()))
    if (
        algorithm.predicts_by_batch
        or float((together - alone).abs().max()) > 1e-3 * scale
        or not torch.equal(together, again)
    ):
        raise ValueError(
            f"checkpoint: what {known_as(algorithm)} predicts of a sample depends on the other samples of "
            "its batch, or on chance, so no file can stand for it; choose another algorithm"
        )
    found: Tensor = together
    return found


def _difference(found: Tensor, expected: Tensor) -> float:
    """Largest difference of a probability."""
    of_logits = float((found - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    of_probabilities = float((found.softmax(1) - expected.softmax(1)).abs().max())
    if not max(of_logits, of_probabilities) <= TOLERANCE:
        raise ValueError(
            f"format: the exported file differs from the network by {of_probabilities:.2g} in probabilities "
            f"and {of_logits:.2g} in logits, more than {TOLERANCE:g}; nothing was written"
        )
    return of_probabilities


def _to_onnx(network: nn.Module, example: Tensor, about: str) -> tuple[bytes, Run]:
    runtime = _onnx_runtime()
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={"inputs": {0: torch.export.Dim("n")}},
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    entry = model.metadata_props.add()
    entry.key, entry.value = ABOUT, about
    content = model.SerializeToString()
    session = runtime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda inputs: torch.from_numpy(session.run([OUTPUT], {INPUT: inputs.numpy()})[0])


def _to_torchscript(network: nn.Module, example: Tensor, about: str) -> tuple[bytes, Run]:
    traced: Any = torch.jit.trace(network, example, check_trace=False)
    buffer = BytesIO()
    torch.jit.save(traced, buffer, _extra_files={ABOUT: about})
    content = buffer.getvalue()
    return content, torch.jit.load(BytesIO(content))


def _to_torch_export(network: nn.Module, example: Tensor, about: str) -> tuple[bytes, Run]:
    shapes = {"inputs": {0: torch.export.Dim("n")}}
    program = torch.export.export(network, (example,), dynamic_shapes=shapes)
    buffer = BytesIO()
    torch.export.save(program, buffer, extra_files={ABOUT: about})
    content = buffer.getvalue()
    run: Run = torch.export.load(BytesIO(content)).module()
    return content, run


_FORMATS: dict[Format, Callable[[nn.Module, Tensor, str], tuple[bytes, Run]]] = {
    "onnx": _to_onnx,
    "torchscript": _to_torchscript,
    "torch-export": _to_torch_export,
}


def _onnx_runtime() -> Any:
    try:
        import onnxruntime  # noqa: PLC0415 (an extra that may be missing, like the next)
        import onnxscript  # noqa: F401, PLC0415
    except ImportError:
        raise ValueError("format: 'onnx' is not installed; run  pip install 'hessalign[onnx]'") from None
    return onnxruntime


@contextmanager
def _quiet() -> Any:
    """Exporters tell of every step on stdout, and of their own plans in warnings."""
    former = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(former)
