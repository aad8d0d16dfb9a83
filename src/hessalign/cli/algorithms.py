"""``hessalign algorithms``: what there is, and everything about one."""

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.markdown import Markdown
from rich.table import Table

from hessalign import algorithms, backbones, training
from hessalign.cli.options import Json, Panel, option
from hessalign.cli.terminal import Console, reported
from hessalign.grid import NOTHING, Grid

if TYPE_CHECKING:
    from hessalign.algorithms.description import AlgorithmDescription


def algorithms_command(
    name: Annotated[
        str | None, typer.Argument(help="Algorithm to tell all about, in any spelling.", show_default=False)
    ] = None,
    search_space: Annotated[
        Literal["small", "large", "domain_net", "features"],
        option(
            Panel.DATA,
            "Whose defaults and search to show: small (images of 28 pixels), large, domain_net or "
            "features (frozen).",
            metavar="IMAGES",
        ),
    ] = "large",
    as_json: Json = False,
) -> None:
    """Show all algorithms, or one with its formula and its hyper-parameters.

    Names are understood in DomainBed's spelling, too.

    [b]Examples[/b]

    hessalign algorithms

    hessalign algorithms eqrm --search-space small
    """
    with reported(Console(stderr=True)):
        names = algorithms.algorithm_names() if name is None else [algorithms.require_algorithm(name)]
        found = [algorithms.description.describe_algorithm(each) for each in names]
    if as_json:
        documents = [{**asdict(each), "trains_together": _trains_together(each.name)} for each in found]
        typer.echo(json.dumps(documents if name is None else documents[0], ensure_ascii=False, indent=2))
    elif name is None:
        Console().print(_grid(found).to_rich())
    else:
        _print(found[0], search_space)


def _trains_together(name: str) -> bool:
    """Whether runs of an algorithm on frozen features are trained all at once, by default."""
    hparams = algorithms.get_algorithm(name).hparams_class.with_defaults("features").model_dump()
    spec = training.RunSpec(
        dataset="features_file",
        algorithm=name,
        target_domains=(0,),
        backbone=backbones.BackboneSpec(name="identity"),
        hparams=hparams,
        steps=1,
        evaluate_every=1,
    )
    return training.can_train_together(spec) is not None


def _needs(algorithm: "AlgorithmDescription") -> str:
    needs = []
    if algorithm.needs_images:
        needs.append("images")
    if algorithm.needs_domains > 1:
        needs.append("several domains")
    if algorithm.needs_trainable_backbone:
        needs.append("a trainable backbone")
    if algorithm.needs_samples > 1:
        needs.append(f"{algorithm.needs_samples} samples of each domain")
    return ", ".join(needs)


def _grid(found: "list[AlgorithmDescription]") -> Grid:
    return Grid(
        headers=("Algorithm", "Paper", "Year", "Needs", "Together"),
        rows=[
            (
                each.name,
                each.paper.split("\n\n")[0].replace("\n", " ").rstrip("."),
                str(each.year or NOTHING),
                _needs(each) or NOTHING,
                "yes" if _trains_together(each.name) else NOTHING,
            )
            for each in found
        ],
        notes=[
            "together: runs on frozen features are trained all at once",
            "hessalign algorithms NAME tells all about one",
        ],
        align="lllll",
    )


def _print(algorithm: "AlgorithmDescription", search_space: str) -> None:
    console = Console()
    console.print(f"{algorithm.name} (as DomainBed spells names: {algorithm.reference_name})")
    console.print(Markdown(algorithm.paper))
    console.print()
    console.print(Markdown(algorithm.rule))
    console.print()
    facts: dict[str, Any] = {
        "Needs": _needs(algorithm) or "nothing in particular",
        "Runs on frozen features train together": "yes" if _trains_together(algorithm.name) else "no",
    }
    for fact, value in facts.items():
        console.print(f"{fact}: {value}.")
    value_text = algorithms.description.value_text
    table = Table(title=f"Hyper-parameters, search space {search_space}")
    for column in ("Name", "Default", "Search", "Meaning"):
        table.add_column(column, overflow="fold", no_wrap=column == "Name")
    for hparam in algorithm.hparams:
        search = hparam.searches.get(search_space, "not searched")
        table.add_row(
            hparam.name, value_text(hparam.defaults[search_space]), search, Markdown(hparam.meaning)
        )
    console.print(table)
