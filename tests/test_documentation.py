"""What README and docs show: every block of Python runs, every command parses, and what can run here does.

Blocks of a page share their names, as a reader would try them one after the other. A block below the comment
``<!-- not run: why -->`` is only compiled, and its imports are tried.
"""

import ast
import doctest
import glob
import re
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import polars
import pytest
import torch
import typer
from torch import nn
from torch.nn import functional

import hessalign as ha
from hessalign.algorithms import algorithm_names
from hessalign.algorithms.registry import registered_name as registered_algorithm
from hessalign.cli.main import app
from hessalign.datasets import dataset_names, make_dataset
from hessalign.datasets.registry import registered_name as registered_dataset
from hessalign.experiments.colored_mnist import METHODS
from hessalign.training import Machine, train
from tests.cli.command import hessalign
from tests.cli.small_images import draw_images
from tests.datasets.images import write_folder
from tests.diagnostics.synthetic import shifted_domains
from tests.estimator.samples import coloured
from tests.training.tiny_domains import TinyDomains, tiny_spec

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
}
BLOCK = re.compile(
    r"(?P<note><!-- not run: .+ -->\n+)?^```python\n(?!--8<--)(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)

Names = dict[str, object]


class Block(NamedTuple):
    line: int
    code: str
    is_run: bool


def blocks(text: str) -> list[Block]:
    return [
        Block(text.count("\n", 0, match.start("code")) + 1, match["code"], match["note"] is None)
        for match in BLOCK.finditer(text)
    ]


# What a page takes as given: the reader's data, network and files, made small in the current folder.


def own_loop() -> Names:
    torch.manual_seed(0)
    images, targets = torch.randn(2, 12, 1, 4, 4), torch.randint(0, 3, (2, 12))
    domains = torch.arange(12).remainder(3).expand(2, 12)
    head = nn.Linear(16, 3)
    samples = coloured([0.9, 0.8], samples=60)
    return {
        "loader": list(zip(images, targets, domains, strict=True)),
        "backbone": nn.Flatten(),
        "head": head,
        "X": samples.X,
        "y": samples.y,
        "hospital": samples.domains,
        "X_new": samples.X[:5],
        "y_new": samples.y[:5],
    }


def a_head_to_be() -> Names:
    torch.manual_seed(0)
    return {
        "F": functional,
        "backbone": nn.Flatten(),
        "head": nn.Linear(16, 3),
        "W": torch.randn(3, 16),
        "T": 2.0,
        "scale": 10.0,
        "penalty": ha.HessianAlignment("hgp", 1.0, 1.0, bias=False),
        "x": torch.randn(12, 1, 4, 4),
        "y": torch.randint(0, 3, (12,)),
        "domains": torch.arange(12).remainder(3),
    }


def copies_of_datasets() -> Names:
    write_folder(
        Path("data/PACS"), {name: {"dog": 5} for name in ("art_painting", "cartoon", "photo", "sketch")}
    )
    draw_images(Path("my_images"))
    Path("my_images.csv").write_text("path,label,domain\nmy_images/dim/red/0.png,red,dim\n")
    row = {"path": "my_images/dim/red/0.png", "label": "red", "domain": "dim"}
    polars.DataFrame([row]).write_parquet("my_images.parquet")
    return {}


def three_domains() -> Names:
    features, logits, targets, domains = shifted_domains("feature mean", 0, samples=400)
    domains[::3] = 2
    samples = coloured([0.9, 0.8], samples=300)
    own = {"X": samples.X, "y": samples.y, "hospital": samples.domains}
    return {"features": features, "logits": logits, "targets": targets, "domains": domains, **own}


def embeddings() -> Names:
    ids = torch.arange(30).remainder(3)
    return {"features": torch.randn(30, 4), "labels": torch.arange(30) // 10, "hospital_ids": ids}


def a_trained_run() -> Names:
    train(tiny_spec(steps=1), TinyDomains(), Path("runs/hgp"), Machine("cpu"))
    return {"images": TinyDomains().domains[0].plain.images}


def a_run_to_track() -> Names:
    return {"spec": tiny_spec(steps=1), "dataset": TinyDomains()}


def a_run_to_share() -> Names:
    samples = coloured([0.9, 0.8, 0.7], samples=90)
    digits = make_dataset("colored_mnist")
    spec = tiny_spec(dataset="colored_mnist", steps=1, evaluation_samples=2)
    train(spec, digits, Path("runs/hgp"), Machine("cpu"))
    images = torch.stack([digits.domains[2].plain[index][0] for index in range(2)])
    own = {"X": samples.X, "y": samples.y, "sample_domain": samples.domains}
    return {"run": Path("runs/hgp"), "images": images, **own}


GIVEN: dict[str, Callable[[], Names]] = {
    "README.md": own_loop,
    "docs/datasets.md": copies_of_datasets,
    "docs/diagnostics.md": three_domains,
    "docs/estimator.md": own_loop,
    "docs/features.md": embeddings,
    "docs/heads-and-losses.md": a_head_to_be,
    "docs/share-and-serve.md": a_run_to_share,
    "docs/trackers.md": a_run_to_track,
    "docs/training.md": a_trained_run,
}


# Notebooks run with tests/test_gallery.py.
RUN_HERE = [page for page, text in PAGES.items() if blocks(text) and not page.startswith("docs/gallery/")]


@pytest.mark.parametrize("page", RUN_HERE)
def test_every_block_of_python_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: Names = {"__name__": "page", "ha": ha, **GIVEN.get(page, dict)()}
    for block in blocks(PAGES[page]):
        if ">>>" in block.code:
            run_as_session(block, names, page)
            continue
        module = ast.parse("\n" * (block.line - 1) + block.code, page)
        if not block.is_run:
            compile(module, page, "exec")
            module.body = [part for part in module.body if isinstance(part, ast.Import | ast.ImportFrom)]
        exec(compile(module, page, "exec"), names)


def run_as_session(block: Block, names: Names, page: str) -> None:
    """A block that shows what is typed and what is answered."""
    test = doctest.DocTestParser().get_doctest(block.code, names, page, page, block.line - 1)
    said: list[str] = []
    result = doctest.DocTestRunner().run(test, out=said.append, clear_globs=False)
    assert result.attempted > 0
    assert result.failed == 0, "".join(said)
    names.update(test.globs)


# Commands


def commands(text: str) -> list[str]:
    """Lines and spans of code that begin with ``hessalign``, without what a shell does with their output."""
    joined = text.replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?(hessalign .*)$", joined, re.MULTILINE)
    spans = re.findall(r"`(hessalign [^`\n]+)`", joined)
    return [re.split(r"\s[>|]|\s&&\s", line)[0] for line in (*lines, *spans)]


def words_of(line: str) -> list[str]:
    return shlex.split(line, comments=True)[1:]


def helps(command: Any = None, name: str = "hessalign") -> dict[str, str]:
    """The help of every command and group, by the words that call it."""
    command = typer.main.get_command(app) if command is None else command
    found = {f"{name} --help": command.help}
    for word, inner in getattr(command, "commands", {}).items():
        found |= helps(inner, f"{name} {word}")
    return found


COMMANDS = [(page, line) for page, text in (PAGES | helps()).items() for line in commands(text)]


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_every_command_parses(page: str, line: str) -> None:
    given = [word for word in words_of(line) if word not in {"...", "…"}]
    parameters = parse(given)
    for name, known in KNOWN.items():
        value = parameters.get(name)
        for each in value.split(",") if isinstance(value, str) else ():
            named = registered_algorithm(each) if name.startswith("algorithm") else registered_dataset(each)
            assert {each, named} & {*known} or Path(each).suffix or "/" in each, f"{name}: {each}"


MADE_UP = "made/up"
KNOWN = {
    "algorithm": algorithm_names(),
    "algorithms": [*algorithm_names(), "all"],
    "dataset": dataset_names(),
    "datasets": dataset_names(),
    "methods": [*METHODS, "table", "all"],
}


def parse(given: list[str]) -> dict[str, object]:
    """The parameters of a command, which is found and not run; what is left out in the line is made up."""
    command, context = typer.main.get_command(app), None
    while hasattr(command, "get_command") and given and not given[0].startswith("-"):
        context = command.context_class(command, info_name=command.name, parent=context)
        found = command.get_command(context, given[0])
        assert found is not None, f"there is no command {given[0]}"
        command, given = found, given[1:]
    while True:
        try:
            return command.make_context(command.name, [*given], parent=context).params
        except typer.Exit:  # of --help and --version
            return {}
        except typer.BadParameter as error:
            if type(error).__name__ != "MissingParameter":
                raise
            missing = error.param
            assert missing is not None
            is_option = missing.param_type_name == "option"
            given = [*given, missing.opts[0], MADE_UP] if is_option else [*given, MADE_UP]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("hessalign trian", "there is no command trian"),
        ("hessalign cmnist --fats", "No such option"),
        ("hessalign cmnist --split half", "'half' is not one of"),
        ("hessalign cmnist --restarts 0", "must be a whole number of at least 1"),
    ],
)
def test_a_command_that_is_wrong_does_not_parse(line: str, problem: str) -> None:
    with pytest.raises(Exception, match=problem):
        parse(words_of(line))


SHORTER = {
    "cmnist": ["--fast", "--steps", "4", "--subsample", "100", "--restarts", "1", "--device", "cpu"],
    "train": ["--steps", "2", "--evaluate-samples", "20", "--device", "cpu"],
    "inspect": ["--per-domain", "20", "--replicates", "20"],
}
"""What makes a command of the docs short, said after what the docs say."""


DIGITS = {"colored_mnist", "rotated_mnist"}


def needs_only_what_ships(words: list[str]) -> bool:
    if "--track" in words and not all(map(find_spec, words[words.index("--track") + 1].split(","))):
        return False
    if "--help" in words or words[:2] == ["datasets", "list"] or words[0] == "cmnist":
        return True
    if words[0] == "train":
        return "--dataset" in words and words[words.index("--dataset") + 1] in DIGITS
    sources = [word for word in words if word.startswith("runs/")]
    return words[0] == "inspect" and sources != [] and all(Path(source).exists() for source in sources)


@pytest.mark.slow
def test_commands_that_need_only_what_ships_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran, done = [], set()
    for page, line in COMMANDS:
        if line in done:  # it stands on two pages
            continue
        words = [found for word in words_of(line.replace("$R", "runs/records")) for found in expanded(word)]
        if "..." in words or not needs_only_what_ships(words):
            continue
        shorter = [] if "--help" in words else SHORTER.get(words[0], [])
        if "--anneal-step" in words:
            shorter = [*shorter, "--anneal-step", "2"]
        result = hessalign(*words, *shorter)
        assert result.returncode == 0, f"{page}: {line}\n{result.stderr}"
        ran.append(words[0])
        done.add(line)
    assert {"cmnist", "datasets", "inspect", "train"} <= set(ran)
    assert len(ran) > 15


def expanded(word: str) -> list[str]:
    """As a shell does with a pattern."""
    return sorted(glob.glob(word)) or [word]
