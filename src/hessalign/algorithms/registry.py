"""Algorithms by name; a module is imported when its algorithm is asked for."""

from typing import TYPE_CHECKING

from hessalign.registry import Registry

if TYPE_CHECKING:
    from hessalign.algorithms.base import Algorithm

_REGISTRY: "Registry[type[Algorithm]]" = Registry("algorithm", "hessalign.algorithms")

Registered = TypeVar("Registered", bound="type[Algorithm]")
_REGISTRY = Registry("algorithm", "hessalign.algorithms", BUILT_IN)


def register(name: str, reference_name: str | None = None) -> Callable[[Registered], Registered]:
    """Class decorator that makes an algorithm known by a name.

    Args:
        name: It stands in the specs of runs, and may not change once there are any.
        reference_name: What seeds the runs of a sweep, DomainBed's spelling where it has one; the name by
            default.

    Returns:
        The decorator.

    Raises:
        ValueError: If another algorithm has the name.
    """

    def add(algorithm: Registered) -> Registered:
        _REGISTRY.add(name, algorithm, reference_name)
        return algorithm

    return add


def algorithm_names() -> list[str]:
    """Names of all algorithms, those of installed plug-ins included."""
    return _REGISTRY.names()


def require_algorithm(name: str) -> None:
    """Refuse an unknown name before anything is imported.

    Raises:
        ValueError: If there is no such algorithm.
    """
    _REGISTRY.require(name)


def get_algorithm(name: str) -> "type[Algorithm]":
    """The algorithm with a name; a plug-in is loaded from its entry point.

    Returns:
        The class.

    Raises:
        ValueError: If there is none.
    """
    algorithm: type[Algorithm] = _REGISTRY.get(name)
    return algorithm
