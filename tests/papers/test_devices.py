"""How restarts of the same seeds on two devices are judged."""

from dataclasses import replace

import pytest
from scipy import stats

from papers.colored_mnist import devices
from papers.colored_mnist.devices import Devices, apart, devices_table, swing
from papers.colored_mnist.evidence import Evidence
from papers.colored_mnist.intervals import Interval


@pytest.fixture(scope="module")
def found() -> Devices:
    return devices.devices(Evidence(has_notes=False))


def test_every_pair_is_one_restart_on_two_devices(found: Devices) -> None:
    assert len(found.pairs) == 40
    for ours, theirs in found.pairs:
        assert ours.spec == theirs.spec
        assert (ours.environment["device"], theirs.environment["device"]) == ("cuda", "cpu")
    assert 0 < found.on_gpu < found.in_all


def test_intervals_are_scipys(found: Devices) -> None:
    for interval, name in ((found.train, "source_accuracy"), (found.target, "target_accuracy")):
        ours, theirs = (
            [getattr(record.final, name) for record in of] for of in zip(*found.pairs, strict=True)
        )
        expected = stats.ttest_rel(ours, theirs).confidence_interval()
        assert (interval.low, interval.high) == pytest.approx(tuple(expected))


@pytest.mark.parametrize(
    ("low", "high", "matters"),
    [(-1.0, 2.0, False), (0.01, 0.19, False), (0.01, 0.21, True), (-0.3, -0.1, True)],
)
def test_the_verdict_is_that_of_the_design(found: Devices, low: float, high: float, matters: bool) -> None:
    interval = Interval((low + high) / 2, low, high)
    assert replace(found, train=interval).matters == matters
    assert replace(found, target=interval).matters == matters


def test_the_largest_difference_and_the_rest(found: Devices) -> None:
    assert apart(found.largest) == max(map(apart, found.pairs))
    assert found.largest not in found.rest
    assert len(found.pairs) - len(found.rest) == 2
    ours, theirs = found.largest
    assert apart(found.largest) >= abs(ours.final.source_accuracy - theirs.final.source_accuracy)
    assert swing(theirs) == pytest.approx(
        sum(
            abs(after.target_accuracy - before.target_accuracy)
            for before, after in zip(theirs.history[26:], theirs.history[27:], strict=False)
        )
        / len(theirs.history[27:])
    )


def test_the_table_has_a_row_for_each_configuration(found: Devices) -> None:
    assert len(devices_table(found).splitlines()) == 2 + 20


def test_a_restart_without_its_pair_is_refused(found: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    _, theirs = found.pairs[0]
    monkeypatch.setattr(devices.STORE, "load_all", lambda: [theirs])
    with pytest.raises(ValueError, match="must be of a GPU"):
        devices.devices(Evidence(has_notes=False))
