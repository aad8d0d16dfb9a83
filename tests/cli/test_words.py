"""What commands say: in one sentence, with names as they are, in lines that fit and can be copied."""

import ast
import csv
import io
import json
import os
import re
import shlex
import warnings
from pathlib import Path

import pytest
import torch
import typer
from PIL import Image
from rich.table import Table

from hessalign import __main__ as entry
from hessalign.benchmark.formats import as_renderable
from hessalign.benchmark.readers import read_sweep
from hessalign.benchmark.report import make_report
from hessalign.cli import main
from hessalign.cli.command import EXAMPLE_WIDTH, help_text
from hessalign.cli.terminal import Console, flags, in_flags
from hessalign.datasets.features_file import save_features
from hessalign.exceptions import NoEffectWarning
from hessalign.files import shown
from tests.benchmark.run_folders import write_own_run
from tests.cli.command import hessalign, words
from tests.cli.small_images import draw_images
from tests.cli.test_fuzz import commands

CLI = Path(main.__file__).parent
NETWORK = ("--backbone", "timm:test_mambaout", "--weights", "none")
MARKUP = ("[/x]", "[bold]b[/bold]", ":dog:", "plain")


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Twelve samples in each of four domains whose names mean something to Rich."""
    path = tmp_path / "[features].safetensors"
    generator = torch.Generator().manual_seed(0)
    domains = torch.arange(48) % 4
    values = torch.randn(48, 3, generator=generator)
    save_features(path, values, torch.arange(48) // 4 % 2, domains, domain_names=MARKUP)
    return path


TRAIN = ("--algorithm", "erm", "--steps", "1", "--set", "batch_size=4", "--device", "cpu")


def test_a_console_takes_text_as_it_is() -> None:
    console = Console(file=io.StringIO(), width=100)
    table = Table("[/a]", title="[/title]", caption="[/caption]")
    table.add_row("[/cell] :dog:")
    console.print(table, "[/b] :cat: 'text' 12")
    text = console.file.getvalue()
    for part in ("[/a]", "[/title]", "[/caption]", "[/cell] :dog:", "[/b] :cat: 'text' 12"):
        assert part in text


def test_every_command_prints_on_that_console() -> None:
    """Rich's own reads markup in every text, and its columns of text do whatever the console says."""
    for path in CLI.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        taken = [
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rich")
            for alias in node.names
        ]
        assert "Console" not in taken, path
        columns = [
            ast.unparse(node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "TextColumn"
        ]
        assert all("markup=False" in call for call in columns), path


def test_names_with_markup_come_through(features: Path, tmp_path: Path) -> None:
    out = tmp_path / "[run]"
    data = ("--dataset", features, "--target", "[/x]")
    trained = hessalign("train", *data, *TRAIN, "--out", out)
    assert trained.returncode == 0, trained.stderr
    assert all(name in trained.stdout for name in MARKUP)
    assert hessalign("datasets", "verify", "features_file", "--root", features).returncode == 0
    inspected = hessalign("inspect", features, "--replicates", "0")
    assert inspected.returncode == 0, inspected.stderr
    assert "[/x] – [bold]b[/bold]" in inspected.stdout
    tables = tmp_path / "[bold]tables.md"
    collected = hessalign("collect", out, "--format", "markdown", "--out", tables)
    assert collected.returncode == 0, collected.stderr
    assert f"Tables: {tables}" in collected.stderr


@pytest.mark.slow  # draws every figure
def test_a_page_is_named_as_it_is(features: Path, tmp_path: Path) -> None:
    page = tmp_path / "[bold]page.html"
    inspected = hessalign("inspect", features, "--html", page, "--replicates", "0")
    assert inspected.returncode == 0, inspected.stderr
    assert f"Written: {page}" in inspected.stderr


def test_a_run_on_features_asks_for_its_file(features: Path, tmp_path: Path) -> None:
    for algorithm in ("erm", "hgp"):
        run = ("train", "--dataset", features, "--target", "plain", *TRAIN, "--algorithm", algorithm)
        assert hessalign(*run, "--out", tmp_path / algorithm).returncode == 0
    pair = ("inspect", tmp_path / "erm", "--against", tmp_path / "hgp", "--replicates", "0")
    refused = hessalign(*pair)
    assert refused.returncode == 2
    assert (
        f"dataset: {tmp_path / 'erm'} was trained on data of your own (features_file), and a run does not "
        "record where that lies; name the file or folder with --dataset" in words(refused.stderr)
    )
    named = hessalign(*pair, "--dataset", features)
    assert named.returncode == 0, named.stderr
    assert "Side by side" in named.stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_names_of_files_need_not_be_text(tmp_path: Path, as_json: bool) -> None:
    images = draw_images(tmp_path / "images")
    odd = Path(os.fsdecode(os.fsencode(images / "dim" / "red") + b"/\xff.png"))
    Image.new("RGB", (8, 8)).save(os.fsencode(odd))
    json_option = ("--json",) if as_json else ()

    run = tmp_path / "run"
    trained = hessalign(
        *("train", "--dataset", images, "--target", "vivid", *TRAIN, *NETWORK, "--out", run),
        *("--evaluate-samples", "2"),
    )
    assert trained.returncode == 0, trained.stderr
    predicted = hessalign("predict", run, odd, *json_option)
    assert predicted.returncode == 0, predicted.stderr
    (path,) = (
        [row["path"] for row in json.loads(predicted.stdout)]
        if as_json
        else [row["path"] for row in csv.DictReader(predicted.stdout.splitlines())]
    )
    assert path == shown(odd)
    odd.write_bytes(b"no image")
    verified = hessalign("datasets", "verify", "image_folder", "--root", images, *json_option)
    assert verified.returncode == 1, verified.stderr
    assert shown(odd) in (json.loads(verified.stdout)["unreadable"][0] if as_json else verified.stdout)


def test_verify_tells_everything_once(tmp_path: Path) -> None:
    for path in draw_images(tmp_path / "images").glob("*/*"):
        (path / "deeper").mkdir()
        for image in path.glob("*.png"):
            image.rename(path / "deeper" / image.name)
        (path / "deeper" / "notes.txt").write_text("")
    verified = hessalign("datasets", "verify", "image_folder", "--root", tmp_path / "images")
    assert verified.returncode == 1, verified.stderr
    everything = words(verified.stdout + verified.stderr)
    assert everything.count("as if the classes lay a level deeper") == 1
    assert everything.count(".txt") == 1


def test_a_dry_run_needs_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the hub, which is not asked; the default of a network from there."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    images = draw_images(tmp_path / "images")
    counted = hessalign(
        *("sweep", "--datasets", images, "--algorithms", "erm", "--backbone", "timm:test_mambaout"),
        *("--set", "batch_size=2", "--hparams", "1", "--trials", "1", "--dry-run", "--json"),
        *("--out", tmp_path / "sweep"),
    )
    assert counted.returncode == 0, counted.stderr
    assert json.loads(counted.stdout)["runs"] == 6


def test_a_features_dataset_is_told_by_its_file_and_a_few_digits(features: Path, tmp_path: Path) -> None:
    shown = hessalign(
        *("sweep", "--datasets", features, "--algorithms", "erm", "--set", "batch_size=4", "--hparams", "1"),
        *("--trials", "1", "--steps", "2", "--dry-run", "--out", tmp_path / "sweep"),
        COLUMNS="80",
    )
    assert shown.returncode == 0, shown.stderr
    assert re.search(rf"{re.escape(features.name)} [0-9a-f]{{12}} ", shown.stdout), shown.stdout
    assert not re.search(r"[0-9a-f]{13}", shown.stdout)


@pytest.mark.parametrize("command", commands())
def test_help_fits_80_columns_and_its_examples_can_be_copied(command: str) -> None:
    """An example parses as the command line that the docstring holds, options all known."""
    result = hessalign(*command.split(), "--help", COLUMNS="80")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    text = "\n".join(line.removeprefix(" ") for line in lines)
    shown = re.findall(r"^hessalign (?:.*\\\n)*.*$", text, re.MULTILINE)
    paragraphs = (commands()[command].__doc__ or "").split("\n\n")
    documented = [" ".join(part.split()) for part in paragraphs if part.strip().startswith("hessalign ")]
    assert shown
    # A shell drops a backslash with the line break that follows it; shlex does not.
    assert [shlex.split(example.replace("\\\n", "")) for example in shown] == list(
        map(shlex.split, documented)
    )
    help_options = set(re.findall(r"--[a-z][a-z-]+", result.stdout))
    for example in shown:
        if example.startswith(f"hessalign {command} "):
            assert set(re.findall(r"--[a-z][a-z-]+", example)) <= help_options


def test_paragraphs_are_left_to_the_terminal() -> None:
    for function in commands().values():
        for line in help_text(function.__doc__).splitlines():
            assert len(line) <= EXAMPLE_WIDTH or not line.startswith(("hessalign", "    "))
        paragraphs = [
            part for part in help_text(function.__doc__).split("\n\n") if not part.startswith("hessalign ")
        ]
        assert not [part for part in paragraphs if "\n" in part]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("cmnist", "--restarts", 10**9), "'--restarts': must be a whole number of at most 100000, got"),
        (
            ("cmnist", "--steps", 10**400),
            "'--steps': must be a whole number of at most 9223372036854775807",
        ),
        (("cmnist", "--device", "meta"), "'meta' cannot be used here"),
        (
            ("inspect", ".", "--radius", "1e200"),
            "'--radius': must be a finite number of at most 1e+100",
        ),
        (("inspect", ".", "--radius", "nan"), "'--radius': must be a finite number above 0, got nan"),
        (
            ("inspect", ".", "--replicates", 10**9),
            "'--replicates': must be a whole number of at most 1000",
        ),
        (("predict", "nowhere", "x.png"), "checkpoint: there is no file or folder nowhere"),
        (("predict", ".", "nowhere"), "images: there is no file or folder nowhere"),
    ],
)
def test_a_value_out_of_range_is_one_sentence(line: tuple[object, ...], message: str) -> None:
    result = hessalign(*line)
    assert result.returncode == 2
    assert message in words(result.stderr)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("cmnist", "--track", "nobody"), "Invalid value for --track: 'nobody' is not known"),
        (("cmnist", "--device", "meta"), "Invalid value for --device: 'meta' cannot be used here"),
        (("cmnist", "--steps", "9", "--anneal-step", "9"), "Invalid value for --anneal-step: must be less"),
        (("cmnist", "--subsample", "60000"), "Invalid value for --subsample: must be at most 50000"),
        (("cmnist", "--methods", "ermm"), "Invalid value for --methods: 'ermm' is not known"),
        (("cmnist", "--split", "text"), "Invalid value for --split: 'text' has a meaning only with"),
        (("datasets", "verify", "pacs", "--root", "no"), "Invalid value for --root: there is no file or"),
        (("datasets", "verify", "pcas"), "Invalid value: dataset: 'pcas' is not known"),
        (("train", "--target", "0", "--out", "o"), "Invalid value for --dataset: is missing"),
        (("average", "a", "b", "--out", "o"), "Invalid value: folders: there is no run in a"),
    ],
)
def test_an_argument_is_named_once_and_as_the_command_has_it(line: tuple[object, ...], message: str) -> None:
    result = hessalign(*line)
    assert result.returncode == 2
    assert message in words(result.stderr)


def test_no_command_names_an_option_by_hand() -> None:
    """What is said of an argument gets its option in one place, which knows whether it has one already."""
    by_hand = [path.name for path in CLI.glob("*.py") if "param_hint=" in path.read_text(encoding="utf-8")]
    assert sorted(by_hand) == ["main.py", "terminal.py"]


def test_names_are_found_in_a_sentence_where_they_stand() -> None:
    before = flags.set({"holdout": "--holdout", "holdout_fraction": "--holdout"})
    try:
        for sentence, shown in [
            ("holdout_fraction: must be less", "--holdout: must be less"),
            ("holdout: holdout_fraction: must be less", "--holdout: must be less"),
            ("holdout, other: must be less", "--holdout, other: must be less"),
            ("the domain 'holdout: x' is empty", "the domain 'holdout: x' is empty"),
            ("other: holdout: must be less", "other: holdout: must be less"),
            ("holdout:12 is no name", "holdout:12 is no name"),
        ]:
            assert in_flags(sentence) == shown
    finally:
        flags.reset(before)


@pytest.mark.parametrize("wrong", [("--precision", "transformer-engine"), ("--device", "tpu")])
def test_what_is_not_installed_is_one_sentence(
    features: Path, tmp_path: Path, wrong: tuple[str, str]
) -> None:
    run = ("train", "--dataset", features, "--target", "plain", *TRAIN)
    result = hessalign(*run, *wrong, "--out", tmp_path / "run")
    assert result.returncode == 2
    assert "is not available here" in words(result.stderr)
    assert not (tmp_path / "run").exists()


def test_the_app_is_typers_own() -> None:
    """Programs that embed the command line, and the script of an older installation, take it from here."""
    assert isinstance(main.app, typer.Typer)


@pytest.mark.parametrize("columns", [80, 60])
def test_tables_are_whole_in_a_narrow_terminal(tmp_path: Path, columns: int) -> None:
    """Whatever is printed at 240 columns is printed at fewer, cells broken where they must be."""
    names = ("art_painting", "cartoon", "photo", "sketch")
    for target in range(4):
        for trial in range(2):
            for algorithm in ("erm", "hutchinson"):
                fields = {"dataset": "pacs", "algorithm": algorithm, "target_domains": (target,)}
                write_own_run(tmp_path, {20: [(0.5, 0.5)] * 4}, names=names, trial_seed=trial, **fields)
    report = make_report(read_sweep(tmp_path), ("source-validation",), "erm")
    shown = {}
    for width in (240, columns):
        console = Console(file=io.StringIO(), width=width)
        console.print(as_renderable(report, statistics=True))
        shown[width] = sorted(re.sub(r"[^\w.+−±=]", "", console.file.getvalue()))
    assert shown[columns] == shown[240]


def test_warnings_are_sentences_each_once(features: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """What is not ours stays as Python shows it; one that a filter makes an error is raised."""
    given = ["train", "--dataset", str(features), *TRAIN, "--algorithm", "hgp", "--target", "1,2,3"]

    def run(out: str) -> str:
        monkeypatch.setattr("sys.argv", ["hessalign", *given, "--out", str(features.parent / out)])
        with pytest.raises(SystemExit) as ended:
            entry.main()
        assert ended.value.code == 0
        warnings.warn("domain\na", NoEffectWarning, stacklevel=1)
        warnings.warn("domain\na", NoEffectWarning, stacklevel=1)
        warnings.warn("someone else's", UserWarning, stacklevel=1)
        return capsys.readouterr().err

    others = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *given: others.append(given[:2])
        lines = run("a").splitlines()
    ours = [line for line in lines if line.startswith("Warning: ")]
    assert [line.split(";")[0][:50] for line in ours] == [
        "Warning: --algorithm: hgp compares source domains, of which"[:50],
        "Warning: domain\\na",
    ]
    assert "NoEffectWarning" not in " ".join(lines)
    assert [(str(text), category) for text, category in others] == [("someone else's", UserWarning)]
    with warnings.catch_warnings():
        warnings.simplefilter("error", NoEffectWarning)
        with pytest.raises(NoEffectWarning, match="hgp compares"):
            run("b")
