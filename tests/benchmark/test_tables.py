"""Means, errors and paired differences, against numbers computed by hand."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessalign.benchmark.tables import Cell, describe_accuracies, describe_differences, paired_differences


def test_accuracies_have_domainbeds_standard_error() -> None:
    """0.6, 0.7 and 0.9: mean 73.33, squared deviations 177.78, 11.11 and 277.78."""
    sample = describe_accuracies([0.6, 0.7, 0.9])
    assert sample.mean == pytest.approx(220 / 3)
    assert sample.standard_error == pytest.approx((466.6667 / 3) ** 0.5 / 3**0.5, rel=1e-6)
    assert sample.sample_deviation == pytest.approx((466.6667 / 2) ** 0.5, rel=1e-6)
    assert sample.n == 3


def test_one_accuracy_has_no_sample_deviation() -> None:
    assert describe_accuracies([0.6]) == Cell(mean=60.0, standard_error=0.0, sample_deviation=None, n=1)


def test_differences_have_the_usual_standard_error() -> None:
    sample = describe_differences([0.01, 0.03])
    assert sample.mean == pytest.approx(2)
    assert sample.sample_deviation == pytest.approx(2**0.5)
    assert sample.standard_error == pytest.approx(1)
    assert describe_differences([0.01]).standard_error is None


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9))
def test_the_two_errors_differ_by_the_degrees_of_freedom(values: list[float]) -> None:
    population = describe_accuracies(values).standard_error
    sample = describe_differences(values).standard_error
    n = len(values)
    assert population == pytest.approx(sample * ((n - 1) / n) ** 0.5, abs=1e-9)


def test_pairs_share_dataset_setting_target_and_trial() -> None:
    columns = ("dataset", "setting", "algorithm", "target", "trial_seed", "test")
    rows = [
        ("a", "", "erm", 0, 0, 0.5),
        ("a", "", "erm", 0, 1, 0.25),
        ("a", "", "erm", 1, 0, 0.0),
        ("b", "", "erm", 0, 0, 1.0),
        ("a", "", "hgp", 0, 1, 0.75),
        ("a", "", "hgp", 0, 0, 0.25),
        ("a", "", "hgp", 1, 1, 1.0),  # no partner in trial 1
        ("a", "x", "hgp", 0, 0, 1.0),  # none in this setting
        ("b", "", "irm", 0, 0, 0.5),
    ]
    differences = paired_differences(pl.DataFrame(rows, schema=columns, orient="row"), "erm")
    assert set(differences.select("dataset", "algorithm", "trial_seed", "difference").rows()) == {
        ("a", "hgp", 1, 0.5),
        ("a", "hgp", 0, -0.25),
        ("b", "irm", 0, -0.5),
    }
