"""``hessalign algorithms``: everything that is said of an algorithm is what its file says."""

import json

import pytest

from hessalign.algorithms import algorithm_names, get_algorithm
from hessalign.algorithms.description import describe_algorithm, search_text
from hessalign.algorithms.hparams import Choice, Fixed, HParams, LogUniform, Uniform
from tests.cli.command import hessalign, words
from tests.training.test_vectorised import ALONE

OURS = {"exact_diagonal", "exact_hessian", "flat_head"}


def test_the_list_names_all_with_what_they_need() -> None:
    result = hessalign("algorithms", "--json")
    rows = {row["name"]: row for row in json.loads(result.stdout)}
    assert list(rows) == algorithm_names()
    for name, row in rows.items():
        algorithm = get_algorithm(name)
        assert row["needs_images"] is algorithm.needs_images
        assert row["needs_domains"] == algorithm.needs_domains
        assert row["needs_trainable_backbone"] is algorithm.needs_trainable_backbone
        assert row["trains_together"] is (name not in ALONE)
        assert row["reference_name"] == algorithm.reference_name
        assert (row["year"] is None) is (name in OURS)
        assert row["year"] is None or str(row["year"]) in row["paper"]
    assert (rows["cma"]["year"], rows["erm"]["year"], rows["coral"]["year"]) == (2025, 1998, 2016)


def test_the_table_fits_a_terminal() -> None:
    result = hessalign("algorithms", COLUMNS="100")
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    found = words(result.stdout)
    assert all(name in found for name in algorithm_names())
    row = next(line for line in lines if line.startswith("│ dann"))
    assert "2016" in row
    assert "several domains, a trainable" in row


@pytest.mark.parametrize("spelled", ["ib_irm", "IB_IRM", "ib-irm"])
def test_one_is_told_whole(spelled: str) -> None:
    result = hessalign("algorithms", spelled, "--search-space", "small")
    found = words(result.stdout)
    for said in ("ib_irm", "NeurIPS 2021", "mean_e R_e + w_t mean_e g_e g′_e", "irm_anneal_steps", "500"):
        assert said in found
    for said in (
        "int(10^U(0, 4))",
        "Steps before it sets in.",
        "always 0",
        "int(2^U(3, 9))",
        "train together: yes",
    ):
        assert said in found


def test_json_has_all_search_spaces() -> None:
    document = json.loads(hessalign("algorithms", "urm", "--json").stdout)
    hparams = {hparam["name"]: hparam for hparam in document["hparams"]}
    assert hparams["discriminator_lr"]["defaults"] == {
        "small": 1e-3, "large": 5e-5, "domain_net": 5e-5, "features": 1e-3
    }  # fmt: skip
    assert hparams["discriminator_lr"]["searches"]["small"] == "10^U(-5.5, -3.5)"
    assert hparams["discriminator_lr"]["reference_name"] == "urm_discriminator_lr"
    assert hparams["activation"]["searches"]["large"] == "one of tanh, relu"
    assert [name for name, hparam in hparams.items() if hparam["is_shared"]] == [*HParams.model_fields]


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    result = hessalign("algorithms", "eqmr")
    assert result.returncode == 2
    assert "algorithm: 'eqmr' is not known; allowed are adrmx, and_mask" in words(result.stderr)


@pytest.mark.parametrize("name", algorithm_names())
def test_every_hyper_parameter_has_a_meaning_and_its_own_default(name: str) -> None:
    hparams_class = get_algorithm(name).hparams_class
    described = describe_algorithm(name)
    assert {hparam.name for hparam in described.hparams} == {*hparams_class.model_fields}
    for hparam in described.hparams:
        assert hparam.meaning, hparam.name
        for space, default in hparam.defaults.items():
            assert getattr(hparams_class.with_defaults(space), hparam.name) == default
        assert bool(hparam.searches) is (hparam.name in hparams_class.spaces("large"))
    assert "`" in described.rule
    assert "``" not in described.rule


def test_distributions_in_a_few_signs() -> None:
    texts = {
        "10^U(-5, -1)": LogUniform(-5, -1),
        "int(2^U(3, 5.5))": LogUniform(3, 5.5, base=2, whole=True),
        "10^U(-3, -1)": LogUniform(-1, -3),
        "int(U(800, 2700))": Uniform(800, 2700, whole=True),
        "one of 0.1, relu": Choice((0.1, "relu")),
        "always 8": Fixed(8),
    }
    assert {search_text(search): search for search in texts.values()} == texts
