"""Distances and what belongs to them, against dense matrices, leaving samples out, and sampling."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from torch import Tensor

from hessalign.diagnostics import alignment_report, means
from hessalign.diagnostics.bootstrap import _quantiles
from hessalign.diagnostics.distances import (
    PairDistance,
    _bilinear_forms,
    domain_eigenvalues,
    in_their_span,
    mean_distances,
    spectral_distances,
)
from hessalign.diagnostics.means import DomainMeans, Pairs, diagonal_means, gradient_means, hessian_means
from hessalign.diagnostics.tables import plane_table
from hessalign.head import HeadDerivatives, leading_eigenpairs
from tests.cases import KINDS, Case, make_case

WAYS = {"blocks": means._by_blocks, "samples": means._by_samples}


def two_domains(kind: str, seed: int, samples: int = 14) -> tuple[Case, list[Case]]:
    case = make_case(kind, samples, 4, 3, seed)
    rows = torch.arange(samples)
    return case, [case.rows(rows[:6]), case.rows(rows[6:])]


def whole(way: str, cases: list[Case]) -> tuple[DomainMeans, Tensor]:
    derivatives = [case.derivatives() for case in cases]
    if way == "samples":
        return means._by_samples(derivatives, Pairs.all_of(2))
    return means._by_blocks(derivatives, torch.Generator(), Pairs.all_of(2))


@given(st.sampled_from(KINDS), st.sampled_from(list(WAYS)), st.integers(0, 1000))
def test_hessian_parts_are_those_of_the_dense_hessian(kind: str, way: str, seed: int) -> None:
    _, cases = two_domains(kind, seed)
    found, parts = whole(way, cases)
    outputs, width = cases[0].weight.shape
    difference = (cases[0].dense_hessian() - cases[1].dense_hessian()).view(outputs, width, outputs, width)
    squares = difference.square()
    expected = torch.stack(
        [
            squares[:, -1, :, -1].sum(1),
            squares[:, -1, :, :-1].sum((1, 2)) + squares[:, :-1, :, -1].sum((1, 2)),
            squares[:, :-1, :, :-1].sum((1, 2, 3)),
        ],
        dim=1,
    )
    torch.testing.assert_close(parts[0], expected, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.distances[0, 1], squares.sum(), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found.norms[0], cases[0].dense_hessian().square().sum(), rtol=1e-9, atol=0.0)
    sample_hessians = [
        case.rows(torch.tensor([i])).dense_hessian() for case in cases for i in range(len(case.features))
    ]
    own = torch.stack([matrix.square().sum() for matrix in sample_hessians[:6]]).mean()
    torch.testing.assert_close(found.mean_squares[0], own, rtol=1e-9, atol=0.0)
    products = torch.stack([(matrix * cases[1].dense_hessian()).sum() for matrix in sample_hessians[:6]])
    torch.testing.assert_close(found.products[0][:, 1], products, rtol=1e-8, atol=1e-10)


@pytest.mark.filterwarnings("ignore::hessalign.exceptions.UntrustworthyWarning")  # 14 samples are few
@pytest.mark.parametrize("kind", KINDS)
def test_the_report_decomposes_exactly(kind: str) -> None:
    case, cases = two_domains(kind, 3)
    domains = (torch.arange(14) >= 6).long()
    report = alignment_report(
        case.features, case.logits, case.targets, domains, loss=case.loss, replicates=0, eigenvalues=4
    )
    distances = dict(report.to_frame("distances").select("quantity", "distance").iter_rows())
    gradients = [torch.func.grad(part.mean_loss)(part.weight) for part in cases]
    hessians = [part.dense_hessian() for part in cases]
    difference = hessians[0] - hessians[1]
    assert distances["gradient"] == pytest.approx(float((gradients[0] - gradients[1]).norm()), rel=1e-9)
    assert distances["Hessian diagonal"] == pytest.approx(float(difference.diagonal().norm()), rel=1e-9)
    assert distances["Hessian Frobenius"] == pytest.approx(float(difference.norm()), rel=1e-8)
    spectral = float(torch.linalg.eigvalsh(difference).abs().max())
    assert distances["Hessian spectral"] == pytest.approx(spectral, rel=1e-8)
    assert distances["transfer bound"] == pytest.approx(0.5 * spectral, rel=1e-8)
    parts = (
        report.to_frame("parts")
        .group_by("derivative")
        .agg(pl.col("squared distance").sum(), pl.col("share").sum())
    )
    totals = dict(parts.select("derivative", "squared distance").iter_rows())
    assert totals["gradient"] == pytest.approx(distances["gradient"] ** 2, rel=1e-9)
    assert totals["Hessian"] == pytest.approx(distances["Hessian Frobenius"] ** 2, rel=1e-8)
    assert parts["share"].to_list() == pytest.approx([1, 1])
    found = report.to_frame("eigenvalues")
    for name, whole_hessian in zip(report.names, hessians, strict=True):
        values = torch.linalg.eigvalsh(whole_hessian)
        expected = values[values.abs().argsort(descending=True)][:4]
        own = found.filter(found["domain"] == name)["eigenvalue"].to_list()
        np.testing.assert_allclose(np.abs(own), expected.abs()[: len(own)], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_few_samples_of_many_features_have_the_same_spectra_in_their_span(bias: bool) -> None:
    cases = [make_case("cross_entropy", samples, 40, 5, seed) for seed, samples in enumerate((7, 9))]
    domains = [replace(case.derivatives(), bias=bias) for case in cases]
    short = in_their_span(domains, 6)
    assert [domain.features.shape for domain in short] == [(7, 16), (9, 16)]

    def dense(domain: HeadDerivatives) -> Tensor:
        units = torch.eye(5 * domain.shape[1], dtype=torch.float64).view(-1, *domain.shape)
        return torch.stack([domain.hvp(unit).flatten() for unit in units])

    whole = [dense(domain) for domain in domains]
    pair = spectral_distances(domains, [1.0, 1.0], 0, 0.95, np.random.default_rng(0))[0]
    expected = torch.linalg.eigvalsh(whole[0] - whole[1])
    assert pair.distance == pytest.approx(float(expected.abs().max()), rel=1e-9)
    for found, matrix in zip(domain_eigenvalues(domains, 6), whole, strict=True):
        values = torch.linalg.eigvalsh(matrix)
        leading = values[values.abs().argsort(descending=True)][:6]
        torch.testing.assert_close(found, leading, rtol=1e-8, atol=1e-12)
    # What a sample contributes is the derivative of the distance, by the eigenvector in the whole space.
    _, vectors = torch.linalg.eigh(whole[0] - whole[1])
    place = int(expected.abs().argmax())
    vector = vectors[:, place].view(1, 5, -1)
    forms = _bilinear_forms(domains[0], vector)[:, 0, 0] * expected[place].sign()
    torch.testing.assert_close(pair.influences[0], (forms - forms.mean()) / 6, rtol=1e-6, atol=1e-9)
    # So few values that there are not enough eigenvalues stay in the whole space.
    assert in_their_span([make_case("cross_entropy", 2, 40, 2, 0).derivatives()], 10)[0].bias


def test_the_plane_is_that_of_the_principal_components() -> None:
    cases = [make_case("cross_entropy", 8, 6, 3, seed).derivatives() for seed in range(5)]
    gradients = torch.stack([case.gradient() for case in cases])
    table = plane_table(cases, gradients, list("abcde"))
    scaled = []
    for values in (gradients, torch.stack([case.diagonal() for case in cases])):
        flat = values.flatten(1)
        scaled.append((flat - flat.mean(0)) / (flat.norm() / 5**0.5))
    left, singular, _ = torch.linalg.svd(torch.cat(scaled, dim=1), full_matrices=False)
    for column, name in enumerate(("first", "second")):
        found = table[f"{name} direction"].to_torch()
        expected = left[:, column] * singular[column]
        torch.testing.assert_close(found * (found @ expected).sign(), expected, rtol=1e-9, atol=1e-9)
        share = float(singular[column] ** 2 / singular.square().sum())
        assert table[f"{name} share"][0] == pytest.approx(share)


def test_lanczos_finds_the_leading_eigenpairs() -> None:
    case = make_case("cross_entropy", 200, 40, 6, 0)
    values, vectors = leading_eigenpairs(case.derivatives().hvp, case.weight, 5)
    expected = torch.linalg.eigvalsh(case.dense_hessian()).flip(0)[:5]
    torch.testing.assert_close(values, expected, rtol=1e-8, atol=0.0)
    torch.testing.assert_close(
        case.derivatives().hvp(vectors), values.view(-1, 1, 1) * vectors, rtol=0.0, atol=1e-6
    )
    nothing, _ = leading_eigenpairs(torch.zeros_like, case.weight, 3)
    assert nothing.tolist() == [0, 0, 0]


def test_large_domains_give_the_same_distance_from_a_part_of_the_contributions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = make_case("cross_entropy", 300, 4, 3, 0)
    domains = [case.rows(torch.arange(150)).derivatives(), case.rows(torch.arange(150, 300)).derivatives()]
    full, _ = means._by_blocks(domains, torch.Generator(), Pairs.all_of(2))
    monkeypatch.setattr(means, "CONTRIBUTION_BUDGET", 0)
    monkeypatch.setattr(means, "FEWEST_ROWS", 20)
    part, _ = means._by_blocks(domains, torch.Generator(), Pairs.all_of(2))
    assert [len(rows) for rows in part.rows] == [20, 20]
    torch.testing.assert_close(part.distances, full.distances)
    torch.testing.assert_close(part.products[1], full.products[1][part.rows[1]])


def all_distances(domains: list[HeadDerivatives], replicates: int, seed: int) -> dict[str, PairDistance]:
    random = np.random.default_rng(seed)
    quantities = {
        "gradient": gradient_means(domains),
        "diagonal": diagonal_means(domains),
        "frobenius": hessian_means(domains, torch.Generator())[0],
    }
    found = {name: mean_distances(each, replicates, 0.95, random)[0] for name, each in quantities.items()}
    return {**found, "spectral": spectral_distances(domains, [1.0, 1.0], replicates, 0.95, random)[0]}


def test_influences_are_what_leaving_a_sample_out_does() -> None:
    case = make_case("cross_entropy", 400, 4, 3, 1)
    first, second = case.rows(torch.arange(200)), case.rows(torch.arange(200, 400))
    before = all_distances([first.derivatives(), second.derivatives()], 0, 0)
    for left_out in (0, 77):
        kept = torch.arange(200) != left_out
        after = all_distances([first.derivatives(), second.rows(kept).derivatives()], 0, 0)
        for name, distance in before.items():
            shrinkage = distance.distance - after[name].distance
            spread = float(distance.influences[1].std())
            assert abs(float(distance.influences[1][left_out]) - shrinkage) < 0.15 * spread, name


def draw_alike(samples: int, shift: float, random: torch.Generator) -> HeadDerivatives:
    """Three classes, moved by ``shift`` along all features. Two leading eigenvalues are nearly the same."""
    head = torch.linspace(-1, 1, 9, dtype=torch.float64).view(3, 3)
    labels = torch.randint(0, 3, (samples,), generator=random)
    noise = torch.randn(samples, 3, generator=random, dtype=torch.float64)
    features = noise + 1.5 * torch.eye(3, dtype=torch.float64)[labels] + shift
    return HeadDerivatives.from_logits(features, features @ head.T, labels)


def draw_apart(samples: int, shift: float, random: torch.Generator) -> HeadDerivatives:
    """The same, and wider along one feature. The leading eigenvalue stands alone."""
    head = torch.tensor([[1, 0, 0], [0, 0.5, 0], [-1, -0.5, 0.3]], dtype=torch.float64)
    labels = torch.randint(0, 3, (samples,), generator=random)
    noise = torch.randn(samples, 3, generator=random, dtype=torch.float64)
    noise[:, 0] *= 1 + shift
    features = noise + 0.7 * torch.eye(3, dtype=torch.float64)[labels] + shift
    return HeadDerivatives.from_logits(features, features @ head.T, labels)


SAMPLES, SHIFT, REPLICATES = 500, 0.5, 300
DRAWS = {"leading eigenvalues alike": draw_alike, "leading eigenvalue apart": draw_apart}


def covered(case: str, trials: int) -> dict[str, int]:
    """How many 95 % intervals hold the distances between the domains that the samples are drawn from."""
    draw, random = DRAWS[case], torch.Generator().manual_seed(0)
    truth = all_distances([draw(1_000_000, 0, random), draw(1_000_000, SHIFT, random)], 0, 0)
    hits = dict.fromkeys(truth, 0)
    for trial in range(trials):
        domains = [draw(SAMPLES, 0, random), draw(SAMPLES, SHIFT, random)]
        for name, distance in all_distances(domains, REPLICATES, trial).items():
            assert distance.interval is not None
            hits[name] += distance.interval.low <= truth[name].distance <= distance.interval.high
    return hits


@pytest.mark.slow
@pytest.mark.parametrize("case", DRAWS)
def test_intervals_hold_the_truth_about_as_often_as_they_say(case: str) -> None:
    """As many as intervals of 95 % hold in all but one of 1,000 such tests."""
    trials = 100
    least, most = binom.ppf([0.0005, 0.9995], trials, 0.95)
    hits = covered(case, trials)
    assert all(least <= count <= most for count in hits.values()), hits


@pytest.mark.verification
@pytest.mark.parametrize("case", DRAWS)
def test_intervals_hold_the_truth_in_93_to_97_of_100_cases(case: str) -> None:
    """With 1,000 trials the share is known to 0.7 points: the band is almost three of these to both sides."""
    trials = 1000
    shares = {name: count / trials for name, count in covered(case, trials).items()}
    assert all(0.93 <= share <= 0.97 for share in shares.values()), shares


def test_quantiles_hold_what_they_say_whatever_the_number_of_replicates() -> None:
    """A new value lies between those of 39 others with probability 95 %."""
    random = np.random.default_rng(0)
    values = torch.from_numpy(random.random((20_000, 39)))
    ends = [_quantiles(row, 0.95) for row in values]
    assert np.mean([high - low for low, high in ends]) == pytest.approx(0.95, abs=0.001)
