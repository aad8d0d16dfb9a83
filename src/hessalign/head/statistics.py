r"""Squared lengths of and distances between the derivatives of ``m`` domains, two ways.

Gradient, Hessian and its diagonal are means ``V_e = Σ_i a_i φ_i`` over a domain's samples, ``a_i = 1/n_e``.
What penalties need of them are the products ``⟨V_e, V_f⟩`` and the distances to their mean. Two exact ways
lead there:

* **primal**: form the means and multiply them. Cheap for many samples of few features and outputs.
* **dual**: from the one Gram matrix ``K_ij = z̃_iᵀ z̃_j`` of the batch, ``⟨V_e, V_f⟩ = Σ_ij a_i a_j S_ij``:

  | | ``S_ij = ⟨φ_i, φ_j⟩`` |
  |---|---|
  | gradient | ``K_ij r_i·r_j`` |
  | Hessian | ``K_ij² ⟨A_i, A_j⟩`` |
  | diagonal | ``(z̃_i²·z̃_j²) (diag A_i · diag A_j)`` |

  Cheap for minibatches of wide features, which are not touched again, and for many domains.

``plan`` picks by cost. The dual way squares before it subtracts, so it computes in float64; the primal way
does so for all data that are small, and subtracts before it squares. What subtracts before it squares has a
derivative without cancellation, which is taken in the features' own type: see ``hessalign.head.gram``.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import accumulate
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from hessalign.head.derivatives import PRECISE_VALUES, DomainDerivatives, HeadDerivatives, precise_type
from hessalign.head.gram import (
    ROWS_IN_CACHE,
    gram,
    hgp_products,
    squared_distances,
    squared_distances_to,
    squared_lengths,
    two_grams,
    weighted_gram,
    weighted_squares,
    weighted_sum,
)
from hessalign.head.losses import Curvature

Quantity = Literal["gradient", "hessian", "diagonal", "hgp"]
Way = Literal["primal", "dual"]
Centre = Literal["mean_loss", "mean_product"]

# A product of wide features with a few outputs takes so many times longer than a Gram matrix, for as many
# multiplications: it waits for memory, and its derivative takes two products, the Gram matrix's takes one
# (which is in float64 like the Gram matrix; see hessalign.head.gram).
SKINNY = 4
# A block of the Hessian costs at least what so many multiplications cost: it is a dozen calls of its own.
BLOCK = 2**21
# A float64 matrix of more samples by samples is larger than the 32 MiB that the C library keeps for the next
# one of its size: every one of the dozen that a product takes is fetched from the system page by page, and so
# takes so many times longer.
MOST_ROWS_KEPT = 2**11
FRESH_PAGES = 8
# Rows of a sample-by-sample matrix held at once: bounds memory for large domains.
ROWS_AT_ONCE = 4096
# A domain with more samples than this has no unbiased HGP: it would need all their quadruples.
MOST_QUADRUPLE_SAMPLES = 2048


class Spread:
    """How a quantity ``V_e`` of ``m`` domains spreads.

    Args:
        distances: ``‖V_e − V̄‖²``, ``(m,)``.
        squares: ``‖V_e‖²``, ``(m,)``.
        products: Computes ``⟨V_e, V_f⟩``, ``(m, m)``, where they are asked for.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> from hessalign.head import DomainDerivatives, Statistics
        >>> generator = torch.Generator().manual_seed(0)
        >>> features = torch.randn(12, 4, generator=generator, dtype=torch.float64)
        >>> logits, targets = features[:, :3], torch.arange(12) % 3
        >>> batch = ha.HeadDerivatives.from_logits(features, logits, targets)
        >>> domains = DomainDerivatives(batch, sizes=[4, 8])
        >>> spread = Statistics(domains, ["gradient"]).spread("gradient")
        >>> gradients = torch.stack([domain.gradient().flatten() for domain in domains])
        >>> torch.allclose(spread.distances, (gradients - gradients.mean(dim=0)).square().sum(dim=1))
        True
        >>> torch.allclose(spread.products, gradients @ gradients.T)
        True
    """

    def __init__(self, distances: Tensor, squares: Tensor, products: Callable[[], Tensor]) -> None:
        self.distances = distances
        self.squares = squares
        self._compute_products = products

    @cached_property
    def products(self) -> Tensor:
        """``⟨V_e, V_f⟩``, ``(m, m)``."""
        return self._compute_products()

    def square_of_mean(self) -> Tensor:
        """``‖V̄‖²``, scalar."""
        return self.products.mean()


class Statistics:
    """What penalties need of the derivatives of ``m`` domains, each computed once and the cheaper way.

    Made for one computation: what it keeps has the derivative, or the lack of one, of the moment.

    Args:
        domains: The domains.
        wanted: Every quantity that will be asked for: they share a Gram matrix where that pays.
        unbiased: U-statistics over distinct samples in the place of products of a domain with itself, so that
            the expected value does not depend on the number of samples.
        ways: Forces a way for each quantity; by default ``plan`` decides.

    Raises:
        ValueError: If ``unbiased`` and a domain has too few samples or unequal weights.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> from hessalign.head import DomainDerivatives, Statistics
        >>> generator = torch.Generator().manual_seed(0)
        >>> features = torch.randn(12, 4, generator=generator, dtype=torch.float64)
        >>> logits, targets = features[:, :3], torch.arange(12) % 3
        >>> batch = ha.HeadDerivatives.from_logits(features, logits, targets)
        >>> domains = DomainDerivatives(batch, sizes=[4, 8])
        >>> statistics = Statistics(domains, ["hessian"])
        >>> hessians = torch.stack([domain.hessian() for domain in domains])
        >>> direct = (hessians - hessians.mean(dim=0)).square().sum(dim=(1, 2))
        >>> torch.allclose(statistics.spread("hessian").distances, direct)
        True
    """

    def __init__(
        self,
        domains: DomainDerivatives,
        wanted: Collection[Quantity],
        unbiased: bool = False,
        ways: dict[Quantity, Way] | None = None,
    ) -> None:
        self.domains = domains
        self.unbiased = unbiased
        if unbiased:
            _check_distinct(domains, wanted)
        self.ways = ways or plan(domains, wanted, unbiased)

    def spread(self, quantity: Literal["gradient", "hessian", "diagonal"]) -> Spread:
        """Products and distances of gradients, Hessians (in the Frobenius norm) or their diagonals."""
        found = self._spreads.get(quantity)
        if found is None:
            found = (
                self._dual_spread(quantity)
                if self.ways[quantity] == "dual"
                else self._primal_spread(quantity)
            )
            self._spreads[quantity] = found
        return found

    def hgp_distances(self, centre: Centre, detach_centre: bool) -> Tensor:
        """``‖H_e G_e − c‖²`` of each domain, ``c = H̄ Ḡ`` or the mean of the ``H_e G_e``, ``(m,)``."""
        if self.unbiased:
            return self._unbiased_hgp()
        detached = detach_centre and centre == "mean_loss"
        if self.ways["hgp"] == "dual":
            return self._dual_hgp(centre, detached)
        return self._primal_hgp(centre, detached)

    @cached_property
    def _spreads(self) -> dict[str, Spread]:
        return {}

    # The primal way.

    @cached_property
    def _blocks(self) -> list["_Block"]:
        return _blocks(self.domains)

    @cached_property
    def _gradients(self) -> Tensor:
        """``G_e``, ``(m, C, d+1)``."""
        return self._over_blocks(lambda block: block.sum(block.residual))

    def _over_blocks(self, compute: Callable[["_Block"], Tensor]) -> Tensor:
        """Results ``(domains of the block, ...)`` of all blocks, in the domains' order."""
        found = [compute(block) for block in self._blocks]
        return self._in_order(found[0] if len(found) == 1 else torch.cat(found))

    def _in_order(self, joined: Tensor) -> Tensor:
        """What all blocks' domains have, block after block, in the domains' own order."""
        order = [index for block in self._blocks for index in block.domains]
        if order == sorted(order):
            return joined
        return joined[_positions(tuple(order), joined.device)]

    def _primal_spread(self, quantity: str) -> Spread:
        if quantity == "hessian":
            return self._primal_hessian_spread()
        values = self._gradients if quantity == "gradient" else self._over_blocks(_Block.diagonals)
        spread = _spread_of(values.flatten(1), 1)
        return self._without_noise(quantity, spread)

    def _primal_hessian_spread(self) -> Spread:
        pairs = sorted({pair for block in self._blocks for pair in block.curvature.upper_pairs()})
        spreads, diagonals = [], []
        for row, column in pairs:
            values = self._over_blocks(partial(_Block.hessian_block, row=row, column=column))
            spreads.append(_spread_of(values.flatten(1), 1 if row == column else 2))
            if row == column:
                diagonals.append(values.diagonal(dim1=1, dim2=2))
        if self.ways.get("diagonal") == "primal":  # which the blocks have at no cost
            spread = _spread_of(torch.cat(diagonals, dim=1), 1)
            self._spreads["diagonal"] = self._without_noise("diagonal", spread)
        total = Spread(
            torch.stack([spread.distances for spread in spreads]).sum(0),
            torch.stack([spread.squares for spread in spreads]).sum(0),
            lambda: torch.stack([spread.products for spread in spreads]).sum(0),
        )
        return self._without_noise("hessian", total)

    def _without_noise(self, quantity: str, spread: Spread) -> Spread:
        if not self.unbiased:
            return spread
        return _unbiased(
            spread, self._over_blocks(lambda block: block.mean_squares(quantity)), self.domains.sizes
        )

    def _primal_hgp(self, centre: Centre, detached: bool) -> Tensor:
        blocks = self._blocks
        gradients, products, middle = hgp_products(
            [block.features for block in blocks],
            [block.residual for block in blocks],
            [block.curvature for block in blocks],
            [block.shares for block in blocks],
            # Where some domains are too large for float64, all are.
            next((block.dtype for block in blocks if block.dtype == block.features.dtype), blocks[0].dtype),
            blocks[0].bias,
            with_mean=centre == "mean_loss",
            detached=detached,
        )
        # Where gradients are wanted, too, these are what they are computed from.
        self.__dict__.setdefault("_gradients", self._in_order(gradients))
        own = self._in_order(products).flatten(1)
        own = own.to(precise_type(own))
        if centre == "mean_product":
            return squared_distances(own)[0]
        return squared_distances_to(own, middle.flatten().to(own.dtype))

    # The dual way.

    @cached_property
    def _precise(self) -> HeadDerivatives:
        batch = self.domains.batch
        return batch.to(precise_type(batch.features))

    @cached_property
    def _segments(self) -> "_Segments":
        return _Segments(self.domains.sizes, self._precise.features.device)

    @cached_property
    def _grams(self) -> tuple[Tensor, Tensor]:
        """The Gram matrix, and what a detached centre of HGP multiplies."""
        this = self._precise
        if self.ways.get("hgp") == "dual" and not self.unbiased:
            return two_grams(this.features, this.bias)
        overlaps = gram(this.features, this.bias)
        return overlaps, overlaps

    @property
    def _gram(self) -> Tensor:
        return self._grams[0]

    @cached_property
    def _shares(self) -> Tensor:
        """Share of each sample in its domain's mean, ``(N, 1)``."""
        return _shares(self.domains, self._precise)

    def _kernel(self, quantity: str, rows: slice) -> Tensor:
        """``S_ij = ⟨φ_i, φ_j⟩`` for some rows, ``(rows, N)``."""
        this = self._precise
        whole = rows == slice(None)
        if quantity == "diagonal":
            if whole:
                overlaps = gram(this.features, this.bias, squares=True)
            else:
                squares = this.features.square()
                overlaps = squares[rows] @ squares.T + float(this.bias)
            return overlaps * _products(this.curvature.diagonal(), rows)
        overlaps = self._gram if whole else this.features[rows] @ this.features.T + float(this.bias)
        if quantity == "gradient":
            return overlaps * _products(this.residual, rows)
        chosen = this.curvature if whole else this.curvature.take(rows)
        return overlaps.square() * chosen.inner(this.curvature)

    def _dual_spread(self, quantity: str) -> Spread:
        samples = len(self._precise)
        if samples <= ROWS_AT_ONCE:
            kernel = self._kernel(quantity, slice(None))
            products, diagonal = self._pair_sums(kernel, slice(None)), kernel.diagonal()
        else:
            products, diagonal = self._dual_products_in_rows(quantity)
        means, squares = products.mean(1), products.diagonal()
        spread = Spread((squares - 2 * means + means.mean()).clamp(min=0), squares, lambda: products)
        if not self.unbiased:
            return spread
        noise = self._segments.sum(diagonal.unsqueeze(1) * self._shares).squeeze(1)
        return _unbiased(spread, noise, self.domains.sizes)

    def _pair_sums(self, kernel: Tensor, rows: slice) -> Tensor:
        """``Σ_ij a_i a_j S_ij`` over the given rows, ``(m, m)``."""
        if rows == slice(None):
            if self._segments.size is not None and self.domains.like.weight is None:
                return self._segments.pair_sum(kernel) / self._segments.size**2
            return self._segments.pair_sum(kernel * self._shares * self._shares.T)
        columns = self._segments.sum((kernel * self._shares.T).T)  # (m, rows)
        positions = self._segments.index()[rows]
        zeros = columns.new_zeros(len(columns), len(columns))
        return zeros.index_add(0, positions, (columns * self._shares[rows].T).T)

    def _dual_products_in_rows(self, quantity: str) -> tuple[Tensor, Tensor]:
        """The same in groups of rows that are computed anew for the derivative, so that memory is bounded."""
        products, diagonals = [], []
        for start in range(0, len(self._precise), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)

            def partial_sums(_features: Tensor, rows: slice = rows) -> tuple[Tensor, Tensor]:
                kernel = self._kernel(quantity, rows)
                return self._pair_sums(kernel, rows), kernel.diagonal(rows.start)

            found = checkpoint(partial_sums, self._precise.features, use_reentrant=False)
            products.append(found[0])
            diagonals.append(found[1])
        return torch.stack(products).sum(0), torch.cat(diagonals)

    def _dual_hgp(self, centre: Centre, detached: bool) -> Tensor:
        this, segments, shares, count = self._precise, self._segments, self._shares, len(self.domains)
        overlaps = self._gram
        weighted = this.residual * shares
        projected = segments.within(overlaps, weighted)  # G_e z̃_i

        def curved(vectors: Tensor) -> Tensor:
            return this.curvature.apply(vectors.unsqueeze(1)).squeeze(1) * shares

        own = curved(projected)  # H_e G_e = Σ_i own_i z̃_iᵀ
        squares = segments.sum((own * segments.within(overlaps, own)).sum(1))
        if centre == "mean_product":
            middle = own / count
            through = overlaps @ middle  # c z̃_i
            return squares - 2 * segments.sum((own * through).sum(1)) + (middle * through).sum()
        if detached:
            with torch.no_grad():
                middle = curved(overlaps @ (weighted / count)) / count
            through = self._grams[1] @ middle
            return squares - 2 * segments.sum((own * through).sum(1)) + (middle * through).sum().detach()
        middle = curved(overlaps @ (weighted / count)) / count
        through = overlaps @ middle
        return squares - 2 * segments.sum((own * through).sum(1)) + (middle * through).sum()

    def _unbiased_hgp(self) -> Tensor:
        """``‖H_e G_e − mean_f H_f G_f‖²`` without bias: see ``_quadruples``."""
        this, segments, count = self._precise, self._segments, len(self.domains)
        overlaps = self._gram
        sizes = segments.per_domain(lambda n: n * (n - 1), this.features)
        shares = segments.repeat(1 / sizes).unsqueeze(1)
        residual = this.residual
        # s_i = Σ_{j ≠ i} A_i r_j K_ij, and P_e = Σ_i s_i z̃_iᵀ / (n (n − 1)).
        towards = segments.within(overlaps, residual) - overlaps.diagonal().unsqueeze(1) * residual
        sums = this.curvature.apply(towards.unsqueeze(1)).squeeze(1)
        own = sums * shares
        middle = own / count
        through = overlaps @ middle
        plug_in = segments.sum((own * segments.within(overlaps, own)).sum(1))
        squares = _quadruples(self.domains.sizes, overlaps, residual, this.curvature, sums)
        cross = segments.sum((own * through).sum(1))
        noise = plug_in - squares
        return squares - 2 * (cross - noise / count) + (cross.mean() - noise.mean() / count)


def plan(
    domains: DomainDerivatives, wanted: Collection[Quantity], unbiased: bool = False
) -> dict[Quantity, Way]:
    """The cheaper way for each quantity, the one Gram matrix of gradient, Hessian and HGP counted once.

    Multiplications, forwards; those of the dual way count more than once because they are in float64, which
    the primal way of small data is too.

    Args:
        domains: The domains.
        wanted: Quantities that will be asked for.
        unbiased: Whether U-statistics are wanted; HGP's are a sum over quadruples of samples.

    Returns:
        The way of each.
    """
    like, samples, count = domains.like, sum(domains.sizes), len(domains)
    outputs, width = like.shape
    pairs = like.curvature.block_count()
    one_pass = SKINNY * (samples + count) * outputs * width
    if unbiased:  # the primal way needs the lengths of all features, too, which a Gram matrix has
        one_pass += SKINNY * samples * width
    primal = {
        "gradient": one_pass,
        "diagonal": one_pass,
        "hgp": 2 * one_pass,
        "hessian": pairs * (BLOCK + (samples + count) * width**2),
    }
    gram_cost, pair_cost = samples**2 * width, 2 * samples**2 * outputs
    if samples > MOST_ROWS_KEPT and like.features.device.type == "cpu":
        pair_cost *= FRESH_PAGES
    dual = {
        "gradient": pair_cost,
        "diagonal": gram_cost + pair_cost,
        "hgp": 3 * pair_cost,
        "hessian": 2 * pair_cost,
    }
    fits = samples <= ROWS_AT_ONCE
    # All that would gain by the Gram matrix share it, if together they gain more than it costs.
    candidates = [q for q in wanted if q != "diagonal" and (fits or q == "hessian")]
    sharing: set[Quantity] = {q for q in candidates if dual[q] < primal[q]}
    if sum(primal[q] - dual[q] for q in sharing) <= gram_cost:
        sharing = set()
    if unbiased and "hgp" in wanted:
        sharing |= {"hgp"}
    if fits and dual["diagonal"] < primal["diagonal"]:
        sharing |= {"diagonal"}
    return {quantity: "dual" if quantity in sharing else "primal" for quantity in wanted}


def _spread_of(values: Tensor, times: int) -> Spread:
    """Spread of vectors that are at hand, ``(m, F)``, counted several times."""
    values = values.to(precise_type(values))
    distances, squares = squared_distances(values)
    if times != 1:
        distances, squares = times * distances, times * squares
    return Spread(distances, squares, lambda: times * (values @ values.T))


def _products(values: Tensor, rows: slice) -> Tensor:
    """``v_i·v_j`` for some rows, ``(rows, N)``."""
    if rows == slice(None):
        return gram(values, bias=False)  # one product for its derivative
    return values[rows] @ values.T


def _unbiased(spread: Spread, mean_squares: Tensor, sizes: Sequence[int]) -> Spread:
    """Own products over distinct samples: ``‖V_e‖²`` less ``ν_e = (mean_i ‖φ_i‖² − ‖V_e‖²) / (n_e − 1)``."""
    count = len(sizes)
    if len(set(sizes)) == 1:
        others: Tensor | int = sizes[0] - 1
    else:
        others = _float_sizes(tuple(sizes), mean_squares.device, mean_squares.dtype) - 1
    noise = (mean_squares - spread.squares) / others
    return Spread(
        spread.distances - noise * (1 - 2 / count) - noise.mean() / count,
        spread.squares - noise,
        lambda: spread.products - torch.diag(noise),
    )


def _quadruples(
    sizes: Sequence[int], overlaps: Tensor, residual: Tensor, curvature: Curvature, sums: Tensor
) -> Tensor:
    """``⟨H_e G_e, H_e G_e⟩`` from four distinct samples each, ``(m,)``: the U-statistic.

    With ``T_ij = A_i r_j K_ij``, ``T_ii = 0`` and ``s_i = Σ_j T_ij`` the sum over distinct ``i, j, k, l`` of
    ``K_ik T_ij·T_kl`` is ``Σ_ik K_ik s_i·s_k`` without its terms in which two of them are equal; those with
    ``j = k`` and with ``i = l`` are equal.

    Returns:
        Estimates that can be negative.
    """
    if len(set(sizes)) == 1:
        size, count = sizes[0], len(sizes)
        blocks = overlaps.view(count, size, count, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        return _quadruple_means(blocks, residual, curvature, sums, count, size)
    found = []
    start = 0
    for size in sizes:
        rows = slice(start, start + size)
        start += size
        block = overlaps[rows, rows].unsqueeze(0)
        found.append(_quadruple_means(block, residual[rows], curvature.take(rows), sums[rows], 1, size))
    return torch.cat(found)


def _quadruple_means(
    overlaps: Tensor, residual: Tensor, curvature: Curvature, sums: Tensor, count: int, size: int
) -> Tensor:
    """``_quadruples`` for domains of one size, overlaps ``(m, n, n)`` within them."""
    outputs = residual.shape[1]
    others = residual.view(count, 1, size, outputs).expand(count, size, size, outputs)
    bent = curvature.apply(others.reshape(count * size, size, outputs)).view(count, size, size, outputs)
    distinct = 1 - torch.eye(size, dtype=overlaps.dtype, device=overlaps.device)
    terms = bent * (overlaps * distinct).unsqueeze(-1)  # T_ij, (m, n, n, C)
    sums = sums.view(count, size, outputs)
    own = overlaps.diagonal(dim1=1, dim2=2)
    transposed = terms.transpose(1, 2)
    # Σ_ik K_ik s_i·s_k − Σ_i K_ii |s_i|² − 2 Σ_ik K_ik s_i·T_ki − Σ_ik K_ik Σ_j T_ij·T_kj
    #   + Σ_ij K_ii |T_ij|² + Σ_ij K_ij T_ij·T_ji
    through = overlaps @ sums - own.unsqueeze(-1) * sums
    # (K T)_ij = Σ_k K_ik T_kj
    spread = (overlaps @ terms.flatten(2)).view_as(terms) - own.view(count, size, 1, 1) * terms
    weighted = overlaps.unsqueeze(-1) * transposed
    total = (sums * through).sum((1, 2))
    total = total - 2 * (sums * weighted.sum(2)).sum((1, 2)) - (terms * (spread - weighted)).sum((1, 2, 3))
    return total / (size * (size - 1) * (size - 2) * (size - 3))


def _check_distinct(domains: DomainDerivatives, wanted: Collection[Quantity]) -> None:
    fewest = 4 if "hgp" in wanted else 2
    if min(domains.sizes) < fewest:
        raise ValueError(
            f"unbiased: {'hgp' if fewest == 4 else 'it'} needs at least {fewest} samples of each domain, "
            f"got a domain with {min(domains.sizes)}"
        )
    if any(each.weight is not None for each in ([domains.like] if domains.is_joined else domains)):
        raise ValueError(
            "unbiased: samples must count alike; leave out sample_weight, class_weight and ignored samples"
        )
    if "hgp" in wanted and max(domains.sizes) > MOST_QUADRUPLE_SAMPLES:
        raise ValueError(
            f"unbiased: hgp takes at most {MOST_QUADRUPLE_SAMPLES:,} samples of each domain, got "
            f"{max(domains.sizes):,}; with so many the bias, about 1/n, is small: unbiased=False"
        )


@dataclass(frozen=True, eq=False)
class _Block:
    """Domains of one size, or nearly so, along the first axis; shorter ones end in rows of weight 0.

    Attributes:
        features: ``(b, n, d)``.
        residual: ``(b, n, C)``.
        curvature: That of the ``b n`` samples.
        shares: Share of each sample in its domain's mean, ``(b, n, 1)``, or a number.
        domains: Which domains they are.
        bias: Whether the head has one.
        dtype: Type in which sums over samples are taken: the features' own, or float64 where that is cheap.
    """

    features: Tensor
    residual: Tensor
    curvature: Curvature
    shares: Tensor | float
    domains: Sequence[int]
    bias: bool
    dtype: torch.dtype

    def sum(self, values: Tensor) -> Tensor:
        """``Σ_i a_i v_i z̃_iᵀ`` for values ``(b, n, k)``: ``(b, k, d+1)``."""
        return weighted_sum(self.features, (values * self.shares).to(self.dtype), self.bias)

    def diagonals(self) -> Tensor:
        """Diagonals of the Hessians, ``(b, C, d+1)``."""
        weights = self.curvature.diagonal().view_as(self.residual) * self.shares
        return weighted_squares(self.features, weights.to(self.dtype), self.bias)

    def hessian_block(self, row: int, column: int) -> Tensor:
        """Block of the Hessians that belongs to two outputs, ``(b, d+1, d+1)``."""
        shares = self.shares.squeeze(-1) if isinstance(self.shares, Tensor) else self.shares
        weights = self.curvature.entry(row, column).view(self.features.shape[:2]) * shares
        return weighted_gram(self.features, weights.to(self.dtype), self.bias)

    def mean_squares(self, quantity: str) -> Tensor:
        """``Σ_i a_i ‖φ_i‖²`` of each domain, ``(b,)``."""
        lengths = squared_lengths(self.features, self.bias, self.dtype, squares=quantity == "diagonal")
        if quantity == "gradient":
            scale = self.residual.square().sum(-1)
        elif quantity == "diagonal":
            scale = self.curvature.diagonal().square().sum(1).view_as(lengths)
        else:
            scale, lengths = self.curvature.squares().view_as(lengths), lengths.square()
        return ((scale * lengths).unsqueeze(-1) * self.shares).sum((1, 2))


def _blocks(domains: DomainDerivatives) -> list[_Block]:
    """All domains: large ones each for itself, small ones together."""
    if min(domains.sizes) >= ROWS_IN_CACHE or len(domains) == 1:
        return [
            _block(domain, (1, len(domain), -1), domain.shares(), [index])
            for index, domain in enumerate(domains)
        ]
    batch, sizes = domains.batch, domains.sizes
    if len(set(sizes)) == 1:
        equal = batch.weight is None
        return [
            _block(
                batch,
                (len(sizes), sizes[0], -1),
                1 / sizes[0] if equal else _shares(domains, batch),
                range(len(sizes)),
            )
        ]
    all_shares = _shares(domains, batch)
    blocks = []
    for members, places, mask in _buckets(sizes, batch.features.device):
        rows = places.flatten()
        counted = all_shares[rows] * mask.to(all_shares.dtype).view(-1, 1)
        blocks.append(_block(batch.take(rows), (*places.shape, -1), counted, members))
    return blocks


def _block(
    samples: HeadDerivatives, shape: tuple[int, int, int], shares: Tensor | float, members: Sequence[int]
) -> _Block:
    features, residual, curvature = samples.features, samples.residual, samples.curvature
    dtype = features.dtype
    if features.numel() <= PRECISE_VALUES:
        dtype = precise_type(features)
        residual, curvature = residual.to(dtype), curvature.to(dtype)
    if isinstance(shares, Tensor):
        shares = shares.to(residual.dtype).view(shape)
    return _Block(features.view(shape), residual.view(shape), curvature, shares, members, samples.bias, dtype)


def _shares(domains: DomainDerivatives, batch: HeadDerivatives) -> Tensor:
    """Share of each sample in its domain's mean, ``(N, 1)``."""
    segments = _Segments(domains.sizes, batch.features.device)
    if batch.weight is None:
        if segments.size is not None:
            return batch.residual.new_full((len(batch), 1), 1 / segments.size)
        return segments.repeat(segments.per_domain(lambda n: 1 / n, batch.residual)).unsqueeze(1)
    mass = batch.weight if batch.mass is None else batch.mass
    weights = batch.weight / segments.repeat(segments.sum(mass))
    return weights.to(batch.residual.dtype).unsqueeze(1)


class _Segments:
    """Sums over the domains of a sorted batch: views where all have one size, indices otherwise."""

    def __init__(self, sizes: tuple[int, ...], device: torch.device) -> None:
        self.sizes = sizes
        self.size = sizes[0] if len(set(sizes)) == 1 else None
        self.device = device

    def index(self) -> Tensor:
        """Domain of each sample, ``(N,)``."""
        return _domain_of_samples(self.sizes, self.device)

    def sum(self, values: Tensor) -> Tensor:
        """``(N, ...)`` to ``(m, ...)``."""
        if self.size is not None:
            return values.reshape(len(self.sizes), self.size, *values.shape[1:]).sum(1)
        zeros = values.new_zeros(len(self.sizes), *values.shape[1:])
        return zeros.index_add(0, self.index(), values)

    def pair_sum(self, values: Tensor) -> Tensor:
        """``(N, N)`` to ``(m, m)``."""
        if self.size is not None:
            count = len(self.sizes)
            # Whole rows first, which lie together in memory.
            return values.reshape(count, self.size, -1).sum(1).view(count, count, self.size).sum(2)
        return self.sum(self.sum(values).T).T

    def repeat(self, values: Tensor) -> Tensor:
        """``(m, ...)`` to ``(N, ...)``: each domain's value for all its samples."""
        if self.size is not None:
            return values.repeat_interleave(self.size, 0)
        return values[self.index()]

    def within(self, overlaps: Tensor, values: Tensor) -> Tensor:
        """``Σ_j K_ij v_j`` over the samples ``j`` of ``i``'s own domain, ``(N, k)``."""
        count = len(self.sizes)
        if self.size is not None:
            own = overlaps.view(count, self.size, count, self.size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
            return (own @ values.view(count, self.size, -1)).flatten(0, 1)
        index = self.index()
        return (overlaps * (index.unsqueeze(1) == index)) @ values

    def per_domain(self, function: Callable[[int], float], like: Tensor) -> Tensor:
        """A function of each domain's size, ``(m,)``."""
        if self.size is not None:
            return like.new_full((len(self.sizes),), function(self.size))
        return like.new_tensor([function(size) for size in self.sizes])


def _domain_of_samples(sizes: tuple[int, ...], device: torch.device) -> Tensor:
    numbers = [index for index, size in enumerate(sizes) for _ in range(size)]
    return torch.tensor(numbers, device=device)


def _float_sizes(sizes: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor(sizes, device=device, dtype=dtype)


def _positions(order: tuple[int, ...], device: torch.device, inverse: bool = True) -> Tensor:
    """Where the domains stand that were computed in an order; or the order itself."""
    found = torch.tensor(order)
    return (found.argsort() if inverse else found).to(device)


def _buckets(sizes: tuple[int, ...], device: torch.device) -> list[tuple[list[int], Tensor, Tensor]]:
    """Domains of similar size, padded to the largest of them: none more than doubles.

    Returns:
        For each group the domains, the samples' positions ``(b, n)`` and which of them count, ``(b, n)``.
    """
    starts = [end - size for end, size in zip(accumulate(sizes), sizes, strict=True)]
    groups: list[list[int]] = []
    for domain in sorted(range(len(sizes)), key=lambda index: sizes[index]):
        if not groups or sizes[domain] > 2 * sizes[groups[-1][0]]:
            groups.append([])
        groups[-1].append(domain)
    buckets = []
    for members in groups:
        largest = sizes[members[-1]]
        steps = torch.arange(largest)
        counts = torch.tensor([sizes[domain] for domain in members]).unsqueeze(1)
        begins = torch.tensor([starts[domain] for domain in members]).unsqueeze(1)
        index = begins + torch.minimum(steps, counts - 1)
        buckets.append((members, index.to(device), (steps < counts).to(device)))
    return buckets
