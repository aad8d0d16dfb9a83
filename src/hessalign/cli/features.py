"""``hessalign features``: the frozen features of a dataset, once."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hessalign import datasets, training
from hessalign.cli import options
from hessalign.cli.options import Panel, names_between_commas, option, require_there, whole
from hessalign.cli.terminal import INTERRUPTED, Console, progress_bar, reported
from hessalign.datasets.registry import Augmentation, find_data
from hessalign.grid import Grid
from hessalign.memory import keep_freed_memory

if TYPE_CHECKING:
    from hessalign.datasets.features_format import FeaturesMetadata


def features_command(
    *,
    dataset: Annotated[str, option(Panel.DATA, f"{options.KINDS_OF_DATA}.")],
    root: options.Root = None,
    backbone: Annotated[
        str, option(Panel.MODEL, "mnist_cnn, resnet18, resnet50, timm:NAME or torchvision:NAME.")
    ],
    weights: options.Weights = None,
    normalization: options.Normalization = None,
    views: Annotated[
        int,
        option(
            Panel.MODEL,
            "Augmented views of each image, besides the plain one; training draws from them.",
            callback=whole(0),
        ),
    ] = 0,
    augment: Annotated[
        Augmentation,
        option(
            Panel.MODEL,
            "What views are drawn by: domainbed, as training sees images; style (edges, grey, posterised, "
            "jittered in colour); augmix, randaugment or trivialaugment.",
            metavar="NAME",
        ),
    ] = "domainbed",
    layers: Annotated[
        str | None,
        option(
            Panel.MODEL,
            "Layers to pool and put before the features: stages, or names of the network's modules, with "
            "commas.",
        ),
    ] = None,
    seed: Annotated[
        int,
        option(
            Panel.MODEL,
            "Seed of the augmented views, of random weights, and of what the MNIST datasets draw.",
            callback=whole(0),
        ),
    ] = 0,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    loaders: options.Loaders = 0,
    out: Annotated[Path, option(Panel.OUTPUT, "The file to write, NAME.safetensors.", dir_okay=False)],
    dtype: Annotated[
        Literal["float16", "float32"],
        option(Panel.OUTPUT, "Number type of the features: float16 or float32.", metavar="DTYPE"),
    ] = "float16",
    resume: options.Resume = False,
    as_json: options.Json = False,
) -> None:
    """Pass every image of a dataset through a backbone once and keep the features in one file.

    The file is a dataset: give it to --dataset of other commands. An extraction that was interrupted at any
    moment goes on with --resume and ends with the same file.

    [b]Examples[/b]

    hessalign features --dataset pacs --root data --backbone resnet50 --out pacs.safetensors

    hessalign features --dataset my/images --backbone timm:tf_efficientnet_lite0 --weights package
    --views 3 --augment style --layers stages --loaders 2 --out own.safetensors

    hessalign train --dataset own.safetensors --algorithm hgp --target hospital_3 --out runs/hgp
    """
    console = Console(stderr=True)
    try:
        with reported(console):
            require_there("root", root)
            source = find_data(dataset, root)
            data = source.open(seed)
            chosen: dict[str, Any] = {
                "backbone": training.choose_backbone(data, backbone, weights, normalization=normalization),
                "views": views,
                "augment": augment,
                "layers": names_between_commas(layers or ""),
                "dtype": dtype,
                "batch_size": batch_size,
                "seed": seed,
            }
            if layers is not None and not chosen["layers"]:
                raise ValueError(f"layers: {layers!r} names none; allowed are stages or names of modules")
            spec = training.FeaturesSpec(**chosen)
            machine = training.Machine(accelerator=device, workers=loaders)
            keep_freed_memory()
            about = _extract(data, spec, out, machine, resume, console)
    except KeyboardInterrupt:
        console.print("\nInterrupted. What is done is kept; go on with --resume.")
        raise typer.Exit(INTERRUPTED) from None
    rows = _rows(about, out, sum(map(len, data.domains)))
    if as_json:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=1))
    else:
        Console().print(_grid(rows).to_rich())


def _extract(
    data: "datasets.DomainDataset",
    spec: "training.FeaturesSpec",
    out: Path,
    machine: "training.Machine",
    resume: bool,
    console: Console,
) -> "FeaturesMetadata":
    with progress_bar(console, "speed") as bar:
        task = bar.add_task("images", total=sum(map(len, data.domains)), speed="")

        def report(progress: "training.ExtractionProgress") -> None:
            bar.update(task, completed=progress.done, speed=f"{progress.images_per_second:.0f} images/s")

        return training.extract_features(data, spec, out, machine, resume, report)


def _rows(about: "FeaturesMetadata", out: Path, samples: int) -> dict[str, Any]:
    return {
        "file": str(out),
        "bytes": out.stat().st_size,
        "samples": samples,
        **about.model_dump(mode="json"),
    }


def _grid(rows: dict[str, Any]) -> Grid:
    backbone, layers = rows["backbone"], rows.get("columns", {})
    values = [
        ("samples", f"{rows['samples']:,}"),
        ("size", f"{rows['bytes'] / 1e6:.1f} MB"),
        ("domains", ", ".join(rows["domain_names"])),
        ("classes", ", ".join(rows["class_names"])),
        ("backbone", f"{backbone['name']}, weights {backbone['weights']}"),
        *((f"columns of {name}", f"{start} to {end - 1}") for name, (start, end) in layers.items()),
        ("weights' SHA-256", rows["weights_sha256"][:16]),
        ("content's SHA-256", rows["content_sha256"][:16]),
    ]
    return Grid(("what", "value"), values, title=rows["file"], align="ll")
