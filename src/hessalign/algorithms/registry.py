"""Algorithms by name; a module is imported when its algorithm is asked for."""

from typing import TYPE_CHECKING

from hessalign.registry import Registry

if TYPE_CHECKING:
    from hessalign.algorithms.base import Algorithm

_REGISTRY: "Registry[type[Algorithm]]" = Registry("algorithm", "hessalign.algorithms")

BUILT_IN = _REGISTRY.built_in
register = _REGISTRY.register
algorithm_names = _REGISTRY.names
require_algorithm = _REGISTRY.require
registered_name = _REGISTRY.registered_name
get_algorithm = _REGISTRY.get
