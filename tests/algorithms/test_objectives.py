"""Algorithms with an objective: value and derivative against the rule written out here."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import beta
from torch import Tensor
from torch.distributions import Beta

from hessalign.algorithms import Algorithm, DomainBatch, get_algorithm, mmd
from hessalign.algorithms.mixup import draw_share
from hessalign.alignment import HessianAlignment
from tests.algorithms.tiny import (
    CLASSES,
    DOMAINS,
    WIDTH,
    assert_objective,
    make_algorithm,
    make_batch,
    parts,
    risks,
)


def mean_risk(algorithm: Algorithm, batch: DomainBatch) -> Tensor:
    return sum(risks(algorithm, batch)) / batch.domain_count


def test_erm() -> None:
    algorithm, batch = make_algorithm("erm"), make_batch()
    expected = F.cross_entropy(algorithm.head(algorithm.backbone(batch.inputs)), batch.targets)
    assert_objective(algorithm, algorithm.objective(batch)[0], expected)


def test_irm_before_and_after_annealing() -> None:
    algorithm, batch = make_algorithm("irm", penalty_weight=7.0, anneal_steps=2), make_batch()

    def expected(weight: float) -> Tensor:
        penalty = 0
        for inputs, targets in parts(batch):
            logits = algorithm.head(algorithm.backbone(inputs))
            scale = torch.ones((), dtype=torch.float64, requires_grad=True)
            slopes = []
            for half in (slice(0, None, 2), slice(1, None, 2)):
                loss = F.cross_entropy(logits[half] * scale, targets[half])
                slopes.append(torch.autograd.grad(loss, scale, create_graph=True)[0])
            penalty = penalty + slopes[0] * slopes[1] / batch.domain_count
        return mean_risk(algorithm, batch) + weight * penalty

    assert_objective(algorithm, algorithm.objective(batch)[0], expected(1.0))
    algorithm.steps_done = 2
    assert_objective(algorithm, algorithm.objective(batch)[0], expected(7.0))


def test_vrex_before_and_after_annealing() -> None:
    algorithm, batch = make_algorithm("vrex", penalty_weight=7.0, anneal_steps=2), make_batch()

    def expected(weight: float) -> Tensor:
        every, mean = risks(algorithm, batch), mean_risk(algorithm, batch)
        return mean + weight * sum((risk - mean) ** 2 for risk in every) / len(every)

    assert_objective(algorithm, algorithm.objective(batch)[0], expected(1.0))
    algorithm.steps_done = 2
    assert_objective(algorithm, algorithm.objective(batch)[0], expected(7.0))


@pytest.mark.parametrize("name", ["irm", "vrex", "fishr"])
def test_the_optimiser_is_fresh_where_the_weight_changes(name: str) -> None:
    algorithm, batch = make_algorithm(name, anneal_steps=2), make_batch()
    optimizers = algorithm.make_optimizers()
    counts = []
    for _ in range(4):
        algorithm.update(batch, optimizers)
        counts.append(int(next(iter(optimizers["main"].state.values()))["step"]))
    assert counts == [1, 2, 1, 2]


def test_group_dro_over_two_steps() -> None:
    algorithm, batch = make_algorithm("group_dro", eta=0.5), make_batch()
    q = [1.0] * DOMAINS
    for _ in range(2):
        every = risks(algorithm, batch)
        q = [weight * math.exp(0.5 * risk.item()) for weight, risk in zip(q, every, strict=True)]
        q = [weight / sum(q) for weight in q]
        expected = sum(weight * risk for weight, risk in zip(q, every, strict=True))
        assert_objective(algorithm, algorithm.objective(batch)[0], expected)
    torch.testing.assert_close(algorithm.weights.tolist(), q)


def test_mixup() -> None:
    algorithm, batch = make_algorithm("mixup", alpha=0.4), make_batch()
    torch.manual_seed(3)
    found = algorithm.objective(batch)[0]
    torch.manual_seed(3)
    order = torch.randperm(DOMAINS).tolist()
    domains, expected = parts(batch), 0
    for position in range(DOMAINS):
        (x, y), (x2, y2) = domains[order[position]], domains[order[(position + 1) % DOMAINS]]
        share = Beta(0.4, 0.4).sample().item()
        logits = algorithm.head(algorithm.backbone(share * x + (1 - share) * x2))
        expected = expected + share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y2)
    assert_objective(algorithm, found, expected / DOMAINS)


@pytest.mark.parametrize("alpha", [1e-6, 1e-3, 0.01, 0.049, 0.2])
def test_mixup_draws_its_shares_from_the_beta_distribution(alpha: float) -> None:
    """Mean, variance and the share of pairs that are truly mixed, which an underflow would raise to 0.23."""
    torch.manual_seed(0)
    shares = np.array([draw_share(alpha) for _ in range(1500)])
    assert ((shares >= 0) & (shares <= 1)).all()
    deviation = np.sqrt(1 / (4 * (2 * alpha + 1)))
    assert abs(shares.mean() - 0.5) < 4 * deviation / np.sqrt(len(shares))
    fourth = 3 / (16 * (2 * alpha + 1) * (2 * alpha + 3))  # central moment
    spread = np.sqrt((fourth - deviation**4) / len(shares))
    assert abs(((shares - 0.5) ** 2).mean() - deviation**2) < 4 * spread + 1e-12
    inside = 1 - 2 * beta.cdf(0.01, alpha, alpha)
    share_inside = ((shares > 0.01) & (shares < 0.99)).mean()
    assert abs(share_inside - inside) < 4 * np.sqrt(inside * (1 - inside) / len(shares)) + 1e-12


def test_mixups_small_shares_depend_on_the_seed_alone() -> None:
    def draws() -> list[float]:
        torch.manual_seed(7)
        return [draw_share(1e-3) for _ in range(5)]

    assert draws() == draws()


def pair_penalty(algorithm: Algorithm, batch: DomainBatch, distance) -> Tensor:
    features = [algorithm.backbone(x) for x, _ in parts(batch)]
    pairs = [(0, 1), (0, 2), (1, 2)]
    return sum(distance(features[i], features[j]) for i, j in pairs) / len(pairs)


def test_coral() -> None:
    algorithm, batch = make_algorithm("coral", penalty_weight=2.0), make_batch()

    def distance(first: Tensor, second: Tensor) -> Tensor:
        means = ((first.mean(0) - second.mean(0)) ** 2).mean()
        return means + ((torch.cov(first.T) - torch.cov(second.T)) ** 2).mean()

    expected = mean_risk(algorithm, batch) + 2.0 * pair_penalty(algorithm, batch, distance)
    assert_objective(algorithm, algorithm.objective(batch)[0], expected)


def test_mmd() -> None:
    algorithm, batch = make_algorithm("mmd", penalty_weight=2.0), make_batch()

    def kernel(first: Tensor, second: Tensor) -> Tensor:
        values = []
        for a in first:
            for b in second:
                square = ((a - b) ** 2).sum()
                values.append(sum(torch.exp(-g * square) for g in (0.001, 0.01, 0.1, 1, 10, 100, 1000)))
        return torch.stack(values).mean()

    def distance(first: Tensor, second: Tensor) -> Tensor:
        return kernel(first, first) + kernel(second, second) - 2 * kernel(first, second)

    expected = mean_risk(algorithm, batch) + 2.0 * pair_penalty(algorithm, batch, distance)
    assert_objective(algorithm, algorithm.objective(batch)[0], expected)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("name", ["coral", "mmd"])
def test_distances_of_float32_features_are_those_of_float64(name: str, offset: float, scale: float) -> None:
    """Two domains that are nearly equal, one sample drawn twice: differences of squares would be rounding."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(8, 2048, generator=generator)
    first[1] = first[0]
    first = (first * 0.02 + offset) * scale
    second = first + 1e-3 * scale * torch.randn(8, 2048, generator=generator)
    found = []
    for dtype in (torch.float32, torch.float64):
        algorithm = make_algorithm(name, domains=2, penalty_weight=1.0).to(dtype)
        algorithm.backbone, algorithm.head = torch.nn.Identity(), torch.nn.Linear(2048, 3).to(dtype)
        inputs = torch.cat([first, second]).to(dtype).requires_grad_()
        ids = torch.arange(2).repeat_interleave(8)
        penalty = algorithm.penalty(DomainBatch(inputs, ids, ids, 2).by_domain(inputs))
        found.append((penalty.detach(), *torch.autograd.grad(penalty, inputs)))
    (ours, slope), (theirs, other_slope) = found
    assert theirs > 0
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=0)
    assert (slope.double() - other_slope).norm() <= 1e-5 * other_slope.norm()


@pytest.mark.parametrize("name", ["coral", "mmd"])
def test_distances_of_half_precision_are_not_rounded_again(name: str) -> None:
    algorithm = make_algorithm(name, domains=2)
    features = [torch.randn(8, 64).bfloat16() for _ in range(2)]
    with torch.autocast("cpu", torch.bfloat16):
        found = algorithm.penalty(features)
    torch.testing.assert_close(found, algorithm.penalty([part.float() for part in features]))
    assert algorithm.penalty([features[0] * float("nan"), features[1]]).isnan()


def test_mmds_kernels_are_the_same_bits_however_many_are_computed_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    squares = torch.rand(7, 7, dtype=torch.float64, requires_grad=True)
    found = []
    for at_once in (mmd.VALUES_IN_CACHE, 15, 1):
        monkeypatch.setattr(mmd, "VALUES_IN_CACHE", at_once)
        kernels = mmd.kernels(squares)
        found.append((kernels.detach(), *torch.autograd.grad(kernels.sum(), squares)))
    expected = sum((-bandwidth * squares).exp() for bandwidth in mmd.BANDWIDTHS)
    torch.testing.assert_close(found[0], (expected.detach(), *torch.autograd.grad(expected.sum(), squares)))
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_mmd_of_the_same_samples_is_zero() -> None:
    features = 100 * torch.randn(4, 2048)
    twice = torch.cat([features, features])
    algorithm = make_algorithm("mmd", domains=2)
    assert algorithm.penalty((features, features)) == 0
    assert algorithm.penalty((twice, twice.flip(0))).abs() <= 1e-14


def test_fishr_over_two_steps() -> None:
    algorithm = make_algorithm("fishr", penalty_weight=30.0, anneal_steps=0, ema=0.9)
    averages = [0.0] * DOMAINS
    for seed in (1, 2):
        batch = make_batch(seed=seed)
        corrected = []
        for e, (inputs, targets) in enumerate(parts(batch)):
            features = algorithm.backbone(inputs)
            errors = algorithm.head(features).softmax(1) - F.one_hot(targets, CLASSES)
            rows = [
                torch.cat([torch.outer(r, z).flatten(), r]) for r, z in zip(errors, features, strict=True)
            ]
            variance = torch.stack(rows).var(0, unbiased=False)
            average = 0.9 * averages[e] + 0.1 * variance
            averages[e] = average.detach()
            corrected.append(average / 0.1)
        mean = sum(corrected) / DOMAINS
        penalty = sum(((value - mean) ** 2).mean() for value in corrected) / DOMAINS
        expected = mean_risk(algorithm, batch) + 30.0 * penalty
        assert_objective(algorithm, algorithm.objective(batch)[0], expected)


def test_fishr_has_no_penalty_before_annealing() -> None:
    algorithm, batch = make_algorithm("fishr", anneal_steps=3), make_batch()
    assert_objective(algorithm, algorithm.objective(batch)[0], mean_risk(algorithm, batch))
    assert (algorithm.averages != 0).any()


# --- head alignment, by repeated automatic differentiation ------------------------------------------------


def gradient_and_hessian(loss: Tensor, head: torch.nn.Linear) -> tuple[Tensor, Tensor]:
    parameters = list(head.parameters())

    def flat(values: tuple[Tensor, ...]) -> Tensor:
        return torch.cat([value.flatten() for value in values])

    gradient = flat(torch.autograd.grad(loss, parameters, create_graph=True))
    rows = [flat(torch.autograd.grad(g, parameters, create_graph=True)) for g in gradient]
    return gradient, torch.stack(rows)


def aligned_loss(algorithm: Algorithm, batch: DomainBatch, statistic, alpha: float, beta: float) -> Tensor:
    every = risks(algorithm, batch)
    mean = sum(every) / len(every)
    mean_gradient, mean_hessian = gradient_and_hessian(mean, algorithm.head)
    centre = statistic(mean_gradient, mean_hessian).detach()
    penalty = 0
    for risk in every:
        gradient, hessian = gradient_and_hessian(risk, algorithm.head)
        penalty = penalty + alpha * ((statistic(gradient, hessian) - centre) ** 2).sum()
        penalty = penalty + beta * ((gradient - mean_gradient.detach()) ** 2).sum()
    return mean + penalty / len(every)


STATISTICS = {
    "hgp": lambda g, h: h @ g,
    "exact_diagonal": lambda g, h: h.diag(),
    "exact_hessian": lambda g, h: h,
}


@pytest.mark.parametrize("name", STATISTICS)
def test_alignment_follows_the_published_rule_through_steps_of_adam(name: str) -> None:
    ours, theirs = (make_algorithm(name, alpha=0.5, beta=0.2, lr=0.01) for _ in range(2))
    our_optimizers = ours.make_optimizers()
    optimizer = torch.optim.Adam(theirs.parameters(), lr=0.01)
    for seed in range(5):
        batch = make_batch(seed=seed)
        ours.update(batch, our_optimizers)
        optimizer.zero_grad()
        aligned_loss(theirs, batch, STATISTICS[name], 0.5, 0.2).backward()
        optimizer.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", STATISTICS)
def test_aligned_algorithms_report_the_parts_of_their_penalty(name: str) -> None:
    algorithm, batch = make_algorithm(name, alpha=0.5, beta=0.2), make_batch()
    metrics = algorithm.objective(batch)[1]
    every = risks(algorithm, batch)
    mean_gradient, mean_hessian = gradient_and_hessian(sum(every) / len(every), algorithm.head)
    centre = STATISTICS[name](mean_gradient, mean_hessian)
    for domain, risk in enumerate(every):
        gradient, hessian = gradient_and_hessian(risk, algorithm.head)
        expected = {
            "gradient": ((gradient - mean_gradient) ** 2).sum().detach(),
            "hessian": ((STATISTICS[name](gradient, hessian) - centre) ** 2).sum().detach(),
        }
        for part, value in expected.items():
            torch.testing.assert_close(metrics[f"{part}_{domain}"], value)
    for part in ("gradient", "hessian"):
        each = torch.stack([metrics[f"{part}_{domain}"] for domain in range(DOMAINS)])
        torch.testing.assert_close(metrics[part], each.mean())
    torch.testing.assert_close(metrics["penalty"], 0.5 * metrics["hessian"] + 0.2 * metrics["gradient"])


def test_hutchinson_draws_probes_like_the_published_code() -> None:
    algorithm = make_algorithm("hutchinson", alpha=0.5, beta=0.2, probes=4, variant="domainbed")
    batch = make_batch()
    torch.manual_seed(5)
    found = algorithm.objective(batch)[0]

    torch.manual_seed(5)
    shape = (4, CLASSES, WIDTH + 1)
    draws = [2.0 * torch.randint(0, 2, shape).double() - 1 for _ in range(1 + DOMAINS)]
    # torch keeps weight before bias; the probes are drawn for [weight | bias] row by row.
    probes = [torch.cat([z[:, :, :-1].flatten(1), z[:, :, -1]], dim=1) for z in draws]

    def estimate(hessian: Tensor, signs: Tensor) -> Tensor:
        return sum(s * (hessian @ s) for s in signs) / len(signs)

    every = risks(algorithm, batch)
    mean = sum(every) / DOMAINS
    mean_gradient, mean_hessian = gradient_and_hessian(mean, algorithm.head)
    centre = estimate(mean_hessian, probes[0]).detach()
    penalty = 0
    for risk, signs in zip(every, probes[1:], strict=True):
        gradient, hessian = gradient_and_hessian(risk, algorithm.head)
        penalty = penalty + 0.5 * ((estimate(hessian, signs) - centre) ** 2).sum()
        penalty = penalty + 0.2 * ((gradient - mean_gradient.detach()) ** 2).sum()
    assert_objective(algorithm, found, mean + penalty / DOMAINS)


def one_domain_of_hutchinson(probes: int) -> tuple[Algorithm, DomainBatch, Tensor]:
    algorithm = make_algorithm(
        "hutchinson", domains=1, alpha=1000.0, beta=3.0, probes=probes, variant="domainbed"
    )
    batch = make_batch(domains=1)
    return algorithm, batch, gradient_and_hessian(risks(algorithm, batch)[0], algorithm.head)[1]


def test_hutchinson_of_one_domain_keeps_the_noise_of_the_published_probes() -> None:
    """Two estimates of one diagonal, the second without derivative; gradients are their own centre."""
    algorithm, batch, hessian = one_domain_of_hutchinson(probes=4)
    assert algorithm.no_effect() is None
    torch.manual_seed(5)
    found, metrics = algorithm.objective(batch)
    torch.manual_seed(5)
    shape = (4, CLASSES, WIDTH + 1)
    draws = [2.0 * torch.randint(0, 2, shape).double() - 1 for _ in range(2)]
    centre, own = (
        sum(s * (hessian @ s) for s in torch.cat([z[:, :, :-1].flatten(1), z[:, :, -1]], dim=1)) / 4
        for z in draws
    )
    noise = ((own - centre.detach()) ** 2).sum()
    assert_objective(algorithm, found, risks(algorithm, batch)[0] + 1000.0 * noise)
    torch.testing.assert_close(metrics["hessian"], noise.detach())


def test_the_noise_of_one_domain_is_what_the_off_diagonal_says() -> None:
    algorithm, batch, hessian = one_domain_of_hutchinson(probes=300)
    off = float(((hessian**2).sum() - (hessian.diag() ** 2).sum()).detach())
    torch.manual_seed(0)
    drawn = torch.stack([algorithm.objective(batch)[1]["penalty"] for _ in range(60)])
    expected = 1000.0 * 2 * off / 300
    assert abs(float(drawn.mean()) - expected) < 4 * float(drawn.std()) / 60**0.5
    assert float(drawn.std()) < expected  # so that the bound says something


def test_hutchinson_in_expectation_adds_the_probes_noise() -> None:
    algorithm = make_algorithm("hutchinson", alpha=0.5, beta=0.0, probes=4)
    batch = make_batch()

    def off(hessian: Tensor) -> Tensor:
        return (hessian**2).sum() - (hessian.diag() ** 2).sum()

    every = risks(algorithm, batch)
    hessians = [gradient_and_hessian(risk, algorithm.head)[1] for risk in every]
    mean_hessian = (sum(hessians) / DOMAINS).detach()
    penalty = sum(
        ((h.diag() - mean_hessian.diag()) ** 2).sum() + (off(h) + off(mean_hessian)) / 4 for h in hessians
    )
    expected = sum(every) / DOMAINS + 0.5 * penalty / DOMAINS
    assert_objective(algorithm, algorithm.objective(batch)[0], expected)


@pytest.mark.parametrize("part", ["whole", "off_diagonal"])
def test_flat_head_aligns_gradients_and_shrinks_the_hessians(part: str) -> None:
    algorithm, batch = make_algorithm("flat_head", beta=0.2, gamma=0.5, part=part), make_batch()
    every = risks(algorithm, batch)
    mean_gradient = gradient_and_hessian(sum(every) / DOMAINS, algorithm.head)[0].detach()
    objective, metrics = algorithm.objective(batch)
    penalty = 0
    for domain, risk in enumerate(every):
        gradient, hessian = gradient_and_hessian(risk, algorithm.head)
        counted = hessian if part == "whole" else hessian - hessian.diag().diag()
        penalty = penalty + 0.2 * ((gradient - mean_gradient) ** 2).sum() + 0.5 * (counted**2).sum()
        torch.testing.assert_close(metrics[f"hessian_size_{domain}"], (counted**2).sum().detach())
    expected = sum(every) / DOMAINS + penalty / DOMAINS
    assert_objective(algorithm, objective, expected)
    parts = 0.2 * metrics["gradient"] + 0.5 * metrics["hessian_size"]
    torch.testing.assert_close(metrics["penalty"], parts)


def test_flat_head_is_hutchinson_without_the_diagonals() -> None:
    """With the centre detached and a weight of α/k the derivatives agree up to the diagonals' distance."""
    hutchinson = make_algorithm("hutchinson", alpha=0.8, beta=0.2, probes=4)
    diagonal = make_algorithm("exact_diagonal", alpha=0.8, beta=0.0)
    flat, batch = make_algorithm("flat_head", beta=0.2, gamma=0.2), make_batch()

    def slopes(algorithm: Algorithm, loss: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, list(algorithm.backbone.parameters()))

    both = zip(
        slopes(flat, flat.objective(batch)[0]),
        slopes(diagonal, diagonal.objective(batch)[0] - mean_risk(diagonal, batch)),
        slopes(hutchinson, hutchinson.objective(batch)[0]),
        strict=True,
    )
    for without, distance, whole in both:
        torch.testing.assert_close(without + distance, whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "name", ["hgp", "hutchinson", "exact_diagonal", "exact_hessian", "coral", "mmd", "fishr"]
)
def test_one_domain_is_plain_training(name: str) -> None:
    algorithm, batch = make_algorithm(name, domains=1), make_batch(domains=1)
    assert_objective(algorithm, algorithm.objective(batch)[0], mean_risk(algorithm, batch))


# --- MTL, RSC ----------------------------------------------------------------------------------------------


def test_mtl_over_two_steps_and_at_test() -> None:
    algorithm = make_algorithm("mtl", ema=0.7)
    stored = [torch.zeros(WIDTH, dtype=torch.float64)] * DOMAINS
    for seed in (1, 2):
        batch, expected = make_batch(seed=seed), 0
        for e, (inputs, targets) in enumerate(parts(batch)):
            features = algorithm.backbone(inputs)
            embedding = 0.7 * features.mean(0) + 0.3 * stored[e]
            stored[e] = embedding.detach()
            both = torch.stack([torch.cat([z, embedding]) for z in features])
            expected = expected + F.cross_entropy(algorithm.head(both), targets)
        assert_objective(algorithm, algorithm.objective(batch)[0], expected)
    features = algorithm.backbone(batch.inputs)
    both = torch.stack([torch.cat([z, features.mean(0)]) for z in features])
    torch.testing.assert_close(algorithm(batch.inputs), algorithm.head(both))


def test_mtl_as_domainbed_has_it_predicts_from_noise() -> None:
    algorithm, batch = make_algorithm("mtl", variant="domainbed"), make_batch()
    torch.manual_seed(4)
    found = algorithm(batch.inputs)
    torch.manual_seed(4)
    features = algorithm.backbone(batch.inputs)
    noise = torch.randn_like(features)
    torch.testing.assert_close(found, algorithm.head(torch.cat([features, noise], dim=1)))


def test_rsc() -> None:
    algorithm, batch = make_algorithm("rsc", feature_drop=0.4, batch_drop=0.3), make_batch()
    features = algorithm.backbone(batch.inputs)
    probe = features.detach().requires_grad_()
    logits = algorithm.head(probe)
    right = logits[torch.arange(len(logits)), batch.targets].sum()
    slopes = torch.autograd.grad(right, probe)[0].numpy()
    kept = slopes < np.percentile(slopes, 60, axis=1, keepdims=True)
    masked_logits = algorithm.head(features.detach() * torch.from_numpy(kept))
    rows = np.arange(len(slopes))
    before = logits.softmax(1).detach().numpy()[rows, batch.targets.numpy()]
    after = masked_logits.softmax(1).detach().numpy()[rows, batch.targets.numpy()]
    change = before - after
    whole = change < np.percentile(change, 70)
    mask = torch.from_numpy(kept | whole[:, None])
    assert 0 < mask.double().mean() < 1
    expected = F.cross_entropy(algorithm.head(features * mask), batch.targets)
    assert_objective(algorithm, algorithm.objective(batch)[0], expected)


@pytest.mark.parametrize(
    ("name", "method", "options"),
    [
        ("hgp", "hgp", {"centre": "mean_product"}),
        ("exact_diagonal", "diagonal", {}),
        ("exact_hessian", "frobenius", {}),
        ("hutchinson", "hutchinson", {"probes": 300, "expected": True}),
    ],
)
def test_unbiased_alignment(name: str, method: str, options: dict) -> None:
    algorithm, batch = make_algorithm(name, alpha=0.5, beta=2.0, unbiased=True), make_batch()
    penalty = HessianAlignment(method, 0.5, 2.0, unbiased=True, **options)
    features = algorithm.backbone(batch.inputs)
    aligned = penalty(features, algorithm.head(features), batch.targets, batch.domains)
    found, metrics = algorithm.objective(batch)
    assert_objective(algorithm, found, mean_risk(algorithm, batch) + aligned)
    assert metrics["penalty"] != make_algorithm(name, alpha=0.5, beta=2.0).objective(batch)[1]["penalty"]


@pytest.mark.parametrize("centre", ["mean_loss", "mean_product"])
def test_the_centre_of_hgp_can_be_chosen(centre: str) -> None:
    algorithm, batch = make_algorithm("hgp", alpha=0.5, beta=2.0, centre=centre), make_batch()
    features = algorithm.backbone(batch.inputs)
    penalty = HessianAlignment("hgp", 0.5, 2.0, centre=centre)
    aligned = penalty(features, algorithm.head(features), batch.targets, batch.domains)
    assert_objective(algorithm, algorithm.objective(batch)[0], mean_risk(algorithm, batch) + aligned)


def test_unbiased_hgp_refuses_the_published_centre() -> None:
    with pytest.raises(ValueError, match="unbiased: 'hgp' needs centre='mean_product'"):
        make_algorithm("hgp", centre="mean_loss", unbiased=True)


def test_unbiased_drawn_probes_are_refused() -> None:
    with pytest.raises(ValueError, match="unbiased: drawn probes have noise of their own"):
        make_algorithm("hutchinson", variant="domainbed", unbiased=True)


@pytest.mark.parametrize(
    ("name", "needed"), [("hgp", 4), ("exact_diagonal", 2), ("exact_hessian", 2), ("hutchinson", 2)]
)
def test_unbiased_alignment_refuses_batches_too_small_before_any_work(name: str, needed: int) -> None:
    hparams = get_algorithm(name).hparams_class
    small = (
        {"batch_size": needed - 1, "variant": "expected"}
        if name == "hutchinson"
        else {"batch_size": needed - 1}
    )
    assert hparams.with_defaults("large", small).batch_size == needed - 1
    with pytest.raises(ValueError, match=f"batch_size: with unbiased=true at least {needed} samples"):
        hparams.with_defaults("large", {**small, "unbiased": True})
    assert hparams.with_defaults("large", {**small, "unbiased": True, "batch_size": needed}).unbiased
