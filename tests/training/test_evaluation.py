"""What an evaluation measures: every sample seen once, the numbers those of ``hessalign.metrics``."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hessalign.benchmark import read_sweep
from hessalign.diagnostics.curves import read_history
from hessalign.metrics import HIGHER_IS_BETTER, evaluate
from hessalign.runs.records import MEASURED, OF_SOURCES, parse_record, read_records
from hessalign.training import Machine, load_trained, train, train_together
from hessalign.training.evaluation import Evaluated, Outputs, make_record, outputs
from hessalign.training.trainer import evaluation_splits, training_counts
from tests.training.tiny_domains import TinyDomains
from tests.training.tiny_features import CLASSES, NAMES, feature_spec, tiny_features

CPU = Machine("cpu")


def test_metrics_of_records_are_better_where_those_of_predictions_are() -> None:
    """The table of records stands apart, since reading them is to cost no scikit-learn."""
    for name, larger in MEASURED.items():
        metric = name.removeprefix("worst_group_").removeprefix("mean_group_")
        assert larger is HIGHER_IS_BETTER[metric]


@pytest.mark.parametrize("way", ["alone", "together", "sma"])
def test_records_hold_the_metrics_of_every_domain_and_split(tmp_path: Path, way: str) -> None:
    dataset, run = tiny_features(tmp_path / "f.safetensors"), tmp_path / "run"
    recipe = {"average": "sma", "average_from": 2} if way == "sma" else None
    spec = feature_spec(recipe=recipe, evaluation_samples=20)
    if way == "together":
        (record,) = train_together([spec], dataset, [run], CPU)
    else:
        record = train(spec, dataset, run, CPU)
    records = read_records(run)
    assert record == records[-1]
    assert all(list(one["metrics"]) == [*MEASURED, *OF_SOURCES] for one in records)
    assert all("undefined" not in one for one in records)
    model, _ = load_trained(run)
    _, splits = evaluation_splits(spec, dataset)
    for name, domain, counts in zip(NAMES, splits, training_counts(spec, dataset), strict=True):
        for split, part in domain.items():
            found = outputs(model, part, torch.device("cpu"))
            expected = evaluate(
                found.targets,
                logits=found.logits,
                groups=found.targets,
                classes=range(CLASSES),
                training_counts=None if counts is None else dict(enumerate(counts.tolist())),
            )
            assert record["accuracies"][name][split] == expected.value("accuracy")
            for metric in (*MEASURED, *OF_SOURCES):
                if metric in OF_SOURCES and counts is None:
                    assert name not in record["metrics"][metric]
                    continue
                value = record["metrics"][metric][name][split]
                assert value == pytest.approx(expected.value(metric), rel=0 if way == "alone" else 1e-5)


def test_an_evaluation_sees_every_sample_once() -> None:
    class Counting(nn.Linear):
        seen = 0

        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            self.seen += len(inputs)
            return super().forward(inputs)

    model = Counting(4, 3)
    samples = [(torch.randn(4), index % 3) for index in range(150)]
    found = outputs(model, samples, torch.device("cpu"))
    domain = TinyDomains().domains[0]
    Evaluated().add(domain, "in", range(150), found, None)
    assert model.seen == len(found.targets) == 150


@pytest.mark.parametrize(
    ("dtype", "expected"), [(torch.bfloat16, torch.float32), (torch.float64, torch.float64)]
)
def test_logits_lose_nothing(dtype: torch.dtype, expected: torch.dtype) -> None:
    model = nn.Linear(4, 3, dtype=dtype)
    samples = [(torch.randn(4), index % 3) for index in range(70)]
    found = outputs(model, samples, torch.device("cpu"))
    inputs = torch.stack([sample[0] for sample in samples]).to(dtype)
    whole = torch.cat([model(rows) for rows in inputs.split(64)])
    assert found.logits.dtype == expected
    assert torch.equal(found.logits, whole.to(expected))


def test_what_is_not_defined_is_null_with_a_reason() -> None:
    evaluated = Evaluated()
    one_class = Outputs(torch.randn(3, 2), torch.zeros(3, dtype=torch.long))
    a, b = (dataclasses.replace(TinyDomains().domains[0], name=name) for name in "ab")
    evaluated.add(a, "in", range(3), one_class, np.array([0, 4]))
    evaluated.add(a, "out", (), None, np.array([0, 4]))
    evaluated.add(b, "in", range(3), one_class, None)
    evaluated.add(b, "out", range(3, 6), one_class, None)
    record = make_record(0, {"loss": 1.0}, evaluated, None)
    text = json.dumps(record, allow_nan=False)
    assert parse_record(text.encode(), Path("metrics.jsonl"), 1) == record
    nulls = {
        (name, domain, split)
        for name, domains in record["metrics"].items()
        for domain, splits in domains.items()
        for split, value in splits.items()
        if value is None
    }
    reasons = {
        (name, domain, split): reason
        for name, domains in record["undefined"].items()
        for domain, splits in domains.items()
        for split, reason in splits.items()
    }
    assert nulls == reasons.keys()
    assert reasons["auroc", "b", "in"] == "samples of one class alone"
    assert reasons["auroc", "a", "out"] == reasons["log_loss", "a", "out"] == "no samples"
    assert reasons["training_mean_group_ece", "a", "in"] == "none of these groups was trained on"
    assert len(reasons) == 3 + 3 + len(MEASURED) + len(OF_SOURCES)


def test_records_from_before_there_were_metrics_are_read_by_all(tmp_path: Path) -> None:
    dataset, spec, run = tiny_features(tmp_path / "f.safetensors"), feature_spec(), tmp_path / "runs" / "a"
    record = train(spec, dataset, run, CPU)
    accuracies = read_sweep(tmp_path).accuracies.drop("worst_outside")
    path = run / "metrics.jsonl"
    old = [{k: v for k, v in one.items() if k != "metrics"} for one in read_records(run)]
    path.write_text("".join(json.dumps(one) + "\n" for one in old))
    (run / "done").write_bytes(b"")  # nor were there seals
    for seal in run.rglob("seal.json"):
        seal.unlink()
    assert read_records(run) == old
    found = read_sweep(tmp_path).accuracies
    assert found.drop("worst_outside").equals(accuracies)
    assert found["worst_outside"].is_nan().all()
    history = read_history(run)
    assert history is not None
    assert history.records == old
    load_trained(run)
    assert train(spec, dataset, run, CPU) == {k: v for k, v in record.items() if k != "metrics"}
    longer = train(spec.with_steps(16), dataset, run, CPU)  # goes on with metrics
    assert "metrics" in longer
    assert "metrics" not in read_records(run)[0]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (3, "metrics must be given by name, got 3"),
        ({"ece": 3}, "metrics must be given by name, domain and split, got 3 of 'ece'"),
        ({"ece": {"a": 3}}, "metrics must be given by name, domain and split"),
        ({"ece": {"a": {"in": "x"}}}, "metrics 'ece' of 'a', in, must be a number, got 'x'"),
    ],
)
def test_what_are_no_metrics_is_named(metrics: object, message: str) -> None:
    record = {"step": 0, "accuracies": {"a": {"in": 1.0, "out": 1.0}}, "metrics": metrics}
    with pytest.raises(ValueError, match=message):
        parse_record(json.dumps(record).encode(), Path("metrics.jsonl"), 1)
