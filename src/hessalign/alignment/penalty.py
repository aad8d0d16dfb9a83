r"""One penalty for any training loop: alignment of the head's gradients and Hessians across domains.

First the distances, side by side, then what weighs them. Each function takes the domains' derivatives and
returns ``(m,)``: one distance for each domain. A bar is the mean over domains, all with equal weight. How the
numbers are computed: ``hessalign.head.statistics``.

With ``unbiased=True`` products of a domain with itself run over distinct samples (U-statistics), so that the
expected value of a distance does not depend on how many samples a domain has; the plug-in distance is too
large by the sampling noise, about ``tr Cov / n``. Products of two domains have no bias. Such an estimate can
be negative.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from hessalign.alignment.suggestion import WeightSuggestion, suggest_weights
from hessalign.checks import require_choice, require_flag, require_number, require_whole
from hessalign.exceptions import NoEffectWarning
from hessalign.head import DomainDerivatives, HeadDerivatives, HeadLoss, Statistics, spectral_norm
from hessalign.head.derivatives import SortedDomains as SortedDomains  # noqa: PLC0414 (exported from here, too)
from hessalign.head.derivatives import derivatives_by_domain, without_autocast
from hessalign.head.losses import resolve_loss
from hessalign.head.statistics import Centre, Quantity
from hessalign.inputs import as_tensor

DEFAULT_ALPHA = 1e-4
Domains = Sequence[HeadDerivatives] | Statistics
Method = Literal["gradient", "hgp", "hutchinson", "diagonal", "frobenius", "spectral"]
Reduction = Literal["mean", "sum"]
Weight = float | Tensor
Terms = dict[str, Tensor]

QUANTITIES: dict[str, tuple[Quantity, ...]] = {
    "gradient": (),
    "hgp": ("hgp",),
    "hutchinson": ("hessian", "diagonal"),
    "diagonal": ("diagonal",),
    "frobenius": ("hessian",),
    "spectral": (),
}
"""What each method needs of the statistics beside the gradient."""

READ_BY: dict[str, tuple[str, ...]] = {
    "alpha": ("hgp", "hutchinson", "diagonal", "frobenius", "spectral"),
    "beta": ("gradient", "hgp", "hutchinson", "diagonal", "frobenius", "spectral"),
    "probes": ("hutchinson",),
    "centre": ("hgp",),
}
"""The methods that read an option, of those that not all do; ``"none"`` of the estimators reads none."""


def gradient_distances(domains: Domains, unbiased: bool = False) -> Tensor:
    """``‖G_e − Ḡ‖²`` of each domain: the β term of the paper's objective.

    Whether ``Ḡ`` is detached makes no difference to the derivative of the sum over domains: the differences
    to their own mean add up to zero. The same holds for diagonals and whole Hessians.

    Args:
        domains: Derivatives of ``m`` domains.
        unbiased: U-statistics.

    Returns:
        ``(m,)``.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> from hessalign.alignment import gradient_distances
        >>> def domain(shift):
        ...     z = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) + shift
        ...     return ha.HeadDerivatives.from_logits(z, torch.zeros(2, 2), torch.tensor([0, 1]))
        >>> gradient_distances([domain(0.0), domain(1.0)]).shape
        torch.Size([2])
        >>> gradient_distances([domain(0.5), domain(0.5)]).abs().max() < 1e-6
        tensor(True)
    """
    return _of(domains, "gradient", unbiased=unbiased).spread("gradient").distances


def diagonal_distances(domains: Domains, unbiased: bool = False) -> Tensor:
    """``‖D_e − D̄‖²`` of each domain, ``D_e`` the exact diagonal of ``H_e``: no probes.

    Args:
        domains: Derivatives of ``m`` domains.
        unbiased: U-statistics.

    Returns:
        ``(m,)``.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> from hessalign.alignment import diagonal_distances
        >>> def domain(shift):
        ...     z = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) + shift
        ...     return ha.HeadDerivatives.from_logits(z, torch.zeros(2, 2), torch.tensor([0, 1]))
        >>> diagonal_distances([domain(0.0), domain(1.0)]).shape
        torch.Size([2])
        >>> diagonal_distances([domain(0.5), domain(0.5)]).abs().max() < 1e-6
        tensor(True)
    """
    return _of(domains, "diagonal", unbiased=unbiased).spread("diagonal").distances


def frobenius_distances(domains: Domains, unbiased: bool = False) -> Tensor:
    """``‖H_e − H̄‖_F²`` of each domain, the whole Hessian, without forming any.

    Closed forms of this kind for moment alignment: Chen, Si, Zhang and Zhao, "Moment Alignment", UAI 2025.

    Args:
        domains: Derivatives of ``m`` domains.
        unbiased: U-statistics.

    Returns:
        ``(m,)``.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> from hessalign.alignment import frobenius_distances
        >>> def domain(shift):
        ...     z = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) + shift
        ...     return ha.HeadDerivatives.from_logits(z, torch.zeros(2, 2), torch.tensor([0, 1]))
        >>> frobenius_distances([domain(0.0), domain(1.0)]).shape
        torch.Size([2])
        >>> frobenius_distances([domain(0.5), domain(0.5)]).abs().max() < 1e-6
        tensor(True)
    """
    return _of(domains, "hessian", unbiased=unbiased).spread("hessian").distances


def hgp_distances(
    domains: Domains, centre: Centre = "mean_loss", detach_centre: bool = False, unbiased: bool = False
) -> Tensor:
    """``‖H_e G_e − c‖²`` of each domain, the Hessian-gradient product (Hemati et al., ICCV 2023).

    Args:
        domains: Derivatives of ``m`` domains.
        centre: ``"mean_loss"`` (default): ``c = H̄ Ḡ``, Hessian and gradient of the mean loss, as in the
            paper's code. ``"mean_product"``: ``c = (1/m) Σ_e H_e G_e``, as in the paper's text.
        detach_centre: ``c`` is a constant, also as a function of the features. Changes the derivative for
            ``"mean_loss"`` only.
        unbiased: U-statistics; with ``"mean_product"`` only.

    Returns:
        ``(m,)``.

    Raises:
        ValueError: If ``unbiased`` is asked for with ``"mean_loss"``.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> from hessalign.alignment import hgp_distances
        >>> def domain(shift):
        ...     z = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) + shift
        ...     return ha.HeadDerivatives.from_logits(z, torch.zeros(2, 2), torch.tensor([0, 1]))
        >>> hgp_distances([domain(0.0), domain(1.0)]).shape
        torch.Size([2])
        >>> hgp_distances([domain(0.5), domain(0.5)]).abs().max() < 1e-6
        tensor(True)
    """
    if unbiased and centre != "mean_product":
        raise ValueError(
            "unbiased: 'hgp' needs centre='mean_product', the mean of the products H_e G_e; with "
            "centre='mean_loss' the centre multiplies samples of one domain from Hessian and gradient"
        )
    return _of(domains, "hgp", unbiased=unbiased).hgp_distances(centre, detach_centre)


def expected_hutchinson_distances(
    domains: Domains, probes: int, detach_centre: bool = False, unbiased: bool = False
) -> Tensor:
    """Expectation over the probes of ``sampled_hutchinson_distances``, in closed form.

    ``‖D_e − D̄‖² + (1/k)(off(H_e) + off(H̄))`` with ``off(H) = ‖H‖_F² − ‖diag H‖²``. The second term does not
    align anything: it pulls the off-diagonal elements of every Hessian to zero.

    Args:
        domains: Derivatives of ``m`` domains.
        probes: ``k``.
        detach_centre: No derivative flows through ``off(H̄)``.
        unbiased: U-statistics.

    Returns:
        ``(m,)``.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> from hessalign.alignment import expected_hutchinson_distances
        >>> def domain(shift):
        ...     z = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) + shift
        ...     return ha.HeadDerivatives.from_logits(z, torch.zeros(2, 2), torch.tensor([0, 1]))
        >>> expected_hutchinson_distances([domain(0.0), domain(1.0)], probes=100).shape
        torch.Size([2])
    """
    statistics = _of(domains, "hessian", "diagonal", unbiased=unbiased)
    whole, diagonal = statistics.spread("hessian"), statistics.spread("diagonal")
    off_of_mean = whole.square_of_mean() - diagonal.square_of_mean()
    if detach_centre:
        off_of_mean = off_of_mean.detach()
    return diagonal.distances + (whole.squares - diagonal.squares + off_of_mean) / probes


def sampled_hutchinson_distances(
    domains: Sequence[HeadDerivatives],
    probes: int,
    generator: torch.Generator | None = None,
    detach_centre: bool = False,
) -> Tensor:
    """``‖D̂_e − D̂‖²`` of each domain (Hemati et al., ICCV 2023), every estimate from ``k`` probes of its own.

    ``D̂ = (1/k) Σ_j s_j ⊙ (H s_j)`` with Rademacher probes ``s_j``, drawn anew for every domain and for the
    Hessian of the mean loss.

    Args:
        domains: Derivatives of ``m`` domains.
        probes: ``k``, probes for each estimate. Holds ``2k`` vectors of ``C(d+1)`` values for each domain.
        generator: Source of the probes; torch's global one by default.
        detach_centre: No derivative flows through ``D̂``, the estimate for the mean loss.

    Returns:
        ``(m,)``.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> from hessalign.alignment import sampled_hutchinson_distances
        >>> def domain(shift):
        ...     z = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) + shift
        ...     return ha.HeadDerivatives.from_logits(z, torch.zeros(2, 2), torch.tensor([0, 1]))
        >>> sampled_hutchinson_distances([domain(0.0), domain(1.0)], probes=100).shape
        torch.Size([2])
    """
    precise = [domain.precise() for domain in domains]
    shape, like = (probes, *precise[0].shape), precise[0].features
    mean_signs = _rademacher(shape, like, generator)
    own, of_mean = [], []
    for derivatives in precise:
        signs = torch.cat([_rademacher(shape, like, generator), mean_signs])
        estimates = signs * derivatives.hvp(signs)
        own.append(estimates[:probes].mean(0))
        of_mean.append(estimates[probes:].mean(0))
    centre = torch.stack(of_mean).mean(0)
    if detach_centre:
        centre = centre.detach()
    return (torch.stack(own) - centre).square().flatten(1).sum(1)


def spectral_distances(domains: Sequence[HeadDerivatives], detach_centre: bool = False) -> Tensor:
    """``‖H_e − H̄‖₂²`` of each domain, matrix-free: the paper's bound on the transfer measure.

    Args:
        domains: Derivatives of ``m`` domains.
        detach_centre: No derivative flows through ``H̄``.

    Returns:
        ``(m,)``.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> from hessalign.alignment import spectral_distances
        >>> def domain(shift):
        ...     z = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) + shift
        ...     return ha.HeadDerivatives.from_logits(z, torch.zeros(2, 2), torch.tensor([0, 1]))
        >>> spectral_distances([domain(0.0), domain(1.0)]).shape
        torch.Size([2])
        >>> spectral_distances([domain(0.5), domain(0.5)]).abs().max() < 1e-6
        tensor(True)
    """
    grouped = DomainDerivatives.of(domains)
    mean = grouped.mean().precise()

    def difference(v: Tensor, domain: HeadDerivatives) -> Tensor:
        centre = mean.hvp(v)
        return domain.hvp(v) - (centre.detach() if detach_centre else centre)

    precise = [domain.precise() for domain in grouped]
    like = precise[0].features.new_zeros(precise[0].shape)
    return torch.stack(
        [spectral_norm(partial(difference, domain=domain), like) for domain in precise]
    ).square()


def hessian_squares(domains: Domains, part: str = "whole") -> Tensor:
    """``‖H_e‖_F²`` of each domain, or ``off(H_e) = ‖H_e‖_F² − ‖diag H_e‖²``; no Hessian is formed.

    Args:
        domains: Derivatives of ``m`` domains.
        part: ``"whole"`` (default) or ``"off_diagonal"``.

    Returns:
        ``(m,)``; rounding is kept from making it negative.

    Examples:
        >>> import torch
        >>> import hessalign as ha
        >>> from hessalign.alignment import hessian_squares
        >>> def domain(shift):
        ...     z = torch.tensor([[0.0, 1.0], [1.0, 0.0]]) + shift
        ...     return ha.HeadDerivatives.from_logits(z, torch.zeros(2, 2), torch.tensor([0, 1]))
        >>> hessian_squares([domain(0.0), domain(1.0)]).shape
        torch.Size([2])
    """
    if part == "whole":
        squares = _of(domains, "hessian").spread("hessian").squares
    else:
        statistics = _of(domains, "hessian", "diagonal")
        squares = statistics.spread("hessian").squares - statistics.spread("diagonal").squares
    return squares.clamp(min=0)


def _of(domains: Domains, *wanted: str, unbiased: bool = False) -> Statistics:
    if isinstance(domains, Statistics):
        return domains
    return Statistics(DomainDerivatives.of(domains), wanted, unbiased)  # type: ignore[arg-type]


def _rademacher(shape: tuple[int, ...], like: Tensor, generator: torch.Generator | None) -> Tensor:
    device = like.device if generator is None else generator.device
    return torch.randint(0, 2, shape, generator=generator, device=device).to(like) * 2 - 1


class HeadPenalty(nn.Module):
    """What the penalties share: checked arguments, a batch in, weighted terms of the domains out."""

    weights: ClassVar[Mapping[str, str]]
    """Which attribute weighs which term."""
    reduction: Reduction
    loss: HeadLoss
    bias: bool

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; an argument is checked, whenever it is set."""
        check = _CHECKS.get(name)
        super().__setattr__(name, value if check is None else check(value))

    def forward(
        self,
        features: Tensor,
        logits: Tensor,
        targets: Tensor,
        domains: Tensor | SortedDomains,
        *,
        sample_weight: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The penalty alone of what ``with_terms`` gives, from the same arguments."""
        return self.with_terms(
            features, logits, targets, domains, sample_weight=sample_weight, generator=generator
        )[0]

    def with_terms(
        self,
        features: Tensor,
        logits: Tensor,
        targets: Tensor,
        domains: Tensor | SortedDomains,
        *,
        sample_weight: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Terms]:
        """The penalty of a batch, and what it is made of.

        Args:
            features: Input of the linear head, ``(n, d)``; tensor, array or rows of numbers.
            logits: Output of the linear head, ``(n, C)``; ``(n,)`` for one logit.
            targets: What the loss takes, ``(n,)`` or ``(n, C)``.
            domains: Domain id of each sample, ``(n,)``, integers or strings in any container and any order;
                ids need not be contiguous and domains need not be of one size. Or
                [SortedDomains][hessalign.alignment.SortedDomains] for a batch that is sorted by domain: then
                no value is read, so that nothing waits for the device, and none is checked.
            sample_weight: Weight of each sample in its domain's mean loss, ``(n,)``; equal by default.
            generator: Source of sampled Hutchinson probes; torch's global one by default.

        Returns:
            Scalar, differentiable with respect to features and logits; in float32 at least. And, detached,
            the unweighted terms of each domain, in ascending order of the ids, by name; a term that the
            penalty does without is left out.

        Raises:
            ValueError: If lengths or shapes do not match, a value is NaN or infinite, a target is out of
                range, or the penalty overflows.
        """
        features = as_tensor("features", features)
        # Mixed precision would round the differences of Hessians away.
        with without_autocast(features.device):
            grouped = derivatives_by_domain(
                features, logits, targets, domains, self.loss, self.bias, sample_weight
            )
            self._warn_of_no_effect(len(grouped))
            penalty, terms = self.evaluate(grouped, generator)
        if not isinstance(domains, SortedDomains) and not torch.isfinite(penalty.detach()):
            raise ValueError(_overflow(features, logits, targets, penalty))
        return penalty, terms

    def from_derivatives(
        self, domains: Sequence[HeadDerivatives], generator: torch.Generator | None = None
    ) -> Tensor:
        """The penalty of domains whose head derivatives are at hand.

        Args:
            domains: Derivatives of each domain, at least one.
            generator: Source of sampled Hutchinson probes; torch's global one by default.

        Returns:
            Scalar.

        Raises:
            ValueError: If there is no domain.
        """
        grouped = DomainDerivatives.of(domains)
        self._warn_of_no_effect(len(grouped))
        return self.evaluate(grouped, generator)[0]

    def evaluate(
        self, domains: Sequence[HeadDerivatives], generator: torch.Generator | None = None
    ) -> tuple[Tensor, Terms]:
        """``from_derivatives``, and the detached terms as ``with_terms`` gives them; without any warning."""
        distances = self.distances(domains, generator)
        dtype = (
            domains[0].features.dtype
            if not isinstance(domains, DomainDerivatives)
            else domains.like.features.dtype
        )
        weighted = []
        for name, distance in distances.items():
            reduced = distance.mean() if self.reduction == "mean" else distance.sum()
            weighted.append(getattr(self, self.weights[name]) * reduced)
        penalty = sum(weighted[1:], weighted[0]).to(dtype) if weighted else _connected_zero(domains)
        return penalty, {name: distance.detach().to(dtype) for name, distance in distances.items()}

    def suggest(self, batches: Iterable[Any], share: float = 0.1) -> WeightSuggestion:
        """The weights at which each term is a given share of the loss, from a few batches.

        Weights have no natural scale: terms grow with the features' scale (gradient ²; diagonal and Frobenius
        ⁴; HGP ⁶), and without ``unbiased=True`` shrink with the batch size. A share of the loss is a
        scale that carries over. Take the batches from where the penalty is to set in: from the network at
        the anneal step, not from the first one.

        Args:
            batches: Each ``(features, logits, targets, domains)``, as the penalty takes them.
            share: Share of the loss that each term is to be; default 0.1.

        Returns:
            ``print`` it; ``suggestion.weights`` holds the weights by name.

        Raises:
            ValueError: If there is no batch, a batch is no such tuple, or none has two domains.

        Examples:
            >>> import torch
            >>> from hessalign import HessianAlignment
            >>> generator = torch.Generator().manual_seed(0)
            >>> features = torch.randn(64, 8, generator=generator)
            >>> logits, domains = features[:, :3], torch.arange(64) % 2
            >>> batch = (features, logits, domains + (features[:, 0] > 0), domains)
            >>> suggestion = HessianAlignment("diagonal").suggest([batch], share=0.1)
            >>> sorted(suggestion.weights)
            ['alpha', 'beta']
        """
        return suggest_weights(self, batches, share)

    def distances(
        self, domains: Sequence[HeadDerivatives], generator: torch.Generator | None = None
    ) -> Terms:
        """What is weighted and reduced: terms ``(m,)`` of the domains by the names of ``with_terms``.

        Args:
            domains: Derivatives of each domain.
            generator: Source of sampled Hutchinson probes; torch's global one by default.
        """
        raise NotImplementedError

    def _warn_of_no_effect(self, count: int) -> None:
        """Tell once where the penalty can only be 0."""


class HessianAlignment(HeadPenalty):
    r"""Penalty ``Σ_e α·(Hessian distance of domain e) + β·‖G_e − Ḡ‖²``, summed or averaged over domains.

    ``G_e`` and ``H_e`` are gradient and Hessian of domain ``e``'s mean loss with respect to the linear head,
    in closed form; a bar is the mean over domains, all with equal weight. The Hessian distance is

    | method | distance of domain e |
    |---|---|
    | ``"gradient"`` | none: α is not used |
    | ``"hgp"`` | ``‖H_e G_e − c‖²``, the Hessian-gradient product |
    | ``"hutchinson"`` | ``‖D̂_e − D̂‖²``, diagonals estimated with probes, or the expectation of that |
    | ``"diagonal"`` | ``‖D_e − D̄‖²``, exact diagonals |
    | ``"frobenius"`` | ``‖H_e − H̄‖_F²``, the whole Hessian, exact |
    | ``"spectral"`` | ``‖H_e − H̄‖₂²``, matrix-free |

    The two published scripts of "Understanding Hessian Alignment for Domain Generalization" (Hemati et
    al., ICCV 2023) differ: the defaults are those of the DomainBed one (``detach_centre=True``,
    ``reduction="mean"``); the Colored MNIST one is ``detach_centre=False, reduction="sum"``.

    A batch with a single domain has nothing to align: the penalty is exactly 0 for every method, and its
    derivatives are defined and zero. The first time, a
    [NoEffectWarning][hessalign.exceptions.NoEffectWarning] says so, as one does where ``alpha`` or ``centre``
    is given to a method that does not read it.

    Weights may be scalar tensors, so that a schedule can change them on their device; like numbers they may
    be set at any time: ``penalty.alpha = ...``.

    Args:
        method: Which Hessian distance.
        alpha: Weight of the Hessian distance, default 1e-4; the number 0 skips it.
        beta: Weight of the gradient distance, default 5e-3; the number 0 skips it. Both defaults are those
            of the published DomainBed runs of HGP.
        probes: ``k``, probes for each estimate; required by ``"hutchinson"``, not allowed elsewhere.
        expected: ``"hutchinson"`` only: the closed-form expectation over the probes instead of a sample.
        centre: ``"hgp"`` only: ``"mean_loss"``, ``c = H̄ Ḡ`` (default), or ``"mean_product"``,
            ``c = (1/m) Σ_e H_e G_e`` (default where ``unbiased``).
        detach_centre: No derivative flows through the centre. Matters for HGP with ``"mean_loss"``, for
            Hutchinson and for spectral; elsewhere the derivative is the same either way.
        unbiased: U-statistics over distinct samples, so that the expected penalty does not depend on the
            batch size; it can be negative. Needs 2 samples of each domain, for ``"hgp"`` 4 and
            ``centre="mean_product"``; not for ``"spectral"`` nor sampled probes. Default False, the published
            plug-in distances.
        bias: Whether the head has a bias, default True.
        reduction: ``"mean"`` (default) or ``"sum"`` over domains.
        loss: Loss of the head, as
            [HeadDerivatives.from_logits][hessalign.head.HeadDerivatives.from_logits] takes it.

    Raises:
        ValueError: If an argument is unknown, out of range or does not belong to the method.

    Examples:
        >>> import torch
        >>> from hessalign import HessianAlignment
        >>> head = torch.nn.Linear(16, 4)
        >>> features, targets = torch.randn(30, 16), torch.randint(0, 4, (30,))
        >>> domains = torch.arange(30) % 3
        >>> penalty = HessianAlignment("diagonal", alpha=1e-3, beta=1e-2)
        >>> logits = head(features)
        >>> loss = torch.nn.functional.cross_entropy(logits, targets)
        >>> loss = loss + penalty(features, logits, targets, domains)
        >>> loss.backward()
    """

    weights: ClassVar[Mapping[str, str]] = {"gradient": "beta", "hessian": "alpha"}

    def __init__(
        self,
        method: Method,
        alpha: Weight = DEFAULT_ALPHA,
        beta: Weight = 5e-3,
        *,
        probes: int | None = None,
        expected: bool = False,
        centre: Centre | None = None,
        detach_centre: bool = True,
        unbiased: bool = False,
        bias: bool = True,
        reduction: Reduction = "mean",
        loss: str | HeadLoss = "cross_entropy",
    ) -> None:
        super().__init__()
        require_choice("method", method, get_args(Method))
        self.expected = expected
        self.unbiased = unbiased
        self.centre: Centre = centre or ("mean_product" if unbiased is True else "mean_loss")
        _check_probes(method, probes, expected)
        _check_unbiased(method, expected, self.centre, unbiased)
        self.method: Method = method
        self.probes = probes
        self.alpha: Weight = alpha
        self.beta: Weight = beta
        self.detach_centre = detach_centre
        self.bias = bias
        self.reduction = reduction
        self.loss = loss  # type: ignore[assignment]
        unread = without_effect(method, alpha=(self.alpha, DEFAULT_ALPHA), centre=(centre, None))
        if unread is not None:
            warnings.warn(unread, NoEffectWarning, stacklevel=2)
        self.has_warned = False

    with_parts = HeadPenalty.with_terms

    def distances(
        self, domains: Sequence[HeadDerivatives], generator: torch.Generator | None = None
    ) -> Terms:
        """What is weighted and reduced: distances ``(m,)`` of the domains, ``"gradient"`` and ``"hessian"``.

        A term whose weight is the number 0 is left out, and so are both where there is one domain.

        Args:
            domains: Derivatives of each domain.
            generator: Source of sampled Hutchinson probes; torch's global one by default.

        Returns:
            ``(m,)`` by name, the terms that are not left out.
        """
        aligns_gradients = len(domains) > 1 and _is_on(self.beta)
        aligns_hessians = len(domains) > 1 and _is_on(self.alpha) and self.method != "gradient"
        grouped = DomainDerivatives.of(domains)
        wanted: tuple[Quantity, ...] = ("gradient",) if aligns_gradients else ()
        drawn = self.method == "hutchinson" and not self.expected
        if aligns_hessians and not drawn:
            wanted += QUANTITIES[self.method]
        statistics = Statistics(grouped, wanted, self.unbiased and bool(wanted))
        # First, because what it is computed from often holds the gradients.
        hessian = self._hessian_distances(grouped, statistics, generator) if aligns_hessians else None
        distances = {}
        if aligns_gradients:
            distances["gradient"] = gradient_distances(statistics)
        if hessian is not None:
            distances["hessian"] = hessian
        return distances

    def extra_repr(self) -> str:
        """Arguments, as ``print(penalty)`` shows them."""
        return (
            f"{self.method!r}, alpha={self.alpha}, beta={self.beta}, probes={self.probes}, "
            f"expected={self.expected}, centre={self.centre!r}, detach_centre={self.detach_centre}, "
            f"unbiased={self.unbiased}, bias={self.bias}, reduction={self.reduction!r}, loss={self.loss}"
        )

    def _hessian_distances(
        self, domains: DomainDerivatives, statistics: Statistics, generator: torch.Generator | None
    ) -> Tensor:
        if self.method == "hgp":
            return hgp_distances(statistics, self.centre, self.detach_centre, self.unbiased)
        if self.method == "diagonal":
            return diagonal_distances(statistics)
        if self.method == "frobenius":
            return frobenius_distances(statistics)
        if self.method == "spectral":
            return spectral_distances(domains, self.detach_centre)
        assert self.probes is not None
        if self.expected:
            return expected_hutchinson_distances(statistics, self.probes, self.detach_centre)
        return sampled_hutchinson_distances(domains, self.probes, generator, self.detach_centre)

    def _warn_of_no_effect(self, count: int) -> None:
        if count > 1 or self.has_warned or not (_is_on(self.alpha) or _is_on(self.beta)):
            return
        self.has_warned = True
        warnings.warn(
            "the batch holds one domain, so the alignment penalty is 0: "
            "batches need samples of at least 2 domains",
            NoEffectWarning,
            stacklevel=6,  # past forward and what torch calls it through
        )


def without_effect(method: str, **options: tuple[Any, Any]) -> str | None:
    """What is to be said of options that were given to a method that does not read them.

    Args:
        method: As ``HessianAlignment`` and the estimators know it.
        **options: By name, the value and its default; a weight of 0 asks for nothing either.

    Returns:
        A sentence; None where all is read.
    """
    unread = [
        name
        for name, (value, default) in options.items()
        if method not in READ_BY[name] and (isinstance(value, Tensor) or value not in (default, 0))
    ]
    if not unread:
        return None
    them = "it" if len(unread) == 1 else "them"
    return f"{', '.join(unread)}: {method!r} does not read {them}; leave it out, or choose another method"


def check_weight(name: str, value: Any) -> Weight:
    """A weight as a float, or a scalar tensor as it is.

    Returns:
        The weight.

    Raises:
        ValueError: If it is neither a finite number of at least 0 nor a scalar tensor of real numbers.
    """
    if isinstance(value, Tensor):
        if value.ndim or value.is_complex() or value.dtype == torch.bool:
            raise ValueError(
                f"{name}: must be a finite number of at least 0 or a scalar tensor, "
                f"got a tensor of {value.dtype} and shape {tuple(value.shape)}"
            )
        return value
    return require_number(name, value, least=0)


def _weight(name: str) -> Callable[[Any], Weight]:
    return lambda value: check_weight(name, value)


def _flag(name: str) -> Callable[[Any], bool]:
    return lambda value: require_flag(name, value)


def _choice(name: str, kind: Any) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        require_choice(name, value, get_args(kind))
        return value

    return check


_CHECKS: dict[str, Callable[[Any], Any]] = {
    **{name: _weight(name) for name in ("alpha", "beta", "gamma")},
    **{name: _flag(name) for name in ("expected", "detach_centre", "unbiased", "bias")},
    "reduction": _choice("reduction", Reduction),
    "centre": _choice("centre", Centre),
    "probes": lambda value: None if value is None else require_whole("probes", value, least=1),
    "loss": resolve_loss,
}


def _is_on(weight: Weight) -> bool:
    """Whether a weight can be other than 0; a tensor's value is not looked at."""
    return isinstance(weight, Tensor) or weight > 0


def _connected_zero(domains: Sequence[HeadDerivatives]) -> Tensor:
    """Exactly 0 whatever the values, with a derivative of 0 for features and logits: sums of no rows."""
    derivatives = [domains.like] if isinstance(domains, DomainDerivatives) and domains.is_joined else domains
    empty = [
        each.features[:0].sum() + each.residual[:0].sum().to(each.features.dtype) for each in derivatives
    ]
    return torch.stack(empty).sum()


def _check_probes(method: str, probes: Any, expected: bool) -> None:
    if method == "hutchinson":
        try:
            require_whole("probes", probes, least=1)
        except ValueError:
            raise ValueError(
                f"probes: 'hutchinson' needs a whole number of at least 1, got {probes!r} "
                "(for the limit of many probes use method='diagonal')"
            ) from None
    elif probes is not None or expected:
        raise ValueError(
            f"probes, expected: only 'hutchinson' takes them, got probes={probes!r} and "
            f"expected={expected!r} for {method!r}"
        )


def _check_unbiased(method: str, expected: bool, centre: str, unbiased: bool) -> None:
    if not unbiased:
        return
    if method == "spectral":
        raise ValueError("unbiased: a spectral norm has no unbiased estimate; use 'frobenius'")
    if method == "hutchinson" and not expected:
        raise ValueError("unbiased: drawn probes have noise of their own; use expected=True or 'diagonal'")
    if method == "hgp" and centre != "mean_product":
        raise ValueError(
            "unbiased: 'hgp' needs centre='mean_product'; the centre of 'mean_loss' multiplies "
            "Hessian and gradient of different domains"
        )


def _overflow(features: Any, logits: Any, targets: Any, penalty: Tensor) -> str:
    """Which argument is the largest, in one sentence."""
    sizes = {}
    for name, given in (("features", features), ("logits", logits), ("targets", targets)):
        values = as_tensor(name, given)
        if values.is_floating_point():
            sizes[name] = float(values.detach().abs().max())
    name, kind = max(sizes, key=lambda key: sizes[key]), str(penalty.dtype).removeprefix("torch.")
    return (
        f"{name}: values up to {sizes[name]:.3g} let the penalty overflow {kind}; "
        "it grows with up to the sixth power of the features' scale, so scale them down first"
    )
