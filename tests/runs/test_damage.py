"""Damaged folders: whatever reads them gives what was there, or says in one sentence what is wrong where."""

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from hessalign.benchmark.job import Job, last_failure, outcome_of_former, record_failure
from hessalign.benchmark.protocol import RunConfig, SweepSpec
from hessalign.benchmark.readers import read_sweep
from hessalign.benchmark.sweep import claim_sweep
from hessalign.datasets.features_file import FeaturesFile
from hessalign.datasets.registry import find_data
from hessalign.diagnostics.curves import read_history
from hessalign.exceptions import DivergedError
from hessalign.experiments.colored_mnist import (
    RecordStore,
    RestartDivergedError,
    RestartSpec,
    load_model,
    run_restart,
    save_model,
)
from hessalign.runs import CHECKPOINTS, layout, read_records
from hessalign.training import (
    Machine,
    Progress,
    RunSpec,
    load_trained,
    read_predictions,
    train,
    train_together,
)
from tests.training.tiny_features import feature_spec, tiny_features

CPU = Machine("cpu")
MUTATIONS = 540 if os.environ.get("CI") else 60
BATCHES = 12
SWEEP = SweepSpec(algorithms=("erm",), config=RunConfig(steps=6))
VALUES = (None, True, -1, 3, 10**30, 1e300, float("nan"), "x", "", [], [1], {}, {"a": 1})
RESTARTS = [
    RestartSpec(method="erm", seed=seed, steps=3, anneal_step=1, hidden=4, subsample=100, learning_rate=rate)
    for seed, rate in ((0, 1e-3), (1, 1e-3), (2, 1e30))
]


class StopError(Exception):
    pass


@dataclass(frozen=True)
class Base:
    """A folder, and what its readers find in it undamaged."""

    folder: Path
    readers: dict[str, Callable[[Path], object]]
    undamaged: dict[str, object]
    exact: bool = True


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Base]:
    root = tmp_path_factory.mktemp("damage")
    dataset = tiny_features(root / "features.safetensors", samples=20)
    spec = feature_spec("hgp", steps=6, evaluate_every=2)

    def stop(progress: Progress) -> None:
        if progress.step == 3:
            raise StopError

    train(spec, dataset, root / "finished", CPU, save_predictions=True)
    with pytest.raises(StopError):
        train(spec, dataset, root / "interrupted", CPU, stop, save_predictions=True)
    readers = run_readers(dataset)
    resumed = {**readers, "resume": lambda folder: resume(spec, dataset, folder)}
    # As they were before there were seals: damage that changes no structure cannot be seen.
    for name in ("finished", "interrupted"):
        shutil.copytree(root / name, root / f"old-{name}")
        for seal in (root / f"old-{name}").rglob("seal.json"):
            seal.unlink()
    (root / "old-finished" / "done").write_bytes(b"")
    whole = [
        base(root / "finished", resumed),
        base(root / "interrupted", resumed),
        base(root / "old-finished", resumed, exact=False),
        base(root / "old-interrupted", resumed, exact=False),
        sweep_base(root / "sweep", root / "features.safetensors", dataset),
        restarts_base(root / "restarts"),
    ]
    assert whole[1].undamaged["resume"] == whole[0].undamaged["resume"]
    return whole


def base(folder: Path, readers: dict[str, Callable[[Path], object]], exact: bool = True) -> Base:
    copy = folder.with_name(f"{folder.name}-read")
    shutil.copytree(folder, copy)
    return Base(folder, readers, {name: read(copy) for name, read in readers.items()}, exact)


def scalars(records: list[dict]) -> list[dict]:
    return [{name: value for name, value in record.items() if name != "step_seconds"} for record in records]


def run_readers(dataset: FeaturesFile) -> dict[str, Callable[[Path], object]]:
    inputs = dataset.domains[0].plain.table[:, 0]

    def predict(folder: Path) -> object:
        algorithm, about = load_trained(folder)
        return about, algorithm(inputs).flatten().tolist()

    return {
        "records": lambda folder: scalars(read_records(folder)),
        "predictions": lambda folder: read_predictions(folder).rows(),
        "collect": lambda folder: read_sweep(folder, unfinished=True).accuracies.rows(),
        "predict": predict,
        "curves": curves,
    }


def curves(folder: Path) -> list[dict]:
    history = read_history(folder)
    if history is None:
        raise ValueError(f"{folder} holds no run")
    return scalars(history.records)


def resume(spec: RunSpec, dataset: FeaturesFile, folder: Path) -> object:
    train(spec, dataset, folder, CPU)
    return scalars(read_records(folder)), [path.name for path in (folder / CHECKPOINTS).glob("step-*")]


def sweep_base(folder: Path, features: Path, dataset: FeaturesFile) -> Base:
    specs = [
        feature_spec("erm", steps=4, evaluate_every=2, hparams_seed=draw, seed=draw) for draw in range(3)
    ]
    source = find_data(str(features))

    def jobs(out: Path) -> list[Job]:
        return [Job(spec, source, out, CPU) for spec in specs]

    claim_sweep(folder, SWEEP, ["features"])
    record_failure(jobs(folder)[2], "the disk is full")
    folders = [job.folder for job in jobs(folder)[:2]]
    train_together(specs[:2], dataset, folders, CPU, checkpoints=False)
    return base(
        folder,
        {
            "claim": lambda out: claim_sweep(out, SWEEP, ["features"]),
            "collect": collect,
            "former": lambda out: [former(job) for job in jobs(out)[:2]],
            "failure": lambda out: failure(jobs(out)[2]),
        },
    )


def collect(out: Path) -> list[tuple]:
    records = read_sweep(out)
    if records.notes:
        raise ValueError(f"{out}: {' '.join(records.notes)}")
    return records.accuracies.rows()


def failure(job: Job) -> None:
    last_failure(job)  # a note for a person, on which no result depends


def former(job: Job) -> str:
    if not (job.folder / "done").exists():
        raise OSError(f"{job.folder} is not finished")
    outcome = outcome_of_former(job)
    if outcome.status == "failed":
        raise ValueError(outcome.error)
    return outcome.status


def restarts_base(folder: Path) -> Base:
    store = RecordStore(folder)
    for spec in RESTARTS:
        try:
            record = run_restart(
                spec,
                torch.device("cpu"),
                keep=lambda net, spec=spec: save_model(net, spec, store.model_path(spec)),
            )
            store.save(record)
        except RestartDivergedError as error:
            store.save_diverged(error.restart)
    assert store.diverged(RESTARTS[2]) is not None

    def networks(out: Path) -> list[object]:
        found = [load_model(RecordStore(out).model_path(spec)) for spec in RESTARTS[:2]]
        states = {spec.seed: [*net.state_dict().values()] for net, spec in found}
        return {seed: [value.tolist() for value in states[seed]] for seed in sorted(states)}

    def diverged(store: RecordStore) -> object:
        restart = store.diverged(RESTARTS[2])
        if restart is None:
            raise ValueError(f"{store.folder} holds no restart that diverged")
        return restart

    return base(
        folder,
        {
            "check": lambda out: RecordStore(out).check(),
            "load": lambda out: [RecordStore(out).load(spec) for spec in RESTARTS[:2]],
            "diverged": lambda out: diverged(RecordStore(out)),
            "networks": networks,
        },
    )


# --- the damage ------------------------------------------------------------------------------------------


def damage(folder: Path, draw: random.Random) -> str:
    """Do one thing to one file, or to two; tells which."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != layout.LOCK)
    path = draw.choice(files)
    kind = draw.choice(("truncate", "flip", "delete", "value", "value", "swap", "empty", "folder", "line"))
    text = path.read_bytes()
    told = f"{kind} {path.relative_to(folder)}"
    match kind:
        case "truncate":
            path.write_bytes(text[: draw.randrange(max(1, len(text)))])
        case "flip" if text:
            place = draw.randrange(len(text))
            changed = bytes([text[place] ^ (1 << draw.randrange(8))])
            path.write_bytes(text[:place] + changed + text[place + 1 :])
        case "delete":
            path.unlink()
        case "value":
            told += change_value(path, text, draw)
        case "swap":
            other = draw.choice(files)
            told += f" and {other.relative_to(folder)}"
            path.write_bytes(other.read_bytes())
            other.write_bytes(text)
        case "empty":
            path.write_bytes(b"")
        case "folder":
            path.unlink()
            path.mkdir()
        case "line":
            lines = text.splitlines(keepends=True)
            if lines:
                lines.insert(draw.randrange(len(lines)), lines.pop(draw.randrange(len(lines))))
            path.write_bytes(
                b"".join(lines[: draw.randrange(len(lines) + 1)]) if draw.random() < 0.5 else b"".join(lines)
            )
    return told


def change_value(path: Path, text: bytes, draw: random.Random) -> str:
    """Another value somewhere in a JSON file, or in one of its lines."""
    try:
        lines = text.decode().splitlines() if path.suffix == ".jsonl" else [text.decode()]
        place = draw.randrange(len(lines))
        document = json.loads(lines[place])
    except (ValueError, UnicodeDecodeError):
        return ": not JSON"
    value = draw.choice(VALUES)
    where, holder, key = "", [document], 0
    while True:
        inner = holder[key]
        if not isinstance(inner, dict | list) or not inner or draw.random() < 0.2:
            break
        holder = inner
        key = draw.choice(list(inner)) if isinstance(inner, dict) else draw.randrange(len(inner))
        where += f".{key}"
    holder[key] = value
    lines[place] = json.dumps(document if where else value)
    path.write_text("\n".join(lines) + ("\n" if path.suffix == ".jsonl" else ""))
    return f"{where} = {value!r}"


@pytest.mark.parametrize("batch", range(BATCHES))
def test_damage_is_named_or_harmless(bases: list[Base], tmp_path: Path, batch: int) -> None:
    wrong = []
    for number in range(batch, MUTATIONS, BATCHES):
        draw = random.Random(number)
        chosen = bases[number % len(bases)]
        folder = tmp_path / f"{number}"
        shutil.copytree(chosen.folder, folder)
        told = f"{number}: {chosen.folder.name}, {damage(folder, draw)}"
        for name, read in chosen.readers.items():
            problem = what_is_wrong(folder, read, chosen.undamaged[name], chosen.exact)
            if problem is not None:
                wrong.append(f"{told}, {name}: {problem}")
        shutil.rmtree(folder)
    assert not wrong, "\n".join(wrong)


def what_is_wrong(folder: Path, read: Callable[[Path], object], undamaged: object, exact: bool) -> str | None:
    try:
        found = read(folder)
    except (ValueError, OSError, DivergedError) as error:
        text = str(error)
        if "\n" in text or str(folder) not in text:
            return f"{type(error).__name__} is not one sentence that names the file: {text[:300]}"
        return None
    except Exception as error:  # what the test is about
        return f"{type(error).__name__}: {error}"[:300]
    if exact and found != undamaged:
        return f"silently different: {str(found)[:200]} instead of {str(undamaged)[:200]}"
    return None
