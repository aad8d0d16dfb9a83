"""Classes by name: a package's own, each in the module of its name, and those of installed plug-ins."""

from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any


class Registry:
    """Knows every name at once and imports a class only when it is asked for.

    Args:
        kind: What the classes are, for sentences: ``"algorithm"``.
        package: Package of the built-in classes; also the group of the plug-ins' entry points.
        built_in: Names of the built-in classes, each the name of its module in the package.
    """

    def __init__(self, kind: str, package: str, built_in: Sequence[str]) -> None:
        self.kind = kind
        self.package = package
        self.built_in = tuple(built_in)
        self._classes: dict[str, Any] = {}

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
        if name in self._classes or reserved:
            raise ValueError(f"name: {name!r} is taken by another {self.kind}; allowed is any other name")
        registered.name = name
        registered.reference_name = reference_name or name
        self._classes[name] = registered

    def names(self) -> list[str]:
        """All names, those of installed plug-ins included."""
        return sorted({*self.built_in, *self._classes, *entry_points(group=self.package).names})

    def require(self, name: str) -> None:
        """Refuse an unknown name, importing nothing.

        Raises:
            ValueError: If there is no such class.
        """
        if name not in self.built_in and name not in self._classes and name not in self.names():
            raise ValueError(f"{self.kind}: {name!r} is not known; allowed are {', '.join(self.names())}")

    def get(self, name: str) -> Any:
        """The class with a name; a plug-in is loaded from its entry point.

        Raises:
            ValueError: If there is none.
        """
        if name in self.built_in and name not in self._classes:
            import_module(f"{self.package}.{name}")
        if name not in self._classes:
            for entry in entry_points(group=self.package, name=name):
                entry.load()
        if name not in self._classes:
            self.require(name)
            raise ValueError(f"{self.kind}: the plug-in of {name!r} holds no {self.kind} of that name")
        return self._classes[name]
