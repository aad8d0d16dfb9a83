r"""Inner products of head Hessians without forming them.

A domain's Hessian is ``H = (1/n) Σ_i A_i ⊗ z̃_i z̃_iᵀ``. Two exact ways lead to ``⟨H_e, H_f⟩_F``:

* by samples: ``(1/(n_e n_f)) Σ_ij ⟨A_i, A_j⟩ (z̃_iᵀ z̃_j)²``, cheap for minibatches of wide features;
* by blocks: ``Σ_ab ⟨H_e^{ab}, H_f^{ab}⟩`` over the ``(d+1, d+1)`` blocks of the outputs, cheap for many
  samples of few features.

[inner_products][] picks the cheaper one. Neither holds a ``C(d+1) × C(d+1)`` matrix.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from hessalign.head.curvature import Curvature
from hessalign.head.moments import weighted_gram

# Rows of the sample-by-sample matrix held at once: bounds memory for large domains (4096 × n values).
ROWS_AT_ONCE = 4096


def inner_products(features: Sequence[Tensor], curvatures: Sequence[Curvature]) -> Tensor:
    """Frobenius inner products between the Hessians of ``m`` domains.

    Args:
        features: One ``(n_e, d)`` tensor for each domain.
        curvatures: One curvature of ``n_e`` samples for each domain.

    Returns:
        ``K`` with ``K_ef = ⟨H_e, H_f⟩_F``, ``(m, m)``, differentiable.
    """
    if _blocks_are_cheaper(features, curvatures):
        return _by_blocks(features, curvatures)
    return _by_samples(features, curvatures)


def _blocks_are_cheaper(features: Sequence[Tensor], curvatures: Sequence[Curvature]) -> bool:
    """Compare multiplications: ``samples · blocks · d²`` against ``samples² · (d + 3 C)``."""
    samples, width = sum(map(len, features)), features[0].shape[1]
    outputs = curvatures[0].values.shape[1]
    blocks = max(len(curvature.upper_pairs()) for curvature in curvatures)
    return blocks * width**2 < samples * (width + 3 * outputs)


def _by_blocks(features: Sequence[Tensor], curvatures: Sequence[Curvature]) -> Tensor:
    total = features[0].new_zeros(len(features), len(features))
    pairs = {pair for curvature in curvatures for pair in curvature.upper_pairs()}
    for row, column in sorted(pairs):
        blocks = torch.stack(
            [
                weighted_gram(domain_features, curvature.entry(row, column) / len(domain_features))
                for domain_features, curvature in zip(features, curvatures, strict=True)
            ]
        ).flatten(1)
        multiplicity = 1 if row == column else 2
        total = total + multiplicity * (blocks @ blocks.T)
    return total


def _by_samples(features: Sequence[Tensor], curvatures: Sequence[Curvature]) -> Tensor:
    sizes = [len(part) for part in features]
    all_features = torch.cat(list(features))
    all_curvatures = curvatures[0].join(curvatures[1:])
    averaging = torch.block_diag(*[all_features.new_full((size, 1), 1 / size) for size in sizes])
    total = all_features.new_zeros(len(sizes), len(sizes))
    row_sizes = [len(part) for part in averaging.split(ROWS_AT_ONCE)]
    for row_features, row_curvatures, row_averaging in zip(
        all_features.split(row_sizes),
        all_curvatures.split(row_sizes),
        averaging.split(row_sizes),
        strict=True,
    ):
        overlaps = row_features @ all_features.T + 1  # the constant feature adds one to every product
        products = overlaps.square() * row_curvatures.inner(all_curvatures)
        total = total + row_averaging.T @ products @ averaging
    return total
