"""Work of ``hessalign cmnist``: checking its input, running restarts with progress, the table."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from hessalign import cli
from hessalign.cli.terminal import INTERRUPTED, Console, bad_parameter, progress_bar
from hessalign.experiments import colored_mnist
from hessalign.experiments.colored_mnist import (
    FAST_STEPS,
    PUBLISHED_STEPS,
    SOURCE_IMAGES,
    RestartSpec,
    Setting,
)
from hessalign.grid import NOTHING, Grid, markdown_table
from hessalign.markup import counted
from hessalign.memory import keep_freed_memory
from hessalign.runs import HeldError
from hessalign.trackers import TrackedRun, Tracking

if TYPE_CHECKING:
    import torch

COLUMNS = ("Method", "n", "Train", "Target", "Paper train", "Paper target")
EXPLANATION = "accuracies in percent, mean ± population standard deviation over n restarts"


def parse_device(name: str) -> "torch.device":
    """The device with a name.

    Returns:
        The device.

    Raises:
        typer.BadParameter: If nothing can run there.
    """
    try:
        return cli.usable_device(name)
    except ValueError as error:
        raise bad_parameter(str(error)) from error


def parse_anneal_step(step: int | None, setting: Setting) -> int:
    """The first step with the full weight; the setting's own where none is asked for.

    Returns:
        A step before the last.

    Raises:
        typer.BadParameter: If the restarts end before it.
    """
    if step is not None and step >= setting.steps:
        raise bad_parameter(
            f"anneal_step: must be less than the number of steps, {setting.steps}, got {step}"
        )
    return setting.anneal_step if step is None else step


def parse_subsample(images: int | None) -> int | None:
    """The subsample of a setting; all images are none, for the restarts are the same, and so their identity.

    Returns:
        A number below that of all images; None for all.

    Raises:
        typer.BadParameter: If there are not so many images.
    """
    if images is not None and images > SOURCE_IMAGES:
        raise bad_parameter(f"subsample: must be at most {SOURCE_IMAGES}, all source images, got {images}")
    return None if images == SOURCE_IMAGES else images


def open_store(folder: Path) -> "colored_mnist.RecordStore":
    """The records of a folder.

    Returns:
        The store, which can be written and holds nothing damaged.

    Raises:
        typer.BadParameter: Before hours of work, if it cannot be written or holds something unreadable.
    """
    store = colored_mnist.RecordStore(folder)
    try:
        store.prepare()
        store.check()
    except (OSError, ValueError) as error:
        raise bad_parameter(f"out: {error}") from error
    return store


def run_missing(
    specs: Sequence[RestartSpec],
    store: "colored_mnist.RecordStore",
    device: "torch.device",
    console: Console,
    log_terms: bool,
    done: Callable[[RestartSpec], bool],
    save_models: bool = False,
    run: "Callable[..., colored_mnist.RestartRecord] | None" = None,
    track: Sequence[str] = (),
) -> None:
    """Run the restarts that are not done, saving each as it ends; end the command in a sentence if one fails.

    A restart that diverges is noted and not tried again. One that another process is at is waited for.

    Args:
        specs: What is wanted.
        store: Where records are and go.
        device: Where to run.
        console: For progress and messages.
        log_terms: Whether to measure the terms of the penalties.
        done: Whether a restart need not be run.
        save_models: Whether to keep the trained networks.
        run: Runs one restart; ``run_restart`` by default.
        track: Names of trackers that get the restarts' scalars.

    Raises:
        typer.Exit: If it was interrupted, or a file cannot be written.
    """
    out = store.folder.parent
    missing = [spec for spec in specs if not done(spec) and store.diverged(spec) is None]
    if done_before := len(specs) - len(missing):
        are = "is" if done_before == 1 else "are"
        console.print(f"{done_before} of {counted(len(specs), 'restart')} {are} done already in {out}.")
    if device.type == "cpu":
        keep_freed_memory()
    try:
        while missing:
            run_one = run or colored_mnist.run_restart
            held = _run(missing, store, device, console, log_terms, save_models, done, run_one, track)
            for spec in held:
                store.wait_while_held(spec)
            missing = [spec for spec in held if not done(spec) and store.diverged(spec) is None]
    except KeyboardInterrupt:
        console.print(f"\nInterrupted. Finished restarts are in {out}; run the same command to go on.")
        raise typer.Exit(INTERRUPTED) from None
    except OSError as error:
        console.print(f"Stopped: {error}. Finished restarts are in {out}.", markup=False)
        raise typer.Exit(1) from error


def _run(
    specs: Sequence[RestartSpec],
    store: "colored_mnist.RecordStore",
    device: "torch.device",
    console: Console,
    log_terms: bool,
    save_models: bool,
    done: Callable[[RestartSpec], bool],
    run: "Callable[..., colored_mnist.RestartRecord]",
    track: Sequence[str],
) -> list[RestartSpec]:
    """Run restarts; those that another process is at are handed back."""
    left: list[RestartSpec] = []
    with progress_bar(console, "state") as progress:
        overall = progress.add_task("all steps", total=sum(spec.steps for spec in specs), state="")
        for spec in specs:
            name = f"{colored_mnist.label_of(spec)}, seed {spec.seed}"
            current = progress.add_task(name, total=spec.steps, state="")
            tracking = Tracking(track, _tracked(spec, name, store))

            def report(
                step: int, metrics: "colored_mnist.Metrics", task: object = current, to: Tracking = tracking
            ) -> None:
                if step == metrics.step:
                    to.log(step, _scalars(metrics))
                state = f"train {metrics.source_accuracy:.1f} %, target {metrics.target_accuracy:.1f} %"
                progress.update(task, completed=step + 1, state=state)  # type: ignore[arg-type]
                progress.advance(overall)

            keep = (
                partial(colored_mnist.save_model, spec=spec, path=store.model_path(spec))
                if save_models
                else None
            )
            try:
                with store.held(spec):
                    if done(spec) or store.diverged(spec) is not None:  # by another process, meanwhile
                        continue
                    try:
                        record = run(spec, device, report, log_terms, keep)
                        store.save(record)
                        words = _result(record)
                    except colored_mnist.RestartDivergedError as error:
                        store.save_diverged(error.restart)
                        words = f"diverged, {error.restart.problem} at step {error.restart.step}"
            except HeldError:
                left.append(spec)
                continue
            finally:
                tracking.close()
                progress.remove_task(current)
            progress.console.print(f"{name}: {words}", highlight=False, markup=False)
    return left


def _scalars(metrics: "colored_mnist.Metrics") -> dict[str, float]:
    """By name; a figure of each source domain has its number behind the name."""
    values = metrics.model_dump(exclude={"step", "source_accuracies"})
    return values | {f"source_accuracy_{at}": one for at, one in enumerate(metrics.source_accuracies)}


def _tracked(spec: RestartSpec, name: str, store: "colored_mnist.RecordStore") -> TrackedRun:
    """What trackers are told of a restart; those of all restarts share the folder of the experiment."""
    out = store.folder.parent
    folder = out / "tracked" / store.path(spec).stem
    return TrackedRun(name, f"{spec.identity()}-{spec.seed}", spec.model_dump(mode="json"), folder, out)


def say_what_diverged(
    specs: Sequence[RestartSpec], store: "colored_mnist.RecordStore", console: Console
) -> list[str]:
    """Name the restarts that no table can hold.

    Returns:
        A sentence about each.
    """
    found = [restart for spec in specs if (restart := store.diverged(spec)) is not None]
    for restart in found:
        console.print(f"Not in the table: {restart}.", highlight=False, markup=False)
    return list(map(str, found))


def _result(record: "colored_mnist.RestartRecord") -> str:
    final = record.final
    return (
        f"train {final.source_accuracy:.1f} %, target {final.target_accuracy:.1f} % ({record.seconds:.0f} s)"
    )


def title_of(setting: Setting) -> str:
    """The table that a setting belongs to."""
    table = {
        "balanced": "Colored MNIST (Table 7)",
        "script": "Imbalanced Colored MNIST, split of the published script (Table 8)",
        "text": "Imbalanced Colored MNIST, 95 % / 5 % split of the text (Table 8)",
    }
    return table[setting.split]


def file_name_of(setting: Setting, fast: bool) -> str:
    """Name of table and figure: no two settings share one."""
    words = [setting.split if setting.split == "balanced" else f"imbalanced-{setting.split}"]
    if fast:
        words.append("fast")
    if setting.steps != (FAST_STEPS if fast else PUBLISHED_STEPS):
        words.append(f"{setting.steps}-steps")
    if setting.anneal_step != Setting().with_steps(setting.steps).anneal_step:
        words.append(f"annealed-at-{setting.anneal_step}")
    if setting.subsample is not None:
        words.append(f"{setting.subsample}-images")
    if setting.penalty_weight != Setting().penalty_weight:
        words.append(f"weight-{setting.penalty_weight:.10g}")
    if setting.fresh_optimizer:
        words.append("fresh-optimizer")
    return "-".join(words)


def as_grid(rows: "Sequence[colored_mnist.Row]", title: str, reduction: str | None) -> Grid:
    """A table for the terminal."""
    return Grid(COLUMNS, list(map(_cells, rows)), title, [_caption(reduction)])


def as_markdown(rows: "Sequence[colored_mnist.Row]", title: str, reduction: str | None) -> str:
    """The same as a Markdown document."""
    table = markdown_table(COLUMNS, map(_cells, rows))
    return f"# {title}\n\n{_caption(reduction)}\n\n{table}\n"


def _caption(reduction: str | None) -> str:
    if reduction is None:
        return f"The published setting; {EXPLANATION}."
    return f"Changed setting: {reduction} (the paper's figures are for the published one); {EXPLANATION}."


def _cells(row: "colored_mnist.Row") -> tuple[str, ...]:
    return (
        row.label,
        str(row.restarts),
        _ours(row.source_accuracy, row.source_accuracy_std, row.restarts),
        _ours(row.target_accuracy, row.target_accuracy_std, row.restarts),
        _papers(row.paper_source_accuracy, row.paper_source_accuracy_std),
        _papers(row.paper_target_accuracy, row.paper_target_accuracy_std),
    )


def _ours(mean: float, deviation: float, restarts: int) -> str:
    return f"{mean:.1f}" if restarts == 1 else f"{mean:.1f} ± {deviation:.1f}"


def _papers(mean: float | None, deviation: float | None) -> str:
    return NOTHING if mean is None or deviation is None else f"{mean:.1f} ± {deviation:.1f}"
