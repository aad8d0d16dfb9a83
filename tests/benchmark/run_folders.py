"""Run folders as the two programs write them, with the accuracies that a test asks for."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hessalign.files import write_atomically
from hessalign.training import RunSpec

Evaluations = Mapping[int, Sequence[tuple[float, float]]]
"""By step, ``(in, out)`` accuracy of each domain in index order."""


def write_own_run(
    out: Path,
    evaluations: Evaluations,
    *,
    done: bool = True,
    names: Sequence[str] | None = None,
    metrics: Mapping[int, Mapping[str, Sequence[tuple[float, float]]]] | None = None,
    **fields,
) -> Path:
    """A folder as ``hessalign.training.train`` leaves it, below ``out/runs``."""
    defaults = {
        "dataset": "toy",
        "algorithm": "erm",
        "target_domains": (0,),
        "backbone": {"name": "mnist_cnn"},
        "hparams": {"lr": 0.001},
        "steps": 21,
        "evaluate_every": 10,
    }
    spec = RunSpec.model_validate({**defaults, **fields})
    folder = out / "runs" / spec.identity()
    folder.mkdir(parents=True)
    write_atomically(folder / "spec.json", spec.model_dump_json(indent=1))  # as a run does
    with (folder / "metrics.jsonl").open("w") as file:
        for step, domains in evaluations.items():
            file.write(own_record(step, domains, names, (metrics or {}).get(step)))
    if done:
        (folder / "done").touch()
    return folder


def own_record(
    step: int,
    domains: Sequence[tuple[float, float]],
    names: Sequence[str] | None = None,
    metrics: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> str:
    """A line of ``metrics.jsonl``; without metrics it is one from before there were any."""
    names = names or [f"domain {index}" for index in range(len(domains))]

    def by_domain(pairs: Sequence[tuple[float, float]]) -> dict:
        return {name: {"in": pair[0], "out": pair[1]} for name, pair in zip(names, pairs, strict=True)}

    record = {"step": step, "loss": 0.7, "step_seconds": 0.1, "accuracies": by_domain(domains)}
    if metrics is not None:
        record["metrics"] = {name: by_domain(pairs) for name, pairs in metrics.items()}
    return json.dumps(record) + "\n"


def domainbed_record(step: int, domains: Sequence[tuple[float, float]], **args) -> dict:
    """A record of DomainBed's ``results.jsonl``."""
    defaults = {
        "algorithm": "ERM",
        "checkpoint_freq": None,
        "data_dir": "/data",
        "dataset": "Toy",
        "holdout_fraction": 0.2,
        "hparams": None,
        "hparams_seed": 0,
        "output_dir": "/sweep/0",
        "seed": 1,
        "steps": 21,
        "task": "domain_generalization",
        "test_envs": [0],
        "trial_seed": 0,
        "uda_holdout_fraction": 0,
    }
    accuracies = {}
    for index, (inside, outside) in enumerate(domains):
        accuracies |= {f"env{index}_in_acc": inside, f"env{index}_out_acc": outside}
    record = {
        **accuracies,
        "args": {**defaults, **args},
        "epoch": 0.0,
        "hparams": {"batch_size": 32, "lr": 5e-05, "resnet18": False},
        "loss": 0.7,
        "step": step,
        "step_time": 0.1,
    }
    return dict(sorted(record.items()))


def write_domainbed_records(folder: Path, records: Sequence[dict], *, done: bool = True) -> Path:
    """A folder as DomainBed's trainer leaves it."""
    folder.mkdir(parents=True)
    text = "".join(json.dumps(record, sort_keys=True) + "\n" for record in records)
    (folder / "results.jsonl").write_text(text)
    if done:
        (folder / "done").write_text("done")
    return folder


def write_domainbed_run(folder: Path, evaluations: Evaluations, *, done: bool = True, **args) -> Path:
    """The same from accuracies."""
    records = [domainbed_record(step, domains, **args) for step, domains in evaluations.items()]
    return write_domainbed_records(folder, records, done=done)


def write_result(out: Path, accuracy: float, *, target: int = 0, domains: int = 2, **fields) -> Path:
    """A run with one evaluation: this accuracy on the larger part of its target domain, 0.5 elsewhere."""
    evaluation = [(accuracy if index == target else 0.5, 0.5) for index in range(domains)]
    return write_own_run(out, {20: evaluation}, target_domains=(target,), **fields)
