"""For all tests, those in docstrings among them."""

from collections.abc import Iterator

import pytest

from hessalign.algorithms import registry


@pytest.fixture(autouse=True)
def _own_algorithms_are_forgotten() -> Iterator[None]:
    """Other tests go through all algorithms, and know nothing of what an example's own needs."""
    classes = registry._REGISTRY._classes
    before = {*classes, *registry.BUILT_IN}
    yield
    for name in set(classes) - before:
        del classes[name]
