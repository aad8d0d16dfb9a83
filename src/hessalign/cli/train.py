"""``hessalign train``: one run of one algorithm on one dataset."""

import json
import time
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from hessalign import datasets, diagnostics, runs, training
from hessalign.algorithms import algorithm_names, get_algorithm, require_algorithm
from hessalign.checks import did_you_mean
from hessalign.cli import options
from hessalign.cli.options import (
    Panel,
    option,
    parse_settings,
    parse_trackers,
    require_figure,
    require_there,
    whole,
)
from hessalign.cli.terminal import INTERRUPTED, Console, progress_bar, reported
from hessalign.datasets.registry import find_data
from hessalign.grid import NOTHING, Grid
from hessalign.memory import keep_freed_memory
from hessalign.runs import layout
from hessalign.runs.records import check_evaluations

SECONDS_BETWEEN_DRAWINGS = 0.25


def train_command(
    *,
    dataset: Annotated[
        str | None, option(Panel.DATA, f"{options.KINDS_OF_DATA}; a file of hessalign features.")
    ] = None,
    target: Annotated[
        str | None,
        option(Panel.DATA, "Domain that is never trained on, by name or number; several with commas."),
    ] = None,
    root: options.Root = None,
    trial_seed: Annotated[
        int | None,
        option(
            Panel.DATA,
            "Seed of the splits of the domains, and of what the MNIST datasets draw. Default: 0.",
            callback=whole(0),
        ),
    ] = None,
    backbone: Annotated[
        str | None,
        option(
            Panel.MODEL,
            "mnist_cnn, resnet18, resnet50, timm:NAME or torchvision:NAME; on features identity, "
            "adapter:linear or adapter:mlp. Default: mnist_cnn for images of 28 pixels, identity for "
            "features, resnet50 for others.",
        ),
    ] = None,
    rank: Annotated[
        int | None, option(Panel.MODEL, "Rank of an adapter; 16 by default.", callback=whole(1))
    ] = None,
    weights: options.Weights = None,
    normalization: options.Normalization = None,
    train_batch_norm: options.TrainBatchNorm = False,
    algorithm: Annotated[str | None, option(Panel.TRAINING, f"{', '.join(algorithm_names())}.")] = None,
    spec_file: Annotated[
        Path | None,
        option(
            Panel.TRAINING,
            "Do a recorded run again: its spec.json or folder, or a file of collect --export-best. Other "
            "options choose among several runs; they may contradict nothing.",
            "--spec",
        ),
    ] = None,
    settings: options.Settings = None,
    steps: options.Steps = None,
    evaluate_every: options.EvaluateEvery = None,
    evaluate_samples: options.EvaluateSamples = None,
    average: options.Average = None,
    average_from: options.AverageFrom = None,
    swad_converge: options.SwadConverge = None,
    swad_tolerance: options.SwadTolerance = None,
    swad_ratio: options.SwadRatio = None,
    sharpness: options.SharpnessKind = None,
    rho: options.Rho = None,
    disam_weight: options.DisamWeight = None,
    linear_probe_steps: options.LinearProbeSteps = None,
    head_lr_factor: options.HeadLrFactor = None,
    start_from: options.StartFrom = None,
    seed: Annotated[
        int | None,
        option(
            Panel.TRAINING,
            "Seed of weights, batches and the algorithm's draws. Default: 0.",
            callback=whole(0),
        ),
    ] = None,
    device: options.Device = "auto",
    devices: Annotated[
        int,
        option(
            Panel.MACHINE,
            "Processes that share each update, each with a device of its own.",
            callback=whole(1, options.MOST_PROCESSES),
        ),
    ] = 1,
    strategy: Annotated[
        Literal["auto", "ddp"], option(Panel.MACHINE, "How Lightning Fabric starts the processes.")
    ] = "auto",
    precision: options.Precision = "32-true",
    loaders: options.Loaders = 0,
    out: Annotated[Path, option(Panel.OUTPUT, "Folder of this run alone.", file_okay=False)],
    resume: options.Resume = False,
    save_predictions: options.SavePredictions = False,
    plot: Annotated[
        Path | None,
        option(
            Panel.OUTPUT,
            "Draw loss, penalty and its terms by domain to this .png, .pdf or .svg at the end.",
        ),
    ] = None,
    track: options.Track = None,
    tensorboard: Annotated[
        bool, option(Panel.OUTPUT, "The same as --track tensorboard.", "--tensorboard")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Train one algorithm on the source domains of a dataset and evaluate it on all domains.

    The folder keeps what was run (spec.json), an evaluation on each line of metrics.jsonl, and the latest
    checkpoint. A run that was interrupted at any moment goes on with --resume and ends with the same numbers;
    with --resume and more --steps it is lengthened.

    [b]Examples[/b]

    hessalign train --dataset colored_mnist --algorithm hgp --target 2 --steps 300 --out runs/hgp

    hessalign train --dataset rotated_mnist --algorithm hgp --target 0 --out runs/r --plot runs/r/curves.png

    hessalign train --dataset pacs --root data --algorithm fishr --target sketch --set ema=0.9 --out runs/f

    hessalign train --dataset my/images --algorithm coral --target hospital_3 --loaders 2 --out runs/own

    hessalign train --dataset domain_net --root data --algorithm hgp --target sketch --devices 4 --out runs/d

    hessalign train --dataset pacs --root data --algorithm hgp --target sketch --average sma --out runs/mean

    hessalign train --resume --steps 600 --out runs/hgp

    hessalign train --spec runs/hgp/spec.json --out runs/again
    """
    with reported(Console(stderr=True)):
        recorded = _recorded(spec_file, out if resume else None, dataset, algorithm, target)
        if algorithm is not None:
            algorithm = require_algorithm(algorithm)
        overrides = parse_settings(settings or [])
        choices = {
            "average": average,
            "average_from": average_from,
            "swad_converge": swad_converge,
            "swad_tolerance": swad_tolerance,
            "swad_ratio": swad_ratio,
            "sharpness": sharpness,
            "rho": rho,
            "disam_weight": disam_weight,
            "linear_probe_steps": linear_probe_steps,
            "head_lr_factor": head_lr_factor,
            "start_from": start_from,
        }
        # What a record is to agree with may be said in part.
        recipe = options.recipe_of(**choices) if recorded is None else None
        require_there("root", root)
        if dataset is not None:
            find_data(dataset, root)
        if (out / runs.SWEEP).is_file():
            raise ValueError(f"out: {out} is the folder of a sweep; a run needs a folder of its own")
        _check_plot(plot, out)
        trackers = parse_trackers(",".join(filter(None, (track, "tensorboard" if tensorboard else None))))
    machine = training.Machine(device, precision, loaders, devices, strategy)
    console = Console(stderr=True, quiet=not machine.is_first_process)
    try:
        with reported(console):
            if recorded is not None:
                said = {
                    "algorithm": algorithm,
                    "target": target,
                    "backbone": backbone,
                    "rank": rank,
                    "weights": weights,
                    "normalization": normalization,
                    "train_batch_norm": train_batch_norm or None,
                    "settings": overrides or None,
                    "steps": steps,
                    "evaluate_every": evaluate_every,
                    "evaluate_samples": evaluate_samples,
                    "seed": seed,
                    "trial_seed": trial_seed,
                    **choices,
                }
                spec, data = training.open_recorded(recorded, said, dataset, root, longer=resume)
            else:
                assert dataset is not None  # as are algorithm and target where nothing is recorded
                assert algorithm is not None
                assert target is not None
                data = find_data(dataset, root).open(trial_seed or 0)
                hparams = _hparams(algorithm, data, overrides)
                spec = training.RunSpec(
                    dataset=data.name,
                    data=data.fingerprint,
                    algorithm=algorithm,
                    target_domains=training.target_indices(target, data),
                    backbone=training.choose_backbone(
                        data, backbone, weights, train_batch_norm, hparams["dropout"], rank, normalization
                    ),
                    hparams=hparams,
                    seed=seed or 0,
                    trial_seed=trial_seed or 0,
                    steps=data.steps if steps is None else steps,
                    evaluate_every=data.checkpoint_every if evaluate_every is None else evaluate_every,
                    evaluation_samples=evaluate_samples,
                    recipe=recipe,
                )
            if machine.is_first_process and not resume:
                check_evaluations(evaluate_every, spec.steps)
                training.check_unasked(out, spec)
            tracking = training.RunTracking(trackers, out, spec) if trackers else None
            if machine.computes_here:
                keep_freed_memory()
            record = _run(spec, data, out, machine, console, tracking, save_predictions)
    except KeyboardInterrupt:
        console.print(f"\nInterrupted. The latest checkpoint is in {out}; go on with --resume.")
        raise typer.Exit(INTERRUPTED if machine.is_first_process else 0) from None
    if not machine.is_first_process:
        return
    if plot is not None:
        _draw(out, plot, console)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        Console().print(result_grid(record, spec, data).to_rich())


def _recorded(
    spec_file: Path | None,
    resumed: Path | None,
    dataset: str | None,
    algorithm: str | None,
    target: str | None,
) -> Path | None:
    """Where the run is recorded; None where the options tell it."""
    if spec_file is not None:
        return spec_file
    needed = {"dataset": dataset, "algorithm": algorithm, "target": target}
    missing = next((name for name, value in needed.items() if value is None), None)
    if missing is None:
        return None
    if resumed is not None and runs.is_started(resumed):
        return resumed
    if resumed is not None:
        raise ValueError(
            f"resume: there is no run in {resumed}{layout.of_sweep(resumed)}; for a new one {missing} is "
            "missing: --dataset, --algorithm and --target tell it"
        )
    raise ValueError(
        f"{missing}: is missing; --dataset, --algorithm and --target tell a new run, --spec a recorded one"
    )


def _check_plot(plot: Path | None, out: Path) -> None:
    """Before any work: a figure that cannot be written would be noticed at the very end."""
    if plot is None:
        return
    require_figure("plot", plot)
    if not plot.parent.is_dir() and plot.parent.resolve() != out.resolve():
        raise ValueError(f"plot: there is no folder {plot.parent}")


def _draw(run: Path, plot: Path, console: Console) -> None:
    with reported(console):
        diagnostics.curves.save_training_curves(run, plot)
    console.print(f"Curves: {plot}", highlight=False)


def _hparams(algorithm: str, data: "datasets.DomainDataset", overrides: dict[str, str]) -> dict[str, Any]:
    hparams_class = get_algorithm(algorithm).hparams_class
    for name in overrides:
        if name not in hparams_class.model_fields:
            known = [*hparams_class.model_fields]
            raise ValueError(
                f"set: {name!r} is no hyper-parameter of {algorithm}; allowed are {', '.join(known)}"
                f"{did_you_mean(name, known)}"
            )
    hparams_class.check_read(algorithm, data.search_space, overrides)
    return hparams_class.with_defaults(data.search_space, overrides).model_dump()


def _run(
    spec: "training.RunSpec",
    data: "datasets.DomainDataset",
    out: Path,
    machine: "training.Machine",
    console: Console,
    tracking: "training.RunTracking | None",
    save_predictions: bool,
) -> dict[str, Any]:
    with progress_bar(console, "state") as bar:
        task = bar.add_task(spec.algorithm, total=spec.steps, state="")
        drawn = 0.0
        is_trained = False

        def report(progress: "training.Progress") -> None:
            nonlocal drawn, is_trained
            is_trained = True
            if tracking is not None:
                tracking.write(progress)
            # Reading scalars waits for the device, so not every step is drawn.
            if time.monotonic() - drawn < SECONDS_BETWEEN_DRAWINGS and progress.step < spec.steps - 1:
                return
            drawn = time.monotonic()
            values = [
                f"{name} {float(progress.metrics[name]):.3g}"
                for name in ("loss", "penalty")
                if name in progress.metrics
            ]
            if progress.record is not None:
                source, target = _source_and_target(progress.record, spec, data)
                values += [f"source {source:.1f} %", f"target {target:.1f} %"]
            values.append(f"{progress.images_per_second:.0f} images/s")
            bar.update(task, completed=progress.step + 1, state=", ".join(values))

        try:
            record = training.train(spec, data, out, machine, report, save_predictions=save_predictions)
        finally:
            if tracking is not None and machine.is_first_process:
                tracking.close()
    if not is_trained:
        console.print(f"The run in {out} was done before: nothing was trained.", soft_wrap=True)
    return record


def _source_and_target(
    record: dict[str, Any], spec: "training.RunSpec", data: "datasets.DomainDataset"
) -> tuple[float, float]:
    """Mean accuracy on the held-out part of the source domains, and on the larger part of the targets."""
    target = [record["accuracies"][data.domains[index].name]["in"] for index in spec.target_domains]
    found = [float("nan") if accuracy is None else accuracy for accuracy in target]
    return 100 * runs.source_accuracy(record, spec.target_domains), 100 * sum(found) / len(found)


def result_grid(record: dict[str, Any], spec: "training.RunSpec", data: "datasets.DomainDataset") -> Grid:
    """The accuracies of a record, a row for each domain."""
    rows = []
    for index, domain in enumerate(data.domains):
        accuracies = record["accuracies"][domain.name]
        role = "target" if index in spec.target_domains else "source"
        shown = (NOTHING if value is None else f"{100 * value:.1f}" for value in accuracies.values())
        rows.append([domain.name, role, *shown])
    notes = [f"accuracy in percent; {spec.evaluated_on()}"]
    if spec.recipe is not None and spec.recipe.linear_probe_steps >= spec.steps:
        notes.append("a linear probe: the head alone was trained in all steps, the backbone in none")
    return Grid(
        headers=("Domain", "role", "in", "out"),
        rows=rows,
        title=f"{spec.algorithm} on {spec.dataset}, step {record['step']}",
        notes=notes,
        align="llrr",
    )
