"""Search spaces, defaults and checks of hyper-parameters; DomainBed's draws to the last digit."""

import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from hessalign.algorithms import Algorithm, algorithm_names, get_algorithm, register
from hessalign.algorithms.hparams import HParams


def seed(*arguments: object) -> int:
    """DomainBed's hash of a tuple."""
    return int(hashlib.md5(str(arguments).encode()).hexdigest(), 16) % 2**31


def draw(name: str, images: str, hparams_seed: int, trial_seed: int) -> dict[str, float]:
    """Every hyper-parameter from a generator of its own, seeded by DomainBed's name."""
    hparams = get_algorithm(name).hparams_class
    both = seed(hparams_seed, trial_seed)
    names = hparams.reference_names()
    return {
        field: space.search.draw(np.random.RandomState(seed(both, names[field])))
        for field, space in hparams.spaces(images).items()
    }


def test_seeds_are_domainbeds() -> None:
    assert seed(0, 0) == 894182419
    assert seed(1, 0) == 785910682
    assert seed("PACS", "HGP", [0, 1], 3, 2) == 1225855936


def test_draws_are_domainbeds() -> None:
    large, small = draw("erm", "large", 1, 0), draw("erm", "small", 1, 0)
    assert large["lr"] == 2.7028930742148706e-05
    assert large["weight_decay"] == 0.00044832883881609976
    assert large["batch_size"] == 39
    assert large["dropout"] == 0.5
    assert small["lr"] == 0.00011906162909279594
    assert small["batch_size"] == 372
    assert small["weight_decay"] == 0
    irm = draw("irm", "large", 1, 0)
    assert (irm["penalty_weight"], irm["anneal_steps"]) == (65030.52212762795, 2)
    fishr = draw("fishr", "large", 1, 0)
    assert (fishr["penalty_weight"], fishr["anneal_steps"], fishr["ema"]) == (
        809.251247284292,
        4072,
        0.9129082782560279,
    )
    hgp = draw("hgp", "large", 1, 0)
    assert (hgp["alpha"], hgp["beta"]) == (4.243422978317943e-05, 0.04201632158543692)
    hutchinson = draw("hutchinson", "large", 1, 0)
    assert (hutchinson["alpha"], hutchinson["beta"]) == (87.41269008706993, 176537.1279570853)
    assert draw("hgp", "large", 1, 1)["alpha"] == 0.00031616751712393987


@pytest.mark.parametrize("name", algorithm_names())
def test_defaults_and_draws_are_valid(name: str) -> None:
    hparams = get_algorithm(name).hparams_class
    for images in ("small", "large", "domain_net", "features"):
        defaults = hparams.with_defaults(images)
        assert all(
            getattr(defaults, field) == space.default for field, space in hparams.spaces(images).items()
        )
        for number in range(1, 20):
            values = draw(name, images, number, 0)
            assert hparams(**values).model_dump() | values == hparams(**values).model_dump()


def test_defaults_depend_on_the_images() -> None:
    hparams = get_algorithm("arm").hparams_class
    assert (hparams.with_defaults("small").lr, hparams.with_defaults("large").lr) == (1e-3, 5e-5)
    assert [hparams.with_defaults(size).batch_size for size in ("small", "large", "domain_net")] == [64, 8, 8]
    spaces = [HParams.spaces(size)["batch_size"].search for size in ("large", "domain_net")]
    assert [space.second_exponent for space in spaces] == [5.5, 5]


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"alpah": 1.0}, "alpah\n.*Extra inputs are not permitted"),
        ({"alpha": -1.0}, "alpha\n.*greater than or equal to 0"),
        ({"alpha": "much"}, "alpha\n.*valid number"),
        ({"batch_size": 0}, "batch_size\n.*greater than or equal to 1"),
        ({"lr": float("nan")}, "lr\n.*finite number"),
    ],
)
def test_bad_values_are_named(overrides: dict, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        get_algorithm("hgp").hparams_class.with_defaults("large", overrides)


def test_text_is_read_as_numbers() -> None:
    hparams = get_algorithm("hgp").hparams_class.with_defaults("large", {"alpha": "1e-2", "batch_size": "16"})
    assert (hparams.alpha, hparams.batch_size) == (0.01, 16)


def test_unknown_and_double_names_are_refused() -> None:
    with pytest.raises(ValueError, match="algorithm: 'hpg' is not known; allowed are and_mask, arm, cdann"):
        get_algorithm("hpg")
    with pytest.raises(ValueError, match="name: 'erm' is taken by another algorithm"):

        @register("erm")
        class Another(Algorithm):
            """Never registered."""


def test_all_twenty_of_the_paper_and_ours_are_there() -> None:
    baselines = "erm irm group_dro mixup mldg coral mmd dann cdann mtl sagnet arm vrex rsc and_mask sand_mask"
    names = {*baselines.split(), "fish", "fishr", "hgp", "hutchinson"}
    assert len(names) == 20
    assert names | {"exact_diagonal", "exact_hessian", "flat_head"} <= set(algorithm_names())


def test_a_plug_in_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """Installed from the example's own pyproject, in a process of its own."""
    example = Path(__file__).parents[2] / "examples" / "third_party_algorithm"
    entry = tomllib.loads((example / "pyproject.toml").read_text())["project"]["entry-points"]
    metadata = tmp_path / "hessalign_worst_domain-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hessalign-worst-domain\nVersion: 1\n")
    lines = [f"{name} = {target}" for name, target in entry["hessalign.algorithms"].items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[hessalign.algorithms]", *lines]) + "\n")
    code = (
        "from hessalign.algorithms import algorithm_names, get_algorithm\n"
        "assert 'worst_domain' in algorithm_names()\n"
        "print(get_algorithm('worst_domain').__name__)"
    )
    paths = os.pathsep.join([str(tmp_path), str(example)])
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.strip() == "WorstDomain", result.stderr
