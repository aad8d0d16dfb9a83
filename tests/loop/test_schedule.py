"""The weight of a penalty over time."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hessalign.loop import WeightSchedule


def test_it_waits_grows_and_stays() -> None:
    schedule = WeightSchedule(after=9.0, before=1.0, start=3, ramp=4)
    assert [schedule(step) for step in range(9)] == [1, 1, 1, 3, 5, 7, 9, 9, 9]


def test_without_a_ramp_it_jumps() -> None:
    assert [WeightSchedule(after=0.1, before=1.0, start=2)(step) for step in range(4)] == [1, 1, 0.1, 0.1]
    assert WeightSchedule(after=0.1)(0) == 0.1


@given(
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.integers(0, 9),
    st.integers(0, 9),
    st.integers(0, 20),
)
def test_a_tensor_of_steps_gives_the_same(
    after: float, before: float, start: int, ramp: int, step: int
) -> None:
    schedule = WeightSchedule(after, before, start, ramp)
    tensors = WeightSchedule(torch.tensor(after, dtype=torch.float64), before, torch.tensor(start), ramp)
    assert float(tensors(torch.tensor(step))) == pytest.approx(schedule(step), rel=1e-12, abs=1e-12)


def test_the_ends_are_exact() -> None:
    schedule = WeightSchedule(after=91257.18613115903, before=1.0, start=2, ramp=3)
    weights = schedule(torch.tensor([0, 1, 4, 9]).double())
    assert weights.tolist() == [
        1,
        1,
        torch.tensor(91257.18613115903).item(),
        torch.tensor(91257.18613115903).item(),
    ]


def test_no_value_is_read_on_the_host() -> None:
    step = torch.zeros((), dtype=torch.long, device="meta")
    assert WeightSchedule(torch.ones((), device="meta"), 0.0, step + 1, 4)(step).device.type == "meta"


def test_a_large_weight_divides_the_whole_objective() -> None:
    loss, penalty = torch.tensor(0.6, dtype=torch.float64), torch.tensor(0.01, dtype=torch.float64)
    schedule = WeightSchedule(after=1e4, before=0.5, start=1, divide=True)
    assert schedule.combine(loss, penalty, 0) == loss + 0.5 * penalty
    assert schedule.combine(loss, penalty, 1) == loss / 1e4 + penalty
    assert WeightSchedule(after=1e4).combine(loss, penalty, 1) == loss + 1e4 * penalty


def test_the_optimiser_starts_afresh_once() -> None:
    value = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([value])
    schedule = WeightSchedule(after=1.0, start=2, reset_optimizer=True)
    held = []
    for step in range(4):
        schedule.prepare(optimizer, step)
        held.append(len(optimizer.state))
        value.sum().backward()
        optimizer.step()
    assert held == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"after": -1.0}, "after: must be a finite number of at least 0, got -1.0"),
        ({"after": 1.0, "before": float("inf")}, "before: must be a finite number"),
        ({"after": 1.0, "start": 1.5}, "start: must be a whole number of at least 0, got 1.5"),
        ({"after": 1.0, "ramp": -1}, "ramp: must be a whole number of at least 0, got -1"),
        ({"after": 1.0, "divide": "no"}, "divide: must be True or False, got 'no'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightSchedule(**arguments)
