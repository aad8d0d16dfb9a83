"""``python -m papers.colored_mnist``: sweeps that explain Tables 7 and 8, and the page about them."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hessalign.cli.colored_mnist_runs import (
    open_store,
    parse_device,
    parse_subsample,
    run_missing,
    say_what_diverged,
    title_of,
)
from hessalign.cli.options import MOST_RUNS, whole
from hessalign.cli.terminal import Console
from hessalign.experiments.colored_mnist import (
    FAST_PROBES,
    PUBLISHED_PROBES,
    RecordStore,
    RestartSpec,
    Setting,
    Split,
    describe_reduction,
    fast_setting,
    group_restarts,
    label_of,
    run_restart,
)
from papers.colored_mnist.page import write
from papers.colored_mnist.selection import RULES, Candidate, candidate, choose_by_every_rule
from papers.colored_mnist.sized_adam import make_update
from papers.colored_mnist.study import STUDIES, plan_study

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
    split: Annotated[
        Split, typer.Option(help="Source domains: of Table 7, or of Table 8 by the published script or text.")
    ] = "balanced",
    subsample: Annotated[
        int | None,
        typer.Option(
            callback=whole(100),
            help="Train on the first so many of the shuffled 50,000 source images. Default: all.",
            show_default=False,
        ),
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="The reduced network of hessalign cmnist --fast.")
    ] = False,
    steps: Annotated[
        int, typer.Option(callback=whole(1), help="Steps of each restart, the schedule in proportion.")
    ] = Setting().steps,
    probes: Annotated[
        int | None,
        typer.Option(
            callback=whole(1),
            help="Hutchinson probes of the table that is explained. Default: the published 150, for Table 8 "
            f"200; with --fast {FAST_PROBES}.",
            show_default=False,
        ),
    ] = None,
    restarts: Annotated[
        int, typer.Option(callback=whole(1, MOST_RUNS), help="Restarts of each configuration.")
    ] = 1,
    seed: Annotated[
        int,
        typer.Option(callback=whole(0), help="Seed of the first restart; the next ones count up."),
    ] = 0,
    device: Annotated[str, typer.Option(help="Where to run: cpu, cuda, cuda:1, mps ...")] = "cpu",
    out: Annotated[
        Path, typer.Option(file_okay=False, help="Folder of the records; what is there is not run again.")
    ] = Path("runs/colored_mnist"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the tables as JSON.")] = False,
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
    caption = f"Changed setting: {reduction}." if reduction else "The published setting."
    Console().print(_table(candidates, title_of(setting), f"{STUDIES[study].question} {caption}"))
    Console().print(_choices(chosen))
    if diverged:
        raise typer.Exit(1)


def _setting(split: Split, subsample: int | None, fast: bool, steps: int) -> Setting:
    setting = (fast_setting(split) if fast else Setting(split=split)).with_steps(steps)
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


def _table(candidates: Sequence[Candidate], title: str, caption: str) -> Table:
    table = Table(title=title, caption=caption)
    table.add_column("Configuration")
    for column in ("n", "Train", "Held-out sources", "Target", "gradient distance", "off(H)"):
        table.add_column(column, justify="right")
    for c in candidates:
        table.add_row(
            _label(c),
            str(len(c.restarts)),
            f"{c.source_accuracy:.1f}",
            _percentages(c.accuracies),
            f"{c.target_accuracy:.1f}",
            f"{c.gradient_distance:.1e}",
            f"{c.off_diagonal:.1e}",
        )
    return table


def _choices(chosen: dict[str, Candidate]) -> Table:
    caption = "At which step to stop is part of the choice. Only the oracle sees the target domain."
    table = Table(title="Chosen among these", caption=caption)
    table.add_column("Rule")
    table.add_column("Configuration")
    for column in ("Step", "Held-out sources", "Target"):
        table.add_column(column, justify="right")
    for name, choice in chosen.items():
        table.add_row(
            f"{name}: {RULES[name].meaning}",
            _label(choice),
            str(choice.step),
            _percentages(choice.accuracies),
            f"{choice.target_accuracy:.1f} ± {choice.target_deviation:.1f}",
        )
    return table


def _percentages(accuracies: Sequence[float]) -> str:
    return " / ".join(f"{accuracy:.1f}" for accuracy in accuracies)


def _label(choice: Candidate) -> str:
    return label_of(choice.restarts[0].spec)


@app.command("page")
def page_command() -> None:
    """Write docs/colored-mnist.md and its figures from the records under results/colored_mnist."""
    write()


if __name__ == "__main__":
    app(prog_name="python -m papers.colored_mnist")
