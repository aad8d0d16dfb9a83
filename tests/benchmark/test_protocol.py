"""The grid, the seeds and the draws of a sweep are DomainBed's."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import save_file

from hessalign.algorithms import algorithm_names, get_algorithm
from hessalign.benchmark import protocol
from hessalign.benchmark.protocol import RunConfig, SweepSpec, choose_targets, draw_hparams, run_seed
from hessalign.datasets import Domain, DomainDataset, get_dataset, seed_hash
from hessalign.training import RunSpec, choose_backbone
from tests.training.tiny_domains import InMemory, TinyDomains

SPELLINGS = {
    "and_mask": "ANDMask",
    "arm": "ARM",
    "cdann": "CDANN",
    "coral": "CORAL",
    "dann": "DANN",
    "erm": "ERM",
    "fish": "Fish",
    "fishr": "Fishr",
    "group_dro": "GroupDRO",
    "hgp": "HGP",
    "hutchinson": "Hutchinson",
    "irm": "IRM",
    "mixup": "Mixup",
    "mldg": "MLDG",
    "mmd": "MMD",
    "mtl": "MTL",
    "rsc": "RSC",
    "sagnet": "SagNet",
    "sand_mask": "SANDMask",
    "vrex": "VREx",
}
DATASET_SPELLINGS = {
    "colored_mnist": "ColoredMNIST",
    "rotated_mnist": "RotatedMNIST",
    "vlcs": "VLCS",
    "pacs": "PACS",
    "office_home": "OfficeHome",
    "terra_incognita": "TerraIncognita",
    "domain_net": "DomainNet",
}


class ManyDomains(DomainDataset):
    """Domains of 700 samples that are never read."""

    name, reference_name = "many", "ManyDomains"
    search_space, input_shape, checkpoint_every = "large", (3, 8, 8), 300

    def __init__(self, count: int, samples: int = 700) -> None:
        content = InMemory(torch.zeros(samples, 3, 8, 8), torch.zeros(samples, dtype=torch.long))
        domains = tuple(Domain(f"d{i}", content.targets, content, content) for i in range(count))
        super().__init__(("only",), domains)

    @classmethod
    def make(cls, root: Path | None, seed: int) -> "ManyDomains":
        return cls(3)


def test_names_are_spelled_as_domainbed_does() -> None:
    assert {name: get_algorithm(name).reference_name for name in SPELLINGS} == SPELLINGS
    assert {name: get_dataset(name).reference_name for name in DATASET_SPELLINGS} == DATASET_SPELLINGS


@pytest.mark.parametrize(
    ("dataset", "algorithm", "targets", "hparams_seed", "trial_seed", "seed"),
    [
        ("vlcs", "erm", (1, 2), 1, 0, 360234358),
        ("vlcs", "erm", (0,), 0, 0, 1721972278),
        ("rotated_mnist", "hgp", (0,), 0, 0, 563870196),
        ("pacs", "hgp", (0, 1), 3, 2, 1225855936),
    ],
)
def test_seeds_are_domainbeds(
    dataset: str, algorithm: str, targets: tuple, hparams_seed: int, trial_seed: int, seed: int
) -> None:
    found = run_seed(get_dataset(dataset), get_algorithm(algorithm), targets, hparams_seed, trial_seed)
    assert found == seed


def drawn(algorithm: str, images: str, hparams_seed: int = 1, trial_seed: int = 0) -> dict:
    return draw_hparams(get_algorithm(algorithm), images, hparams_seed, trial_seed)


def test_draws_are_domainbeds() -> None:
    large, small = drawn("erm", "large"), drawn("erm", "small")
    assert large == {
        "lr": 2.7028930742148706e-05,
        "weight_decay": 0.00044832883881609976,
        "batch_size": 39,
        "dropout": 0.5,
    }
    assert (small["lr"], small["weight_decay"], small["batch_size"]) == (0.00011906162909279594, 0, 372)
    irm, fishr = drawn("irm", "large"), drawn("fishr", "large")
    assert (irm["penalty_weight"], irm["anneal_steps"]) == (65030.52212762795, 2)
    assert (fishr["penalty_weight"], fishr["anneal_steps"]) == (809.251247284292, 4072)
    assert fishr["ema"] == 0.9129082782560279
    hgp, hutchinson = drawn("hgp", "large"), drawn("hutchinson", "large")
    assert (hgp["alpha"], hgp["beta"]) == (4.243422978317943e-05, 0.04201632158543692)
    assert (hutchinson["alpha"], hutchinson["beta"]) == (87.41269008706993, 176537.1279570853)
    assert drawn("hgp", "large", trial_seed=1)["alpha"] == 0.00031616751712393987


def test_draw_zero_is_the_defaults_and_fixed_values_stay() -> None:
    assert drawn("hgp", "small", 0) == get_algorithm("hgp").hparams_class.with_defaults("small").model_dump()
    fixed = draw_hparams(get_algorithm("hgp"), "large", 1, 0, {"alpha": "0.25"})
    assert fixed == {**drawn("hgp", "large"), "alpha": 0.25}


@pytest.mark.parametrize(("domains", "runs"), [(3, 360), (4, 600), (6, 1260)])
def test_an_algorithm_has_as_many_runs_as_in_domainbed(domains: int, runs: int) -> None:
    specs = SweepSpec(algorithms=("erm",)).plan(ManyDomains(domains))
    assert len(specs) == runs == 3 * 20 * (domains + domains * (domains - 1) // 2)
    assert len({spec.identity() for spec in specs}) == runs
    assert Counter(spec.trial_seed for spec in specs) == dict.fromkeys(range(3), runs // 3)
    assert Counter(spec.hparams_seed for spec in specs) == dict.fromkeys(range(20), runs // 20)


def test_target_domains_are_in_domainbeds_order() -> None:
    assert choose_targets(4, "both") == [
        *((0,), (0, 1), (0, 2), (0, 3)),
        *((1,), (1, 2), (1, 3)),
        *((2,), (2, 3)),
        (3,),
    ]
    assert choose_targets(3, "singles") == [(0,), (1,), (2,)]
    assert choose_targets(3, "pairs") == [(0, 1), (0, 2), (1, 2)]
    assert choose_targets(2, "singles") == [(0,), (1,)]


@pytest.mark.parametrize(("domains", "targets"), [(2, "both"), (2, "pairs"), (1, "singles")])
def test_targets_that_leave_no_source_are_refused(domains: int, targets: str) -> None:
    with pytest.raises(ValueError, match=f"targets: '{targets}' needs at least . domains and many has"):
        SweepSpec(algorithms=("erm",), targets=targets).plan(ManyDomains(domains))


def test_a_run_is_what_seeds_and_config_say() -> None:
    config = RunConfig(steps=7, evaluate_every=3, fixed={"alpha": "1e-3"}, weights="none")
    sweep = SweepSpec(algorithms=("irm", "hgp"), trials=2, hparams=3, config=config)
    specs = sweep.plan(ManyDomains(3))
    assert [spec.algorithm for spec in specs] == (["irm"] * 18 + ["hgp"] * 18) * 2
    last = specs[-1]
    assert (last.trial_seed, last.hparams_seed, last.target_domains) == (1, 2, (2,))
    assert last.seed == seed_hash("ManyDomains", "HGP", [2], 2, 1)
    assert last.hparams == {**drawn("hgp", "large", 2, 1), "alpha": 1e-3}
    assert last.backbone.dropout == last.hparams["dropout"]
    assert (last.steps, last.evaluate_every, last.backbone.name) == (7, 3, "resnet50")
    defaults = SweepSpec(algorithms=("erm",), trials=1, hparams=1).plan(ManyDomains(3))[0]
    assert (defaults.steps, defaults.evaluate_every) == (5001, 300)


def test_former_names_still_work() -> None:
    config = protocol.RunSettings(steps=7)
    former = SweepSpec(algorithms=("erm",), settings=config)
    assert former == SweepSpec(algorithms=("erm",), config=config) == SweepSpec.model_validate(former)
    assert former.config.steps == 7
    with pytest.raises(ValidationError, match=r"settings\n.*Extra inputs are not permitted"):
        SweepSpec(algorithms=("erm",), settings=config, config=RunConfig())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithms": ("ermm",)}, "algorithm: 'ermm' is not known; allowed are adrmx, and_mask"),
        ({"config": RunConfig(fixed={"alpah": 1.0})}, "set: 'alpah' is no hyper-parameter of any"),
        ({"config": RunConfig(fixed={"lr": -1.0})}, "lr\n.*greater than or equal to 0"),
        ({"config": RunConfig(backbone="resnet19")}, "name: 'resnet19' is not known"),
        ({"config": RunConfig(fixed={"batch_size": 561})}, "batch_size: domain 'd1' has 560 training"),
        ({"trials": 0}, "trials\n.*greater than or equal to 1"),
        ({"algorithms": ()}, "algorithms\n.*at least 1 item"),
    ],
)
def test_bad_sweeps_are_named(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SweepSpec(**{"algorithms": ("erm",), "trials": 1, "hparams": 1, **changes}).plan(ManyDomains(3))


@pytest.mark.parametrize(
    ("steps", "fixed", "late"),
    [
        (100, {}, ["fishr (anneal_steps, 3 of 3 runs)", "irm (anneal_steps, 3 of 3 runs)"]),
        (500, {}, ["fishr (anneal_steps, 3 of 3 runs)", "irm (anneal_steps, 3 of 3 runs)"]),
        (501, {}, ["fishr (anneal_steps, 3 of 3 runs)"]),
        (2000, {}, []),
        (100, {"anneal_steps": 30}, []),
    ],
)
def test_what_sets_in_after_the_end_is_told(steps: int, fixed: dict, late: list[str]) -> None:
    """Fishr's penalty waits for 1,500 steps by default and IRM's for 500; HGP's does not wait."""
    config = RunConfig(steps=steps, evaluate_every=steps, fixed=fixed)
    sweep = SweepSpec(
        algorithms=("hgp", "irm", "fishr"), trials=1, hparams=1, targets="singles", config=config
    )
    assert protocol.too_late(sweep.plan(ManyDomains(3))) == late


def test_whatever_an_algorithm_says_that_it_waits_with_is_told() -> None:
    waits = [(name, field) for name in algorithm_names() for field, _ in get_algorithm(name).sets_in]
    algorithms = tuple(dict.fromkeys(name for name, _ in waits))
    config = RunConfig(steps=1, evaluate_every=1, fixed={"anneal_steps": 5})  # CMA does not wait by default
    sweep = SweepSpec(algorithms=algorithms, trials=1, hparams=1, targets="singles", config=config)
    told = [f"{name} ({field}, 3 of 3 runs)" for name, field in sorted(waits)]
    assert protocol.too_late(sweep.plan(ManyDomains(3))) == told


def test_every_algorithm_can_be_planned() -> None:
    specs = SweepSpec(algorithms=algorithm_names(), trials=1, hparams=4).plan(ManyDomains(4))
    assert len(specs) == len(algorithm_names()) * 4 * 10


class Features(ManyDomains):
    default_backbone = "identity"


def test_the_dataset_says_what_its_backbone_is() -> None:
    assert choose_backbone(get_dataset("colored_mnist")).name == "mnist_cnn"
    assert choose_backbone(get_dataset("pacs")).model_dump() == {
        "name": "resnet50",
        "weights": "hub",
        "weights_sha256": "",
        "frozen_batch_norm": True,
        "dropout": 0.0,
        "rank": None,
    }
    assert Features.default_backbone == "identity"


def test_a_weights_file_is_told_by_its_content(tmp_path: Path) -> None:
    def identity(path: Path) -> str:
        config = RunConfig(weights=str(path))
        sweep = SweepSpec(algorithms=("erm",), trials=1, hparams=1, config=config)
        return sweep.plan(ManyDomains(3))[0].identity()

    first, moved, other = (tmp_path / f"{name}.safetensors" for name in ("first", "moved", "other"))
    save_file({"weight": torch.zeros(2)}, first)
    save_file({"weight": torch.ones(2)}, other)
    before = identity(first)
    assert identity(other) != before
    first.rename(moved)
    assert identity(moved) == before
    with pytest.raises(OSError, match=r"weights: there is no file .*first"):
        identity(first)


def test_the_identity_needs_no_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"weight": torch.zeros(2)}, path)
    sweep = SweepSpec(algorithms=("erm",), trials=1, hparams=1, config=RunConfig(weights=str(path)))
    spec = sweep.plan(ManyDomains(3))[0]
    path.unlink()
    assert RunSpec.model_validate_json(spec.model_dump_json()).identity() == spec.identity()


def test_small_images_have_no_dropout() -> None:
    tiny = TinyDomains
    assert choose_backbone(tiny, "mnist_cnn", dropout=0.5).dropout == 0
    assert choose_backbone(ManyDomains, "resnet18", "none", dropout=0.5).dropout == 0.5
