"""The gate of the public API: whatever holds numbers or domain ids becomes a tensor or an array here.

Tensors, NumPy arrays, pandas and Polars objects and plain sequences are taken; what is refused is refused in
one sentence that names the argument.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Domains:
    """Which domain each sample belongs to.

    Attributes:
        names: The distinct ids, ascending, ``(m,)``: integers or strings.
        codes: Position in ``names`` of each sample's domain, ``(n,)``.
    """

    names: NDArray[Any]
    codes: NDArray[np.intp]


def as_tensor(name: str, values: Any, device: torch.device | None = None) -> Tensor:
    """Numbers as a tensor; a tensor stays what it is, on its device, with its derivative.

    Args:
        name: What the argument is called.
        values: Tensor, NumPy array, pandas or Polars series or frame, or a sequence of numbers (or of rows).
        device: Where other things than tensors go; the processor by default.

    Returns:
        The tensor.

    Raises:
        ValueError: If the values are not real numbers of one shape, or a tensor is sparse.
    """
    if isinstance(values, Tensor):
        if values.is_complex() or values.layout is not torch.strided:
            raise ValueError(
                f"{name}: must be a dense tensor of real numbers, got {values.dtype}, {values.layout}"
            )
        return values
    array = _as_array(name, values)
    if array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name}: must hold numbers, got {type(values).__name__} of {array.dtype} and shape {array.shape}"
        )
    # Byte orders and strides that torch does not know become plain ones.
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    return torch.tensor(plain.astype(np.float64) if plain.dtype.name == "float128" else plain, device=device)


def as_domain_ids(name: str, domains: Any, samples: int, device: torch.device | None = None) -> Tensor:
    """One integer domain id for each sample, as a tensor.

    A tensor's ids are returned as they are, and nothing of them is read on the host. Everything else, strings
    among it, goes through ``read_domains`` and becomes positions in the ascending list of its names.

    Args:
        name: What the argument is called.
        domains: ``(n,)`` integers or strings: tensor, array, series or sequence.
        samples: ``n``.
        device: Where other things than tensors go; the processor by default.

    Returns:
        ``(n,)``.

    Raises:
        ValueError: If there is not one id for each sample, or the ids are neither integers nor strings.
    """
    if not isinstance(domains, Tensor):
        return torch.from_numpy(read_domains(name, domains, samples).codes).to(device)
    if domains.is_floating_point() or domains.is_complex() or domains.shape != (samples,):
        raise ValueError(
            f"{name}: must hold one integer id for each of the {samples} samples, "
            f"got {domains.dtype} of shape {tuple(domains.shape)}"
        )
    return domains


def read_domains(name: str, domains: Any, samples: int, kind: str = "domain") -> Domains:
    """Check domain ids, or those of classes, and number them.

    Args:
        name: What the argument is called.
        domains: ``(n,)`` integers, booleans or strings: tensor, array, series or sequence.
        samples: ``n``.
        kind: What the ids are of, for messages.

    Returns:
        Their names, and each sample's.

    Raises:
        ValueError: If there is not one id for each sample, or the ids are neither integers nor strings.
    """
    if isinstance(domains, Tensor):
        if domains.is_meta:
            raise ValueError(f"{name}: a tensor on the device meta holds no ids")
        domains = domains.detach().cpu().numpy()
    elif isinstance(domains, list | tuple) and any(isinstance(each, str) for each in domains):
        # NumPy would make strings of integers that stand among strings.
        domains = np.array(domains, dtype=object)
    ids = _as_array(name, domains)
    if ids.shape != (samples,):
        raise ValueError(
            f"{name}: must hold one {kind} id for each of the {samples} samples, "
            f"got an array of shape {ids.shape}"
        )
    if ids.dtype.kind in "OT":
        ids = _plain(name, ids, kind)
    if ids.dtype.kind not in "iubU":
        raise ValueError(f"{name}: {kind} ids must be integers or strings, got dtype {ids.dtype}")
    names, codes = np.unique(ids, return_inverse=True)
    return Domains(names, codes)


def _as_array(name: str, values: Any) -> NDArray[Any]:
    if values is None or isinstance(values, str | bytes | dict | set):
        raise ValueError(f"{name}: must be an array with an entry for each sample, got {values!r}")
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name}: cannot be read as an array ({error})") from error


def _plain(name: str, ids: NDArray[Any], kind: str) -> NDArray[Any]:
    """Strings or integers kept as Python objects, as data frames do, in a type of their own."""
    for known in (str, (int, np.integer)):
        if all(isinstance(value, known) for value in ids):
            return np.array(ids.tolist())
    found = sorted({type(value).__name__ for value in ids})
    raise ValueError(
        f"{name}: {kind} ids must be all integers or all strings, got values of type {', '.join(found)}"
    )
