"""Algorithms by name; a module is imported when its algorithm is asked for."""

from typing import TYPE_CHECKING

from hessalign.registry import Registry

if TYPE_CHECKING:
    from hessalign.algorithms.base import Algorithm

_REGISTRY: "Registry[type[Algorithm]]" = Registry("algorithm", "hessalign.algorithms")

BUILT_IN = _REGISTRY.built_in
register = _REGISTRY.register
"""Decorator that gives a class its name: ``@register("name")``; ``ValueError`` if another one has it."""
algorithm_names = _REGISTRY.names
"""``algorithm_names()``: all names, those of installed plug-ins included."""
require_algorithm = _REGISTRY.require
"""``require_algorithm(name)``: the name as registered, from any spelling; ``ValueError`` if there is none."""
registered_name = _REGISTRY.registered_name
get_algorithm = _REGISTRY.get
"""``get_algorithm("hgp")``: the class with a name, in any spelling; ``ValueError`` if there is none."""
