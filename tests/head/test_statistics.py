"""The two ways to the statistics of many domains: equal to each other, and U-statistics by brute force."""

from itertools import combinations, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import hessalign as ha
from hessalign.head import DomainDerivatives, Statistics
from hessalign.head.statistics import plan
from tests.cases import Case, cases, make_case

QUANTITIES = ("gradient", "hessian", "diagonal", "hgp")
PRIMAL = {"gradient": "primal", "hgp": "primal"}
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def grouped(case: Case, sizes: list[int], features: Tensor | None = None, **options) -> DomainDerivatives:
    features = case.features if features is None else features
    batch = ha.HeadDerivatives.from_logits(features, case.logits, case.targets, case.loss, **options)
    return DomainDerivatives(batch, sizes)


def everything(domains: DomainDerivatives, way: str, unbiased: bool = False) -> list[Tensor]:
    wanted = [q for q in QUANTITIES if not (unbiased and q == "hgp")]
    found = Statistics(domains, wanted, unbiased, dict.fromkeys(wanted, way))
    values = []
    for quantity in wanted[:3]:
        spread = found.spread(quantity)
        values += [spread.products, spread.distances]
    if not unbiased:
        for centre in ("mean_loss", "mean_product"):
            values += [found.hgp_distances(centre, detach_centre=False), found.hgp_distances(centre, True)]
    return values


SIZES = [[9], [3, 3, 3], [1, 2, 6], [2, 5, 2], [1] * 9, [4, 5]]


@settings(max_examples=20)
@given(cases(9, 9), st.sampled_from(SIZES), st.booleans(), st.booleans())
def test_primal_and_dual_agree(case: Case, sizes: list[int], bias: bool, weighted: bool) -> None:
    weights = torch.linspace(0.5, 2, 9, dtype=torch.float64) if weighted else None
    results = [
        everything(grouped(case, sizes, bias=bias, sample_weight=weights), way) for way in ("primal", "dual")
    ]
    gradient, hessian, diagonal = (float(results[0][position].max()) for position in (0, 2, 4))
    # Of equal domains, or of one, a distance is what rounding leaves of products this large.
    magnitudes = [gradient, gradient, hessian, hessian, diagonal, diagonal, *[gradient * hessian] * 4]
    for primal, dual, magnitude in zip(*results, magnitudes, strict=True):
        torch.testing.assert_close(primal, dual, rtol=1e-12, atol=1e-12 + 1e-14 * magnitude)


@pytest.mark.parametrize("kind", ["cross_entropy", "tanh", "autograd"])
@pytest.mark.parametrize("sizes", [[4, 4, 4], [2, 7, 3]])
@pytest.mark.parametrize("unbiased", [False, True])
def test_primal_and_dual_have_one_derivative(kind: str, sizes: list[int], unbiased: bool) -> None:
    case = make_case(kind, 12, 4, 3, 0)
    slopes = []
    for way in ("primal", "dual"):
        features = case.features.detach().clone().requires_grad_()
        values = everything(grouped(case, sizes, features), way, unbiased)
        # Detached or not, a mean of what is compared leaves the sum's derivative alone: sums are compared.
        slopes.append([torch.autograd.grad(v.sum(), features, retain_graph=True)[0] for v in values])
    for primal, dual in zip(*slopes, strict=True):
        torch.testing.assert_close(primal, dual, rtol=1e-11, atol=1e-11)


def test_parts_given_one_by_one_are_the_same_domains() -> None:
    case = make_case("cross_entropy", 9, 4, 3, 0)
    whole = grouped(case, [2, 3, 4])
    for way in ("primal", "dual"):
        for one, other in zip(
            everything(whole, way), everything(DomainDerivatives.of(list(whole)), way), strict=True
        ):
            torch.testing.assert_close(one, other, **EXACT)
    mean = whole.mean()
    expected = torch.stack([part.hessian() for part in whole]).mean(0)
    torch.testing.assert_close(mean.hessian(), expected, **EXACT)


def test_large_domains_stand_for_themselves_and_rows_of_large_matrices_are_taken_in_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = make_case("cross_entropy", 12, 4, 3, 0)
    features = case.features.clone().requires_grad_()

    def values_and_slopes() -> list[Tensor]:
        found = []
        for way in ("primal", "dual"):
            values = everything(grouped(case, [5, 7], features), way)
            found += [*values, torch.autograd.grad(sum(v.sum() for v in values), features)[0]]
        return found

    whole = values_and_slopes()
    monkeypatch.setattr("hessalign.head.statistics.ROWS_IN_CACHE", 3)
    monkeypatch.setattr("hessalign.head.gram.ROWS_IN_CACHE", 3)
    monkeypatch.setattr("hessalign.head.statistics.ROWS_AT_ONCE", 5)
    monkeypatch.setattr("hessalign.head.gram.ROWS_IN_PANEL", 2)
    for one, other in zip(whole, values_and_slopes(), strict=True):
        torch.testing.assert_close(one, other, **EXACT)


def test_the_plan_takes_the_gram_matrix_where_batches_are_small_and_blocks_where_they_are_large() -> None:
    def ways(samples: int, width: int, outputs: int, count: int) -> set[str]:
        case = make_case("cross_entropy", samples, width, outputs, 0)
        return set(plan(grouped(case, [samples // count] * count), ["gradient", "hessian"]).values())

    assert ways(40, 300, 5, 20) == {"dual"}
    assert ways(3000, 3, 2, 3) == {"primal"}
    # Matrices of more samples by samples than the C library keeps are fetched anew at every product.
    wide = make_case("cross_entropy", 2100, 100, 8, 0)
    assert plan(grouped(wide, [700] * 3), ["hessian"]) == {"hessian": "primal"}
    kept = make_case("cross_entropy", 1998, 100, 8, 0)
    assert plan(grouped(kept, [666] * 3), ["hessian"]) == {"hessian": "dual"}
    # 28 blocks of the Hessian are as many rounds of calls, however small they are.
    narrow = make_case("cross_entropy", 96, 8, 7, 0)
    assert plan(grouped(narrow, [32] * 3), ["hessian"]) == {"hessian": "dual"}


# --- U-statistics ----------------------------------------------------------------------------------------


def population_and_subsets(kind: str, size: int, drawn: int) -> tuple[list[Case], list[list[Case]]]:
    """Two finite populations, and all pairs of samples of them, without replacement."""
    populations = [make_case(kind, size, 3, 2, seed) for seed in (0, 1)]
    head = populations[0].weight
    populations = [Case(p.features, head, p.targets, p.loss, p.sample_loss) for p in populations]
    subsets = [
        [population.rows(torch.tensor(chosen)) for chosen in combinations(range(size), drawn)]
        for population in populations
    ]
    return populations, [list(pair) for pair in zip(*subsets, strict=True)]


def distinct_products(case: Case) -> dict[str, Tensor]:
    """What U-statistics of a sample estimate, by brute force over distinct samples."""
    n = len(case.features)
    rows = [case.rows(torch.tensor([i])) for i in range(n)]
    gradients = torch.stack([torch.func.grad(row.mean_loss)(row.weight).flatten() for row in rows])
    hessians = torch.stack([row.dense_hessian() for row in rows])
    diagonals = hessians.diagonal(dim1=1, dim2=2)
    pairs = list(permutations(range(n), 2))
    found = {
        name: torch.stack([(v[i] * v[j]).sum() for i, j in pairs]).mean()
        for name, v in (("gradient", gradients), ("hessian", hessians), ("diagonal", diagonals))
    }
    if n >= 4:
        terms = [
            (hessians[i] @ gradients[j]) @ (hessians[k] @ gradients[m])
            for i, j, k, m in permutations(range(n), 4)
        ]
        found["hgp"] = torch.stack(terms).mean()
        found["hgp-vector"] = torch.stack([hessians[i] @ gradients[j] for i, j in pairs]).mean(0)
    return found


@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy", "autograd"])
@pytest.mark.parametrize("way", ["primal", "dual"])
def test_own_products_run_over_distinct_samples(kind: str, way: str) -> None:
    cases_of_domains = [make_case(kind, 5, 3, 2, 0).rows(torch.arange(4)), make_case(kind, 6, 3, 2, 0)]
    domains = DomainDerivatives.of([case.derivatives() for case in cases_of_domains])
    expected = [distinct_products(case) for case in cases_of_domains]
    wanted = ("gradient", "hessian", "diagonal")
    statistics = Statistics(domains, wanted, unbiased=True, ways=dict.fromkeys(wanted, way))
    plain = Statistics(domains, wanted, ways=dict.fromkeys(wanted, way))
    for quantity in wanted:
        spread = statistics.spread(quantity)
        own = torch.stack([values[quantity] for values in expected])
        cross = plain.spread(quantity).products[0, 1]
        torch.testing.assert_close(spread.squares, own, **EXACT)
        torch.testing.assert_close(spread.products[0, 1], cross, **EXACT)
        # ‖V_e − V̄‖² = (⟨V_1, V_1⟩ − 2 ⟨V_1, V_2⟩ + ⟨V_2, V_2⟩) / 4 for two domains.
        torch.testing.assert_close(spread.distances, ((own.sum() - 2 * cross) / 4).expand(2), **EXACT)


@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy", "autograd"])
@pytest.mark.parametrize("sizes", [(4, 6), (5, 5)])
def test_unbiased_hgp_runs_over_distinct_quadruples(kind: str, sizes: tuple[int, int]) -> None:
    domains = [make_case(kind, 6, 3, 2, 0).rows(torch.arange(size)) for size in sizes]
    expected = [distinct_products(case) for case in domains]
    own, cross = (
        torch.stack([values["hgp"] for values in expected]),
        expected[0]["hgp-vector"] @ expected[1]["hgp-vector"],
    )
    found = Statistics(
        DomainDerivatives.of([case.derivatives() for case in domains]), ["hgp"], unbiased=True
    ).hgp_distances("mean_product", detach_centre=False)
    torch.testing.assert_close(found, ((own.sum() - 2 * cross) / 4).expand(2), **EXACT)


def test_the_mean_over_all_subsets_is_the_population_s_value() -> None:
    """Every subset of a population is as likely: the mean over all is the population's own U-statistic."""
    populations, subsets = population_and_subsets("cross_entropy", 5, 4)

    def values(domains: list[Case]) -> Tensor:
        statistics = Statistics(
            DomainDerivatives.of([case.derivatives() for case in domains]), QUANTITIES, unbiased=True
        )
        spreads = [statistics.spread(quantity).squares for quantity in QUANTITIES[:3]]
        return torch.stack([*spreads, statistics.hgp_distances("mean_product", False)])

    # Own products of each domain, over all subsets of it; the distances need all pairs of subsets.
    pairs = [[first, second] for first, _ in subsets for _, second in subsets]
    mean = torch.stack([values(pair) for pair in pairs]).mean(0)
    torch.testing.assert_close(mean, values(populations), **EXACT)
    shards = torch.stack([values([a, b]) for (a, _), (_, b) in zip(subsets, subsets, strict=True)]).mean(0)
    torch.testing.assert_close(shards[:3], values(populations)[:3], **EXACT)


def test_the_expected_value_does_not_depend_on_the_batch_size() -> None:
    """Three domains of one distribution: the plug-in distance falls like 1/n, the U-statistic's mean is 0."""
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(3, 4, generator=generator, dtype=torch.float64)

    def draw(size: int, unbiased: bool) -> Tensor:
        features = torch.randn(3 * size, 4, generator=generator, dtype=torch.float64)
        targets = torch.randint(0, 3, (3 * size,), generator=generator)
        batch = ha.HeadDerivatives.from_logits(features, features @ head.T, targets)
        statistics = Statistics(DomainDerivatives(batch, [size] * 3), QUANTITIES, unbiased)
        distances = [statistics.spread(quantity).distances.mean() for quantity in QUANTITIES[:3]]
        return torch.stack([*distances, statistics.hgp_distances("mean_product", False).mean()])

    for size in (4, 8):
        draws = torch.stack([draw(size, unbiased=True) for _ in range(60)])
        error = draws.std(0) / len(draws) ** 0.5
        assert (draws.mean(0).abs() < 4 * error).all()
        plug_in = torch.stack([draw(size, unbiased=False) for _ in range(20)]).mean(0)
        assert (plug_in > 8 * error).all()


@pytest.mark.parametrize(
    ("sizes", "wanted", "options", "message"),
    [
        (
            [1, 8],
            ["gradient"],
            {},
            "unbiased: it needs at least 2 samples of each domain, got a domain with 1",
        ),
        ([3, 6], ["hgp"], {}, "unbiased: hgp needs at least 4 samples of each domain, got a domain with 3"),
        ([4, 5], ["hessian"], {"sample_weight": torch.ones(9)}, "unbiased: samples must count alike"),
    ],
)
def test_what_has_no_unbiased_estimate_is_refused(
    sizes: list[int], wanted: list, options: dict, message: str
) -> None:
    case = make_case("cross_entropy", 9, 4, 3, 0)
    with pytest.raises(ValueError, match=message):
        Statistics(grouped(case, sizes, **options), wanted, unbiased=True)


def test_unbiased_hgp_of_thousands_of_samples_is_refused() -> None:
    case = make_case("cross_entropy", 4100, 1, 2, 0)
    with pytest.raises(
        ValueError, match="unbiased: hgp takes at most 2,048 samples of each domain, got 2,050"
    ):
        Statistics(grouped(case, [2050, 2050]), ["hgp"], unbiased=True)


@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy", "autograd"])
@pytest.mark.parametrize("bias", [True, False])
def test_large_domains_take_one_pass_for_the_derivative_of_hgp(
    kind: str, bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hand-written backward pass against autograd's, its second derivative among it."""
    case = make_case(kind, 9, 3, 2, 0)
    sizes = [4, 5]

    def values(features: Tensor, logits: Tensor) -> Tensor:
        batch = ha.HeadDerivatives.from_logits(features, logits, case.targets, case.loss, bias=bias)
        found = Statistics(DomainDerivatives(batch, sizes), ["gradient", "hgp"], ways=PRIMAL)
        return torch.stack(
            [
                found.spread("gradient").distances,
                found.hgp_distances("mean_loss", False),
                found.hgp_distances("mean_loss", True),
                found.hgp_distances("mean_product", False),
            ]
        )

    given = (case.features.requires_grad_(), case.logits.detach().requires_grad_())
    expected = values(*given)
    slopes = torch.autograd.grad(expected.sum(), given)
    for module in ("statistics", "gram"):
        monkeypatch.setattr(f"hessalign.head.{module}.ROWS_IN_CACHE", 3)
    for module in ("statistics", "derivatives"):
        monkeypatch.setattr(f"hessalign.head.{module}.PRECISE_VALUES", 0)
    found = values(*given)
    torch.testing.assert_close(found, expected, **EXACT)
    torch.testing.assert_close(torch.autograd.grad(found.sum(), given), slopes, rtol=1e-11, atol=1e-11)
    assert gradcheck(lambda *both: values(*both)[[0, 1, 3]], given, fast_mode=True)
    assert gradgradcheck(lambda *both: values(*both)[1].sum(), given, fast_mode=True)
