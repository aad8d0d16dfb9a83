"""A rule that compares source domains says so where there is one, once."""

import warnings

import pytest
import torch

from hessalign.algorithms import algorithm_names, get_algorithm
from hessalign.exceptions import NoEffectWarning
from tests.algorithms.images import draw_batch, make_on_images
from tests.algorithms.tiny import make_algorithm, make_batch, snapshot

ALONE = {"erm", "irm", "mtl", "sagnet", "arm", "rsc", "flat_head"}
ALONE |= {"sd", "ib_erm", "ib_irm", "self_reg", "urm", "erm_plus_plus"}
"""They do with one domain what they do with many."""


@pytest.mark.parametrize("name", algorithm_names())
def test_one_source_domain(name: str) -> None:
    batch = draw_batch(torch.Generator().manual_seed(0), domains=1)
    algorithm = make_on_images(name, {}, domains=1)
    optimizers = algorithm.make_optimizers()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            algorithm.update(batch, optimizers)
    told = [str(warning.message) for warning in caught if warning.category is NoEffectWarning]
    if get_algorithm(name).needs_domains == 1:
        assert told == []
    else:
        assert told == [
            f"algorithm: {name} compares source domains, of which there is 1 here: it has nothing to "
            "compare, and trains on the risk alone; it needs at least 2"
        ]
        assert name not in ALONE


PLAIN = ["hgp", "coral", "mmd", "vrex", "group_dro", "mixup", "mldg", "fishr", "causirl_coral", "causirl_mmd"]
PLAIN += ["eqrm", "rdm", "trm", "cad", "cond_cad", "iga", "transfer"]
WAITS = {"eqrm": {"burn_in_steps": 0}, "rdm": {"anneal_steps": 0}, "trm": {"erm_steps": 0}}


@pytest.mark.parametrize("name", PLAIN)
def test_with_one_domain_the_update_is_that_of_plain_training(name: str) -> None:
    algorithm = make_algorithm(name, domains=1, **WAITS.get(name, {}))
    plain = make_algorithm("erm", domains=1)
    batch = make_batch(domains=1)
    with pytest.warns(NoEffectWarning):
        algorithm.update(batch, algorithm.make_optimizers())
    plain.update(batch, plain.make_optimizers())
    expected = snapshot(plain)
    for key, value in expected.items():
        torch.testing.assert_close(algorithm.state_dict()[key], value, rtol=0, atol=1e-8)


def test_two_domains_are_enough() -> None:
    for name in algorithm_names():
        algorithm = make_on_images(name, {"meta_test_domains": 1} if name == "mldg" else {}, domains=2)
        assert algorithm.no_effect() is None


def test_mldg_as_domainbed_has_it_says_where_it_learns_nothing() -> None:
    algorithm = make_algorithm("mldg", domains=2, variant="domainbed")
    assert algorithm.no_effect() == (
        "meta_test_domains: with 2 of 2 source domains held out none is left for meta-train, and variant "
        '"domainbed" trains nothing'
    )


@pytest.mark.parametrize("name", ["coral", "mmd"])
def test_features_that_nothing_trains_leave_a_penalty_on_features_nothing_to_do(name: str) -> None:
    algorithm, plain = make_algorithm(name), make_algorithm("erm")
    for each in (algorithm, plain):
        each.backbone.requires_grad_(False)
    batch = make_batch()
    with pytest.warns(
        NoEffectWarning, match=f"algorithm: the penalty of {name} depends on the features alone"
    ):
        algorithm.update(batch, algorithm.make_optimizers())
    algorithm.update(batch, algorithm.make_optimizers())  # told once
    plain.update(batch, plain.make_optimizers())
    plain.update(batch, plain.make_optimizers())
    for key, value in plain.head.state_dict().items():
        torch.testing.assert_close(algorithm.head.state_dict()[key], value)


def test_of_two_penalties_the_one_on_features_says_that_it_does_nothing() -> None:
    algorithm = make_algorithm("ib_irm")
    assert algorithm.no_effect() is None
    algorithm.backbone.requires_grad_(False)
    assert str(algorithm.no_effect()).startswith("ib_weight: the variance of the features is theirs alone")
    without = make_algorithm("ib_irm", ib_weight=0.0)
    without.backbone.requires_grad_(False)
    assert without.no_effect() is None
