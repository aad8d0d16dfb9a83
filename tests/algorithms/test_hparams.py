"""Search spaces, defaults and checks of hyper-parameters; DomainBed's draws to the last digit."""

import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from hessalign.algorithms import Algorithm, algorithm_names, get_algorithm, register, require_algorithm
from hessalign.algorithms.hparams import Choice, Fixed, HParams, LogUniform, Uniform
from hessalign.algorithms.registry import registered_name
from hessalign.benchmark.names import ALGORITHM_LABELS
from hessalign.benchmark.protocol import SweepSpec, run_seed
from hessalign.datasets import dataset_names, get_dataset
from hessalign.registry import Registry
from tests.training.tiny_domains import tiny_spec


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


PAPER_EXPONENTS = {"small": (4, 9), "large": (4, 5.5), "domain_net": (4, 5)}


@pytest.mark.parametrize("name", ["hgp", "hutchinson", "exact_diagonal", "exact_hessian", "flat_head"])
def test_aligned_algorithms_draw_the_batch_sizes_of_the_papers_code(name: str) -> None:
    """DomainBed begins at 2 ** 3, the paper's code at 2 ** 4."""
    hparams = get_algorithm(name).hparams_class
    for images, exponents in PAPER_EXPONENTS.items():
        search = hparams.spaces(images)["batch_size"].search
        assert (search.first_exponent, search.second_exponent, search.base) == (*exponents, 2)
        assert min(draw(name, images, number, 0)["batch_size"] for number in range(1, 60)) in (16, 17)
        assert draw("erm", images, 1, 0)["batch_size"] >= 8
    assert draw(name, "small", 1, 0)["batch_size"] == 392  # 372 from DomainBed's range
    assert hparams(batch_size=8).batch_size == 8  # as recorded runs have it


OUTSIDE = {"hutchinson", "transfer", "urm"}
"""Algorithms with a default that their published search never draws."""


@pytest.mark.parametrize("name", sorted({*algorithm_names()} - OUTSIDE))
def test_defaults_lie_in_their_search_ranges(name: str) -> None:
    """Where they do not, the published code has it so, which the page says."""
    for images in ("small", "large", "domain_net", "features"):
        for field, space in get_algorithm(name).hparams_class.spaces(images).items():
            match space.search:
                case LogUniform(first, second, base):
                    # A decay or a gradient penalty of 0 has no logarithm.
                    low, high = sorted((base**first, base**second))
                    assert space.default == 0 or low <= space.default <= high, (images, field)
                case Uniform(low, high):
                    assert low <= space.default <= high, (images, field)
                case Choice(values):
                    assert space.default in values, (images, field)
                case Fixed(value):
                    assert space.default == value, (images, field)


def test_only_what_the_papers_code_writes_backwards_is() -> None:
    """There the random number is mirrored, and the draws are the paper's."""
    backwards = {
        (name, field)
        for name in algorithm_names()
        for field, space in get_algorithm(name).hparams_class.spaces("large").items()
        if isinstance(space.search, LogUniform) and space.search.first_exponent > space.search.second_exponent
    }
    assert backwards == {(name, part) for name in ("hgp", "hutchinson") for part in ("alpha", "beta")}


REFERENCE_NAMES = {
    "adrmx": "ADRMX",
    "and_mask": "ANDMask",
    "arm": "ARM",
    "cad": "CAD",
    "causirl_coral": "CausIRL_CORAL",
    "causirl_mmd": "CausIRL_MMD",
    "cdann": "CDANN",
    "cma": "CMA",
    "cond_cad": "CondCAD",
    "coral": "CORAL",
    "dann": "DANN",
    "eqrm": "EQRM",
    "erm": "ERM",
    "erm_plus_plus": "ERMPlusPlus",
    "exact_diagonal": "ExactDiagonal",
    "exact_hessian": "ExactHessian",
    "fish": "Fish",
    "fishr": "Fishr",
    "flat_head": "FlatHead",
    "group_dro": "GroupDRO",
    "hgp": "HGP",
    "hutchinson": "Hutchinson",
    "ib_erm": "IB_ERM",
    "ib_irm": "IB_IRM",
    "iga": "IGA",
    "irm": "IRM",
    "mixup": "Mixup",
    "mldg": "MLDG",
    "mmd": "MMD",
    "mtl": "MTL",
    "rdm": "RDM",
    "rsc": "RSC",
    "sagnet": "SagNet",
    "sand_mask": "SANDMask",
    "sd": "SD",
    "self_reg": "SelfReg",
    "transfer": "Transfer",
    "trm": "TRM",
    "urm": "URM",
    "vrex": "VREx",
}


DATASET_REFERENCE_NAMES = {
    "colored_mnist": "ColoredMNIST",
    "csv_file": "CSVDomains",
    "domain_net": "DomainNet",
    "features_file": "FeaturesFile",
    "image_folder": "ImageFolderDomains",
    "office_home": "OfficeHome",
    "pacs": "PACS",
    "parquet_features": "ParquetFeatures",
    "parquet_images": "ParquetImages",
    "rotated_mnist": "RotatedMNIST",
    "spawrious_m2m_easy": "SpawriousM2M_easy",
    "spawrious_m2m_hard": "SpawriousM2M_hard",
    "spawrious_m2m_medium": "SpawriousM2M_medium",
    "spawrious_o2o_easy": "SpawriousO2O_easy",
    "spawrious_o2o_hard": "SpawriousO2O_hard",
    "spawrious_o2o_medium": "SpawriousO2O_medium",
    "sviro": "SVIRO",
    "terra_incognita": "TerraIncognita",
    "vlcs": "VLCS",
    "wilds_camelyon": "WILDSCamelyon",
    "wilds_fmow": "WILDSFMoW",
}


def test_seeds_hang_on_names_that_do_not_change() -> None:
    """Recorded runs have been seeded by these."""
    assert {name: get_algorithm(name).reference_name for name in REFERENCE_NAMES} == REFERENCE_NAMES


def test_seeds_of_datasets_hang_on_names_that_do_not_change() -> None:
    assert {name: get_dataset(name).reference_name for name in dataset_names()} == DATASET_REFERENCE_NAMES


def test_renaming_a_class_changes_no_seed() -> None:
    registry = Registry("algorithm", "hessalign.no_such_package")

    class RenamedHGP:
        """HGP under another class name."""

    class Anything:
        """Without a name of DomainBed's."""

    registry.add("hgp", RenamedHGP, "HGP")
    registry.add("of_ones_own", Anything)
    assert run_seed(get_dataset("rotated_mnist"), registry.get("hgp"), [0], 0, 0) == 563870196
    assert registry.get("of_ones_own").reference_name == "of_ones_own"


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
    with pytest.raises(ValueError, match="algorithm: 'hpg' is not known; allowed are adrmx, and_mask, arm"):
        get_algorithm("hpg")
    with pytest.raises(ValueError, match="name: 'erm' is taken by another algorithm"):

        @register("erm")
        class Another(Algorithm):
            """Never registered."""


@pytest.mark.parametrize("name", algorithm_names())
def test_the_references_spelling_is_understood(name: str) -> None:
    theirs = REFERENCE_NAMES[name]
    for spelled in (theirs, theirs.lower(), theirs.replace("_", "-"), name.upper(), name.replace("_", "-")):
        assert require_algorithm(spelled) == name
        assert get_algorithm(spelled) is get_algorithm(name)
    assert registered_name(theirs) == registered_name(ALGORITHM_LABELS[name]) == name


def test_spellings_of_one_name_are_one_run() -> None:
    assert require_algorithm("ERM++") == "erm_plus_plus"
    assert {tiny_spec(algorithm=name).identity() for name in ("ib_erm", "IB_ERM", "IB-ERM")} == {
        tiny_spec(algorithm="ib_erm").identity()
    }
    assert tiny_spec(algorithm="IB_ERM").algorithm == "ib_erm"
    assert SweepSpec(algorithms=("CausIRL_MMD", "GroupDRO")).algorithms == ("causirl_mmd", "group_dro")
    assert SweepSpec(algorithms=("Of_A_Plug_In",)).algorithms == ("Of_A_Plug_In",)


def test_a_name_spelled_like_another_is_taken() -> None:
    registry = Registry("algorithm", "hessalign.algorithms")

    class Anything:
        """Registered once."""

    registry.add("mine", Anything)
    for name in ("IB-ERM", "Mine", "mi_ne"):
        with pytest.raises(ValueError, match=f"name: '{name}' is taken by another algorithm"):
            registry.add(name, Anything)


DOMAINBED = """ERM Fish IRM GroupDRO Mixup MLDG CORAL MMD DANN CDANN MTL SagNet ARM VREx RSC SD ANDMask
SANDMask IGA SelfReg Fishr TRM IB_ERM IB_IRM CAD CondCAD Transfer CausIRL_CORAL CausIRL_MMD EQRM RDM ADRMX
ERMPlusPlus URM"""


def test_all_thirty_four_of_domainbed_are_there_by_its_names() -> None:
    found = {require_algorithm(name): name for name in DOMAINBED.split()}
    assert len(found) == 34
    assert {name: get_algorithm(name).reference_name for name in found} == found


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
