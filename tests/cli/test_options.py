"""Options: one name, one meaning, one panel; former names go on working; a wrong name is told the nearest."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import typer

from hessalign.checks import did_you_mean
from hessalign.cli.main import app
from hessalign.cli.options import FORMER_NAMES, Panel
from tests.cli.command import hessalign, words
from tests.cli.test_fuzz import commands
from tests.test_documentation import parse
from tests.training.tiny_features import tiny_features

OF_THE_COMMAND = {
    "--format",
    "--backbone",
    "--dataset",
    "--jobs",
    "--json",
    "--out",
    "--plot",
    "--resume",
    "--root",
    "--seed",
    "--steps",
    "--select",
    "--target",
}
"""Each command says of what: an --out is a folder or a file, --steps are those of a run or a restart."""


def options_of(command: str) -> list[Any]:
    """The options of a command that its help shows."""
    found = typer.main.get_command(app)
    for word in command.split():
        found = found.commands[word]
    return [option for option in found.params if option.param_type_name == "option" and not option.hidden]


def test_a_name_means_the_same_in_every_command() -> None:
    panels, texts = defaultdict(set), defaultdict(set)
    for command in commands():
        for option in options_of(command):
            panels[option.opts[0]].add(option.rich_help_panel)
            texts[option.opts[0]].add(option.help)
    for name, found in panels.items():
        # A seed stands with what is drawn from it.
        assert len(found) == 1 or name == "--seed", f"{name} is in the panels {found}"
        assert name in OF_THE_COMMAND or len(texts[name]) == 1, f"{name}: {texts[name]}"
        assert name not in FORMER_NAMES


@pytest.mark.parametrize("command", commands())
def test_panels_come_in_one_order(command: str) -> None:
    panels = list(dict.fromkeys(option.rich_help_panel for option in options_of(command)))
    assert panels == [panel.value for panel in Panel if panel.value in panels]
    shown = re.findall(r"^╭─ (\w+) ─", hessalign(*command.split(), "--help").stdout, re.MULTILINE)
    assert [panel for panel in shown if panel != "Arguments"] == panels


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train --accelerator cpu --workers 2", {"device": "cpu", "loaders": 2}),
        ("train --accelerator=cpu --workers=2", {"device": "cpu", "loaders": 2}),
        ("train --device cuda:1 --loaders 2", {"device": "cuda:1", "loaders": 2}),
        ("features --accelerator gpu --workers 3", {"device": "gpu", "loaders": 3}),
        ("sweep --accelerator cpu --workers 3 --loaders 1", {"device": "cpu", "workers": 3, "loaders": 1}),
        ("inspect x --accelerator cuda", {"device": "cuda"}),
        ("cmnist --log-parts", {"log_terms": True}),
        ("cmnist --log-terms --seed 4", {"log_terms": True, "seed": 4}),
        ("predict run -- --accelerator", {"images": "--accelerator"}),
        ("train --out --workers", {"out": "--workers"}),
    ],
)
def test_former_names_go_on_working(line: str, expected: dict[str, object]) -> None:
    found = parse(line.split())
    for name, value in expected.items():
        if isinstance(value, str):  # some versions of Typer have made paths of it by now
            (given,) = found[name] if name == "images" else (found[name],)
            assert str(given) == value
        else:
            assert found[name] == value


def test_no_help_shows_a_former_name() -> None:
    for command in commands():
        shown = hessalign(*command.split(), "--help").stdout
        assert not [name for name in FORMER_NAMES if re.search(rf"{name}\b(?!-)", shown)], command


def test_the_workers_of_a_sweep_are_jobs_and_it_says_so(tmp_path: Path) -> None:
    """Elsewhere they load images; a script that has them must mean what it meant."""
    tiny_features(tmp_path / "tiny.safetensors")
    run = ("--datasets", tmp_path / "tiny.safetensors", "--algorithms", "erm", "--set", "batch_size=4")
    few = ("--trials", "1", "--hparams", "1", "--targets", "singles", "--steps", "1", "--device", "cpu")
    rest = (*run, *few, "--dry-run", "--json", "--out", tmp_path / "new")
    former, now = hessalign("sweep", "--workers", "3", *rest), hessalign("sweep", "--jobs", "3", *rest)
    assert former.returncode == now.returncode == 0, former.stderr
    assert '"workers": 3' in former.stdout
    assert '"workers": 3' in now.stdout
    sentence = "--workers is taken as --jobs, as it is called now: 3 runs at a time"
    assert sentence in former.stderr
    assert "--workers" not in now.stderr
    both = hessalign("sweep", "--workers", "3", "--jobs", "3", *rest)
    assert both.returncode == 2
    assert "workers: is what --jobs was called; give --jobs alone" in words(both.stderr)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("trian", "No such command 'trian'; allowed are cmnist"),
        ("trian", "datasets; did you mean 'train'?"),
        (
            "datasets verfy",
            "No such command 'verfy'; allowed are list, verify, download; did you mean 'verify'?",
        ),
        ("zzz", "datasets │"),
        ("train --algoritm x", "No such option: '--algoritm'; --help shows all; did you mean '--algorithm'?"),
        ("train --zzz", "No such option: '--zzz'; --help shows all │"),
        ("sweep --dataset x", "did you mean '--datasets'?"),
        ("--versoin", "did you mean '--version'?"),
        (
            "cmnist --imbalanced --split scirpt",
            "'scirpt' is not one of 'script', 'text'; did you mean 'script'?",
        ),
        ("cmnist --imbalanced --split [/x]", "'[/x]' is not one of 'script', 'text' │"),
        ("collect . --format latx", "'json', 'csv'; did you mean 'latex'?"),
        ("features --dtype float23", "'float23' is not one of 'float16', 'float32'; did you mean 'float3"),
        ("cmnist --methods hgpp", "--methods: 'hgpp' is not known; allowed are table, all, erm, irm"),
        ("cmnist --methods hgpp", "did you mean 'hgp'?"),
        ("train --dataset pcas --algorithm erm --target 0 --out new", "did you mean 'pacs'?"),
        ("train --dataset colored_mnist --algorithm imr --target 0 --out new", "did you mean 'irm'?"),
        (
            "train --dataset colored_mnist --algorithm coral --target 0 --out new --set penalty_wieght=1",
            "ean 'pen",
        ),
        (
            "train --dataset rotated_mnist --algorithm erm --target 0 --backbone resnet8 --out new",
            "ean 'resnet18'",
        ),
        ("sweep --datasets colored_mnist --algorithms cora --out new", "did you mean 'coral'?"),
        ("sweep --datasets rotated_mnist --algorithms erm --set btach_size=2 --out new", "ean 'batch_size'?"),
        ("datasets verify ofice_home", "did you mean 'office_home'?"),
    ],
)
def test_what_is_wrong_is_told_with_the_nearest_that_is_allowed(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = hessalign(*line.split())
    assert result.returncode == 2
    assert message in " ".join(result.stderr.split())
    assert result.stderr.count("did you mean") <= 1
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_name() -> None:
    assert did_you_mean("ERM", ["erm", "irm"]) == "; did you mean 'erm'?"
    assert did_you_mean("zzz", ["erm", "irm"]) == ""
    assert did_you_mean(3, ["3"]) == ""


@pytest.mark.parametrize("command", commands())
def test_help_at_80_columns_cuts_nothing(command: str) -> None:
    """Rich ends a word that is too long with an ellipsis, and breaks a list of choices anywhere."""
    shown = hessalign(*command.split(), "--help", COLUMNS="80").stdout
    assert "…" not in shown
    for option in options_of(command):
        assert option.opts[0] in shown
        assert option.metavar is None or option.metavar in shown
    for choices in re.findall(r"<[^>]*\|[^>]*>", hessalign(*command.split(), "--help").stdout):
        assert choices in shown
