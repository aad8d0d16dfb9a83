"""``hessalign sweep``: every algorithm on every dataset, for every target domain, trial and draw."""

import json
import os
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.live import Live

from hessalign import benchmark, cli, datasets, training
from hessalign.algorithms import algorithm_names, require_algorithm
from hessalign.cli import options
from hessalign.cli.options import (
    Panel,
    names_between_commas,
    number,
    option,
    parse_settings,
    parse_trackers,
    require_there,
    whole,
)
from hessalign.cli.terminal import INTERRUPTED, Console, reported
from hessalign.datasets.registry import find_data

ENGINES = {"ray": "Ray", "slurm": "SLURM"}

if TYPE_CHECKING:
    from hessalign.benchmark.job import Engine, Job
    from hessalign.datasets.registry import DataSource


def sweep_command(
    *,
    datasets: Annotated[
        str,
        option(
            Panel.DATA,
            f"{options.KINDS_OF_DATA}; a file of hessalign features; several of these with commas.",
        ),
    ],
    root: options.Root = None,
    targets: Annotated[
        Literal["singles", "pairs", "both"],
        option(
            Panel.DATA,
            "Leave out each domain (singles), each pair (pairs), or do both, as leave-one-domain-out needs.",
            metavar="WHICH",
        ),
    ] = "both",
    trials: Annotated[
        int,
        option(
            Panel.DATA,
            "Number of trials; each splits the domains anew.",
            callback=whole(1, options.MOST_RUNS),
        ),
    ] = 3,
    holdout: Annotated[
        float,
        option(
            Panel.DATA,
            "Share of each domain that is kept out of training.",
            callback=number(above=0, below=1),
        ),
    ] = 0.2,
    validation_images: Annotated[
        Literal["plain", "augmented"],
        option(
            Panel.DATA,
            "What source accuracies are measured on: plain, or augmented as DomainBed does.",
            metavar="IMAGES",
        ),
    ] = "plain",
    backbone: Annotated[str | None, option(Panel.MODEL, "As for train. Default: the dataset's.")] = None,
    weights: options.Weights = None,
    normalization: options.Normalization = None,
    train_batch_norm: options.TrainBatchNorm = False,
    algorithms: Annotated[
        str,
        option(
            Panel.TRAINING,
            f"{', '.join(algorithm_names())}; several with commas; or all that work on the data.",
        ),
    ] = "all",
    hparams: Annotated[
        int,
        option(
            Panel.TRAINING,
            "Choices of hyper-parameters: the defaults, then random draws.",
            callback=whole(1, options.MOST_RUNS),
        ),
    ] = 20,
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
    engine: Annotated[
        Literal["local", "ray", "slurm"],
        option(
            Panel.MACHINE, "Processes of this machine, a Ray cluster, or an array job of a SLURM cluster."
        ),
    ] = "local",
    jobs: Annotated[
        int | None,
        option(
            Panel.MACHINE,
            "Engines local and slurm: runs at a time. Default: one for each GPU that is used, else for each "
            "core; with slurm 256.",
            callback=whole(1, options.MOST_PROCESSES),
        ),
    ] = None,
    workers: Annotated[
        int | None,
        option(
            Panel.MACHINE, "What --jobs was called.", callback=whole(1, options.MOST_PROCESSES), hidden=True
        ),
    ] = None,
    together: Annotated[
        int,
        option(
            Panel.MACHINE,
            "Train so many runs at once where they can be: on frozen features, alike but for targets, "
            "seeds and hyper-parameters. 1 for one by one.",
            callback=whole(1),
        ),
    ] = 60,
    address: Annotated[
        str | None,
        option(Panel.MACHINE, "Engine ray: address of the cluster. Default: RAY_ADDRESS, or this machine."),
    ] = None,
    cpus_per_run: Annotated[
        int | None,
        option(Panel.MACHINE, "Engines ray and slurm: cores of a run. Default: 1.", callback=whole(1)),
    ] = None,
    gpus_per_run: Annotated[
        float | None,
        option(
            Panel.MACHINE,
            "Engines ray and slurm: GPUs of a run, with ray also 0.5. Default: 0.",
            callback=number(0),
        ),
    ] = None,
    minutes_per_run: Annotated[
        int | None,
        option(
            Panel.MACHINE,
            "Engine slurm: time limit of a task, which is queued again at its end. Default: 240.",
            callback=whole(1),
        ),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        option(
            Panel.MACHINE,
            "Engine slurm: a further option of sbatch, such as partition=gpu; may be given several times.",
            "--sbatch",
            metavar="NAME=VALUE",
        ),
    ] = None,
    retries: Annotated[
        int, option(Panel.MACHINE, "How often a failed run is done again.", callback=whole(0))
    ] = 1,
    device: options.Device = "auto",
    precision: options.Precision = "32-true",
    loaders: options.Loaders = 0,
    out: Annotated[
        Path, option(Panel.OUTPUT, "Folder of the sweep; what is done there stays.", file_okay=False)
    ],
    keep_checkpoints: Annotated[
        bool,
        option(Panel.OUTPUT, "Keep the last checkpoint of every finished run.", "--keep-checkpoints"),
    ] = False,
    save_predictions: options.SavePredictions = False,
    track: options.Track = None,
    dry_run: Annotated[
        bool, option(Panel.OUTPUT, "Only count the runs, and estimate time and disk.", "--dry-run")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Run DomainBed's protocol: its target domains, splits, draws of hyper-parameters and seeds.

    Start the same command again to go on after an interruption, and with more trials, draws, algorithms or
    datasets to extend the sweep. Several sweeps may work on one folder at once. Ends with exit code 1 if runs
    failed; starting it again tries these again.

    [b]Examples[/b]

    hessalign sweep --datasets pacs,vlcs --root data --algorithms erm,coral,hgp --out runs/sweep --dry-run

    hessalign sweep --datasets colored_mnist --algorithms erm,hgp --trials 2 --hparams 3 --steps 300
    --evaluate-samples 500 --out runs/mnist

    hessalign sweep --datasets pacs --root /data --engine ray --address auto --gpus-per-run 1 --out /nfs/runs

    hessalign sweep --datasets pacs --root /data --engine slurm --gpus-per-run 1 --sbatch partition=gpu
    --out /nfs/runs --dry-run
    """
    console = Console(stderr=True)
    with reported(console):
        jobs = _jobs(jobs, workers, console)
        if engine != "local" and ":" in device:
            raise ValueError(
                f"device: {device!r} is one GPU, and {ENGINES[engine]} deals them out; name the kind alone"
            )
        _check_engine_options(
            engine,
            {
                "jobs": (jobs, ("local", "slurm")),
                "address": (address, ("ray",)),
                "cpus-per-run": (cpus_per_run, ("ray", "slurm")),
                "gpus-per-run": (gpus_per_run, ("ray", "slurm")),
                "minutes-per-run": (minutes_per_run, ("slurm",)),
                "sbatch": (sbatch, ("slurm",)),
            },
        )
        if engine == "slurm" and gpus_per_run is not None and not gpus_per_run.is_integer():
            raise ValueError(f"gpus-per-run: SLURM deals out whole GPUs, got {gpus_per_run}")
        further = parse_settings(sbatch or [], "sbatch")
        require_there("root", root)
        sources = [find_data(name, root) for name in names_between_commas(datasets)]
        chosen_algorithms = None if algorithms == "all" else names_between_commas(algorithms)
        if chosen_algorithms is not None:
            chosen_algorithms = tuple(dict.fromkeys(map(require_algorithm, chosen_algorithms)))
        fixed = parse_settings(settings or [])
        recipe = options.recipe_of(
            average=average,
            average_from=average_from,
            swad_converge=swad_converge,
            swad_tolerance=swad_tolerance,
            swad_ratio=swad_ratio,
            sharpness=sharpness,
            rho=rho,
            disam_weight=disam_weight,
            linear_probe_steps=linear_probe_steps,
            head_lr_factor=head_lr_factor,
            start_from=start_from,
        )
        trackers = parse_trackers(track)

    try:
        with reported(console):
            opened = [source.open(0) for source in sources]
            sweep = benchmark.protocol.SweepSpec(
                algorithms=_all(opened, backbone, console)
                if chosen_algorithms is None
                else chosen_algorithms,
                trials=trials,
                hparams=hparams,
                targets=targets,
                config=benchmark.protocol.RunConfig(
                    steps=steps,
                    evaluate_every=evaluate_every,
                    evaluation_samples=evaluate_samples,
                    backbone=backbone,
                    weights=weights,
                    train_batch_norm=train_batch_norm,
                    normalization=normalization,
                    holdout_fraction=holdout,
                    validation_images=validation_images,
                    fixed=fixed,
                    recipe=recipe,
                ),
            )
            # Which GPU a run sees is dealt out to it; it is then its only one.
            machine = training.Machine(device.partition(":")[0], precision, loaders)
            if engine == "local":
                training.make_fabric(machine)  # what is not here would fail every run
            planned = _planned(
                sweep,
                sources,
                opened,
                partial(
                    benchmark.job.Job,
                    out=out.absolute(),
                    machine=machine,
                    keep_checkpoint=keep_checkpoints,
                    save_predictions=save_predictions,
                    track=trackers,
                ),
                console,
            )
            gpus = cli.visible_gpus(device) if engine == "local" else ()
            at_a_time, threads = _share_out(jobs, len(gpus))
            make_engine = partial(
                _engine,
                engine,
                out.absolute(),
                jobs,
                retries,
                cpus_per_run or 1,
                gpus_per_run or 0.0,
                minutes=minutes_per_run,
                sbatch=further,
                address=address,
            )
            if dry_run:
                known = at_a_time if engine == "local" else None
                script = None
                if engine == "slurm":
                    tasks = len(benchmark.sweep.arrange(planned, together))
                    script = make_engine().script(tasks)
                cli.print_estimate(planned, together, known, threads, console, as_json, script)
                return
            chosen = (
                benchmark.engines.LocalEngine(at_a_time, threads, retries, gpus)
                if engine == "local"
                else make_engine()
            )
            with closing(chosen):
                benchmark.sweep.claim_sweep(out, sweep, names_between_commas(datasets), planned)
                overview = _perform(planned, chosen, together, console)
    except KeyboardInterrupt:
        console.print(
            f"\nInterrupted. Finished runs are in {out}; run the same command to go on with the rest."
        )
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(overview.document(), indent=2))
    else:
        Console().print(overview.table())
    overview.print_failures(console)
    if overview.failures:
        raise typer.Exit(1)


def _all(
    opened: "Sequence[datasets.DomainDataset]", backbone: str | None, console: Console
) -> tuple[str, ...]:
    """Names of the algorithms that work on all datasets; says which do not."""
    applicable = [benchmark.protocol.applicable_algorithms(dataset, backbone) for dataset in opened]
    left_out = [name for name in algorithm_names() if not all(name in names for names in applicable)]
    if left_out:
        console.print(
            f"Left out, since they have no use for such data and backbone: {', '.join(left_out)}.",
            highlight=False,
        )
    return tuple(name for name in algorithm_names() if name not in left_out)


def _planned(
    sweep: "benchmark.protocol.SweepSpec",
    sources: "Sequence[DataSource]",
    opened: "Sequence[datasets.DomainDataset]",
    make_job: "Callable[..., Job]",
    console: Console,
) -> "list[Job]":
    """All jobs; says what waits so long that hardly any of them will have it."""
    jobs = [
        make_job(spec, source)
        for source, dataset in zip(sources, opened, strict=True)
        for spec in sweep.plan(dataset)
    ]
    if late := benchmark.protocol.too_late([job.spec for job in jobs]):
        console.print(
            f"A penalty, or what else waits, sets in after the end of most runs of: {', '.join(late)}; take "
            "more steps, or set these to fewer.",
            highlight=False,
        )
    return jobs


def _engine(
    engine: str,
    out: Path,
    jobs: int | None,
    retries: int,
    cpus: int,
    gpus: float,
    *,
    minutes: int | None,
    sbatch: dict[str, str],
    address: str | None,
) -> Any:
    """The engine of a cluster."""
    if engine == "ray":
        return benchmark.engines.RayEngine(address, cpus, gpus, retries)
    return benchmark.engines.SlurmEngine(out, cpus, int(gpus), minutes or 240, jobs or 256, retries, sbatch)


def _check_engine_options(engine: str, options: dict[str, tuple[object, tuple[str, ...]]]) -> None:
    for name, (value, owners) in options.items():
        if engine not in owners and value is not None:
            raise ValueError(f"{name}: belongs to --engine {' or '.join(owners)}, and the engine is {engine}")


def _jobs(jobs: int | None, workers: int | None, console: Console) -> int | None:
    """Runs at a time, by the option's name or by its former one, which elsewhere means loaders."""
    if workers is None:
        return jobs
    if jobs is not None:
        raise ValueError("workers: is what --jobs was called; give --jobs alone")
    console.print(
        f"--workers is taken as --jobs, as it is called now: {workers} runs at a time; processes that load "
        "images are --loaders."
    )
    return workers


def _share_out(jobs: int | None, gpus: int) -> tuple[int, int]:
    """Number of runs at a time, and of threads for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    at_a_time = jobs or gpus or cores
    return at_a_time, max(1, cores // at_a_time)


def _perform(jobs: "Sequence[Job]", engine: "Engine", most_together: int, console: Console) -> "cli.Overview":
    overview = cli.Overview(jobs, engine)
    # A terminal shows the overview all the time, anything else gets a line for each run.
    live = Live(overview, console=console, refresh_per_second=1, transient=True)
    with live if console.is_terminal else nullcontext():
        for outcome in benchmark.sweep.perform_all(jobs, engine, most_together):
            overview.add(outcome)
            if not console.is_terminal and outcome.status != "skipped":
                console.print(overview.line(outcome), highlight=False, soft_wrap=True)
    return overview
