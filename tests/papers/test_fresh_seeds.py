"""How the chosen configurations are judged on fresh seeds: intervals against SciPy's, and the design."""

import numpy as np
import pytest
from scipy import stats

from papers.colored_mnist import fresh_seeds
from papers.colored_mnist.evidence import Evidence
from papers.colored_mnist.fresh_seeds import judge, targets
from papers.colored_mnist.intervals import Interval, against_paper, mean_of, paired, welch


@pytest.fixture(scope="module")
def fresh() -> fresh_seeds.Fresh:
    return fresh_seeds.fresh_seeds(Evidence(has_notes=False))


def test_intervals_are_scipys(fresh: fresh_seeds.Fresh) -> None:
    ours, theirs = targets(fresh.diagonal), targets(fresh.hgp)
    found, expected = paired(ours, theirs), stats.ttest_rel(ours, theirs).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    found, expected = mean_of(ours), stats.ttest_1samp(ours, 0).confidence_interval()
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    for others in (targets(fresh.flat), targets(fresh.old["HGP, imbalanced"])):
        found, expected = welch(ours, others), stats.ttest_ind(ours, others, equal_var=False)
        assert (found.low, found.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_the_papers_deviation_is_a_population_one_over_ten() -> None:
    ours, theirs = np.random.default_rng(0).normal(size=5), np.random.default_rng(1).normal(size=10)
    found = against_paper(list(ours), theirs.mean(), theirs.std())
    assert vars(found) == pytest.approx(vars(welch(list(ours), list(theirs))))


def test_one_restart_is_not_judged() -> None:
    found = against_paper([71.0], 69.4, 1.3)
    assert found.value == pytest.approx(1.6)
    assert not found.judges


@pytest.mark.parametrize(("low", "high", "verdict"), [(1, 3, "holds"), (-3, -1, "refuted"), (-1, 3, "open")])
def test_verdicts(low: float, high: float, verdict: str) -> None:
    assert Interval(1.0, low, high).above(0) == verdict


def test_nothing_is_judged_from_fewer_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    records = [record for record in fresh_seeds.STORE.load_all() if record.spec.seed != 103]
    monkeypatch.setattr(type(fresh_seeds.STORE), "load_all", lambda _: records)
    with pytest.raises(ValueError, match=r"diagonal on 'balanced': the design has seeds \(100, .* there are"):
        fresh_seeds.fresh_seeds(Evidence(has_notes=False))


def test_every_question_of_the_design_is_answered(fresh: fresh_seeds.Fresh) -> None:
    assert [answer.question for answer in judge(fresh)] == [1, 2, 3, 3, 4, 4]
    assert {name: len(targets(run)) for name, run in fresh.named().items()} == dict.fromkeys(fresh.old, 5)
    assert all(run.n >= 2 for run in fresh.old.values())
    assert targets(fresh.flat, 670) != targets(fresh.flat)
