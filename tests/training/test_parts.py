"""Batches, evaluation, checkpoints and records, one by one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from hessalign.runs.records import append_record, keep_records_before, read_records
from hessalign.training.batches import check_sizes, domain_batches
from hessalign.training.checkpoint import (
    checkpoint_metadata,
    latest_checkpoint,
    load_model,
    resume,
    save_checkpoint,
)
from hessalign.training.evaluation import outputs
from tests.training.tiny_domains import PIXELS, InMemory, TinyDomains


def sources() -> list:
    return [domain.augmented for domain in TinyDomains().domains[:2]]


def inputs(steps: range, seed: int = 3, workers: int = 0) -> list[Tensor]:
    return [batch.inputs for batch in domain_batches(sources(), 4, seed, steps, workers)]


def test_batches_are_balanced_and_finite() -> None:
    batches = list(domain_batches(sources(), 4, 0, range(3)))
    assert len(batches) == 3
    for batch in batches:
        assert batch.domains.tolist() == [0] * 4 + [1] * 4
        assert batch.domain_count == 2
        assert batch.inputs.shape == (8, 1, PIXELS, PIXELS)
    assert len({tuple(batch.targets.tolist()) for batch in batches}) > 1


def test_batches_depend_on_seed_and_step_alone() -> None:
    whole = inputs(range(6))
    assert all(map(torch.equal, inputs(range(4, 6)), whole[4:]))
    assert all(map(torch.equal, inputs(range(6), workers=2), whole))
    assert not torch.equal(inputs(range(1), seed=4)[0], whole[0])


def test_batches_leave_the_global_random_states_alone(device: torch.device) -> None:
    """That of an accelerator, too, which dropout draws from."""

    def state() -> Tensor:
        return torch.cuda.get_rng_state() if device.type == "cuda" else torch.get_rng_state()

    torch.manual_seed(0)
    torch.rand(1, device=device)
    before = state()
    inputs(range(3))
    assert torch.equal(state(), before)


def test_all_samples_are_drawn_and_about_equally_often() -> None:
    samples = InMemory(torch.zeros(20, 1), torch.arange(20))
    batches = domain_batches([samples], 10, 0, range(400))
    counts = torch.cat([batch.targets for batch in batches]).bincount()
    assert len(counts) == 20
    assert ((counts - 200).abs() < 5 * 200**0.5).all()


def test_a_domain_smaller_than_its_share_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batch_size: domain 'b' has 5 training samples, .* 1 to 5"):
        check_sizes(["a", "b"], [9, 5], 6)


def test_accuracy_and_the_mode_it_leaves() -> None:
    samples = InMemory(
        torch.tensor([[1.0, 0], [0, 1], [2, 0], [0, 3], [1, 0]]), torch.tensor([0, 1, 1, 1, 0])
    )
    model = nn.Sequential(nn.Identity(), nn.Dropout(0.9)).train()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    assert outputs(model, samples, torch.device("cpu")).accuracy() == 0.8
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training


def trained() -> tuple[nn.Module, dict[str, torch.optim.Optimizer]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizers = {"main": torch.optim.Adam(model.parameters())}
    for _ in range(2):
        model(torch.randn(5, 3)).square().sum().backward()
        optimizers["main"].step()
    return model, optimizers


def test_a_checkpoint_restores_everything(tmp_path: Path) -> None:
    model, optimizers = trained()
    path = save_checkpoint(tmp_path, 7, model, optimizers, {"run": {"a": 1}})
    assert latest_checkpoint(tmp_path) == path
    assert checkpoint_metadata(path) == {"step": 7, "run": {"a": 1}}
    expected_draw = torch.rand(3)

    other, other_optimizers = trained()
    with torch.no_grad():
        other[0].weight.zero_()
    assert resume(path, other, other_optimizers) == 7
    assert torch.equal(torch.rand(3), expected_draw)
    for mine, theirs in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs)
    for mine, theirs in zip(
        optimizers["main"].state.values(), other_optimizers["main"].state.values(), strict=True
    ):
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_only_the_latest_checkpoint_is_kept(tmp_path: Path) -> None:
    model, optimizers = trained()
    save_checkpoint(tmp_path, 1, model, optimizers, {})
    save_checkpoint(tmp_path, 2, model, optimizers, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000002"]


def test_a_failed_checkpoint_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizers = trained()
    old = save_checkpoint(tmp_path, 1, model, optimizers, {})

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hessalign.files.os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, 2, model, optimizers, {})
    assert latest_checkpoint(tmp_path) == old
    load_model(old, model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-000001"]


def test_checkpoints_of_others_are_refused(tmp_path: Path) -> None:
    model, optimizers = trained()
    path = save_checkpoint(tmp_path, 1, model, optimizers, {})
    with pytest.raises(ValueError, match=r"checkpoint: .*model.safetensors belongs to another architecture"):
        load_model(path, nn.Linear(3, 4))
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:50])
    with pytest.raises(ValueError, match=r"checkpoint: .*model.safetensors cannot be read"):
        load_model(path, model)
    with pytest.raises(ValueError, match="holds no run, no checkpoint and no shared"):
        checkpoint_metadata(tmp_path)
    assert latest_checkpoint(tmp_path / "nothing") is None


def test_records_survive_a_torn_line(tmp_path: Path) -> None:
    for step in (0, 4, 8):
        append_record(tmp_path, {"step": step, "loss": step / 2})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 12, "lo')
    assert [record["step"] for record in read_records(tmp_path)] == [0, 4, 8]
    keep_records_before(tmp_path, 5)
    assert read_records(tmp_path) == [{"step": 0, "loss": 0.0}, {"step": 4, "loss": 2.0}]
    assert read_records(tmp_path / "nothing") == []
