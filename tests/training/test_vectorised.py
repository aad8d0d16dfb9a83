"""Runs trained together against the same runs trained one by one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hessalign.algorithms import Algorithm, DomainBatch, algorithm_names, get_algorithm
from hessalign.backbones import BackboneSpec
from hessalign.training import (
    Machine,
    RunSpec,
    build_algorithm,
    can_train_together,
    latest_checkpoint,
    load_trained,
    read_records,
    train,
    train_together,
)
from hessalign.training.vectorised import BatchedAdam
from tests.training.tiny_domains import TinyDomains, tiny_spec
from tests.training.tiny_features import feature_spec, flat, tiny_features

CPU, EXACT = Machine("cpu"), Machine("cpu", precision="64-true")
ALONE = {
    "and_mask": "step",
    "arm": "forward",
    "cdann": "step",
    "dann": "step",
    "fish": "step",
    "mldg": "step",
    "mtl": "forward",
    "sand_mask": "step",
    "mixup": "draws",
    "sagnet": "step",
    "causirl_coral": "draws",
    "causirl_mmd": "draws",
    "self_reg": "draws",
    "iga": "differentiates",
    "erm_plus_plus": "step",
    "transfer": "step",
    "urm": "step",
    "adrmx": "step",
}
"""Why they cannot be trained together: a method of their own, or a loss that draws random numbers or takes
derivatives of the backbone."""
TOGETHER = [
    name
    for name in algorithm_names()
    if (hparams_class := get_algorithm(name).hparams_class)
    and get_algorithm(name).batched_hparams(hparams_class.with_defaults("features")) is not None
]
SHARES = {"ema": 0.99, "feature_drop": 0.9, "batch_drop": 0.9, "quantile": 0.95}
"""Largest values of hyper-parameters that must stay below 1."""
FACTORS = (1.0, 0.3, 2.0)
"""Hyper-parameters of the three runs, against their defaults."""


def overrides(algorithm: str, run: int) -> dict[str, float]:
    hparams = get_algorithm(algorithm).hparams_class.with_defaults("features")
    changed: dict[str, float] = {"lr": 0.01 * FACTORS[run], "weight_decay": 0.01 * run}
    for name in get_algorithm(algorithm).batched_hparams(hparams) or ():
        changed[name] = min(getattr(hparams, name) * FACTORS[run], SHARES.get(name, float("inf")))
    for name in ("anneal_steps", "irm_anneal_steps", "burn_in_steps", "erm_steps"):
        if name in changed:
            changed[name] = (4, 1, 7)[run]
    if "ib_anneal_steps" in changed:
        changed["ib_anneal_steps"] = (2, 6, 3)[run]
    return changed


def three_runs(algorithm: str, backbone: str = "identity", **changes) -> list[RunSpec]:
    chosen = BackboneSpec(name=backbone, rank=None if backbone == "identity" else 2)
    return [
        feature_spec(
            algorithm,
            overrides(algorithm, run),
            backbone=chosen,
            seed=run + 5,
            trial_seed=run % 2,
            hparams_seed=run,
            target_domains=((3,), (0,), (2,))[run],
            **changes,
        )
        for run in range(3)
    ]


def assert_same(together: Path, alone: Path, tolerance: float) -> None:
    assert (together / "spec.json").read_bytes() == (alone / "spec.json").read_bytes()
    assert (together / "done").exists()
    for mine, theirs in zip(read_records(together), read_records(alone), strict=True):
        assert list(mine) == list(theirs)
        for name in mine:
            if name in ("accuracies", "undefined"):
                assert mine[name] == theirs[name]
            elif name == "metrics":
                assert flat(mine[name]) == pytest.approx(flat(theirs[name]), rel=tolerance, abs=tolerance)
            elif name != "step_seconds":
                assert mine[name] == pytest.approx(theirs[name], rel=tolerance, abs=tolerance), name
    weights, others = (
        load_file(latest_checkpoint(folder / "checkpoints") / "model.safetensors")
        for folder in (together, alone)
    )
    assert weights.keys() == others.keys()
    for name in weights:
        assert torch.allclose(weights[name].double(), others[name].double(), rtol=tolerance, atol=tolerance)
    first, second = (
        torch.load(latest_checkpoint(folder / "checkpoints") / "optimizers.pt", weights_only=True)
        for folder in (together, alone)
    )
    assert first["main"]["param_groups"] == second["main"]["param_groups"]
    for state, other in zip(first["main"]["state"].values(), second["main"]["state"].values(), strict=True):
        assert all(
            torch.allclose(state[key].double(), other[key].double(), rtol=tolerance, atol=tolerance)
            for key in other
        )


BACKBONES = [
    pytest.param(algorithm, backbone, marks=pytest.mark.slow if backbone == "adapter:linear" else ())
    for algorithm in TOGETHER
    for backbone in ("identity", "adapter:linear", "adapter:mlp")
    if backbone != "identity" or not get_algorithm(algorithm).needs_trainable_backbone
]


@pytest.mark.filterwarnings("ignore::hessalign.exceptions.UntrustworthyWarning")  # Fishr's default weight
@pytest.mark.filterwarnings("ignore:.* depends on the features alone:hessalign.exceptions.NoEffectWarning")
@pytest.mark.filterwarnings("ignore:ib_weight:hessalign.exceptions.NoEffectWarning")
@pytest.mark.no_cover  # the next one is measured
@pytest.mark.parametrize(("algorithm", "backbone"), BACKBONES)
def test_together_is_as_one_by_one(tmp_path: Path, algorithm: str, backbone: str) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors", views=2)
    specs = three_runs(algorithm, backbone)
    assert len({can_train_together(spec) for spec in specs}) == 1
    steps: list[int] = []
    together = [tmp_path / f"together-{run}" for run in range(3)]
    records = train_together(specs, dataset, together, EXACT, steps.append)
    assert steps == list(range(12))
    for run, spec in enumerate(specs):
        train(spec, dataset, tmp_path / f"alone-{run}", EXACT)
        assert_same(together[run], tmp_path / f"alone-{run}", 1e-10)
        assert read_records(together[run])[-1] == records[run]


@pytest.mark.filterwarnings("ignore::hessalign.exceptions.UntrustworthyWarning")
@pytest.mark.parametrize("algorithm", ["erm", "fishr", "hutchinson", "rsc"])
def test_in_single_precision_to_a_hundred_thousandth(tmp_path: Path, algorithm: str) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    specs = three_runs(algorithm, steps=60, evaluate_every=30)
    train_together(specs, dataset, [tmp_path / f"together-{run}" for run in range(3)], CPU)
    for run, spec in enumerate(specs):
        train(spec, dataset, tmp_path / f"alone-{run}", CPU)
        assert_same(tmp_path / f"together-{run}", tmp_path / f"alone-{run}", 1e-5)


def test_a_run_does_not_depend_on_its_company(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    specs = three_runs("hgp")
    train_together(specs, dataset, [tmp_path / f"a{run}" for run in range(3)], EXACT)
    train_together([specs[2]], dataset, [tmp_path / "b"], EXACT)
    assert_same(tmp_path / "a2", tmp_path / "b", 1e-10)


def test_finished_runs_are_left_alone_and_unfinished_ones_begun_anew(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    specs = three_runs("vrex")
    folders = [tmp_path / f"{run}" for run in range(3)]
    train(specs[0], dataset, folders[0], EXACT)
    before = {path: path.stat().st_mtime_ns for path in folders[0].rglob("*")}

    class StopError(Exception):
        pass

    def stop(progress) -> None:
        if progress.step == 6:
            raise StopError

    with pytest.raises(StopError):
        train(specs[1], dataset, folders[1], EXACT, stop)
    records = train_together(specs, dataset, folders, EXACT)
    assert {path: path.stat().st_mtime_ns for path in folders[0].rglob("*")} == before
    assert records[0] == read_records(folders[0])[-1]
    train(specs[1], dataset, tmp_path / "alone", EXACT)
    assert_same(folders[1], tmp_path / "alone", 1e-10)
    assert train_together(specs, dataset, folders, EXACT) == records


def test_a_trained_run_can_be_loaded_and_predicts(tmp_path: Path) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    folders = [tmp_path / f"{run}" for run in range(3)]
    records = train_together(three_runs("hgp", steps=100), dataset, folders, CPU)
    algorithm, about = load_trained(folders[1])
    assert (about.run.hparams["lr"], about.input_shape) == (0.003, dataset.input_shape)
    north = dataset.domains[0]
    right = algorithm(north.plain.table[:, 0]).argmax(1) == north.targets
    found = records[1]["accuracies"]["north"]
    assert int(right.sum()) == round(32 * found["in"] + 8 * found["out"])


def test_which_runs_go_together() -> None:
    spec = feature_spec("hgp")
    key = can_train_together(spec)
    assert key is not None
    for changes in ({"seed": 4}, {"trial_seed": 2}, {"target_domains": (1,)}, {"hparams_seed": 3}):
        assert can_train_together(feature_spec("hgp", **changes)) == key
    assert can_train_together(feature_spec("hgp", {"alpha": 0.5, "lr": 0.1, "weight_decay": 0.2})) == key
    for other in (
        feature_spec("hgp", {"batch_size": 4}),
        feature_spec("hgp", {"alpha": 0.0}),
        feature_spec("hgp", steps=13),
        feature_spec("hgp", target_domains=(0, 1)),
        feature_spec("hgp", backbone=BackboneSpec(name="adapter:linear")),
        feature_spec("erm"),
    ):
        assert can_train_together(other) not in (key, None)
    for other in (
        tiny_spec(),
        feature_spec("hutchinson", {"variant": "domainbed"}),
        feature_spec("hgp", backbone=BackboneSpec(name="identity", dropout=0.1)),
        feature_spec("hgp", validation_images="augmented"),
        *(feature_spec(name) for name in ALONE),
    ):
        assert can_train_together(other) is None


@pytest.mark.parametrize(("name", "reason"), ALONE.items())
def test_what_is_trained_alone_has_its_reason(name: str, reason: str) -> None:
    algorithm = get_algorithm(name)
    assert can_train_together(feature_spec(name)) is None
    if reason == "differentiates":
        assert torch.autograd.grad.__name__ in get_algorithm(name).objective.__code__.co_names
        return
    if reason != "draws":
        assert getattr(algorithm, reason) is not getattr(Algorithm, reason)
        return
    spec = feature_spec(name, backbone=BackboneSpec(name="adapter:linear", rank=2))
    network = build_algorithm(spec, (6,), 3, 2)
    batch = DomainBatch(torch.randn(8, 6), torch.arange(8) % 3, torch.arange(2).repeat_interleave(4), 2)
    assert len({network.objective(batch)[0].item() for _ in range(5)}) > 1


@pytest.mark.parametrize("name", TOGETHER)
def test_what_is_trained_together_draws_nothing(name: str) -> None:
    spec = feature_spec(name, backbone=BackboneSpec(name="adapter:linear", rank=2))
    network = build_algorithm(spec, (6,), 3, 2)
    batch = DomainBatch(torch.randn(8, 6), torch.arange(8) % 3, torch.arange(2).repeat_interleave(4), 2)
    before = torch.get_rng_state()
    network.objective(batch)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("mixed", "specs: these runs cannot be trained together"),
        ("images", "specs: these runs cannot be trained together"),
        ("none", "specs: these runs cannot be trained together"),
        ("folders", "folders: each of the 3 runs needs a folder of its own, got 1"),
        ("devices", "devices: runs are trained together on 1 device, got 2"),
        ("dataset", "dataset: tiny does not hold features"),
        ("targets", "target_domains: must be different indices from 0 to 3"),
        ("batch", "batch_size: domain 'north' has 32 training samples, fewer than the 40"),
    ],
)
def test_what_does_not_go_together_is_named(tmp_path: Path, change: str, problem: str) -> None:
    dataset = tiny_features(tmp_path / "f.safetensors")
    specs, machine = three_runs("hgp"), CPU
    folders = [tmp_path / "runs" / f"{run}" for run in range(3)]
    match change:
        case "mixed":
            specs[1] = feature_spec("erm")
        case "images":
            specs = [tiny_spec()] * 3
        case "none":
            specs, folders = [], []
        case "folders":
            folders = folders[:1] * 3
        case "devices":
            machine = Machine("cpu", devices=2)
        case "dataset":
            dataset = TinyDomains()
        case "targets":
            specs[2] = specs[2].model_copy(update={"target_domains": (4,)})
        case "batch":
            specs = [feature_spec("hgp", {"batch_size": 40})] * 3
    with pytest.raises(ValueError, match=problem):
        train_together(specs, dataset, folders, machine)
    assert not (tmp_path / "runs").exists()


def test_adam_is_torchs_run_by_run() -> None:
    torch.manual_seed(0)
    start, rates, decays = torch.randn(3, 4, 2).double(), (0.1, 0.01, 1.0), (0.0, 0.1, 2.0)
    stacked = start.clone()
    ours = BatchedAdam(
        {"w": stacked}, torch.tensor(rates, dtype=torch.float64), torch.tensor(decays, dtype=torch.float64)
    )
    parameters = [value.clone().requires_grad_() for value in start]
    theirs = [
        torch.optim.Adam([value], lr=lr, weight_decay=decay)
        for value, lr, decay in zip(parameters, rates, decays, strict=True)
    ]
    for step in range(20):
        gradients = torch.randn(3, 4, 2).double()
        resetting = torch.tensor([False, step == 7, step in (3, 9)])
        ours.reset(resetting)
        ours.step({"w": gradients})
        for run, optimizer in enumerate(theirs):
            if resetting[run]:
                optimizer.state.clear()
            parameters[run].grad = gradients[run]
            optimizer.step()
            assert torch.allclose(stacked[run], parameters[run], rtol=1e-12, atol=1e-14)
            assert ours.state_of("w", run)["step"] == optimizer.state[parameters[run]]["step"]
