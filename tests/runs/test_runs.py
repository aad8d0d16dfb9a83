"""What a run leaves: locks, drafts, seals, runs that diverged, and folders from before all that."""

import hashlib
import json
import math
import resource
import signal
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from rich.console import Console

from hessalign import files
from hessalign.algorithms import algorithm_names, get_algorithm
from hessalign.algorithms.hparams import LARGEST
from hessalign.benchmark.job import Job, last_failure, perform
from hessalign.benchmark.readers import read_sweep
from hessalign.benchmark.report import make_report
from hessalign.benchmark.selection import RULES
from hessalign.cli.colored_mnist_runs import run_missing, say_what_diverged
from hessalign.cli.sweep_overview import Overview
from hessalign.datasets.features_file import FeaturesFile, save_features
from hessalign.datasets.registry import find_data
from hessalign.diagnostics.curves import draw_training_curves, read_history
from hessalign.exceptions import DivergedError
from hessalign.experiments.colored_mnist import RecordStore, RestartSpec, save_model
from hessalign.experiments.colored_mnist.network import ColoredMLP
from hessalign.runs import HeldError, append_record, finish, hold, layout, read_records
from hessalign.training import (
    FeaturesSpec,
    Machine,
    Progress,
    RunSpec,
    extract_features,
    latest_checkpoint,
    load_trained,
    train,
    train_together,
)
from hessalign.training.evaluation import what_diverged
from tests.benchmark.run_folders import write_own_run
from tests.training.tiny_domains import TinyDomains, tiny_spec
from tests.training.tiny_features import feature_spec, tiny_features

pytestmark = pytest.mark.filterwarnings("ignore:.* never sets in:hessalign.exceptions.NoEffectWarning")

CPU = Machine("cpu")
HUGE = {"lr": 1e37}


@pytest.fixture
def dataset(tmp_path: Path) -> FeaturesFile:
    return tiny_features(tmp_path / "f.safetensors", samples=20)


def diverging(**changes) -> RunSpec:
    return feature_spec("irm", HUGE, steps=6, evaluate_every=2, **changes)


class StopError(Exception):
    pass


def stop_at(step: int):
    def stop(progress: Progress) -> None:
        if progress.step == step:
            raise StopError

    return stop


# --- runs that diverge -----------------------------------------------------------------------------------


def test_a_run_that_diverges_ends_in_a_sentence_and_says_so_ever_after(
    dataset: FeaturesFile, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    for _ in range(2):
        with pytest.raises(DivergedError, match=r"the run in .*run diverged: .* at step 2; choose a smaller"):
            train(diverging(), dataset, run, CPU)
    assert (run / "done").exists()
    text = (run / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    first, last = read_records(run)
    assert "diverged" not in first
    assert last["diverged"].startswith("the loss was ")
    assert last["loss"] is None
    assert {value for parts in last["accuracies"].values() for value in parts.values()} == {None}
    with pytest.raises(
        DivergedError, match=r"diverged: the loss was .* at step 2; .*step-000001 is what it was"
    ):
        load_trained(run)
    load_trained(run / "checkpoints" / "step-000001")
    history = read_history(run)
    assert history is not None
    assert history.title == "irm on features_file, diverged at step 2"
    draw_training_curves(history)


def test_predictions_that_are_not_finite_are_divergence(tmp_path: Path) -> None:
    """The loss of a step is taken before its update, so that of the last one may be finite."""
    path = tmp_path / "f.safetensors"
    domains = torch.arange(4).repeat_interleave(20)
    save_features(path, torch.full((80, 6), 1e3), torch.arange(80) % 3, domains, domain_names=list("abcd"))
    dataset, spec = FeaturesFile(path), feature_spec("erm", {"lr": 1e35}, steps=1)
    with pytest.raises(DivergedError, match="a prediction was not finite at step 0"):
        train(spec, dataset, tmp_path / "alone", CPU)
    (record,) = train_together([spec], dataset, [tmp_path / "together"], CPU)
    assert record["diverged"] == "a prediction was not finite"
    assert math.isfinite(record["loss"])
    weights = {"w": torch.tensor([1.0, math.inf]), "steps": torch.tensor(1)}
    assert what_diverged({"loss": 1.0}, weights, {}) == "a weight was not finite"
    assert what_diverged({"loss": 1.0, "penalty": math.inf}, {}, {"a": {"in": 0.5, "out": None}}) is None


def test_together_one_that_diverges_harms_no_other(dataset: FeaturesFile, tmp_path: Path) -> None:
    healthy = [feature_spec("irm", seed=seed, steps=6, evaluate_every=2) for seed in (1, 0, 2)]
    bad = feature_spec("irm", HUGE, seed=0, steps=6, evaluate_every=2)
    train_together(healthy, dataset, [tmp_path / f"a{run}" for run in range(3)], CPU)
    mixed = [healthy[0], bad, healthy[2]]
    folders = [tmp_path / f"b{run}" for run in range(3)]
    records = train_together(mixed, dataset, folders, CPU)
    assert ["diverged" in record for record in records] == [False, True, False]
    for run in (0, 2):
        ours, theirs = (read_records(tmp_path / f"{name}{run}") for name in "ab")
        assert [{**one, "step_seconds": 0} for one in ours] == [{**one, "step_seconds": 0} for one in theirs]
    with pytest.raises(DivergedError):
        train(bad, dataset, tmp_path / "alone", CPU)
    alone, together = read_records(tmp_path / "alone"), read_records(folders[1])
    assert [one["step"] for one in alone] == [one["step"] for one in together]
    assert alone[-1]["accuracies"] == together[-1]["accuracies"]
    assert latest_checkpoint(folders[1] / "checkpoints") is None
    assert json.loads((folders[0] / "done").read_text())["trained_together"] == 3


def test_a_sweep_takes_a_run_that_diverged_for_done(dataset: FeaturesFile, tmp_path: Path) -> None:
    source = find_data(str(tmp_path / "f.safetensors"))
    fingerprint = source.open(0).fingerprint
    job = Job(diverging(data=fingerprint), source, tmp_path / "sweep", CPU)
    (outcome,) = perform([job])
    assert outcome.status == "diverged"
    assert outcome.error.endswith("at step 2")
    assert last_failure(job) is None
    assert {path.name for path in job.folder.iterdir()} == {"spec.json", "metrics.jsonl", "done", ".lock"}
    (again,) = perform([job])
    assert again.status == "skipped"

    overview = Overview([job], None)  # type: ignore[arg-type]
    overview.add(again)
    document = overview.document()
    assert document["diverged"] == [{"run": str(job), "folder": str(job.folder)}]
    assert document["rows"][0]["diverged"] == 1
    assert "diverged" in [str(column.header) for column in overview.table().columns]


def diverged_run(out: Path, accuracies: list[float], **fields) -> Path:
    """Measured so often, then diverged; target 0."""
    evaluations = {10 * place: [(one, one), (one, one)] for place, one in enumerate(accuracies)}
    folder = write_own_run(out, evaluations, done=False, **fields)
    none = {"in": None, "out": None}
    append_record(
        folder,
        {
            "step": 10 * len(accuracies),
            "loss": math.nan,
            "accuracies": {"domain 0": none, "domain 1": none},
            "diverged": "the loss was nan",
        },
    )
    finish(folder)
    return folder


def test_selection_takes_what_was_measured_and_else_takes_it_last(tmp_path: Path) -> None:
    write_own_run(tmp_path, {0: [(0.5, 0.5)] * 2, 20: [(0.6, 0.6)] * 2}, hparams_seed=0)
    folder = diverged_run(tmp_path, [0.9], hparams_seed=1)
    records = read_sweep(tmp_path)
    (note,) = records.notes
    assert note.startswith("1 of 2 runs diverged;")
    assert f"erm on toy, target 0, trial 0, draw 1: the loss was nan (runs/{folder.name})" in note
    (chosen,) = records.choices("source-validation").iter_rows(named=True)
    assert (chosen["hparams_seed"], chosen["step"], chosen["test"], chosen["draws"]) == (1, 0, 0.9, 2)
    (chosen,) = records.choices("oracle").iter_rows(named=True)
    assert (chosen["hparams_seed"], chosen["step"], chosen["test"]) == (0, 20, 0.6)


def test_where_all_diverged_there_is_no_figure(tmp_path: Path) -> None:
    diverged_run(tmp_path, [0.9])
    write_own_run(tmp_path, {20: [(0.6, 0.6)] * 2}, algorithm="hgp")
    report = make_report(read_sweep(tmp_path), RULES)
    oracle = next(table for table in report.tables if (table.kind, table.rule) == ("targets", "oracle"))
    assert {row.algorithm: row.cells[0].mean for row in oracle.rows} == {"erm": None, "hgp": 60.0}


def test_a_colored_mnist_restart_that_diverges_is_noted_and_the_others_go_on(tmp_path: Path) -> None:
    def spec(seed: int, rate: float) -> RestartSpec:
        return RestartSpec(
            method="erm", seed=seed, steps=3, anneal_step=1, hidden=4, subsample=100, learning_rate=rate
        )

    specs = [spec(0, 1e30), spec(1, 1e-3)]
    store, console = RecordStore(tmp_path), Console(record=True, width=200)
    for _ in range(2):
        run_missing(specs, store, torch.device("cpu"), console, False, store.has)
    assert console.export_text().count("diverged, the loss of source domain 0 was nan at step") == 1
    assert [store.has(one) for one in specs] == [False, True]
    assert len(store.load_all()) == 1
    (sentence,) = say_what_diverged(specs, store, console)
    assert sentence.startswith("erm, seed 0, diverged: the loss of source domain 0 was nan at step")
    assert [path.name for path in store.folder.glob("*.lock")] == []


# --- hyper-parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["erm", "hgp"])
@pytest.mark.parametrize("value", [1e38, 1e300, 10**400, 1e-50])
@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_numbers_that_32_bits_cannot_hold_are_refused_before_any_work(
    dataset: FeaturesFile, tmp_path: Path, algorithm: str, name: str, value: float
) -> None:
    spec = feature_spec(algorithm)
    spec = spec.model_copy(update={"hparams": {**spec.hparams, name: value}})
    with pytest.raises(ValueError, match=name):
        train(spec, dataset, tmp_path / "run", CPU)
    assert not (tmp_path / "run").exists()


def test_what_is_allowed_overflows_no_optimiser() -> None:
    parameter = torch.ones(2, requires_grad=True)
    optimizer = torch.optim.Adam([parameter], lr=LARGEST, weight_decay=LARGEST)
    parameter.sum().backward()
    optimizer.step()


# --- identity --------------------------------------------------------------------------------------------


def test_what_makes_no_difference_is_no_other_run() -> None:
    spec = feature_spec("hgp", target_domains=(0, 2))
    assert feature_spec("hgp", target_domains=(2, 0)) == spec
    whole = {**spec.hparams, "lr": 1, "batch_size": 8.0, "weight_decay": 0}
    first, second = (RunSpec(**{**spec.model_dump(), "hparams": h}) for h in (whole, {**whole, "lr": 1.0}))
    assert first == second
    assert first.identity() == second.identity()
    assert isinstance(first.hparams["lr"], float)
    assert isinstance(first.hparams["batch_size"], int)


def test_identities_of_runs_on_disk_are_what_they_were() -> None:
    """Those of version 0.1.0; a sweep finds its runs by them."""
    assert tiny_spec().identity() == "2fc0ac67b883"
    assert tiny_spec(target_domains=(0, 1)).identity() == "7256212ce915"
    found = feature_spec("erm", {}).identity()
    assert RunSpec.model_validate_json(feature_spec("erm", {}).model_dump_json()).identity() == found
    every = hashlib.sha256()
    for name in ("coral", "dann", "erm", "group_dro", "irm", "mixup", "mmd", "vrex"):
        fields = {"lr": 0.001, "weight_decay": 0.0, "batch_size": 64}
        every.update(tiny_spec(algorithm=name, hparams=fields).identity().encode())
    assert every.hexdigest()[:16] == "8ee2aad38a7bfa38"
    later = {
        "hgp": "676989e8888e",
        "hutchinson": "2a0818aedad5",
        "exact_diagonal": "f71452b8abc3",
        "exact_hessian": "2570a8bd81e6",
    }
    for name, expected in later.items():  # hyper-parameters that came later do not count at their defaults
        hparams_class = get_algorithm(name).hparams_class
        plain = tiny_spec(algorithm=name, hparams=hparams_class.with_defaults("small").model_dump())
        assert plain.identity() == expected
        other = hparams_class.with_defaults("small", {"unbiased": True}).model_dump()
        assert tiny_spec(algorithm=name, hparams=other).identity() != expected
        assert RunSpec.model_validate_json(plain.model_dump_json()).identity() == expected
    assert {"coral", "dann"} < set(algorithm_names())
    assert get_algorithm("erm").name == "erm"


# --- locks, drafts, leftovers ----------------------------------------------------------------------------


def test_two_cannot_write_one_folder(
    dataset: FeaturesFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "PATIENCE", 0.0)
    spec, run = feature_spec("erm", steps=4), tmp_path / "run"
    with pytest.raises(StopError):
        train(spec, dataset, run, CPU, stop_at(1))
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with FileLock(run / ".lock"):  # as another process has it
        with pytest.raises(HeldError, match=r"run is being written by another process; wait for it"):
            train(spec, dataset, run, CPU)
        with pytest.raises(HeldError):
            train_together([spec, feature_spec("erm", steps=4, seed=1)], dataset, [run, tmp_path / "b"], CPU)
        assert layout.is_held(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert not layout.is_held(run)
    train(spec, dataset, run, CPU)


def test_the_lock_is_the_holders_to_take_again(tmp_path: Path) -> None:
    refused: list[bool] = []

    def elsewhere() -> None:
        refused.append(layout.is_held(tmp_path))

    with hold(tmp_path), hold(tmp_path):
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    elsewhere()
    assert refused == [True, False]


def test_two_extractions_of_one_file_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "PATIENCE", 0.0)
    spec, path = FeaturesSpec(backbone=tiny_spec().backbone), tmp_path / "f.safetensors"
    part = tmp_path / "f.safetensors.part"
    part.mkdir()
    with FileLock(part / ".lock"), pytest.raises(HeldError, match=r"f\.safetensors is being written by"):
        extract_features(TinyDomains(4), spec, path, CPU)
    extract_features(TinyDomains(4), spec, path, CPU)
    assert not part.exists()


def test_what_a_killed_extraction_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, path = FeaturesSpec(backbone=tiny_spec().backbone), tmp_path / "f.safetensors"
    with monkeypatch.context() as killed:

        def kill(_: Path) -> None:
            raise StopError

        killed.setattr("hessalign.training.features.shutil.rmtree", kill)
        with pytest.raises(StopError):
            extract_features(TinyDomains(4), spec, path, CPU)
    assert path.exists()
    assert (tmp_path / "f.safetensors.part").exists()
    about = extract_features(TinyDomains(4), spec, path, CPU, resume=True)
    assert about.dataset == "tiny"
    assert [one.name for one in tmp_path.iterdir()] == ["f.safetensors"]


def test_what_a_killed_run_left_is_removed(dataset: FeaturesFile, tmp_path: Path) -> None:
    spec, run = feature_spec("erm", steps=4), tmp_path / "run"
    record = train(spec, dataset, run, CPU)
    checkpoints = run / "checkpoints"
    for leftover in ("step-000001", ".step-000003.draft"):
        (checkpoints / leftover).mkdir()
        (checkpoints / leftover / "state.json").write_text("{}")
    (run / ".metrics.jsonl.00ff.draft").write_text("{")
    assert train(spec, dataset, run, CPU) == record
    assert sorted(path.name for path in checkpoints.iterdir()) == ["latest", "step-000004"]
    assert {path.name for path in run.iterdir()} == {
        "spec.json",
        "metrics.jsonl",
        "done",
        ".lock",
        "checkpoints",
    }


def test_two_that_replace_a_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    with files.replacing(path) as first, files.replacing(path) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


@contextmanager
def full_disk(size: int = 200) -> Iterator[None]:
    """Files of this process end at so many bytes, with an error like that of a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_an_os_error_for_networks_and_features(tmp_path: Path) -> None:
    spec = RestartSpec(method="erm", seed=0, hidden=4)
    network = ColoredMLP(4, torch.Generator())
    with full_disk(), pytest.raises(OSError, match="too large"):
        save_model(network, spec, tmp_path / "network.safetensors")
    assert list(tmp_path.iterdir()) == []
    features = FeaturesSpec(backbone=tiny_spec().backbone, dtype="float32")
    with full_disk(5000), pytest.raises(OSError, match="too large"):
        extract_features(TinyDomains(4), features, tmp_path / "f.safetensors", CPU)
    assert list(tmp_path.rglob("*.draft")) == []


# --- older folders, other devices ------------------------------------------------------------------------


def without_seals(run: Path) -> None:
    """As version 0.1.0 left a run."""
    for seal in run.rglob("seal.json"):
        seal.unlink()
    (run / ".lock").unlink()
    if (run / "done").exists():
        (run / "done").write_bytes(b"")


def test_older_folders_are_read_and_resumed(dataset: FeaturesFile, tmp_path: Path) -> None:
    spec = feature_spec("irm", steps=6, evaluate_every=2)
    record = train(spec, dataset, tmp_path / "whole", CPU)
    with pytest.raises(StopError):
        train(spec, dataset, tmp_path / "parts", CPU, stop_at(3))
    for run in (tmp_path / "whole", tmp_path / "parts"):
        without_seals(run)
    assert train(spec, dataset, tmp_path / "whole", CPU) == record
    load_trained(tmp_path / "parts")
    resumed = train(spec, dataset, tmp_path / "parts", CPU)
    assert {**resumed, "step_seconds": 0} == {**record, "step_seconds": 0}


@pytest.mark.parametrize("step", [1, 2, 5, 7, 10**30, 0, True, "3", None])
def test_a_step_that_cannot_be_is_refused_in_older_folders_too(
    dataset: FeaturesFile, tmp_path: Path, step: object
) -> None:
    spec, run = feature_spec("irm", steps=6, evaluate_every=2), tmp_path / "run"
    with pytest.raises(StopError):
        train(spec, dataset, run, CPU, stop_at(3))
    without_seals(run)
    state = run / "checkpoints" / "step-000003" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "step": step}))
    with pytest.raises(ValueError, match=r"checkpoint: .*step-000003"):
        train(spec, dataset, run, CPU)


@pytest.mark.parametrize("sealed", [True, False])
def test_a_torn_last_record_is_not_passed_over(dataset: FeaturesFile, tmp_path: Path, sealed: bool) -> None:
    spec, run = feature_spec("irm", steps=6, evaluate_every=2), tmp_path / "run"
    train(spec, dataset, run, CPU)
    (run / "done").unlink()  # killed after the last checkpoint
    if not sealed:
        without_seals(run)
    metrics = run / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:-10])
    words = r"metrics.jsonl is damaged" if sealed else r"metrics.jsonl: lacks the evaluation of step 5"
    with pytest.raises(ValueError, match=words):
        train(spec, dataset, run, CPU)


@pytest.mark.parametrize("text", ["", '{"step": 0, "lo'])
def test_a_finished_run_without_its_records_is_refused(
    dataset: FeaturesFile, tmp_path: Path, text: str
) -> None:
    spec, run = feature_spec("irm", steps=6, evaluate_every=2), tmp_path / "run"
    train(spec, dataset, run, CPU)
    without_seals(run)
    (run / "metrics.jsonl").write_text(text)
    with pytest.raises(
        ValueError, match=r"metrics.jsonl: the run is marked as done, but its last evaluation"
    ):
        train(spec, dataset, run, CPU)


def test_a_checkpoint_of_a_gpu_goes_on_without_one(dataset: FeaturesFile, tmp_path: Path) -> None:
    spec, run = feature_spec("irm", steps=6, evaluate_every=2), tmp_path / "run"
    record = train(spec, dataset, tmp_path / "whole", CPU)
    with pytest.raises(StopError):
        train(spec, dataset, run, CPU, stop_at(3))
    without_seals(run)
    optimizers = run / "checkpoints" / "step-000003" / "optimizers.pt"
    place_on_gpu(optimizers)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="Attempting to deserialize object on a CUDA device"):
            torch.load(optimizers, weights_only=True)
    resumed = train(spec, dataset, run, CPU)
    assert {**resumed, "step_seconds": 0} == {**record, "step_seconds": 0}


def place_on_gpu(path: Path) -> None:
    """What torch.save writes of tensors on the first GPU: their storages name it."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in contents.items():
            on_gpu = content.replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
            assert name != "optimizers/data.pkl" or on_gpu != content
            archive.writestr(name, on_gpu)


# --- names -----------------------------------------------------------------------------------------------

NAMES = ("*", "^a$", "a.b", "", "x|y", "in")


def test_no_name_of_a_domain_is_a_pattern(tmp_path: Path) -> None:
    folder = write_own_run(tmp_path, {0: [(0.1, 0.2)] * len(NAMES)})
    values = {name: {"in": 0.1 * place, "out": 0.5} for place, name in enumerate(NAMES)}
    (folder / "metrics.jsonl").write_text(json.dumps({"step": 20, "accuracies": values}) + "\n")
    records = read_sweep(tmp_path)
    assert records.runs[0].domain_names == NAMES
    assert records.accuracies["inside"].to_list() == [0.1 * place for place in range(len(NAMES))]


@pytest.mark.parametrize(
    "metrics", [["layer_12"], ["layer_0"], ["layer_0", "layer_1", "layer_2"], ["_0", "a_٣"]]
)
def test_a_metric_with_a_number_is_not_a_domains(tmp_path: Path, metrics: list[str]) -> None:
    folder = write_own_run(tmp_path, {}, target_domains=(2,))
    accuracies = {name: {"in": 0.5, "out": None} for name in ("$a$", "_b", "c")}
    for step in range(2):
        append_record(folder, {"step": step, **dict.fromkeys(metrics, 1.0 * step), "accuracies": accuracies})
    history = read_history(folder)
    assert history is not None
    figure = draw_training_curves(history)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [*(name.replace("_", " ") for name in metrics), "accuracy [%], sources held out"]
    figure.canvas.draw()
