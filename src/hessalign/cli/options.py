"""The options that commands share, each once, and checks of what was given, before anything heavy is loaded.

A name means the same in every command, and stands in the same panel of its help.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from hessalign import training
from hessalign.checks import require_number, require_whole
from hessalign.datasets import dataset_names
from hessalign.trackers import TRACKERS, check_trackers


class Panel(StrEnum):
    """The panels of a command's help, in their order."""

    DATA = "Data"
    MODEL = "Model"
    TRAINING = "Training"
    ANALYSIS = "Analysis"
    MACHINE = "Machine"
    OUTPUT = "Output"


FORMER_NAMES = {"--accelerator": "--device", "--log-parts": "--log-terms", "--workers": "--loaders"}
"""What options were called before; these names go on working where the option is, and no help shows them."""

OPTION_OF = {
    "accelerator": ("--device",),
    "algorithm": ("--algorithms",),
    "dataset": ("--datasets",),
    "evaluation_samples": ("--evaluate-samples",),
    "holdout_fraction": ("--holdout",),
    "selection": ("--select",),
    "settings": ("--set",),
    "slurm": ("--sbatch",),
    "target": ("--targets",),
    "target_domains": ("--target", "--targets"),
    "workers": ("--loaders",),
}
"""Options of another name than the library's argument has, where a command has them."""

LARGEST_WHOLE = 2**63 - 1
"""Of PyTorch's generators and sizes."""

MOST_PROCESSES = 1024
MOST_RUNS = 100_000
"""Of one kind, in a single command; more is a slip of the hand, and would fill the memory with plans."""

FIGURES = (".png", ".pdf", ".svg")
PAGES = (".html", ".htm")

Number = TypeVar("Number", int, float)


# Checks


def whole(least: int, most: int = LARGEST_WHOLE) -> Callable[[typer.CallbackParam, int | None], int | None]:
    """Callback of an option that takes whole numbers in a range.

    Args:
        least: Smallest allowed value.
        most: Largest allowed value.

    Returns:
        The callback, as ``typer.Option`` takes it.
    """

    def check(parameter: typer.CallbackParam, value: int | None) -> int | None:
        return _checked(parameter, value, require_whole, least, most)

    return check


def number(
    least: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> Callable[[typer.CallbackParam, float | None], float | None]:
    """Callback of an option that takes finite numbers in a range.

    Args:
        least: Smallest allowed value; None for any.
        above: Every allowed value is larger; None for any.
        below: Every allowed value is smaller; None for any.
        most: Largest allowed value; None for any.

    Returns:
        The callback, as ``typer.Option`` takes it.
    """

    def check(parameter: typer.CallbackParam, value: float | None) -> float | None:
        return _checked(parameter, value, require_number, least, most, above=above, below=below)

    return check


def _checked(
    parameter: typer.CallbackParam,
    value: Number | None,
    check: Callable[..., Number],
    least: float | None,
    most: float | None,
    **limits: float | None,
) -> Number | None:
    if value is None:
        return None
    try:
        check(str(parameter.name), value, least=least, **limits)
        # By itself, so that a limit that hardly anybody comes near is told only there.
        return check(str(parameter.name), value, most=most)
    except ValueError as error:
        # Typer names the option itself.
        raise typer.BadParameter(str(error).removeprefix(f"{parameter.name}: ")) from error


def require_there(name: str, path: Path | None) -> None:
    """Refuse a path with nothing at its end; None is allowed.

    Args:
        name: What the argument is called.
        path: Of a file or a folder.

    Raises:
        ValueError: If there is neither.
    """
    if path is not None and not path.exists():
        raise ValueError(f"{name}: there is no file or folder {path}")


def require_figure(name: str, path: Path) -> None:
    """Refuse the path of a figure that could not be written, before any work is done.

    Args:
        name: What the argument is called.
        path: Of the figure.

    Raises:
        ValueError: If its ending is no known format, or there is a folder.
    """
    if path.suffix not in FIGURES:
        raise ValueError(f"{name}: must end in {', '.join(FIGURES)}, got {path}")
    if path.is_dir():
        raise ValueError(f"{name}: {path} is a folder; choose the name of a file")


def require_page(name: str, path: Path | None) -> None:
    """Refuse the path of an HTML page that could not be written or not be opened as one; None is allowed.

    Args:
        name: What the argument is called.
        path: Of the page.

    Raises:
        ValueError: If its ending is that of another format, or there is no folder for it.
    """
    if path is None:
        return
    if path.suffix.lower() not in PAGES:
        raise ValueError(f"{name}: must end in {' or '.join(PAGES)}, got {path}")
    if not path.parent.is_dir():
        raise ValueError(f"{name}: there is no folder {path.parent}")


def parse_settings(settings: Sequence[str], option: str = "set") -> dict[str, str]:
    """Values by name, of options ``--set NAME=VALUE``.

    Args:
        settings: As given.
        option: What the option is called.

    Returns:
        The values, as text.

    Raises:
        ValueError: If one is not of that form, or a name has two values.
    """
    values: dict[str, str] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"{option}: {setting!r} is not of the form NAME=VALUE")
        if values.setdefault(name, value) != value:
            raise ValueError(f"{option}: {name!r} has two values, {values[name]!r} and {value!r}; give one")
    return values


def names_between_commas(text: str) -> tuple[str, ...]:
    """Names between commas, each once."""
    return tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))


def parse_trackers(names: str | None) -> tuple[str, ...]:
    """Trackers of an option ``--track``.

    Returns:
        Their names.

    Raises:
        ValueError: If one is not known or not installed.
    """
    chosen = names_between_commas(names or "")
    check_trackers(chosen)
    return chosen


def recipe_of(**choices: Any) -> "training.Recipe | None":
    """What was chosen beside the algorithm's rule, by the names of a recipe's fields.

    Returns:
        The recipe; None where nothing was said, or nothing but defaults.

    Raises:
        ValueError: If a choice is not allowed.
    """
    return None if all(value is None for value in choices.values()) else training.make_recipe(**choices)


# Options


def option(panel: Panel, text: str, *names: str, **how: Any) -> Any:
    """An option of a command.

    Args:
        panel: Where the help has it.
        text: What the help says of it.
        *names: What it is called; the parameter's name by default.
        **how: As ``typer.Option`` takes it.

    Returns:
        The option, for an annotation.
    """
    return typer.Option(*names, help=text, rich_help_panel=panel.value, **how)


KINDS_OF_DATA = (
    f"{', '.join(dataset_names())}; a folder ROOT/domain/class/*; a CSV file with the columns path, label, "
    "domain; Parquet files with image (or a vector), label, domain"
)

Root = Annotated[Path | None, option(Panel.DATA, "Folder that holds the datasets given by name.")]

Weights = Annotated[
    str | None,
    option(
        Panel.MODEL,
        "Weights of the backbone: none, hub, package, or a file. Default: none for mnist_cnn, identity and "
        "adapters, hub for others.",
    ),
]
Normalization = Annotated[
    str | None,
    option(
        Panel.MODEL, "imagenet (default) or weights: whose mean and deviation photographs are normalised by."
    ),
]
TrainBatchNorm = Annotated[
    bool,
    option(
        Panel.MODEL,
        "Let the running statistics of pretrained BatchNorm move; frozen by default, as in the published "
        "tables.",
        "--train-batch-norm",
    ),
]

Settings = Annotated[
    list[str] | None,
    option(
        Panel.TRAINING,
        "A hyper-parameter, fixed at a value; may be given several times.",
        "--set",
        metavar="NAME=VALUE",
    ),
]
Steps = Annotated[
    int | None, option(Panel.TRAINING, "Updates of a run. Default: the dataset's.", callback=whole(1))
]
EvaluateEvery = Annotated[
    int | None,
    option(
        Panel.TRAINING,
        "Steps between evaluations, and between checkpoints. Default: the dataset's.",
        callback=whole(1),
    ),
]
EvaluateSamples = Annotated[
    int | None,
    option(
        Panel.TRAINING,
        "Evaluate at most so many samples of each split of each domain. Default: all.",
        callback=whole(1),
    ),
]

Average = Annotated[
    str | None,
    option(
        Panel.TRAINING,
        "Evaluate, keep and predict with a mean of the weights over training: sma (all from --average-from "
        "on) or swad (while the source validation loss is low).",
        metavar="KIND",
    ),
]
AverageFrom = Annotated[
    int | None,
    option(Panel.TRAINING, "SMA: updates before the mean begins. Default: 100.", callback=whole(0)),
]
SwadConverge = Annotated[
    int | None,
    option(
        Panel.TRAINING,
        "SWAD: evaluations, the first the lowest, that begin the mean. Default: 3.",
        callback=whole(1),
    ),
]
SwadTolerance = Annotated[
    int | None,
    option(
        Panel.TRAINING, "SWAD: evaluations above the limit that end the mean. Default: 6.", callback=whole(1)
    ),
]
SwadRatio = Annotated[
    float | None,
    option(
        Panel.TRAINING,
        "SWAD: the limit in units of the loss where the mean begins. Default: 1.3.",
        callback=number(1),
    ),
]
SharpnessKind = Annotated[
    str | None,
    option(
        Panel.TRAINING,
        "Take the gradient where the loss is worst nearby: sam, or disam, which heeds the domains' variance.",
        "--sharpness",
        metavar="KIND",
    ),
]
Rho = Annotated[
    float | None,
    option(Panel.TRAINING, "SAM and DISAM: how far away. Default: 0.05.", callback=number(above=0)),
]
DisamWeight = Annotated[
    float | None,
    option(Panel.TRAINING, "DISAM: weight of the variance. Default: 0.1.", callback=number(0)),
]
LinearProbeSteps = Annotated[
    int | None,
    option(
        Panel.TRAINING,
        "Updates of the head alone before all is trained (LP-FT). Default: 0.",
        callback=whole(0),
    ),
]
HeadLrFactor = Annotated[
    float | None,
    option(
        Panel.TRAINING,
        "Learning rate of the head in units of that of the backbone. Default: 1.",
        callback=number(above=0),
    ),
]
StartFrom = Annotated[
    Path | None,
    option(Panel.TRAINING, "Start with the backbone and the head of this trained run."),
]

Device = Annotated[str, option(Panel.MACHINE, "Where to compute: auto, cpu, cuda, cuda:1, mps ...")]
BatchSize = Annotated[
    int, option(Panel.MACHINE, "Samples that go through the network together.", callback=whole(1))
]
Precision = Annotated[str, option(Panel.MACHINE, "32-true, bf16-mixed, 64-true ...")]
Loaders = Annotated[
    int,
    option(
        Panel.MACHINE,
        "Processes of each run that load images; 0 loads them where it computes.",
        callback=whole(0, MOST_PROCESSES),
    ),
]

Html = Annotated[
    Path | None, option(Panel.OUTPUT, "Write a page with tables, plots and explanations.", dir_okay=False)
]
Track = Annotated[
    str | None,
    option(
        Panel.OUTPUT,
        f"Hand scalars to {', '.join(TRACKERS)}; several with commas. They stay on this machine unless their "
        "own environment variables say otherwise.",
        metavar="NAMES",
    ),
]
Resume = Annotated[
    bool,
    option(Panel.OUTPUT, "Go on with what is unfinished at --out, or start if nothing is.", "--resume"),
]
SavePredictions = Annotated[
    bool,
    option(
        Panel.OUTPUT,
        "Keep the logits of every evaluated sample, a Parquet file for each evaluation: some 4 bytes for "
        "each class and sample.",
        "--save-predictions",
    ),
]
Json = Annotated[bool, option(Panel.OUTPUT, "Print the result as JSON.", "--json")]
