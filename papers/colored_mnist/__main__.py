"""``python -m papers.colored_mnist``: sweeps that explain Tables 7 and 8, and the page about them."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hessalign.cli.colored_mnist_runs import (
    open_store,
    parse_device,
    parse_subsample,
    run_missing,
    say_what_diverged,
    title_of,
)
from hessalign.cli.options import MOST_RUNS, Device, Json, Panel, option, whole
from hessalign.cli.terminal import Console
from hessalign.experiments.colored_mnist import (
    FAST_PROBES,
    PUBLISHED_PROBES,
    RecordStore,
    RestartSpec,
    Setting,
    Split,
    describe_reduction,
    group_restarts,
    label_of,
    run_restart,
)
from hessalign.grid import Grid
from papers.colored_mnist.page import write
from papers.colored_mnist.selection import RULES, Candidate, candidate, choose_by_every_rule
from papers.colored_mnist.sized_adam import make_update
from papers.colored_mnist.study import STUDIES, plan_study, reduced_setting

app = typer.Typer(
    name="papers.colored_mnist",
    help="The study of Tables 7 and 8 of the paper's supplement.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


@app.command("study")
def study_command(
    study: Annotated[
        str,
        typer.Argument(
            help="Which sweep: " + "; ".join(f"[b]{name}[/b]: {s.question}" for name, s in STUDIES.items()),
            show_default=False,
        ),
    ],
    *,
    split: Annotated[
        Split,
        option(Panel.DATA, "Source domains: of Table 7, or of Table 8 by the published script or text."),
    ] = "balanced",
    subsample: Annotated[
        int | None,
        option(
            Panel.DATA,
            "Train on the first so many of the shuffled 50,000 source images. Default: all.",
            callback=whole(100),
        ),
    ] = None,
    fast: Annotated[
        bool, option(Panel.TRAINING, "The reduced network of hessalign cmnist --fast.", "--fast")
    ] = False,
    steps: Annotated[
        int,
        option(Panel.TRAINING, "Steps of each restart, the schedule in proportion.", callback=whole(1)),
    ] = Setting().steps,
    probes: Annotated[
        int | None,
        option(
            Panel.TRAINING,
            "Hutchinson probes of the table that is explained. Default: the published 150, for Table 8 "
            f"200; with --fast {FAST_PROBES}.",
            callback=whole(1),
        ),
    ] = None,
    restarts: Annotated[
        int, option(Panel.TRAINING, "Restarts of each configuration.", callback=whole(1, MOST_RUNS))
    ] = 1,
    seed: Annotated[
        int, option(Panel.TRAINING, "Seed of the first restart; the next ones count up.", callback=whole(0))
    ] = 0,
    device: Device = "cpu",
    out: Annotated[
        Path,
        option(Panel.OUTPUT, "Folder of the records; what is there is not run again.", file_okay=False),
    ] = Path("runs/colored_mnist"),
    as_json: Json = False,
) -> None:
    """Sweep one thing on Colored MNIST, and choose among the configurations without the target domain.

    Restarts record the terms of the penalties and the accuracy on held-out source images.

    Each is saved when it is finished: interrupt at any time, or raise --restarts to add seeds.

    [b]Examples[/b]

    python -m papers.colored_mnist study probes --fast --subsample 20000

    python -m papers.colored_mnist study exact --split script --restarts 3 --out runs/study
    """
    console = Console(stderr=True)
    setting = _setting(split, subsample, fast, steps)
    if probes is None:
        probes = FAST_PROBES if fast else PUBLISHED_PROBES[split]
    specs = _plan(study, setting, probes, range(seed, seed + restarts))
    torch_device = parse_device(device)
    store = open_store(out)
    run_missing(
        specs,
        store,
        torch_device,
        console,
        log_terms=True,
        done=lambda spec: _has_terms(store, spec),
        run=partial(run_restart, make_update=make_update),
    )

    diverged = say_what_diverged(specs, store, console)
    groups = group_restarts(store.load(spec) for spec in specs if store.diverged(spec) is None)
    if not groups:
        console.print("Stopped: every restart diverged, so there is nothing to choose from.")
        raise typer.Exit(1)
    candidates = [candidate(group) for group in groups]
    chosen = choose_by_every_rule(groups)
    if as_json:
        document = {**_document(study, setting, candidates, chosen), "diverged": diverged}
        typer.echo(json.dumps(document, ensure_ascii=False, indent=2))
        if diverged:
            raise typer.Exit(1)
        return
    reduction = describe_reduction(setting)
    note = f"Changed setting: {reduction}." if reduction else "The published setting."
    Console().print(_grid(candidates, title_of(setting), f"{STUDIES[study].question} {note}").to_rich())
    Console().print(_choices(chosen).to_rich())
    if diverged:
        raise typer.Exit(1)


def _setting(split: Split, subsample: int | None, fast: bool, steps: int) -> Setting:
    setting = (reduced_setting(split) if fast else Setting(split=split)).with_steps(steps)
    return setting.model_copy(update={"subsample": parse_subsample(subsample)})


def _plan(study: str, setting: Setting, probes: int, seeds: Sequence[int]) -> list[RestartSpec]:
    if study not in STUDIES:
        allowed = f"allowed are {', '.join(STUDIES)}"
        raise typer.BadParameter(f"{study!r} is not known; {allowed}", param_hint="STUDY")
    return plan_study(study, setting, probes, seeds)


def _has_terms(store: RecordStore, spec: RestartSpec) -> bool:
    """A restart that was run without its terms is run again: a study is about them."""
    return store.has(spec) and bool(store.load(spec).terms)


def _document(
    study: str,
    setting: Setting,
    candidates: Sequence[Candidate],
    chosen: dict[str, Candidate],
) -> dict[str, object]:
    return {
        "study": study,
        "question": STUDIES[study].question,
        "title": title_of(setting),
        "reduced": describe_reduction(setting),
        "rows": [
            {
                "configuration": _label(c),
                **c.restarts[0].spec.model_dump(exclude={"seed"}),
                "restarts": len(c.restarts),
                "source_accuracy": c.source_accuracy,
                "held_out_accuracies": c.accuracies,
                "target_accuracy": c.target_accuracy,
                "gradient_distance": c.gradient_distance,
                "off_diagonal": c.off_diagonal,
            }
            for c in candidates
        ],
        "selection": [
            {
                "rule": name,
                "meaning": RULES[name].meaning,
                "sees_target": RULES[name].sees_target,
                "configuration": _label(choice),
                "step": choice.step,
                "held_out_accuracies": choice.accuracies,
                "target_accuracy": choice.target_accuracy,
                "target_accuracy_std": choice.target_deviation,
            }
            for name, choice in chosen.items()
        ],
    }


def _grid(candidates: Sequence[Candidate], title: str, note: str) -> Grid:
    return Grid(
        headers=("Configuration", "n", "Train", "Held-out sources", "Target", "gradient distance", "off(H)"),
        rows=[
            (
                _label(c),
                str(len(c.restarts)),
                f"{c.source_accuracy:.1f}",
                _percentages(c.accuracies),
                f"{c.target_accuracy:.1f}",
                f"{c.gradient_distance:.1e}",
                f"{c.off_diagonal:.1e}",
            )
            for c in candidates
        ],
        title=title,
        notes=[note],
    )


def _choices(chosen: dict[str, Candidate]) -> Grid:
    return Grid(
        headers=("Rule", "Configuration", "Step", "Held-out sources", "Target"),
        rows=[
            (
                f"{name}: {RULES[name].meaning}",
                _label(choice),
                str(choice.step),
                _percentages(choice.accuracies),
                f"{choice.target_accuracy:.1f} ± {choice.target_deviation:.1f}",
            )
            for name, choice in chosen.items()
        ],
        title="Chosen among these",
        notes=["At which step to stop is part of the choice. Only the oracle sees the target domain."],
        align="llrrr",
    )


def _percentages(accuracies: Sequence[float]) -> str:
    return " / ".join(f"{accuracy:.1f}" for accuracy in accuracies)


def _label(choice: Candidate) -> str:
    return label_of(choice.restarts[0].spec)


@app.command("page")
def page_command() -> None:
    """Write docs/colored-mnist.md, its appendix and their figures from the records."""
    write()


if __name__ == "__main__":
    app(prog_name="python -m papers.colored_mnist")
