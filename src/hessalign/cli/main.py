"""Entry point of the ``hessalign`` command."""

import io
import sys
from typing import Annotated

import typer

from hessalign import __version__
from hessalign.cli import datasets
from hessalign.cli.algorithms import algorithms_command
from hessalign.cli.average import average_command
from hessalign.cli.cmnist import cmnist
from hessalign.cli.collect import collect_command
from hessalign.cli.command import Group, add_command, help_text
from hessalign.cli.compare import compare_command
from hessalign.cli.export import export_command
from hessalign.cli.features import features_command
from hessalign.cli.inspect import inspect_command
from hessalign.cli.metrics import metrics_command
from hessalign.cli.predict import predict_command
from hessalign.cli.sweep import sweep_command
from hessalign.cli.train import train_command


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Domain generalization by aligning the classifier head's gradient and Hessian across domains.

    [b]Examples[/b]

    hessalign cmnist --fast

    hessalign train --dataset colored_mnist --algorithm hgp --target 2 --steps 300 --out runs/hgp

    hessalign inspect runs/hgp
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name need not be text, and a terminal need not know every letter: shown as an escape.
            stream.reconfigure(errors="backslashreplace")


app = typer.Typer(
    name="hessalign",
    cls=Group,
    help=help_text(main.__doc__),
    callback=main,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
add_command(app, "cmnist", cmnist)
add_command(app, "train", train_command)
add_command(app, "features", features_command)
add_command(app, "average", average_command)
add_command(app, "predict", predict_command)
add_command(app, "export", export_command)
add_command(app, "inspect", inspect_command)
add_command(app, "metrics", metrics_command)
add_command(app, "compare", compare_command)
add_command(app, "sweep", sweep_command)
add_command(app, "collect", collect_command)
add_command(app, "algorithms", algorithms_command)
app.add_typer(datasets.app, name="datasets")


@app.command(
    "cmnist-study",
    hidden=True,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
)
def cmnist_study() -> None:
    """Say where the study went."""
    raise typer.BadParameter(
        "the study of Tables 7 and 8 is no part of the package any more: run python -m papers.colored_mnist "
        "study, with the same arguments, in a checkout of hessalign",
        param_hint="cmnist-study",
    )
