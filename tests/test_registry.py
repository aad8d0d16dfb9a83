"""Classes by name: known by the files in which they register, imported when they are asked for."""

import os
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points
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


def test_installed_packages_are_searched_once_and_again_where_one_is_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep asks for a name a record, and a search reads the metadata of every package there is."""
    searches = []

    def counted(**given: str) -> EntryPoints:
        searches.append(given)
        return entry_points(**given)

    monkeypatch.setattr("hessalign.registry.entry_points", counted)
    monkeypatch.syspath_prepend(tmp_path)
    registry: Registry = Registry("algorithm", "hessalign.algorithms")
    names = registry.names()
    for _ in range(3):
        assert registry.require("HGP") == "hgp"
        assert registry.names() == names
    assert len(searches) == 1
    package = tmp_path / "flowers-1.dist-info"
    package.mkdir()
    os.utime(tmp_path, (0, 0))  # a file system's clock may stand still between two changes
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: flowers\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[hessalign.algorithms]\nflowers = flowers\n")
    assert set(registry.names()) - set(names) == {"flowers"}
    assert len(searches) == 2
