"""What objects remember in their attributes, as values that torch.load reads without executing anything."""

import random
from collections import deque
from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

LIBRARIES = ("torch", "torchvision", "timm", "hessalign")
"""Where modules come from that keep all that they remember in parameters and buffers."""
OF_EVERY_MODULE = frozenset(vars(nn.Module()))
PLAIN = (bool, int, float, str, bytes, type(None))
CONSTANT = (type, ModuleType, FunctionType, MethodType, BuiltinFunctionType, torch.dtype, torch.device)
SEQUENCE = (list, tuple, deque, set)

Attributes = dict[str, dict[str, Any]]
"""By the path of a module and the name of an attribute."""
Inner = Callable[[Any, str], Any]
"""Encodes what lies in a value, at a place that messages name."""


def attributes_of(root: nn.Module, constants: frozenset[int]) -> Attributes:
    """What the attributes of modules remember, beside parameters and persistent buffers.

    Modules of PyTorch and other libraries keep nothing there.

    Args:
        root: With all modules in it.
        constants: ``id`` of each object that does not change and is not looked into.

    Returns:
        The attributes, encoded.

    Raises:
        ValueError: If an attribute is of a kind that cannot be kept.
    """
    kept = {}
    for path, module in root.named_modules():
        if type(module).__module__.partition(".")[0] in LIBRARIES:
            continue
        attributes = {name: value for name, value in vars(module).items() if name not in OF_EVERY_MODULE}
        attributes |= {name: getattr(module, name) for name in module._non_persistent_buffers_set}
        where = ".".join(filter(None, (type(root).__name__, path)))
        kept[path] = {
            name: encoded(value, constants, f"{where}.{name}") for name, value in attributes.items()
        }
    return kept


def bring_back(root: nn.Module, kept: Attributes) -> None:
    """Give modules the attributes that ``attributes_of`` found."""
    modules = dict(root.named_modules())
    for path, attributes in kept.items():
        _set_all(attributes, modules[path])


def encoded(value: Any, above: frozenset[int], where: str) -> Any:
    """A value as its kind and what is in it.

    Args:
        value: Any.
        above: ``id`` of each object that is a constant, or that holds the value.
        where: What messages call it.

    Returns:
        Name of the kind, and content.

    Raises:
        ValueError: If it is of no kind that can be kept.
    """
    if id(value) in above and not isinstance(value, PLAIN):
        return ("constant", None)

    def inner(part: Any, place: str) -> Any:
        return encoded(part, above | {id(value)}, where + place)

    for name, kind in KINDS.items():
        if kind.fits(value):
            return (name, kind.keep(value, inner))
    raise ValueError(
        f"algorithm: {where} is a {type(value).__name__}, which a checkpoint cannot hold; allowed are "
        "numbers, tensors, arrays, lists, dicts, optimisers, and objects of these"
    )


def decoded(kept: Any, current: Any) -> Any:
    """The value that was kept; what is there is changed in place where others may refer to it."""
    name, content = kept
    return KINDS[name].bring(content, current)


class Kind(NamedTuple):
    """A kind of value: whether one is of it, what to keep, and how to bring it back to what is there."""

    fits: Callable[[Any], bool]
    keep: Callable[[Any, Inner], Any]
    bring: Callable[[Any, Any], Any]


def _bring_tensor(content: Tensor, current: Any) -> Tensor:
    if not isinstance(current, Tensor):
        return content
    if (current.shape, current.dtype) != (content.shape, content.dtype):
        return content.to(current.device)
    current.detach().copy_(content)
    return current


def _keep_array(value: Any, inner: Inner) -> Any:
    # As bytes: torch lacks some of NumPy's types.
    array = np.ascontiguousarray(value)
    return (array.tobytes(), array.dtype.str, tuple(np.shape(value)), isinstance(value, np.generic))


def _bring_array(content: Any, current: Any) -> Any:
    values, dtype, shape, is_scalar = content
    array = np.frombuffer(values, dtype).reshape(shape).copy()
    return array[()] if is_scalar else array


def _bring_sequence(content: Any, current: Any) -> Any:
    kind, parts = content
    there: list[Any] = [*current] if isinstance(current, list | tuple | deque) else []
    there += [None] * (len(parts) - len(there))
    values = [decoded(part, old) for part, old in zip(parts, there, strict=False)]
    if isinstance(current, list):
        current[:] = values
        return current
    if isinstance(current, deque):
        return deque(values, current.maxlen)
    return {"tuple": tuple, "set": set, "deque": deque}.get(kind, list)(values)


def _bring_mapping(content: Any, current: Any) -> Any:
    there: dict[Any, Any] = current if isinstance(current, dict) else {}
    values = {key: decoded(part, there.get(key)) for key, part in content}
    there.clear()
    there.update(values)
    return there


def _bring_state(content: Any, current: Any) -> Any:
    current.load_state_dict(content)
    return current


def _bring_python_draws(content: Any, current: Any) -> Any:
    current.setstate(decoded(content, current.getstate()))
    return current


def _bring_draws(content: Any, current: Any) -> Any:
    current.set_state(decoded(content, current.get_state()))
    return current


def _bring_generator(content: Any, current: Any) -> Any:
    current.bit_generator.state = decoded(content, current.bit_generator.state)
    return current


def _set_all(content: Mapping[str, Any], current: Any) -> Any:
    for name, kept in content.items():
        value = decoded(kept, getattr(current, name, None))
        if kept[0] != "constant":
            setattr(current, name, value)
    return current


def _has(*names: str) -> Callable[[Any], bool]:
    return lambda value: all(hasattr(value, name) for name in names)


KINDS = {
    "plain": Kind(
        lambda value: type(value) in PLAIN, lambda value, inner: value, lambda content, old: content
    ),
    "constant": Kind(
        lambda value: isinstance(value, CONSTANT), lambda value, inner: None, lambda content, old: old
    ),
    "tensor": Kind(
        lambda value: isinstance(value, Tensor),
        lambda value, inner: value.detach().cpu().clone(),
        _bring_tensor,
    ),
    "array": Kind(
        lambda value: isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf",
        _keep_array,
        _bring_array,
    ),
    "sequence": Kind(
        lambda value: isinstance(value, SEQUENCE),
        lambda value, inner: (
            next(kind.__name__ for kind in SEQUENCE if isinstance(value, kind)),
            [inner(part, f"[{place}]") for place, part in enumerate(value)],
        ),
        _bring_sequence,
    ),
    "mapping": Kind(
        lambda value: isinstance(value, Mapping),
        lambda value, inner: [(key, inner(part, f"[{key!r}]")) for key, part in value.items()],
        _bring_mapping,
    ),
    "state_dict": Kind(  # optimisers, schedules, modules in lists
        _has("state_dict", "load_state_dict"), lambda value, inner: value.state_dict(), _bring_state
    ),
    "getstate": Kind(
        lambda value: isinstance(value, random.Random),
        lambda value, inner: inner(value.getstate(), ""),
        _bring_python_draws,
    ),
    "get_state": Kind(  # generators of torch, and NumPy's older ones
        _has("get_state", "set_state"), lambda value, inner: inner(value.get_state(), ""), _bring_draws
    ),
    "generator": Kind(
        lambda value: isinstance(value, np.random.Generator),
        lambda value, inner: inner(value.bit_generator.state, ""),
        _bring_generator,
    ),
    "object": Kind(
        _has("__dict__"),
        lambda value, inner: {name: inner(part, f".{name}") for name, part in vars(value).items()},
        _set_all,
    ),
}
"""In the order in which they are tried."""
