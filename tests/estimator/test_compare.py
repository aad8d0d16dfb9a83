"""Every head on domains left out: the numbers against the rule written out, resuming, shifts, refusals."""

import json
import warnings

import numpy as np
import polars as pl
import pytest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from hessalign.estimator import (
    HeadComparison,
    HessianAlignedClassifier,
    compare,
    compare_heads,
    comparison,
    solver,
)
from hessalign.estimator.auto import AUTO_GRID, standard_error
from hessalign.estimator.compare import HEADS
from hessalign.estimator.comparison import BASELINE
from hessalign.estimator.shift import shares_to_style, shifts
from hessalign.exceptions import UntrustworthyWarning
from tests.estimator.samples import Samples, coloured, shifted_classes

FEW = ["balanced classes", "equal domains"]


def four(samples: int = 160, seed: int = 0) -> Samples:
    """Two classes, four domains that a direction beside the classes' moves."""
    random = np.random.default_rng(seed)
    y, domains = random.integers(0, 2, samples), np.arange(samples) % 4
    X = random.normal(size=(samples, 3)) + np.outer(1.5 * y, [1, 0, 0]) + np.outer(domains, [0.3, 0, 1])
    return Samples(X, np.array(["ill", "well"])[y], np.array(["n", "e", "s", "w"])[domains])


def test_numbers_are_those_of_the_rule_written_out() -> None:
    data = four()
    found = compare_heads(data.X, data.y, sample_domain=data.domains, heads=FEW, scoring="accuracy")
    differences, variances, accuracies = [], [], []
    for target in np.unique(data.domains):
        source = data.domains != target
        right = []
        for kind in ({}, {"class_weight": "balanced"}):
            head = HessianAlignedClassifier("none", C="auto", scoring="accuracy", **kind)
            head.fit(data.X[source], data.y[source], sample_domain=data.domains[source])
            plain = LogisticRegression(C=head.C_, tol=1e-8, **kind).fit(data.X[source], data.y[source])
            right.append(100.0 * (plain.predict(data.X[~source]) == data.y[~source]))
        difference = right[1] - right[0]
        differences.append(difference.mean())
        variances.append(difference.var(ddof=1) / len(difference))
        accuracies.append(right[1].mean())
    row = next(row for row in found.to_frame().iter_rows(named=True) if row["head"] == "balanced classes")
    assert row["accuracy"] == pytest.approx(np.mean(accuracies))
    assert row["worst_accuracy"] == pytest.approx(min(accuracies))
    assert row["accuracy_difference"] == pytest.approx(np.mean(differences))
    assert row["accuracy_error"] == pytest.approx(standard_error(np.array(differences), np.array(variances)))
    assert found.targets == ("e", "n", "s", "w")


def test_what_several_heads_ask_for_is_solved_once_and_changes_nothing(monkeypatch) -> None:
    data = coloured([0.9, 0.8, 0.7], 24)
    read = compare._read(data.X, data.y, data.domains, None)
    solved: list[int] = []
    original = solver._solve
    monkeypatch.setattr(solver, "_solve", lambda *given: (solved.append(1), original(*given))[1])
    names = [BASELINE, "gradient", "diagonal", "AFR"]
    counts, fits = {}, {}
    for is_shared in (False, True):
        memory = solver.Memory()
        for name in names:
            solved.clear()
            fit = compare._fit(read, 2, name, "neg_log_loss", 0, memory if is_shared else solver.Memory())
            fits[name, is_shared], counts[name, is_shared] = fit, len(solved)
    for name in names:
        alone, shared = fits[name, False], fits[name, True]
        np.testing.assert_array_equal(shared.log_probabilities, alone.log_probabilities)
        assert shared.facts | {"seconds": 0} == alone.facts | {"seconds": 0}
    assert counts[BASELINE, True] == counts[BASELINE, False]
    for name in names[1:]:
        assert counts[name, True] < counts[name, False]
    # AFR compares no domains; its plain heads are those of logistic regression all the same.
    assert counts["AFR", True] <= counts["AFR", False] - counts[BASELINE, False] + 2
    # All that "gradient" tries "diagonal" tries as well.
    assert counts["diagonal", True] <= counts["diagonal", False] - counts["gradient", False] + 2


def test_a_memory_forgets_rather_than_grows(monkeypatch) -> None:
    monkeypatch.setattr(solver, "MOST_REMEMBERED", 100)
    memory, computed = solver.Memory(), []

    def solve(number: int) -> solver.Solution:
        computed.append(number)
        return solver.Solution(np.full((1, 5), float(number)), 0.0, 1.0, 1)

    for number in (1, 2, 2, 3, 3, 1):
        assert memory.solve((number,), lambda number=number: solve(number)).theta[0, 0] == number
    assert computed == [1, 2, 3, 1]


def test_a_path_ends_where_weights_do_worse_twice_in_a_row() -> None:
    data = coloured([0.9, 0.85, 0.8], 30)
    head = HessianAlignedClassifier("gradient", beta="auto", alpha=0.0)
    results = head.fit(data.X, data.y, sample_domain=data.domains).auto_results_
    ended = 0
    for strength in np.unique(results["C"][~results["plain"]]):
        path = results["C"] == strength
        means = results["mean_score"][path][np.argsort(results["beta"][path])]
        falls = np.diff(means) < 0
        stops = [2 + place for place in range(len(falls) - 1) if falls[place] and falls[place + 1]]
        stops = [stop for stop in stops if means[stop] < means[0]]
        ended += len(means) < len(AUTO_GRID) + 1
        assert not stops or len(means) == stops[0] + 1
    assert ended


def test_the_error_counts_domains_and_samples() -> None:
    # Student's distribution of one degree of freedom has its 84 % quantile at 1.837.
    assert standard_error(np.array([1.0, 3.0]), np.zeros(2)) == pytest.approx(1.837, abs=1e-3)
    assert standard_error(np.array([1.0, 1.0]), np.array([4.0, 12.0])) == pytest.approx(2.0)
    assert standard_error(np.array([1.0]), np.array([9.0])) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("heads", "conclusion"),
    [
        ([BASELINE], "No head was compared with tuned logistic regression on this domain."),
        ([FEW[0]], "balanced classes does not beat tuned logistic regression in accuracy by more than 2 "),
        (
            FEW,
            "No head of 2 beats tuned logistic regression in accuracy by more than 2 standard errors on this",
        ),
    ],
)
def test_one_and_none_are_said_as_such(heads: list[str], conclusion: str) -> None:
    data = four(80)
    found = compare_heads(data.X, data.y, sample_domain=data.domains, heads=heads, targets=["n"])
    assert found.conclusion().startswith(conclusion)
    assert "One domain left out, chosen by" in str(found)


def test_what_is_done_is_kept_and_only_the_rest_is_fitted(tmp_path) -> None:
    data = four()
    given = {"X": data.X, "y": data.y, "sample_domain": data.domains, "heads": FEW}
    whole = compare_heads(**given)

    class StoppedError(Exception):
        pass

    def stop(done: int, every: int) -> None:
        if done == 5:
            raise StoppedError

    with pytest.raises(StoppedError):
        compare_heads(**given, folder=tmp_path, report=stop)
    kept = sorted(path for path in tmp_path.glob("*.safetensors"))
    stamps = [path.stat().st_mtime_ns for path in kept]
    assert len(kept) == 5
    with pytest.raises(ValueError, match=r"folder: .* holds a comparison already; resume it"):
        compare_heads(**given, folder=tmp_path)
    seen = []
    resumed = compare_heads(**given, folder=tmp_path, resume=True, report=lambda *done: seen.append(done))
    assert seen[0] == (5, 12)
    assert seen[-1] == (12, 12)
    assert [path.stat().st_mtime_ns for path in kept] == stamps
    assert resumed.outcomes.drop("seconds").equals(whole.outcomes.drop("seconds"), null_equal=True)
    with pytest.raises(ValueError, match="another scoring, seed; choose another folder"):
        compare_heads(**given, folder=tmp_path, resume=True, scoring="accuracy", seed=1)
    with pytest.raises(ValueError, match="holds a comparison with another data set; choose"):
        compare_heads(**given | {"X": data.X + 1}, folder=tmp_path, resume=True)
    kept[0].write_bytes(kept[0].read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"is not the record of a head .*; remove it"):
        compare_heads(**given, folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="holds other files"):
        compare_heads(**given, folder=tmp_path.parent)


def test_centring_under_another_share_of_classes_is_doubted() -> None:
    random = np.random.default_rng(0)
    domains = np.repeat(np.arange(4), 100)
    y = (random.random(400) < np.array([0.1, 0.4, 0.6, 0.9])[domains]).astype(int)
    X = random.normal(size=(400, 2)) + np.outer(2 * y, [1, 0])
    with pytest.warns(UntrustworthyWarning, match="centred: known to fail here. For 4 of 4 targets"):
        found = compare_heads(X, y, sample_domain=domains, heads=["centred"])
    assert "share of classes" in found.shift_sentence.split(";")[0]
    assert found.doubt in str(found)
    # Under a shift of style alone it is what helps.
    style = X[:, :] + np.outer(random.normal(size=4), [3, 0])[domains]
    equal = random.integers(0, 2, 400)
    style += np.outer(2 * (equal - y), [1, 0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UntrustworthyWarning)
        found = compare_heads(style, equal, sample_domain=domains, heads=["centred"])
    assert found.to_frame()["accuracy_difference"][1] > 5
    assert "centred" in found.conclusion("log_loss") or found.to_frame()["log_loss_difference"][1] < 0


def test_shifts_are_told_apart() -> None:
    random = np.random.default_rng(0)
    domains = np.repeat(np.arange(3), 400)
    equal = random.integers(0, 2, 1200)
    unequal = (random.random(1200) < np.array([0.2, 0.5, 0.8])[domains]).astype(int)
    noise = random.normal(size=(1200, 4))
    first = np.eye(4)[0]
    cases = {
        (): (noise + np.outer(equal, first), equal),
        (0,): (noise + np.outer(unequal, first), unequal),
        (1,): (noise + np.outer(equal, first) + np.outer(domains, np.eye(4)[1]), equal),
    }
    for expected, (X, y) in cases.items():
        assert tuple(np.flatnonzero([each.found for each in shifts(X, y, domains)])) == expected
    # Colours that agree with the label by chance or nearly always: the relation differs, and the features.
    data = coloured([0.5, 0.9, 0.99], 400)
    assert [each.found for each in shifts(data.X, data.y, data.domains)] == [False, True, True]


def test_the_share_of_classes_is_the_information_between_domain_and_class() -> None:
    y = np.repeat([0, 1, 0, 1], [3000, 1000, 1000, 3000])
    domains = np.repeat([0, 1], 4000)
    found = shifts(np.random.default_rng(0).normal(size=(8000, 1)), y, domains)[0]
    information = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    assert found.nats == pytest.approx(information, abs=1 / 8000)


def test_the_ratio_of_shares_to_style() -> None:
    # Shares of 1/4 and 3/4 move the means by half the classes' distance; a style moves them by as much again.
    y, domains = np.repeat([0, 1, 0, 1], [75, 25, 25, 75]), np.repeat([0, 1], 100)
    noise = np.random.default_rng(0).normal(size=(200, 1))
    for code in range(4):  # every cell has the same mean and spread
        rows = (2 * domains + y) == code
        noise[rows] = (noise[rows] - noise[rows].mean()) / noise[rows].std()
    X = noise + 4.0 * y[:, None]
    assert shares_to_style(X, y, domains) > 1e20
    assert shares_to_style(X + 2.0 * domains[:, None], y, domains) == pytest.approx(1)
    assert shares_to_style(X + 4.0 * domains[:, None], y, domains) == pytest.approx(0.25)


def test_two_sources_leave_weights_at_their_defaults_and_say_so() -> None:
    data = shifted_classes(60)
    weighed = ["gradient", "V-REx", "IRM", "Fishr", "group DRO"]
    found = compare_heads(data.X, data.y, sample_domain=data.domains, heads=weighed, targets=[2])
    given = found.outcomes.filter(pl.col("chosen").str.ends_with("(default weights)"))
    assert given["head"].to_list() == weighed
    assert any("With two source domains" in note for note in found.notes)


def test_classes_that_no_source_has_are_left_out_and_told() -> None:
    data = four()
    y = np.where((data.domains == "w") & (np.arange(len(data.y)) % 3 == 0), "new", data.y)
    found = compare_heads(data.X, y, sample_domain=data.domains, heads=FEW, targets=["w"])
    left = int((y == "new").sum())
    assert any(
        note.startswith(f"w: {left} of 40 samples are of classes that no source") for note in found.notes
    )
    assert found.outcomes["samples"].to_list() == [40 - left] * 4


def test_it_is_written_read_printed_and_drawn(tmp_path) -> None:
    data = four()
    domains = np.where(data.domains == "n", "<b>$x_", data.domains)
    found = compare_heads(
        np.where(data.X > 3, np.nan, data.X),
        data.y,
        sample_domain=domains,
        heads=["equal domains"],
        targets=["w", "<b>$x_"],
        preprocessing=SimpleImputer(),
    )
    again = HeadComparison.from_dict(json.loads(json.dumps(found.to_dict())))
    assert str(again) == str(found)
    assert str(found).strip().endswith(found.conclusion().replace("_", r"\_"))
    found.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<b>$x_" not in page
    assert found.conclusion() in page
    assert "&lt;b&gt;$x_" in found._repr_html_()
    found.plot(tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").stat().st_size > 1000
    with pytest.raises(ValueError, match="found: is not a comparison"):
        HeadComparison.from_dict({"heads": []})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"X": [1.0] * 160}, r"X: must be numbers of shape \(n, d\)"),
        ({"X": np.full((160, 2), np.nan)}, "X: all values must be finite"),
        ({"y": ["a"] * 160}, "y: a comparison needs at least 2 classes"),
        ({"y": ["a", "b"]}, "y: must hold one class id for each of the 160 samples"),
        ({"sample_domain": [1, 2] * 80}, "sample_domain: a comparison needs at least 3 domains"),
        ({"heads": ["vrex"]}, "heads: .*vrex.* is not"),
        ({"targets": ["mars"]}, "targets: must be ids of domains, e, n, s, w, got 'mars'"),
        ({"targets": []}, "targets: at least one"),
        ({"scoring": "f1"}, "scoring"),
        ({"jobs": 0}, "jobs"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_input_is_refused_before_any_work(changed, message, tmp_path) -> None:
    data = four()
    given = {"X": data.X, "y": data.y, "sample_domain": data.domains} | changed
    with pytest.raises(ValueError, match=message):
        compare_heads(**given, folder=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_every_head_of_the_catalogue_is_compared() -> None:
    data = four(80)
    found = compare_heads(
        data.X, data.y, sample_domain=data.domains, targets=["n"], preprocessing=StandardScaler()
    )
    assert found.heads == tuple(HEADS)
    assert found.heads[0] == comparison.BASELINE
    assert found.outcomes["log_loss"].is_between(0.1, 1.5).all()
    assert not found.outcomes["chosen"].str.contains("default").any()


@pytest.mark.slow
def test_processes_find_the_same() -> None:
    data = four()
    given = {"X": data.X, "y": data.y, "sample_domain": data.domains, "heads": ["gradient", "hgp", *FEW]}
    alone, beside = compare_heads(**given), compare_heads(**given, jobs=2)
    assert beside.outcomes.drop("seconds").equals(alone.outcomes.drop("seconds"), null_equal=True)
