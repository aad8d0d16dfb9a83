"""Classes by name: a package's own, each in the module of its name, and those of installed plug-ins."""

import os
import sys
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

from hessalign.checks import did_you_mean

Registered = TypeVar("Registered")
Added = TypeVar("Added")


class Registry(Generic[Registered]):
    """Knows every name at once and imports a class only when it is asked for.

    A class of the package is registered in the module of its name, and nowhere else:
    ``@register("hgp", ...)`` in ``hgp.py``.

    Args:
        kind: What the classes are, for sentences: ``"algorithm"``.
        package: Package of the built-in classes; also the group of the plug-ins' entry points.

    Attributes:
        built_in: Names of the package's own classes, by alphabet.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self.package = package
        self.built_in = _registering_modules(package)
        self._classes: dict[str, Any] = {}

    def register(self, name: str, reference_name: str | None = None) -> Callable[[Added], Added]:
        """Class decorator that makes a class known by a name.

        Args:
            name: It stands in the specs of runs, and may not change once there are any.
            reference_name: What seeds the runs of a sweep, DomainBed's spelling where it has one; the name by
                default.

        Returns:
            The decorator; it raises ValueError if another class has the name.
        """

        def add(registered: Added) -> Added:
            self.add(name, registered, reference_name)
            return registered

        return add

    def add(self, name: str, registered: Any, reference_name: str | None = None) -> None:
        """Make a class known by a name; sets its ``name`` and ``reference_name``.

        Args:
            name: The name.
            registered: The class, whose own name means nothing: it can be changed.
            reference_name: What seeds are made of; the name by default.

        Raises:
            ValueError: If another class has the name.
        """
        # A built-in class that nobody has asked for yet has its name all the same.
        reserved = name in self.built_in and registered.__module__ != f"{self.package}.{name}"
        alike = [known for known in (*self.built_in, *self._classes) if spelling(known) == spelling(name)]
        if name in self._classes or reserved or any(known != name for known in alike):
            raise ValueError(f"name: {name!r} is taken by another {self.kind}; allowed is any other name")
        registered.name = name
        registered.reference_name = reference_name or name
        self._classes[name] = registered

    def names(self) -> list[str]:
        """All names, those of installed plug-ins included."""
        return sorted({*self.built_in, *self._classes, *_plug_ins(self.package).names})

    def require(self, name: str) -> str:
        """Refuse an unknown name, importing nothing.

        Args:
            name: A name in any ``spelling``.

        Returns:
            The registered name.

        Raises:
            ValueError: If there is no such class.
        """
        if name in self.built_in or name in self._classes:
            return name
        names = self.names()
        alike = [known for known in names if known == name or spelling(known) == spelling(name)]
        if not alike:
            raise ValueError(
                f"{self.kind}: {name!r} is not known; allowed are {', '.join(names)}"
                f"{did_you_mean(name, names)}"
            )
        return name if name in alike else alike[0]

    def registered_name(self, name: str) -> str:
        """The registered name of a class; what was given where there is none.

        Args:
            name: A name in any ``spelling``.

        Returns:
            The name.
        """
        try:
            return self.require(name)
        except ValueError:
            return name

    def get(self, name: str) -> Registered:
        """The class with a name; a plug-in is loaded from its entry point.

        Args:
            name: A name in any ``spelling``.

        Returns:
            The class.

        Raises:
            ValueError: If there is none.
        """
        name = self.require(name)
        if name in self.built_in and name not in self._classes:
            import_module(f"{self.package}.{name}")
        if name not in self._classes:
            for entry in _plug_ins(self.package).select(name=name):
                entry.load()
        if name not in self._classes:
            raise ValueError(f"{self.kind}: the plug-in of {name!r} holds no {self.kind} of that name")
        registered: Registered = self._classes[name]
        return registered


def _plug_ins(group: str) -> EntryPoints:
    places = [os.path.abspath(place) for place in sys.path]
    return _entry_points(
        group, tuple((place, os.path.getmtime(place)) for place in places if os.path.exists(place))
    )


@lru_cache(maxsize=8)
def _entry_points(group: str, places: tuple[tuple[str, float], ...]) -> EntryPoints:
    """Entry points of a group, which takes a look into every installed package; a sweep has a name a record.

    Args:
        group: The group.
        places: Folders of ``sys.path`` and when each last changed, as it does where a package is installed.

    Returns:
        The entry points.
    """
    return entry_points(group=group)


def spelling(name: str) -> str:
    """What tells a name from others: its letters and digits, whatever their case, and ``+`` as ``plus``.

    Returns:
        The letters and digits, in small letters.

    Examples:
        >>> spelling("IB_ERM") == spelling("ib-erm"), spelling("ERM++") == spelling("ERMPlusPlus")
        (True, True)
    """
    return "".join(filter(str.isalnum, name.replace("+", "plus"))).lower()


def _registering_modules(package: str) -> tuple[str, ...]:
    """Names of the modules that register a class by the module's name; read as text, which costs little."""
    spec = find_spec(package)
    folders = map(Path, (spec and spec.submodule_search_locations) or ())
    return tuple(
        path.stem
        for folder in folders
        for path in sorted(folder.glob("*.py"))
        if f'\n@register("{path.stem}"' in path.read_text(encoding="utf-8")
    )
