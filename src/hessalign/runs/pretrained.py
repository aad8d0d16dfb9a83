"""Trained models as folders to share: weights, ``config.json`` and a model card, as on the Hugging Face Hub.

``huggingface_hub`` has a mixin for this. It does not fit here: it deletes the former ``config.json`` before
the weights are written, and its ``__new__`` leaves an attribute on every estimator, which scikit-learn's
rules forbid. Its cards, its downloads and its cache are used.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from huggingface_hub import ModelCard, ModelCardData, snapshot_download
from pydantic import BaseModel, ConfigDict, ValidationError

from hessalign.files import shown, write_atomically
from hessalign.markup import markdown_line, markdown_text
from hessalign.runs.checkpoints import WEIGHTS
from hessalign.runs.seals import sha256

CONFIG, CARD = "config.json", "README.md"
FILES = (WEIGHTS, CONFIG, CARD)
HEADER = "hessalign"
"""Field of the config: what kind of model the folder holds, and the digest of its weights."""

Kind = Literal["run", "estimator"]
Selection = Literal["none", "source-validation", "leave-one-domain-out", "worst-group", "oracle"]
RULES: dict[Selection, str] = {
    "none": "None: it was not chosen among other runs.",
    "source-validation": "Chosen among others by accuracy on held-out samples of the source domains; the "
    "target domains had no part in it.",
    "leave-one-domain-out": "Chosen among others by accuracy on source domains that were left out in turn; "
    "the target domains had no part in it.",
    "worst-group": "Chosen among others by the smallest accuracy on a class of a source domain, on held-out "
    "samples; the target domains had no part in it.",
    "oracle": "Chosen among others by accuracy on the target domains (oracle): its accuracy there is too "
    "good to be expected of data that nobody has labelled.",
}


class _Header(BaseModel):
    model_config = ConfigDict(extra="ignore")

    kind: Kind
    weights_sha256: str
    version: str = ""


class Card(NamedTuple):
    """What a model card says.

    Attributes:
        title: Of the card.
        task: Of the Hub's tasks: ``"image-classification"`` ...; None where none of them fits.
        tags: For the Hub's search.
        facts: Sentences by heading; no name in them is taken for markup.
        tables: In Markdown, by heading.
        use: Python that loads the model and uses it.
        command: The same from a shell; empty (default) where no command takes the model.
        needs: What the code takes as given, a sentence.
    """

    title: str
    task: str | None
    tags: Sequence[str]
    facts: Mapping[str, str]
    tables: Mapping[str, str]
    use: str
    command: str = ""
    needs: str = ""


class Pretrained(NamedTuple):
    """A folder that was read.

    Attributes:
        folder: Where it lies on this machine.
        config: What its ``config.json`` tells.
    """

    folder: Path
    config: dict[str, Any]


def check_selection(selection: str) -> None:
    """Refuse a rule that is not known.

    Raises:
        ValueError: Naming those that are.
    """
    if selection not in get_args(Selection):
        raise ValueError(
            f"selection: {selection!r} is not known; allowed are {', '.join(get_args(Selection))}"
        )


def check_place(folder: Path) -> None:
    """Refuse a folder that holds something else than a model.

    Raises:
        ValueError: Naming what is there.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder: {shown(folder)} is a file; choose the name of a folder")
    others = sorted(path.name for path in folder.glob("*") if path.name not in FILES)
    if others:
        raise ValueError(
            f"folder: {shown(folder)} holds other things ({', '.join(others[:3])}); choose a folder of its "
            "own"
        )


def write_pretrained(folder: Path, kind: Kind, weights: bytes, config: Mapping[str, Any], card: Card) -> None:
    """Write a model's folder; one that is there is replaced, file by file.

    Args:
        folder: Created where it is missing.
        kind: Of the model.
        weights: A safetensors file.
        config: What is needed to make the model, as JSON.
        card: For people.

    Raises:
        ValueError: If the folder holds something else.
        OSError: If a file cannot be written.
    """
    check_place(folder)
    folder.mkdir(parents=True, exist_ok=True)
    header = _Header(kind=kind, weights_sha256=sha256(weights), version=version("hessalign"))
    document = {HEADER: header.model_dump(), **config}
    # A kill between two of these is seen: the config's digest is not that of the weights.
    write_atomically(folder / WEIGHTS, weights)
    write_atomically(folder / CONFIG, json.dumps(document, indent=1, ensure_ascii=False))
    write_atomically(folder / CARD, _written(card))


def place_in_card(folder: Path) -> str:
    """A model's folder as its card names it, which tells nothing of the machine around it.

    Args:
        folder: As it was given.

    Returns:
        The path from the current folder, where the card's code then runs as it stands; of a folder that lies
        elsewhere the bare name.
    """
    place = folder.resolve()
    here = Path.cwd().resolve()
    return place.relative_to(here).as_posix() if here in place.parents else place.name


def predict_command(place: str, samples: str) -> str:
    """The line of a shell that predicts, for a card."""
    # What is no text for a terminal would not come through a copy of the line.
    folder = shlex.quote(place) if place.isprintable() else "FOLDER"
    return f"hessalign predict {folder} {samples} > predictions.csv"


def is_pretrained(folder: Path) -> bool:
    """Whether a folder holds a shared model."""
    return (folder / CONFIG).is_file()


def pretrained_kind(folder: Path) -> Kind | None:
    """Which kind of model a folder holds; None for no model, or one whose config cannot be read."""
    try:
        return _Header.model_validate(json.loads((folder / CONFIG).read_bytes())[HEADER]).kind
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def read_pretrained(name: str | Path, kind: Kind, revision: str | None = None) -> Pretrained:
    """A model's folder, checked: its weights are those that were written with its config.

    Args:
        name: Of a local folder; or ``OWNER/NAME`` of a model on the Hugging Face Hub, which is downloaded, or
            taken from the Hub's cache (``HF_HUB_OFFLINE=1`` never asks the network).
        kind: Which kind of model is wanted.
        revision: Branch, tag or commit on the Hub; None (default) for its main branch.

    Returns:
        The folder and its config.

    Raises:
        ValueError: If there is no such model, it is of another kind, or it is damaged.
        OSError: If it cannot be fetched or read.
    """
    folder = _fetched(name, revision)
    path = folder / CONFIG
    try:
        config = json.loads(path.read_bytes())
        header = _Header.model_validate(config[HEADER])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, ValidationError) as error:
        raise ValueError(
            f"model: {shown(folder)} holds no model of hessalign ({CONFIG} tells of none)"
        ) from error
    if header.kind != kind:
        raise ValueError(f"model: {shown(folder)} holds {_called(header.kind)}, not {_called(kind)}")
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ValueError(f"model: {shown(weights)} is missing")
    if sha256(weights.read_bytes()) != header.weights_sha256:
        raise ValueError(f"model: {shown(weights)} is damaged (its SHA-256 is not the one in {CONFIG})")
    return Pretrained(folder, config)


def _called(kind: Kind) -> str:
    return "a trained run" if kind == "run" else "an estimator"


def _fetched(name: str | Path, revision: str | None) -> Path:
    folder = Path(name)
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"revision: {shown(folder)} is a local folder, which has none, got {revision!r}")
        return folder
    if isinstance(name, Path) or str(name).count("/") != 1:
        raise ValueError(f"model: there is no folder {shown(folder)}; a model on the Hub is OWNER/NAME")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except Exception as error:  # of many kinds, for a wrong name, a missing network, a private model
        reason = " ".join(str(error).split())[:300]
        raise OSError(
            f"model: there is no folder {name}, and nothing of that name can be fetched from the Hub "
            f"({reason})"
        ) from error


def _written(card: Card) -> str:
    data = ModelCardData(library_name="hessalign", pipeline_tag=card.task, tags=sorted(card.tags))
    blocks = [f"---\n{data.to_yaml()}\n---", f"# {markdown_text(card.title)}"]
    for heading, text in card.facts.items():
        blocks += [f"## {heading}", markdown_line(text)]
    for heading, table in card.tables.items():
        blocks += [f"## {heading}", table]
    blocks += ["## Use", *([card.needs] if card.needs else []), f"```python\n{card.use}\n```"]
    if card.command:
        blocks += ["From a shell:", f"```sh\n{card.command}\n```"]
    return str(ModelCard("\n\n".join(blocks) + "\n"))
