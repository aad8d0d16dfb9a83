"""Asked for where it changes nothing, training batch normalisation is told to change nothing."""

import warnings

import pytest
from torch import nn

from hessalign.backbones import Backbone, BackboneSpec
from hessalign.datasets import get_dataset
from hessalign.exceptions import NoEffectWarning
from hessalign.training import choose_backbone
from hessalign.training.spec import check_batch_norm


@pytest.mark.parametrize(
    ("dataset", "backbone", "weights", "told"),
    [
        ("features_file", None, None, "since identity has none"),
        ("features_file", "adapter:mlp", None, "since adapter:mlp has none"),
        ("colored_mnist", None, None, "since mnist_cnn has none"),
        ("pacs", "resnet18", "none", "since resnet18 trains it anyway"),
        ("pacs", "resnet18", "hub", None),
    ],
)
def test_a_choice_of_backbone(
    dataset: str, backbone: str | None, weights: str | None, told: str | None
) -> None:
    chosen = {}
    for asked in (False, True):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            chosen[asked] = choose_backbone(get_dataset(dataset), backbone, weights, train_batch_norm=asked)
        sentences = [str(each.message) for each in caught if each.category is NoEffectWarning]
        assert len(sentences) == (asked and told is not None)
        assert all(told in sentence and sentence.startswith("train_batch_norm: ") for sentence in sentences)
    assert (chosen[False] == chosen[True]) == (told is not None)


@pytest.mark.parametrize("has_norm", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("weights", ["none", "hub"])
def test_a_network_that_may_have_none(has_norm: bool, frozen: bool, weights: str) -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3) if has_norm else nn.LayerNorm(3))
    spec = BackboneSpec(name="resnet18", weights=weights, frozen_batch_norm=frozen)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_batch_norm(spec, Backbone(network, 3))
    assert len(caught) == (not has_norm and not frozen and weights == "hub")
