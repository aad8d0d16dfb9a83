"""Two gloo processes against one."""

import json
from pathlib import Path

import pytest
import torch
import torch.multiprocessing
from torch import nn

from hessalign.algorithms import algorithm_names
from hessalign.backbones import Backbone
from hessalign.training import Machine, train
from hessalign.training.processes import ALONE, Processes, check_spreadable, rows_of
from tests.processes import METHOD
from tests.training.tiny_domains import TinyDomains, tiny_spec
from tests.training.two_processes import COUNT, answer

Answers = list[dict[str, dict]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """By process."""
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.start_processes(answer, (str(folder),), COUNT, start_method=METHOD)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(COUNT)]


@pytest.mark.parametrize("algorithm", algorithm_names())
def test_losses_gradients_and_weights_are_those_of_one_process(answers: Answers, algorithm: str) -> None:
    for found in answers:
        assert found[algorithm]["difference"] < 1e-9
        assert found[algorithm]["moved"] > 1e-3
        assert found[algorithm]["same_keys"]
        assert 0 < found[algorithm]["most_rows"] <= 8


def test_second_derivatives_go_through_the_backbone(answers: Answers) -> None:
    assert all(found["second_derivatives"]["difference"] < 1e-10 for found in answers)


def test_networks_that_draw_stay_in_step(answers: Answers) -> None:
    first, second = (found["network_that_draws"] for found in answers)
    assert first == second
    assert len({tuple(row) for row in first["masks"]}) == 4


def test_batches_are_loaded_in_shares(answers: Answers) -> None:
    assert all(found["batches"] == {"same": True, "rows": 5} for found in answers)


def test_accuracies_are_those_of_one_process(answers: Answers) -> None:
    for found in answers:
        assert found["accuracies"]["shared"] == found["accuracies"]["alone"]
        assert 0 < found["accuracies"]["alone"] < 1
        assert found["accuracies"]["same"]
        assert list(found["accuracies"]["none of its own"]) == [3, 4]
        assert found["accuracies"]["empty"] == "nan"


def test_what_fails_in_one_fails_in_all_with_its_words(answers: Answers) -> None:
    assert all(found["failures"]["said"] == "a.jpg: the image cannot be read" for found in answers)


def test_the_first_ones_weights_can_be_given_to_all(answers: Answers) -> None:
    assert all(found["agreement"]["weight"] == 7 for found in answers)


def test_a_penalty_of_gathered_samples_is_that_of_the_whole_batch(answers: Answers) -> None:
    for found in answers:
        assert found["gathered_penalty"]["difference"] < 1e-12
        assert abs(found["gathered_penalty"]["without"] / found["gathered_penalty"]["whole"] - 1) > 0.1


@pytest.mark.parametrize(("rows", "count"), [(6, 2), (7, 3), (1, 4), (5, 4)])
def test_every_row_belongs_to_a_process(rows: int, count: int) -> None:
    shares = [rows_of(rank, count, rows) for rank in range(count)]
    assert len({len(share) for share in shares}) == 1
    assert torch.cat(shares)[:rows].tolist() == list(range(rows))


def test_one_process_spreads_nothing() -> None:
    backbone = Backbone(nn.Identity(), 2)
    before = backbone.apply_network
    ALONE.spread(backbone)
    assert backbone.apply_network is before
    assert ALONE.all_reduce(3) == 3
    with pytest.raises(OSError, match="full"), Processes().together():
        raise OSError("full")


def test_batch_statistics_cannot_be_shared(tmp_path: Path) -> None:
    network = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2))
    check_spreadable(Backbone(network, 2, frozen_batch_norm=True))
    with pytest.raises(ValueError, match=r"devices: .* BatchNorm that is trained; allowed is 1"):
        check_spreadable(Backbone(network, 2))


@pytest.mark.parametrize(
    ("machine", "message"),
    [
        (Machine("cpu", devices=0), "devices: must be a whole number of at least 1, got 0"),
        (Machine("cpu", strategy="dpp"), "strategy: 'dpp' is not known; allowed are auto, ddp"),  # type: ignore[arg-type]
        (Machine("cpu", precision="16-mixed"), "precision: '16-mixed' needs its losses scaled"),
    ],
)
def test_bad_machines_are_named(tmp_path: Path, machine: Machine, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny_spec(), TinyDomains(), tmp_path / "new", machine)
    assert not (tmp_path / "new").exists()


def test_double_precision_is_double(tmp_path: Path) -> None:
    seen = []
    train(tiny_spec(steps=1), TinyDomains(8), tmp_path, Machine("cpu", precision="64-true"), seen.append)
    assert seen[0].metrics["loss"].dtype == torch.float64
