"""Classes by name: known by the files in which they register, imported when they are asked for."""

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from hessalign.registry import Registry

REGISTRY = """from hessalign.registry import Registry
registry = Registry("thing", "{package}")
register = registry.register
"""
THING = """from {package}.registry import register


@register("{name}", reference_name="{name}X")
class Thing:
    pass
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Of a package with a class in the file of its name, one in another file, and a file without."""
    package = "things_of_a_test"
    folder = tmp_path / package
    folder.mkdir()
    files = {
        "__init__": "",
        "registry": REGISTRY.format(package=package),
        "cup": THING.format(package=package, name="cup"),
        "shelf": THING.format(package=package, name="plate"),
        "tools": 'def tool(): "@register("',
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield import_module(f"{package}.registry").registry
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def test_a_file_of_its_own_is_all_that_a_class_needs(registry: Registry) -> None:
    assert registry.built_in == ("cup",)
    assert registry.names() == ["cup"]
    assert "things_of_a_test.cup" not in sys.modules
    thing = registry.get("cup")
    assert (thing.__name__, thing.name, thing.reference_name) == ("Thing", "cup", "cupX")


def test_a_name_is_given_once(registry: Registry) -> None:
    class Other:
        """Of a plug-in."""

    with pytest.raises(ValueError, match="name: 'cup' is taken by another thing; allowed is any other name"):
        registry.register("cup")(Other)
    assert registry.register("mug")(Other) is registry.get("mug") is Other
    assert Other.reference_name == "mug"
    with pytest.raises(ValueError, match="name: 'mug' is taken by another thing"):
        registry.register("mug")(Other)
    with pytest.raises(ValueError, match="thing: 'jug' is not known; allowed are cup, mug"):
        registry.get("jug")
