"""Weights at which each term is a share of the loss."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import hessalign as ha
from hessalign.alignment import SortedDomains
from hessalign.exceptions import UntrustworthyWarning

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def make_batches(count: int = 3, size: int = 30, scale: float = 1.0) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(4, 5, generator=generator, dtype=torch.float64) / scale
    batches = []
    for _ in range(count):
        domains = torch.arange(size) % 3
        features = torch.randn(size, 5, generator=generator, dtype=torch.float64) + domains.unsqueeze(1)
        features = scale * features
        targets = torch.randint(0, 4, (size,), generator=generator)
        batches.append((features, features @ weight.T, targets, domains))
    return batches


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("hgp", {}),
        ("diagonal", {}),
        ("frobenius", {}),
        ("spectral", {}),
        ("hutchinson", {"probes": 3, "expected": True}),
        ("hgp", {"alpha": 0.0, "beta": 0.0}),
    ],
)
def test_at_the_suggested_weights_each_term_has_its_share(method: str, options: dict, reduction: str) -> None:
    batches = make_batches()
    suggestion = ha.HessianAlignment(method, reduction=reduction, **options).suggest(batches, share=0.25)
    risks = [
        torch.stack([F.cross_entropy(z[d == e], y[d == e]) for e in range(3)]).mean()
        for _, z, y, d in batches
    ]
    assert suggestion.loss == pytest.approx(float(torch.stack(risks).mean()), rel=1e-12)
    for name, weight in suggestion.weights.items():
        only = {"alpha": 0.0, "beta": 0.0, name: weight}
        penalty = ha.HessianAlignment(method, **{**options, **only}, reduction=reduction)
        mean = sum(float(penalty(*batch)) for batch in batches) / len(batches)
        assert mean == pytest.approx(0.25 * suggestion.loss, rel=1e-9)


def test_the_share_now_is_that_of_the_present_weights() -> None:
    batches = make_batches()
    terms = ha.HessianAlignment("diagonal", alpha=0.3, beta=0.0).suggest(batches).terms
    penalty = ha.HessianAlignment("diagonal", alpha=0.3, beta=0.0)
    mean = sum(float(penalty(*batch)) for batch in batches) / len(batches)
    suggestion = ha.HessianAlignment("diagonal", alpha=0.3, beta=0.0).suggest(batches)
    assert terms["alpha"].share_now * suggestion.loss == pytest.approx(mean)
    assert terms["beta"].share_now == 0


def test_batch_noise_shrinks_with_the_batch_and_the_weight_grows_with_it() -> None:
    small = ha.HessianAlignment("hgp").suggest(make_batches(count=60, size=15)).terms
    large = ha.HessianAlignment("hgp").suggest(make_batches(count=6, size=600)).terms
    for name in ("alpha", "beta"):
        assert small[name].noise > 2 * large[name].noise > 0
        assert small[name].weight < large[name].weight


def test_weights_follow_the_scale_of_the_features() -> None:
    one, two = (ha.HessianAlignment("hgp").suggest(make_batches(scale=s)).weights for s in (1.0, 2.0))
    # Without the bias' share in them the terms would grow by exactly 2² and 2⁶.
    assert one["beta"] / 4 < two["beta"] < one["beta"]
    assert one["alpha"] / 64 < two["alpha"] < one["alpha"] / 4


@pytest.mark.parametrize("targets", ["ids", "weighted", "binary", "squared"])
def test_the_loss_is_the_heads_own(targets: str) -> None:
    features, logits, ids, domains = make_batches(1)[0]
    weight = torch.tensor([1.0, 2.0, 0.5, 1.0], dtype=torch.float64)
    loss, given, expected = {
        "ids": ("cross_entropy", ids, F.cross_entropy),
        "weighted": (
            ha.CrossEntropy(class_weight=weight.tolist(), label_smoothing=0.1),
            ids,
            lambda z, y: F.cross_entropy(z, y, weight=weight, label_smoothing=0.1),
        ),
        "binary": (
            "binary_cross_entropy",
            F.one_hot(ids, 4).double(),
            lambda z, y: 4 * F.binary_cross_entropy_with_logits(z, y),
        ),
        "squared": (
            ha.SquaredError(),
            F.one_hot(ids, 4).double(),
            lambda z, y: 2 * F.mse_loss(z, y),
        ),
    }[targets]
    suggestion = ha.HessianAlignment("gradient", loss=loss).suggest([(features, logits, given, domains)])
    parts = [expected(logits[domains == e], given[domains == e]) for e in range(3)]
    assert suggestion.loss == pytest.approx(float(torch.stack(parts).mean()), rel=1e-9)


def test_sorted_domains_and_strings_are_the_same() -> None:
    features, logits, targets, domains = make_batches(1)[0]
    order = domains.argsort(stable=True)
    names = [f"site {int(domain)}" for domain in domains]
    penalty = ha.HessianAlignment("diagonal")
    one = penalty.suggest([(features, logits, targets, names)])
    two = penalty.suggest([(features[order], logits[order], targets[order], SortedDomains([10, 10, 10]))])
    assert one.weights == pytest.approx(two.weights)
    assert one.loss == pytest.approx(two.loss)


def test_a_flat_head_has_a_weight_too() -> None:
    suggestion = ha.HessianFlatness().suggest(make_batches())
    assert suggestion.weights.keys() == {"gamma"}
    assert suggestion.terms["gamma"].noise is None


def test_it_reads_like_a_sentence() -> None:
    text = str(ha.HessianAlignment("hgp").suggest(make_batches()))
    assert text.startswith("loss ")
    assert "alpha: the term is " in text
    assert " makes it 10 %; " in text


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"unbiased": True}])
@pytest.mark.parametrize("method", ["gradient", "hgp", "diagonal", "frobenius", "spectral"])
def test_domains_that_do_not_differ_get_no_weight(
    method: str, options: dict, dtype: torch.dtype, scale: float
) -> None:
    """The same samples in another order, so that nothing but rounding keeps the domains apart."""
    if method == "spectral" and "unbiased" in options:
        pytest.skip("has no unbiased estimate")
    features, logits, targets, _ = make_batches(1, size=40, scale=scale)[0]
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    twice = [torch.cat([part, part[order]]) for part in (features.to(dtype), logits.to(dtype), targets)]
    batch = (*twice, torch.arange(80) // 40)
    penalty = ha.HessianAlignment(method, **options)
    with pytest.warns(UntrustworthyWarning, match="its term is .*, so no weight makes it a share"):
        suggestion = penalty.suggest([batch])
    assert set(suggestion.weights.values()) == {0.0}
    assert "no weight makes it 10 %, and beta=0 leaves it out" in str(suggestion)
    assert float(ha.HessianAlignment(method, **{**options, **suggestion.weights})(*batch)) == 0


@pytest.mark.parametrize("method", ["gradient", "hgp", "diagonal", "frobenius", "spectral"])
def test_a_small_difference_has_a_weight(method: str) -> None:
    """Of a thousandth of the features of one domain, in float32."""
    features, logits, targets, _ = make_batches(1, size=40)[0]
    twice = [torch.cat([part, part]).float() for part in (features, logits)]
    twice[0][40:] *= 1.001
    batch = (*twice, torch.cat([targets, targets]), torch.arange(80) // 40)
    suggestion = ha.HessianAlignment(method).suggest([batch])
    for name, weight in suggestion.weights.items():
        only = {"alpha": 0.0, "beta": 0.0, name: weight}
        assert float(ha.HessianAlignment(method, **only)(*batch)) == pytest.approx(
            0.1 * suggestion.loss, rel=1e-4
        )


@pytest.mark.parametrize(
    ("batches", "share", "message"),
    [
        ([], 0.1, "batches: at least one is needed"),
        ([(1, 2)], 0.1, r"batches: each must be \(features, logits, targets, domains\)"),
        (make_batches(1), 0, "share: must be a finite number above 0"),
    ],
)
def test_bad_input_is_one_sentence(batches: list, share: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ha.HessianAlignment("hgp").suggest(batches, share)
