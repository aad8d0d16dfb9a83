"""``hessalign cmnist``: Tables 7 and 8 on real MNIST."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from hessalign.checks import did_you_mean
from hessalign.cli.colored_mnist_runs import (
    as_grid,
    as_markdown,
    file_name_of,
    open_store,
    parse_anneal_step,
    parse_device,
    parse_subsample,
    run_missing,
    say_what_diverged,
    title_of,
)
from hessalign.cli.options import (
    MOST_RUNS,
    Device,
    Json,
    Panel,
    Track,
    names_between_commas,
    number,
    option,
    parse_trackers,
    whole,
)
from hessalign.cli.terminal import Console, bad_parameter, reported
from hessalign.exceptions import NoEffectWarning
from hessalign.experiments import colored_mnist
from hessalign.experiments.colored_mnist import (
    FAST_METHODS,
    FAST_PROBES,
    FAST_STEPS,
    METHODS,
    PUBLISHED_ANNEAL_STEP,
    PUBLISHED_PROBES,
    PUBLISHED_STEPS,
    TABLE_METHODS,
    Setting,
    Split,
    describe_reduction,
    fast_setting,
    plan_restarts,
    published,
)
from hessalign.files import write_atomically


def cmnist(
    *,
    imbalanced: Annotated[
        bool,
        option(Panel.DATA, "Table 8: each source domain holds mostly one class.", "--imbalanced"),
    ] = False,
    split: Annotated[
        Literal["script", "text"] | None,
        option(
            Panel.DATA,
            "With --imbalanced: the split of the published script, which made Table 8, or the 95 % / 5 % of "
            "the text. Default: script.",
        ),
    ] = None,
    subsample: Annotated[
        int | None,
        option(
            Panel.DATA,
            "Train on the first so many of the shuffled 50,000 source images. Default: all.",
            callback=whole(100),
        ),
    ] = None,
    methods: Annotated[
        str | None,
        option(
            Panel.TRAINING,
            f"{', '.join(METHODS)}; several with commas; [b]table[/b], the paper's ten rows; or "
            f"[b]all[/b]. Default: {', '.join(TABLE_METHODS)}; with --fast {', '.join(FAST_METHODS)}.",
        ),
    ] = None,
    fast: Annotated[
        bool,
        option(Panel.TRAINING, "A reduced setting that shows the ranking in about two minutes.", "--fast"),
    ] = False,
    restarts: Annotated[
        int | None,
        option(
            Panel.TRAINING,
            "Restarts of each method. Default: 10; with --fast 1.",
            callback=whole(1, MOST_RUNS),
        ),
    ] = None,
    seed: Annotated[
        int,
        option(Panel.TRAINING, "Seed of the first restart; the next ones count up.", callback=whole(0)),
    ] = 0,
    steps: Annotated[
        int | None,
        option(
            Panel.TRAINING,
            f"Steps of a restart. Default: {PUBLISHED_STEPS}; with --fast {FAST_STEPS}.",
            callback=whole(1),
        ),
    ] = None,
    anneal_step: Annotated[
        int | None,
        option(
            Panel.TRAINING,
            "First step with the penalty's full weight; its weight is 1 before. Default: the published "
            f"{PUBLISHED_ANNEAL_STEP} of {PUBLISHED_STEPS} steps, or as large a part of --steps.",
            callback=whole(0),
        ),
    ] = None,
    probes: Annotated[
        int | None,
        option(
            Panel.TRAINING,
            "Hutchinson probes. Default: the published 150, with --imbalanced 200; with --fast "
            f"{FAST_PROBES}.",
            callback=whole(1),
        ),
    ] = None,
    hutchinson: Annotated[
        Literal["expected", "sampled"],
        option(
            Panel.TRAINING, "Draw the probes as the paper does, or take their expectation in closed form."
        ),
    ] = "expected",
    alpha: Annotated[
        float,
        option(
            Panel.TRAINING,
            "Weight of the Hessian distance beside that of the gradient distance; published: 1.",
            callback=number(0),
        ),
    ] = 1.0,
    gamma: Annotated[
        float | None,
        option(
            Panel.TRAINING,
            "Weight of a flat head in the methods with [b]flat[/b] in their name. Default: 2 / probes, what "
            "the noise of the probes amounts to.",
            callback=number(0),
        ),
    ] = None,
    penalty_weight: Annotated[
        float,
        option(
            Panel.TRAINING,
            "Weight of the penalty once it has set in, by which the whole loss is then divided. Default: the "
            f"published {Setting().penalty_weight:.8g}.",
            callback=number(1),
            show_default=False,
        ),
    ] = Setting().penalty_weight,
    fresh_optimizer: Annotated[
        bool,
        option(
            Panel.TRAINING,
            "Adam forgets its running averages when the full weight sets in; the published script lets it go "
            "on, in small steps.",
            "--fresh-optimizer",
        ),
    ] = False,
    device: Device = "cpu",
    out: Annotated[
        Path,
        option(Panel.OUTPUT, "Folder of the records; what is there is not run again.", file_okay=False),
    ] = Path("runs/colored_mnist"),
    log_terms: Annotated[
        bool,
        option(
            Panel.OUTPUT,
            "Record the terms of the penalties and the accuracy on held-out source images at every tenth "
            "step, of the restarts that are run now; those that are done stay as they are.",
            "--log-terms",
        ),
    ] = False,
    save_models: Annotated[
        bool,
        option(
            Panel.OUTPUT,
            "Keep each trained network beside its record, for hessalign inspect; restarts that have none run "
            "again.",
            "--save-models",
        ),
    ] = False,
    track: Track = None,
    as_json: Json = False,
) -> None:
    """Reproduce the paper's full-batch Colored MNIST experiment (supplement, Tables 7 and 8).

    Two source domains where colour predicts the label better than shape does, and a target domain where it
    misleads. Every finished restart is saved at once: interrupt at any time, run the same command again to
    go on, or raise --restarts to extend the table. MNIST ships with the package.

    [b]Examples[/b]

    hessalign cmnist --fast

    hessalign cmnist --methods erm,hgp,hutchinson,diagonal --restarts 3 --out runs/table7

    hessalign cmnist --imbalanced --split text --methods table --restarts 1
    """
    console = Console(stderr=True)
    if split is not None and not imbalanced:
        raise bad_parameter(f"split: {split!r} has a meaning only with --imbalanced")
    chosen_split: Split = (split or "script") if imbalanced else "balanced"
    setting = fast_setting(chosen_split) if fast else Setting(split=chosen_split)
    if steps is not None:
        setting = setting.with_steps(steps)
    changes = {
        "anneal_step": parse_anneal_step(anneal_step, setting),
        "penalty_weight": penalty_weight,
        "fresh_optimizer": fresh_optimizer,
        "subsample": parse_subsample(subsample),
    }
    setting = setting.model_copy(update=changes)
    names = _parse_methods(methods) if methods is not None else FAST_METHODS if fast else TABLE_METHODS
    count = restarts or (1 if fast else 10)
    _say_what_has_no_effect(names, probes, hutchinson, alpha, gamma)
    if probes is None:
        probes = FAST_PROBES if fast else PUBLISHED_PROBES[chosen_split]
    specs = plan_restarts(setting, names, range(seed, seed + count), probes, hutchinson, alpha, gamma)
    torch_device = parse_device(device)
    with reported(console):
        trackers = parse_trackers(track)
    store = open_store(out)
    done = store.has_model if save_models else store.has
    run_missing(specs, store, torch_device, console, log_terms, done, save_models, track=trackers)

    diverged = say_what_diverged(specs, store, console)
    rows = colored_mnist.summarise(store.load_all(), setting)
    if not rows:
        console.print("Stopped: every restart diverged, so there is no table.")
        raise typer.Exit(1)
    title = title_of(setting)
    # Without --fast another number of probes is a choice, not a reduction; its rows say so by themselves.
    shown = [METHODS[row.method] for row in rows]
    has_probes = any(method.uses_probes or method.uses_gamma for method in shown)
    reduction = describe_reduction(setting, probes if fast and has_probes else None)
    name = file_name_of(setting, fast)
    colored_mnist.figure.save_figure(
        rows, title, reduction and f"Changed setting: {reduction}", out / f"{name}.png"
    )
    notes = "".join(f"\nNot in the table: {one}.\n" for one in diverged)
    write_atomically(out / f"{name}.md", as_markdown(rows, title, reduction) + notes)
    if as_json:
        found = {"title": title, "reduced": reduction, "rows": [row.model_dump() for row in rows]}
        typer.echo(json.dumps({**found, "diverged": diverged}, ensure_ascii=False, indent=2))
    else:
        Console().print(as_grid(rows, title, reduction).to_rich())
    console.print(f"Figure: {out / f'{name}.png'}", markup=False)
    if diverged:
        raise typer.Exit(1)


def _say_what_has_no_effect(
    names: Sequence[str], probes: int | None, hutchinson: str, alpha: float, gamma: float | None
) -> None:
    """Warn of options that matter to none of the methods."""
    methods = [METHODS[name] for name in names]
    # By default the weight of a flat head is what the noise of the probes amounts to.
    by_default = gamma is None and any(method.uses_gamma for method in methods)
    uses_probes = any(method.uses_probes for method in methods)
    for name, is_asked_for, is_read in (
        ("probes", probes is not None, uses_probes or by_default),
        ("hutchinson", hutchinson != "expected", uses_probes),
        ("alpha", alpha != 1, any(method.uses_alpha for method in methods)),
        ("gamma", gamma is not None, any(method.uses_gamma for method in methods)),
    ):
        if is_asked_for and not is_read:
            warnings.warn(
                f"{name}: changes nothing, since none of the methods reads it: {', '.join(names)}",
                NoEffectWarning,
                stacklevel=3,
            )


def _parse_methods(names: str) -> tuple[str, ...]:
    chosen: list[str] = []
    for name in names_between_commas(names):
        if name == "all":
            chosen += METHODS
        elif name == "table":
            chosen += published("balanced")
        elif name in METHODS:
            chosen.append(name)
        else:
            raise _bad_methods(f"{name!r} is not known", name)
    if not chosen:
        raise _bad_methods("none given")
    return tuple(dict.fromkeys(chosen))


def _bad_methods(problem: str, given: str = "") -> typer.BadParameter:
    allowed = ("table", "all", *METHODS)
    meant = did_you_mean(given, allowed)
    return bad_parameter(f"methods: {problem}; allowed are {', '.join(allowed)}{meant}")
