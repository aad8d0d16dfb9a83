"""What computing somewhere must not cost elsewhere."""

import pytest
import torch

from hessalign.training import Machine, make_fabric
from hessalign.training.seeds import seeded


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a driver")
def test_without_a_driver_no_step_looks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's import alone lets each step of an optimizer do so."""
    monkeypatch.setenv("PYTORCH_NVML_BASED_CUDA_CHECK", "1")
    make_fabric(Machine("cpu"))

    def look() -> int:
        raise AssertionError("a step looked for a driver")

    monkeypatch.setattr(torch.cuda, "_device_count_nvml", look)
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    assert parameter.detach().ne(0).all()


def test_seeded_draws_are_the_seeds_and_others_go_on(device: torch.device) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3, device=device)
    torch.manual_seed(0)
    before, after = torch.rand(3, device=device), torch.rand(3, device=device)
    torch.manual_seed(0)
    assert torch.rand(3, device=device).equal(before)
    with seeded(5, device):
        assert torch.rand(3, device=device).equal(expected)
    assert torch.rand(3, device=device).equal(after)
