"""docs/frozen-features.md: its tables are what its command writes from the records; its arithmetic."""

import numpy as np
import polars as pl
import pytest
from docs.write_frozen_features import (
    PAGE,
    RESULTS,
    Estimate,
    estimates,
    holm,
    page,
    patients,
    read_record,
    save_sample,
    spec,
    write_record,
)
from scipy.stats import ttest_1samp

from hessalign.algorithms import algorithm_names
from hessalign.benchmark.protocol import RunConfig, SweepSpec
from hessalign.datasets import find_data
from hessalign.datasets.features_file import feature_rows, save_features
from hessalign.runs import read_records
from hessalign.training import Machine, train

RECORDS = sorted(path.stem for path in RESULTS.glob("*.json") if not path.stem.startswith("heads-"))


def test_the_page_is_what_the_records_say() -> None:
    assert page() == PAGE.read_text(encoding="utf-8")


def test_holm_corrects_the_smallest_most() -> None:
    """The example of Holm's rule: 4 x 0.005, 3 x 0.01, then never below what came before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]


def test_an_estimate_is_students() -> None:
    values = [1.0, 2.5, -0.5, 3.0]
    expected = ttest_1samp(values, 0)
    found = Estimate.of(values)
    low, high = expected.confidence_interval(0.95)
    assert found.p == pytest.approx(expected.pvalue)
    assert (found.mean - found.margin, found.mean + found.margin) == pytest.approx((low, high))
    assert Estimate.of([0.0, 0.0]).p == 1
    assert Estimate.of([1.0]).p == 1


def test_estimates_count_domains() -> None:
    frame = pl.DataFrame({"name": ["a"] * 3 + ["b"] * 3, "difference": [1.0, 1.1, 0.9, -1.0, 1.0, 0.0]})
    (sure, p), (unsure, other) = estimates(frame).values()
    assert (sure.domains, unsure.domains) == (3, 3)
    assert p < 0.05 < other


@pytest.mark.parametrize("name", RECORDS)
def test_every_choice_can_be_run_again(name: str) -> None:
    """Each has a whole configuration; a trial has one choice of each algorithm and target."""
    about, choices = read_record(name)
    assert set(choices["algorithm"]) <= set(algorithm_names())
    for row in choices.head(3).iter_rows(named=True):
        run = spec(name, row["rule"], row["algorithm"], row["target"], row["trial"])
        assert about["domains"][run.target_domains[0]] == row["target"]
    counts = choices.group_by("rule", "algorithm", "target").len()["len"]
    assert counts.unique().to_list() == [5]


def test_a_record_holds_the_whole_configuration_of_what_was_chosen(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("docs.write_frozen_features.RESULTS", tmp_path)
    y, site = np.arange(60) % 2, np.arange(60) // 20
    X = (np.random.default_rng(0).normal(size=(60, 3)) + y[:, None]).astype("float32")
    save_features(tmp_path / "sites.safetensors", X, y, site)
    dataset = find_data(str(tmp_path / "sites.safetensors")).open(0)
    config = RunConfig(steps=4, evaluate_every=4, fixed={"batch_size": 4})
    sweep = SweepSpec(algorithms=("hgp",), trials=1, hparams=2, targets="singles", config=config)
    planned = {run.identity(): run for run in sweep.plan(dataset)}
    for name, run in planned.items():
        train(run, dataset, tmp_path / "sweep" / name, Machine("cpu"), keep_checkpoint=False)
    write_record("sites", tmp_path / "sweep")
    chosen = spec("sites", "oracle", "hgp", "1", 0)
    assert planned[chosen.identity()] == chosen
    _, choices = read_record("sites")
    (row,) = choices.filter(pl.col("rule") == "oracle", pl.col("target") == "1").iter_rows(named=True)
    last = read_records(tmp_path / "sweep" / chosen.identity())[-1]
    assert row["test"] == last["accuracies"]["1"]["in"]


def test_samples_are_standardised_and_as_many_of_each_domain(tmp_path) -> None:
    random = np.random.default_rng(0)
    save_features(
        tmp_path / "all.safetensors",
        (3 + 2 * random.normal(size=(50, 2))).astype("float32"),
        ["x", "y"] * 25,
        [0] * 20 + [1] * 30,
    )
    save_sample(tmp_path / "all.safetensors", 10, tmp_path / "some.safetensors")
    rows = feature_rows(tmp_path / "some.safetensors")
    assert np.unique(rows.sample_domain, return_counts=True)[1].tolist() == [10, 10]
    np.testing.assert_allclose(rows.X.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(rows.X.std(0), 1, atol=1e-6)


def test_a_patients_features_hold_nothing_of_other_patients(tmp_path) -> None:
    """A hospital of one patient has the same features beside any others."""
    one = "63,1,4,140,?,1,2,150,0,2.5,3,0,6,2"
    for name in ("cleveland", "hungarian", "switzerland", "va"):
        (tmp_path / f"{name}.data").write_text(f"{one}\n37,0,3,130,250,0,1,180,1,0,2,1,3,0\n")
    before, labels, hospitals = patients(tmp_path)
    (tmp_path / "va.data").write_text(f"{one}\n77,0,3,200,600,0,1,80,1,4,2,3,3,0\n")
    after, _, _ = patients(tmp_path)
    np.testing.assert_array_equal(before[0], after[0])
    assert labels[:2] == ["disease", "healthy"]
    assert hospitals[0] == "cleveland"
    assert before[0][:6].tolist() == pytest.approx([0.8, 0, 0.5, 0, 0, 1])
