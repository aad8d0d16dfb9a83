"""What is gathered from processes; its penalty is tested with the processes of training."""

import pytest
import torch

from hessalign.loop import gather_samples


def test_one_process_has_all_samples_already() -> None:
    features, domains = torch.zeros(4, 2), torch.zeros(4)
    assert gather_samples(features, domains) == (features, domains)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (["north", "south"], "must be tensors .*, got list; number domain ids that are strings"),
        (torch.tensor(1.0), "got a tensor without axes"),
        (torch.zeros(3), "must be equally long, got lengths"),
    ],
)
def test_what_other_processes_could_not_take_is_refused_by_one_too(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=f"values: .*{message}"):
        gather_samples(torch.zeros(2, 2), value)
