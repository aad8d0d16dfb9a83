"""Odd values for every option: a sentence at worst, never a traceback, nothing written elsewhere.

Seeded. A few calls of each command by default, more than five hundred in CI.
"""

import inspect
import os
import random
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, get_args, get_type_hints

import pytest
import typer
from typer.models import ArgumentInfo
from typer.testing import CliRunner

from hessalign.cli.main import app
from papers.colored_mnist.__main__ import app as papers
from papers.colored_mnist.__main__ import study_command
from tests.cli.small_images import draw_images
from tests.training.tiny_features import tiny_features

CALLS = 32 if os.environ.get("CI") == "true" else 4
SECONDS = 60
"""After which a call counts as hanging."""

NUMBERS = ["-1", "0", "1", "2", "0.5", "nan", "-inf", "1e309", "9" * 40, "-" + "9" * 40]
TEXTS = [
    "",
    " ",
    ",",
    "a,b",
    "=",
    "None",
    "true",
    "é",
    "中文",
    "*",
    "^a$",
    "%s",
    "{0}",
    "$x",
    "a" * 300,
    "a" * 5000,
]
SIGNS = ["[/x]", "[bold]b", ":dog:", "\n", "a\nb", "\x1b[31m", "\u202e", "\udcff", ".", "..", "-", "--"]
NAMES = [
    "erm",
    "hgp",
    "all",
    "table",
    "colored_mnist",
    "csv_file",
    "pacs",
    "cpu",
    "meta",
    "hub",
    "package",
    "tpu",
]
BACKBONES = ["identity", "adapter:mlp", "timm:x", "torchvision:x", "mnist_cnn"]
SETTINGS = ["x=1", "lr", "lr=nan", "lr=1e308", "lr=[/x]", "batch_size=0", "batch_size=4"]
PATHS = ["../up", "no/where", "x.png", "x.html", "x.safetensors", "empty.csv", "broken.csv", "folder"]
DATA = ["binary.safetensors", "features.safetensors", "spec.json", "images"]
ODD = [*NUMBERS, *TEXTS, *SIGNS, *NAMES, *BACKBONES, *SETTINGS, *PATHS, *DATA]
NETWORK = ["--backbone", "timm:test_mambaout", "--weights", "none"]
GOOD = {
    "cmnist": ["--fast", "--methods", "erm"],
    "study": ["probes", "--fast"],
    "train": ["--dataset", "features.safetensors", "--algorithm", "erm", "--target", "0", "--out", "new"],
    "features": ["--dataset", "photos", *NETWORK, "--out", "new.safetensors"],
    "average": ["run", "other", "--dataset", "features.safetensors", "--out", "mean"],
    "predict": ["of_photos", "photos"],
    "export": ["of_photos", "--format", "torchscript", "--out", "new.pt"],
    "inspect": ["run", "--dataset", "features.safetensors"],
    "sweep": ["--datasets", "features.safetensors", "--algorithms", "erm,hgp", "--out", "sweep"],
    "metrics": ["run"],
    "compare": ["features.safetensors", "--heads", "gradient"],
    "collect": ["run"],
    "algorithms": ["irm"],
    "datasets list": [],
    "datasets verify": ["features_file", "--root", "features.safetensors"],
    "datasets download": ["pacs", "--root", "data", "--source", "spec.json"],
}
"""What is allowed, for odd values to be added."""

FIXED = {
    "cmnist": ["--device", "abacus"],
    "study": ["--device", "abacus"],
    "train": ["--steps", "1", "--loaders", "0", "--devices", "1", "--set", "batch_size=4"],
    "features": ["--loaders", "0", "--views", "1"],
    "sweep": ["--dry-run", "--hparams", "1", "--trials", "1", "--steps", "1", "--targets", "singles"],
    "inspect": ["--replicates", "2"],
}
"""What keeps a call short that is allowed otherwise."""

KEPT = {option.strip("-").replace("-", "_") for line in FIXED.values() for option in line} - {"set"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data to stumble over."""
    root = tmp_path_factory.mktemp("fuzz")
    tiny_features(root / "features.safetensors")
    (root / "empty.csv").touch()
    (root / "broken.csv").write_text("path;label;domain\n\n;;;;\n", encoding="utf-8")
    (root / "folder").mkdir()
    (root / "binary.safetensors").write_bytes(random.Random(0).randbytes(300))
    (root / "spec.json").write_text("[]", encoding="utf-8")
    draw_images(root / "photos")
    runs = [("features.safetensors", name, ()) for name in ("run", "other")]
    for data, out, network in (*runs, ("photos", "of_photos", NETWORK)):
        line = ["train", "--dataset", str(root / data), "--algorithm", "erm", "--target", "0", *network]
        line.append("--save-predictions")
        result = CliRunner().invoke(app, [*line, *FIXED["train"], "--out", str(root / out)])
        assert result.exit_code == 0, result.output
    (root / "images" / "domain" / "class").mkdir(parents=True)
    (root / "images" / "domain" / "class" / "x.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def heard(place: Path) -> Iterator[list[str]]:
    """Paths outside the folder that anything has opened to write, made, moved or removed."""
    outside: list[str] = []
    listening = True

    def listen(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in CHANGES or not listening:
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            return
        for path in arguments[: CHANGES[event]]:
            if isinstance(path, str | bytes | Path):
                absolute = os.path.abspath(os.fsdecode(path))
                if not absolute.startswith((str(place), *NO_DISK)) and "__pycache__" not in absolute:
                    outside.append(f"{event}: {absolute}")

    sys.addaudithook(listen)  # for good, so that there is one, which every later test waits for
    yield outside
    listening = False


@pytest.fixture
def written(heard: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those that a call has, from within the folder."""
    monkeypatch.chdir(place)
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    heard.clear()
    return heard


CHANGES = {
    "open": 1,
    "os.link": 2,
    "os.mkdir": 1,
    "os.remove": 1,
    "os.rename": 2,
    "os.rmdir": 1,
    "os.symlink": 2,
}
"""What is done to a file system, and how many of the arguments are paths."""
NO_DISK = ("/dev/", "/proc/", "/sys/")


def commands(group: typer.Typer = app, before: str = "") -> dict[str, Callable[..., None]]:
    """The function of every command by the words that call it."""
    shown = (command for command in group.registered_commands if not command.hidden)
    found = {f"{before}{command.name}": command.callback for command in shown}
    for inner in group.registered_groups:
        found |= commands(inner.typer_instance, f"{before}{inner.name} ")
    return found


def draw(function: Callable[..., None], words: str, choose: random.Random) -> list[str]:
    """A command line: what is allowed with a few odd values, or odd values throughout."""
    mend = choose.random() < 0.6
    new = f"new{choose.randrange(10**9)}"
    line = [*words.split(), *(part.replace("new", new) for part in (GOOD[words] if mend else ()))]
    for name, hint in get_type_hints(function, include_extras=True).items():
        if name == "return" or name in KEPT:
            continue
        kind, parameter = get_args(hint)[:2]
        required = inspect.signature(function).parameters[name].default is inspect.Parameter.empty
        if choose.random() > (0.08 if mend else 0.95 if required else 0.15):
            continue
        parts = [choice for part in (kind, *get_args(kind)) for choice in get_args(part)]
        choices = [choice for choice in parts if isinstance(choice, str)]
        value = choose.choice(choices) if choices and choose.random() < 0.8 else choose.choice(ODD)
        option = next(iter(parameter.param_decls or ()), f"--{name.replace('_', '-')}")
        if kind is bool:
            line.append(option)
        else:
            line += [value] if isinstance(parameter, ArgumentInfo) else [option, value]
    if choose.random() < 0.05:
        line.append(choose.choice(ODD))
    if words == "sweep" and "--algorithms" not in line:
        line += ["--algorithms", "erm"]
    return line + FIXED.get(words, [])


class HangingError(BaseException):
    """No command takes this for an error of its own."""


def hang(_signal: int, _frame: FrameType | None) -> None:
    raise HangingError(f"a call took more than {SECONDS} seconds")


COMMANDS = {**commands(), "study": study_command}
"""Those of the package, and the one of the study of Colored MNIST that has options."""


@pytest.mark.filterwarnings("default::hessalign.exceptions.HessalignWarning")
@pytest.mark.parametrize(("words", "function"), COMMANDS.items(), ids=COMMANDS)
def test_odd_values_end_in_a_sentence(
    words: str, function: Callable[..., None], place: Path, written: list[str]
) -> None:
    choose = random.Random(words)
    runner = CliRunner(env={"COLUMNS": "100", "NO_COLOR": "1"})
    before = signal.signal(signal.SIGALRM, hang)
    try:
        for _ in range(CALLS):
            line = draw(function, words, choose)
            signal.alarm(SECONDS)
            result = runner.invoke(papers if words == "study" else app, line, prog_name="hessalign")
            signal.alarm(0)
            if result.exception is not None and not isinstance(result.exception, SystemExit):
                raise AssertionError(line) from result.exception
            assert result.exit_code in (0, 1, 2, 130), (line, result.output)
            assert "Traceback" not in result.output, (line, result.output)
            assert result.exit_code == 0 or result.stderr.strip() or result.stdout.strip(), line
            asked = tuple(map(os.path.abspath, line))
            assert [each for each in written if not each.partition(": ")[2].startswith(asked)] == [], line
            written.clear()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
