"""For all tests, those in docstrings among them."""

from collections.abc import Iterator

import pytest

from hessalign.algorithms import registry as algorithms
from hessalign.datasets import registry as datasets


@pytest.fixture(autouse=True)
def _own_classes_are_forgotten() -> Iterator[None]:
    """Other tests go through all algorithms and datasets, and know nothing of what an example's own needs."""
    before = [(each, {*each._classes, *each.built_in}) for each in (algorithms._REGISTRY, datasets._REGISTRY)]
    yield
    for registry, names in before:
        for name in set(registry._classes) - names:
            del registry._classes[name]
