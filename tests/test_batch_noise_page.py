"""docs/batch-noise.md: its tables are what its command writes from the records; its arithmetic is right."""

import re
from dataclasses import astuple, fields
from types import SimpleNamespace

import polars as pl
import pytest
from docs.write_batch_noise import (
    PAGE,
    PENALTIES,
    SIZES,
    TERMS,
    Estimate,
    Run,
    carried,
    collapses,
    dependence,
    over,
    page,
    paired,
    verdict,
)

from hessalign.algorithms import get_algorithm


def frame(*runs: Run) -> pl.DataFrame:
    return pl.DataFrame(
        [astuple(run) for run in runs], schema=[field.name for field in fields(Run)], orient="row"
    )


def test_the_page_is_what_the_records_say() -> None:
    assert page() == PAGE.read_text(encoding="utf-8")


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", PAGE.read_text(encoding="utf-8")):
        assert (PAGE.parent / link).exists(), link


@pytest.mark.parametrize("name", PENALTIES)
def test_the_arms_differ_in_the_noise_alone(name: str) -> None:
    algorithm, weight, options = PENALTIES[name]
    hparams_class = get_algorithm(algorithm).hparams_class
    arms = [
        hparams_class(**{"alpha": 0.0, "beta": 0.0, weight: 0.5, "unbiased": unbiased, **options})
        for unbiased in (False, True)
    ]
    kind = get_algorithm(algorithm)
    method = getattr(kind, "method", None)
    plug_in, unbiased = (kind.alignment(SimpleNamespace(hparams=arm, method=method)) for arm in arms)
    assert (plug_in.unbiased, unbiased.unbiased) == (False, True)
    same = ["method", "alpha", "beta", "probes", "expected", "detach_centre", "reduction"]
    same += ["centre"] * (algorithm == "hgp")
    assert [getattr(plug_in, key) for key in same] == [getattr(unbiased, key) for key in same]
    if name != "gradient":
        assert plug_in.method == TERMS[name].method


def test_an_estimate_is_a_mean_with_its_standard_error() -> None:
    estimate = Estimate.of([1.0, 2.0, 3.0, 6.0])
    assert (estimate.mean, round(estimate.error, 4), estimate.counts) == (3.0, 1.0801, False)
    assert Estimate.of([2.9, 3.0, 3.1]).counts
    assert str(estimate) == "+3.0 ± 1.1"
    assert (str(Estimate.of([-2.0])), Estimate.of([-2.0]).counts) == ("-2.0", False)


def test_a_verdict_names_what_counts_over_trials_and_over_domains() -> None:
    sure, unsure = Estimate.of([2.9, 3.0, 3.1]), Estimate.of([1.0, 5.0])
    low = Estimate.of([-2.9, -3.0, -3.1])
    text = verdict({"a": (sure, unsure), "b": (unsure, sure), "c": (low, low)})
    assert "Of 3 comparisons" in text
    assert "`unbiased` in: a (+3.0 ± 0.1); lower in: c (-3.0 ± 0.1)." in text
    assert text.endswith("by the same rule: c.")
    assert verdict({"a": (sure, Estimate.of([3.0]))}).endswith("lower in: none.")


def test_pairs_leave_out_what_diverged_and_average_over_the_rest_first() -> None:
    runs = [
        Run("hgp", unbiased, 8, share, 1.0, target, trial, 10.0 * unbiased * (trial + 1) + target, 50.0)
        for unbiased in (False, True)
        for share in (1.0, 10.0)
        for target in (0, 1)
        for trial in (0, 1)
    ]
    pairs = paired(frame(Run("erm", False, 8, 0.0, 0.0, 0, 0, 1.0, 1.0), *runs))
    assert pairs.height == 8
    assert over(pairs, "trial") == Estimate(15.0, 5.0, 2)
    assert over(pairs, "target") == Estimate(15.0, 0.0, 2)
    runs[0] = Run("hgp", False, 8, 1.0, 1.0, 0, 0, None, None)
    assert paired(frame(*runs)).height == 7


def test_what_a_carried_weight_loses() -> None:
    """At n = 8 the larger weight is best, at n = 32 the smaller by 2 and 4 points."""
    level = {(8, 1.0): 10.0, (8, 10.0): 12.0, (32, 1.0): 20.0, (32, 10.0): 18.0}
    runs = [
        Run(
            "hgp",
            False,
            n,
            share,
            1.0,
            0,
            trial,
            level[n, share] - 2 * trial * ((n, share) == (32, 10.0)),
            50.0,
        )
        for n in SIZES
        for share in (1.0, 10.0)
        for trial in (0, 1)
    ]
    erm = [Run("erm", False, n, 0.0, 0.0, 0, 0, 5.0, 90.0) for n in SIZES]
    lines = carried(frame(*erm, *runs))
    assert lines[2].startswith("| no penalty |  | 8 | 5.0 (source 90.0) |")
    assert lines[4:] == [
        "| `hgp` | plug-in | 8 | 10.0 | **12.0** |  |",
        "| `hgp` | plug-in | 32 | **20.0** | 17.0 | +3.0 ± 1.0 |",
    ]


def test_what_a_batch_size_changes_is_less_erms_change() -> None:
    """ERM gains 1 point from n = 8 to n = 32; the plug-in gains 4 and 6, unbiased 1 in both trials."""
    runs = [
        Run("erm", False, n, 0.0, 0.0, 0, trial, 60.0 + (n == 32), 90.0) for n in SIZES for trial in (0, 1)
    ]
    runs += [
        Run(
            "hgp",
            unbiased,
            n,
            1.0,
            1.0,
            0,
            trial,
            50.0 + (n == 32) * (1 if unbiased else 4 + 2 * trial),
            55.0,
        )
        for unbiased in (False, True)
        for n in SIZES
        for trial in (0, 1)
    ]
    assert dependence(frame(*runs))[2:] == ["| `hgp` | +4.0 ± 1.0 | +0.0 ± 0.0 |"]
    assert collapses(frame(*runs), 60).endswith("below 60 %: 4 of 4 plug-in, 4 of 4 unbiased.")
    assert collapses(frame(*runs), 50).endswith("0 of 4 plug-in, 0 of 4 unbiased.")
