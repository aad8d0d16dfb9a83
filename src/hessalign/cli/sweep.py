"""``hessalign sweep``: every algorithm on every dataset, for every target domain, trial and draw."""

import json
import os
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.live import Live

from hessalign import benchmark, cli, datasets, training
from hessalign.algorithms import algorithm_names, require_algorithm
from hessalign.cli.errors import INTERRUPTED, reported
from hessalign.cli.options import (
    MOST_PROCESSES,
    MOST_RUNS,
    names_between_commas,
    number,
    parse_settings,
    require_there,
    whole,
)
from hessalign.cli.terminal import Console
from hessalign.datasets import dataset_names
from hessalign.datasets.registry import find_data

if TYPE_CHECKING:
    from hessalign.benchmark.engines import Engine
    from hessalign.benchmark.job import Job


def sweep_command(
    datasets: Annotated[
        str,
        typer.Option(
            help=f"With commas: {', '.join(dataset_names())}; folders ROOT/domain/class/*; CSV files with "
            "the columns path, label, domain."
        ),
    ],
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder of the sweep; what is done there stays.")
    ],
    algorithms: Annotated[
        str, typer.Option(help=f"With commas: {', '.join(algorithm_names())}; or all that work on the data.")
    ] = "all",
    root: Annotated[Path | None, typer.Option(help="Folder that holds the datasets given by name.")] = None,
    trials: Annotated[
        int, typer.Option(callback=whole(1, MOST_RUNS), help="Each splits the domains anew.")
    ] = 3,
    hparams: Annotated[
        int,
        typer.Option(
            callback=whole(1, MOST_RUNS), help="Choices of hyper-parameters: the defaults, then random draws."
        ),
    ] = 20,
    targets: Annotated[
        Literal["singles", "pairs", "both"],
        typer.Option(help="Leave out each domain, each pair, or do both, as leave-one-domain-out needs."),
    ] = "both",
    steps: Annotated[
        int | None,
        typer.Option(callback=whole(1), help="Updates of a run. Default: the dataset's.", show_default=False),
    ] = None,
    evaluate_every: Annotated[
        int | None,
        typer.Option(
            callback=whole(1),
            help="Steps between evaluations, and between checkpoints. Default: the dataset's.",
            show_default=False,
        ),
    ] = None,
    evaluate_samples: Annotated[
        int | None,
        typer.Option(
            callback=whole(1),
            help="Evaluate at most so many samples of each part of each domain. Default: all.",
            show_default=False,
        ),
    ] = None,
    backbone: Annotated[
        str | None, typer.Option(help="As for train. Default: the dataset's.", show_default=False)
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="none, hub, package, or a file. Default: none for mnist_cnn, hub for others.",
            show_default=False,
        ),
    ] = None,
    normalization: Annotated[
        str | None,
        typer.Option(
            help="imagenet (default) or weights: whose mean and deviation photographs are normalised by.",
            show_default=False,
        ),
    ] = None,
    train_batch_norm: Annotated[
        bool, typer.Option("--train-batch-norm", help="Let statistics of pretrained BatchNorm move.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A hyper-parameter that is not drawn, NAME=VALUE; may be repeated."),
    ] = None,
    holdout: Annotated[
        float,
        typer.Option(
            callback=number(above=0, below=1), help="Part of each domain that is kept out of training."
        ),
    ] = 0.2,
    validation_images: Annotated[
        Literal["plain", "augmented"],
        typer.Option(help="What source accuracies are measured on; DomainBed's are augmented."),
    ] = "plain",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Processes of this machine, or a Ray cluster.")
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(
            callback=whole(1, MOST_PROCESSES),
            help="Engine local: runs at a time. Default: one for each GPU that is used, else for each core.",
            show_default=False,
        ),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(help="Engine ray: of the cluster. Default: RAY_ADDRESS, or this machine."),
    ] = None,
    cpus_per_run: Annotated[
        int | None,
        typer.Option(callback=whole(1), help="Engine ray: cores of a run. Default: 1.", show_default=False),
    ] = None,
    gpus_per_run: Annotated[
        float | None,
        typer.Option(
            callback=number(0), help="Engine ray: GPUs of a run, also 0.5. Default: 0.", show_default=False
        ),
    ] = None,
    together: Annotated[
        int,
        typer.Option(
            callback=whole(1),
            help="Train so many runs at once where they can be: on frozen features, alike but for targets, "
            "seeds and hyper-parameters. 1 for one by one.",
        ),
    ] = 60,
    retries: Annotated[
        int, typer.Option(callback=whole(0), help="How often a failed run is done again.")
    ] = 1,
    keep_checkpoints: Annotated[
        bool, typer.Option("--keep-checkpoints", help="Keep the last checkpoint of every finished run.")
    ] = False,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu, mps ...")] = "auto",
    precision: Annotated[str, typer.Option(help="32-true, bf16-mixed, 64-true ...")] = "32-true",
    loaders: Annotated[
        int, typer.Option(callback=whole(0, MOST_PROCESSES), help="Processes of each run that load images.")
    ] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only count the runs, and estimate time and disk.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
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
    """
    console = Console(stderr=True)
    with reported(console):
        _check_engine_options(
            engine,
            local={"workers": workers},
            ray={"address": address, "cpus-per-run": cpus_per_run, "gpus-per-run": gpus_per_run},
        )
        require_there("root", root)
        sources = [find_data(name, root) for name in names_between_commas(datasets)]
        chosen_algorithms = None if algorithms == "all" else names_between_commas(algorithms)
        if chosen_algorithms is not None:
            chosen_algorithms = tuple(dict.fromkeys(map(require_algorithm, chosen_algorithms)))
        fixed = parse_settings(settings or [])

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
                ),
            )
            machine = training.Machine(accelerator, precision, loaders)
            jobs = [
                benchmark.job.Job(spec, source, out.absolute(), machine, keep_checkpoints)
                for source, dataset in zip(sources, opened, strict=True)
                for spec in sweep.plan(dataset)
            ]
            size, threads = _share_out(workers, accelerator)
            if dry_run:
                runs_at_a_time = size if engine == "local" else None
                cli.print_estimate(jobs, together, runs_at_a_time, threads, console, as_json)
                return
            chosen = _engine(engine, size, threads, accelerator, address, cpus_per_run, gpus_per_run, retries)
            with closing(chosen):
                benchmark.sweep.claim_sweep(out, sweep, names_between_commas(datasets))
                overview = _perform(jobs, chosen, together, console)
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


def _check_engine_options(engine: str, **options: dict[str, object]) -> None:
    for owner, values in options.items():
        for name, value in values.items():
            if owner != engine and value is not None:
                raise ValueError(f"{name}: belongs to --engine {owner}, and the engine is {engine}")


def _share_out(workers: int | None, accelerator: str) -> tuple[int, int]:
    """Number of workers, and of threads for each."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    size = workers or len(cli.visible_gpus(accelerator)) or cores
    return size, max(1, cores // size)


def _engine(
    name: Literal["local", "ray"],
    workers: int,
    threads: int,
    accelerator: str,
    address: str | None,
    cpus_per_run: int | None,
    gpus_per_run: float | None,
    retries: int,
) -> "Engine":
    if name == "local":
        return benchmark.engines.LocalEngine(workers, threads, retries, cli.visible_gpus(accelerator))
    return benchmark.engines.RayEngine(address, cpus_per_run or 1, gpus_per_run or 0.0, retries)


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
