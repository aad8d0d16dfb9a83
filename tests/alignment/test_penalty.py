"""HessianAlignment: both published conventions against double backward, and its contract with users."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import hessalign as ha
from hessalign.alignment import SortedDomains
from hessalign.exceptions import NoEffectWarning
from tests.cases import Case, cases, make_case

SETTINGS = {
    "gradient": {},
    "hgp": {},
    "diagonal": {},
    "frobenius": {},
    "spectral": {},
    "hutchinson": {"probes": 3, "expected": True},
}
ALPHA = {method: 0.0 if method == "gradient" else 0.7 for method in SETTINGS}
"""Of which "gradient" has no use, and says so."""
EVERY_METHOD = pytest.mark.parametrize("method", SETTINGS)


def make_penalty(method: str, **overrides) -> ha.HessianAlignment:
    return ha.HessianAlignment(method, ALPHA[method], 0.3, **{**SETTINGS[method], **overrides})


def published_rule(
    case: Case, domains: Tensor, method: str, detach_centre: bool, reduction: str
) -> Callable[[Tensor], Tensor]:
    """The published scripts' objective by repeated automatic differentiation, as a function of features."""

    def parts(features: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = features @ weight[:, :-1].T + weight[:, -1]
        losses = torch.vmap(case.sample_loss)(logits, case.targets)
        domain_losses = torch.stack([losses[domains == domain].mean() for domain in domains.unique()])
        return losses, domain_losses, domain_losses.mean()

    def hessian_statistic(loss: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.autograd.grad(loss, weight, create_graph=True)[0].flatten()
        rows = [torch.autograd.grad(g, weight, create_graph=True)[0].flatten() for g in gradient]
        hessian = torch.stack(rows)
        return gradient, hessian @ gradient if method == "hgp" else hessian.diagonal()

    def penalty(features: Tensor) -> Tensor:
        weight = case.weight.clone().requires_grad_()
        _, domain_losses, mean_loss = parts(features, weight)
        mean_gradient, centre = hessian_statistic(mean_loss, weight)
        if detach_centre:
            mean_gradient, centre = mean_gradient.detach(), centre.detach()
        distances = []
        for loss in domain_losses:
            gradient, statistic = hessian_statistic(loss, weight)
            distances.append(
                0.7 * (statistic - centre).square().sum() + 0.3 * (gradient - mean_gradient).square().sum()
            )
        stacked = torch.stack(distances)
        return stacked.sum() if reduction == "sum" else stacked.mean()

    return penalty


@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy", "softplus"])
@pytest.mark.parametrize("method", ["hgp", "diagonal"])
@pytest.mark.parametrize(
    ("detach_centre", "reduction"), [(True, "mean"), (False, "sum")], ids=["domainbed", "colored-mnist"]
)
def test_published_conventions(kind: str, method: str, detach_centre: bool, reduction: str) -> None:
    case = make_case(kind, 9, 3, 2, 0)
    domains = torch.tensor([7, -2, 7, 7, 40, -2, 40, 40, 40])
    rule = published_rule(case, domains, method, detach_centre, reduction)
    features = case.features.clone().requires_grad_()
    expected = rule(features)
    expected_derivative = torch.autograd.grad(expected, features)[0]

    penalty = make_penalty(method, detach_centre=detach_centre, reduction=reduction, loss=case.loss)
    features = case.features.clone().requires_grad_()
    logits = features @ case.weight[:, :-1].T + case.weight[:, -1]
    found = penalty(features, logits, case.targets, domains)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    derivative = torch.autograd.grad(found, features)[0]
    torch.testing.assert_close(derivative, expected_derivative, rtol=1e-9, atol=1e-11)


@EVERY_METHOD
@given(case=cases(min_samples=4, max_samples=9), seed=st.integers(0, 1000))
def test_order_and_names_of_domains_do_not_matter(method: str, case: Case, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    domains = torch.randint(0, 3, (len(case.features),), generator=generator)
    domains[:2] = torch.tensor([0, 1])
    order = torch.randperm(len(domains), generator=generator)
    names = torch.tensor([99, -5, 12])
    penalty = make_penalty(method, loss=case.loss)
    original = penalty(case.features, case.logits, case.targets, domains)
    shuffled = case.rows(order)
    renamed = penalty(shuffled.features, shuffled.logits, shuffled.targets, names[domains[order]])
    torch.testing.assert_close(renamed, original, rtol=1e-8, atol=1e-10)
    assert original >= 0


@pytest.mark.parametrize(
    ("method", "overrides"), [*((m, {}) for m in SETTINGS), ("hutchinson", {"expected": False})]
)
def test_one_domain_gives_exactly_zero_with_zero_derivatives(method: str, overrides: dict) -> None:
    case = make_case("cross_entropy", 5, 3, 3, 0)
    features, logits = case.features.requires_grad_(), case.logits.detach().requires_grad_()
    penalty = make_penalty(method, **overrides)
    with pytest.warns(NoEffectWarning, match="the batch holds one domain"):
        value = penalty(features, logits, case.targets, torch.full((5,), 3))
    value = value + penalty(features, logits, case.targets, torch.full((5,), 3))  # told once
    value.backward()
    assert value == 0
    assert (features.grad == 0).all()
    assert (logits.grad == 0).all()


@EVERY_METHOD
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_parts_are_the_unweighted_distances_of_each_domain(method: str, reduction: str) -> None:
    case = make_case("cross_entropy", 9, 4, 3, 0)
    domains = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2])
    arguments = (case.features, case.logits, case.targets, domains)
    penalty = make_penalty(method, reduction=reduction)
    value, parts = penalty.with_parts(*arguments)
    assert value == penalty(*arguments)
    gradients = torch.stack(
        [
            ha.HeadDerivatives.from_logits(*(given[domains == domain] for given in arguments[:3])).gradient()
            for domain in range(3)
        ]
    )
    expected = (gradients - gradients.mean(0)).square().sum((1, 2))
    torch.testing.assert_close(parts["gradient"], expected)
    assert parts.keys() == ({"gradient"} if method == "gradient" else {"gradient", "hessian"})
    weighted = 0.3 * parts["gradient"] + 0.7 * parts.get("hessian", torch.zeros(3))
    torch.testing.assert_close(value, getattr(weighted, reduction)())
    assert not any(part.requires_grad for part in parts.values())


def test_parts_without_weight_and_parts_of_one_domain_are_left_out() -> None:
    case = make_case("cross_entropy", 6, 4, 3, 0)
    arguments = (case.features, case.logits, case.targets)
    two, one = torch.arange(6) // 3, torch.zeros(6, dtype=torch.long)
    assert ha.HessianAlignment("hgp", 0.0, 0.3).with_parts(*arguments, two)[1].keys() == {"gradient"}
    assert ha.HessianAlignment("hgp", 0.7, 0.0).with_parts(*arguments, two)[1].keys() == {"hessian"}
    with pytest.warns(NoEffectWarning):
        assert ha.HessianAlignment("hgp").with_parts(*arguments, one)[1] == {}


@pytest.mark.parametrize("method", ["hgp", "diagonal", "frobenius", "hutchinson"])
def test_switching_the_hessian_off_leaves_gradient_alignment_to_the_last_bit(method: str) -> None:
    case = make_case("cross_entropy", 8, 4, 3, 0)
    domains = torch.arange(8) % 2
    arguments = (case.features.float(), case.logits.float(), case.targets, domains)
    only_gradient = ha.HessianAlignment("gradient", beta=0.3)(*arguments)
    assert ha.HessianAlignment(method, 0.0, 0.3, **SETTINGS[method])(*arguments) == only_gradient
    with_hessian = ha.HessianAlignment(method, 0.7, 0.3, **SETTINGS[method])(*arguments)
    without_gradient = ha.HessianAlignment(method, 0.7, 0.0, **SETTINGS[method])(*arguments)
    assert with_hessian > only_gradient
    torch.testing.assert_close(with_hessian, only_gradient + without_gradient)


@pytest.mark.parametrize("method", ["gradient", "diagonal", "frobenius"])
def test_detaching_a_plain_mean_changes_no_derivative(method: str) -> None:
    case = make_case("cross_entropy", 8, 4, 3, 0)
    derivatives = []
    for detach_centre in (True, False):
        features = case.features.clone().requires_grad_()
        penalty = make_penalty(method, detach_centre=detach_centre)
        penalty(features, case.logits, case.targets, torch.arange(8) % 3).backward()
        derivatives.append(features.grad)
    torch.testing.assert_close(*derivatives)


def test_training_with_the_penalty_brings_the_domains_together() -> None:
    generator = torch.Generator().manual_seed(0)
    domains = torch.arange(60) % 3
    inputs = torch.randn(60, 5, generator=generator) + domains.unsqueeze(1)
    targets = torch.randint(0, 3, (60,), generator=generator)
    for method, settings in SETTINGS.items():
        torch.manual_seed(0)
        body, head = torch.nn.Linear(5, 4), torch.nn.Linear(4, 3)
        penalty = ha.HessianAlignment(method, ALPHA[method], 1.0, **settings)
        optimizer = torch.optim.SGD([*body.parameters(), *head.parameters()], lr=0.02)
        values = []
        for _ in range(30):
            features = body(inputs).tanh()
            value = penalty(features, head(features), targets, domains)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values.append(value.item())
        assert values[-1] < 0.8 * values[0], method


def test_sampled_probes_come_from_the_generator() -> None:
    case = make_case("cross_entropy", 8, 4, 3, 0)
    penalty = ha.HessianAlignment("hutchinson", probes=5)
    arguments = (case.features, case.logits, case.targets, torch.arange(8) % 2)

    def value(seed: int) -> Tensor:
        return penalty(*arguments, generator=torch.Generator().manual_seed(seed))

    assert value(1) == value(1)
    assert value(1) != value(2)


@EVERY_METHOD
def test_mixed_precision_does_not_reach_the_penalty(method: str) -> None:
    case = make_case("cross_entropy", 8, 4, 3, 0)
    arguments = (case.features.float(), case.logits.float(), case.targets, torch.arange(8) % 2)
    penalty = make_penalty(method)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = penalty(*arguments)
    assert inside == penalty(*arguments)


def backbone_slope(method: str, checkpointed: bool, scale: float) -> Tensor:
    """Derivative of penalty and loss by a backbone's weights, taken at a multiple of both."""
    case = make_case("cross_entropy", 12, 5, 3, 0)
    inputs, domains = case.features.float(), torch.arange(12) % 3
    torch.manual_seed(0)
    backbone, head = torch.nn.Sequential(torch.nn.Linear(5, 5), torch.nn.Tanh()), torch.nn.Linear(5, 3)
    features = checkpoint(backbone, inputs, use_reentrant=False) if checkpointed else backbone(inputs)
    logits = head(features)
    value = F.cross_entropy(logits, case.targets) + make_penalty(method)(
        features, logits, case.targets, domains
    )
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, enabled=scale != 1)
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.1)
    scaler.scale(value).backward()
    scaler.unscale_(optimizer)
    slope = backbone[0].weight.grad
    assert slope is not None
    return slope


@EVERY_METHOD
@pytest.mark.parametrize(("checkpointed", "scale"), [(True, 1.0), (False, 1024.0)])
def test_a_checkpointed_backbone_or_a_scaled_loss_changes_no_slope(
    method: str, checkpointed: bool, scale: float
) -> None:
    torch.testing.assert_close(
        backbone_slope(method, checkpointed, scale),
        backbone_slope(method, checkpointed=False, scale=1.0),
        rtol=1e-5,
        atol=1e-7,
    )


def test_device_other_than_the_default(device: torch.device) -> None:
    case = make_case("cross_entropy", 8, 4, 3, 0)
    arguments = (case.features.float(), case.logits.float(), case.targets, torch.arange(8) % 2)
    for method in SETTINGS:
        penalty = make_penalty(method)
        there = penalty(*(argument.to(device) for argument in arguments))
        assert there.device.type == device.type
        torch.testing.assert_close(there.cpu(), penalty(*arguments), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (("coral",), {}, "method: 'coral' is not known; allowed are 'gradient', 'hgp'"),
        (("hgp", -1.0), {}, "alpha: must be a finite number of at least 0, got -1.0"),
        (("hgp", 1.0, float("nan")), {}, "beta: must be a finite number of at least 0, got nan"),
        (("hutchinson",), {}, "probes: 'hutchinson' needs a whole number of at least 1, got None"),
        (("hutchinson",), {"probes": 0}, "probes: 'hutchinson' needs a whole number of at least 1, got 0"),
        (("hgp",), {"probes": 3}, "probes, expected: only 'hutchinson' takes them"),
        (("diagonal",), {"expected": True}, "probes, expected: only 'hutchinson' takes them"),
        (("hgp",), {"centre": "median"}, "centre: 'median' is not known; allowed are 'mean_loss'"),
        (("hgp",), {"reduction": "max"}, "reduction: 'max' is not known; allowed are 'mean', 'sum'"),
        (("hgp",), {"loss": "hinge"}, "loss: 'hinge' is not known"),
    ],
)
def test_bad_settings_are_named(arguments: tuple, settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ha.HessianAlignment(*arguments, **settings)


@pytest.mark.parametrize("domains", [torch.zeros(5), torch.zeros(4).long(), torch.zeros(5, 1).long()])
def test_bad_domains_are_named(domains: Tensor) -> None:
    case = make_case("cross_entropy", 5, 3, 3, 0)
    with pytest.raises(ValueError, match="domains: must hold one integer id for each of the 5 samples"):
        ha.HessianAlignment("hgp")(case.features, case.logits, case.targets, domains)


def test_no_domains_are_refused() -> None:
    with pytest.raises(ValueError, match="domains: at least 1 is needed, got none"):
        ha.HessianAlignment("hgp").from_derivatives([])


def test_settings_are_shown() -> None:
    assert "'hutchinson', alpha=0.7, beta=0.3, probes=3, expected=True" in repr(make_penalty("hutchinson"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ((12, 20, 12, 12), "features, logits and targets: must have one row"),
        ((20, 12, 12, 12), "features, logits and targets: must have one row"),
        ((12, 12, 20, 12), "features, logits and targets: must have one row"),
        ((12, 12, 12, 20), "domains: must hold one integer id for each of the 12 samples"),
    ],
)
@pytest.mark.parametrize("penalty", [ha.HessianAlignment("hgp"), ha.HessianFlatness()])
def test_lengths_are_compared_before_anything_is_indexed(rows: tuple, message: str, penalty) -> None:
    features, logits, targets, domains = rows
    given = (torch.randn(features, 5), torch.randn(logits, 3), torch.zeros(targets).long())
    with pytest.raises(ValueError, match=message):
        penalty(*given, torch.arange(domains) % 3)


@EVERY_METHOD
def test_a_head_without_bias_has_no_derivative_for_it(method: str) -> None:
    """Features without and with a column of ones: the latter's head without bias is the former's with one."""
    case = make_case("cross_entropy", 9, 4, 3, 0)
    domains = torch.arange(9) % 3
    ones = torch.cat([case.features, torch.ones(9, 1, dtype=torch.float64)], dim=1)
    with_bias = make_penalty(method)(case.features, case.logits, case.targets, domains)
    without = make_penalty(method, bias=False)(ones, case.logits, case.targets, domains)
    torch.testing.assert_close(without, with_bias)
    flat = [ha.HessianFlatness(1.0, "off_diagonal", bias=bias) for bias in (True, False)]
    torch.testing.assert_close(
        flat[1](ones, case.logits, case.targets, domains),
        flat[0](case.features, case.logits, case.targets, domains),
    )


def test_a_head_without_bias_against_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    features, targets = torch.randn(12, 6, generator=generator), torch.arange(12) % 3
    head, domains = torch.nn.Linear(6, 3, bias=False), torch.arange(12) // 6
    gradients = [
        torch.autograd.grad(
            torch.nn.functional.cross_entropy(head(features[rows]), targets[rows]), head.weight
        )[0]
        for rows in (domains == 0, domains == 1)
    ]
    expected = (gradients[0] - gradients[1]).square().sum() / 4
    penalty = ha.HessianAlignment("gradient", beta=1.0, bias=False)
    torch.testing.assert_close(penalty(features, head(features), targets, domains), expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("alpha", -5, "alpha: must be a finite number of at least 0, got -5"),
        ("alpha", "1", "alpha: must be a finite number of at least 0, got '1'"),
        ("alpha", torch.ones(2), "alpha: must be .* or a scalar tensor, got a tensor"),
        ("beta", True, "beta: must be a finite number"),
        ("probes", 0, "probes: must be a whole number of at least 1"),
        ("detach_centre", "no", "detach_centre: must be True or False, got 'no'"),
        ("expected", "no", "expected: must be True or False"),
        ("unbiased", 1, "unbiased: must be True or False"),
        ("bias", None, "bias: must be True or False"),
        ("reduction", "max", "reduction: 'max' is not known"),
        ("loss", [1], "loss: .1. is not known"),
    ],
)
def test_settings_are_checked_at_every_assignment(name: str, value: object, message: str) -> None:
    penalty = make_penalty("hutchinson")
    before = getattr(penalty, name)
    with pytest.raises(ValueError, match=message):
        setattr(penalty, name, value)
    assert getattr(penalty, name) == before
    with pytest.raises(ValueError, match=message.replace("probes: must be", "probes: .* needs")):
        ha.HessianAlignment("hutchinson", **{"probes": 3, name: value})


def test_numpy_numbers_are_numbers_and_true_is_no_number_of_probes() -> None:
    penalty = ha.HessianAlignment("hutchinson", np.float32(0.5), probes=np.int64(3), expected=np.True_)
    assert (penalty.alpha, penalty.probes, penalty.expected) == (0.5, 3, True)
    with pytest.raises(ValueError, match="probes: 'hutchinson' needs a whole number of at least 1, got True"):
        ha.HessianAlignment("hutchinson", probes=True)


@pytest.mark.parametrize("method", SETTINGS)
def test_features_too_large_for_the_type_are_named(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    features, targets = 1e25 * torch.randn(12, 5, generator=generator), torch.arange(12) % 3
    logits = torch.randn(12, 3, generator=generator)
    with pytest.raises(
        ValueError, match=r"features: values up to \d.*e\+25 let the penalty overflow float32"
    ):
        make_penalty(method)(features, logits, targets, torch.arange(12) // 6)


def test_targets_too_large_for_the_type_are_named() -> None:
    features, logits = torch.randn(8, 3), torch.randn(8, 1)
    penalty = ha.HessianAlignment("hgp", loss=ha.SquaredError())
    with pytest.raises(ValueError, match=r"targets: values up to 1e\+30 let the penalty overflow float32"):
        penalty(features, logits, torch.full((8,), 1e30), torch.arange(8) // 4)


SIZED = {**SETTINGS, "hutchinson-sampled": {"probes": 3}, "hgp-unbiased": {"unbiased": True}}


@pytest.mark.parametrize("method", sorted(set(SIZED) - {"spectral"}))
def test_sizes_in_the_place_of_ids_read_no_value(method: str) -> None:
    """On the meta device whatever needs a value raises; weights may lie there, too."""
    case = make_case("cross_entropy", 12, 4, 3, 0)
    options = dict(SIZED[method])
    if method == "hgp-unbiased":
        options["centre"] = "mean_product"
    penalty = make_penalty(method.partition("-")[0], **options)
    given = (case.features.float(), case.logits.float(), case.targets)
    if method != "hutchinson-sampled":
        ids = torch.arange(3).repeat_interleave(4)
        torch.testing.assert_close(penalty(*given, SortedDomains([4, 4, 4])), penalty(*given, ids))
    features, logits, targets = (tensor.to("meta") for tensor in given)
    penalty.alpha, penalty.beta = torch.tensor(0.7, device="meta"), torch.tensor(0.3, device="meta")
    features.requires_grad_()
    for each in (penalty, ha.HessianFlatness(penalty.beta, "off_diagonal")):
        value, terms = each.with_terms(features, logits, targets, SortedDomains([4, 4, 4]))
        value.backward()
        assert features.grad.shape == features.shape
        assert all(term.shape == (3,) for term in terms.values())


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], "sizes: at least one domain"),
        ([3, 0], "sizes: must be .* at least 1, got 0"),
        ([2.5], "sizes: must be"),
    ],
)
def test_bad_sizes_are_named(sizes: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SortedDomains(sizes)
    with pytest.raises(ValueError, match="domains: sizes must add up to the 6 samples, got 5"):
        ha.HessianAlignment("hgp")(
            torch.randn(6, 2), torch.randn(6, 2), torch.zeros(6).long(), SortedDomains([5])
        )


def test_a_gradient_looked_at_without_recording_leaves_the_penalty_its_derivative() -> None:
    case = make_case("cross_entropy", 8, 4, 3, 0)
    features = case.features.clone().requires_grad_()
    domains = ha.HeadDerivatives.from_logits(features, case.logits, case.targets).split([4, 4])
    with torch.no_grad():
        norms = [domain.gradient().norm() for domain in domains]
        make_penalty("hgp").from_derivatives(domains)
    make_penalty("hgp").from_derivatives(domains).backward()
    assert all(norm > 0 for norm in norms)
    assert features.grad.abs().sum() > 0


@pytest.mark.parametrize("container", [list, tuple, np.asarray, pl.Series, torch.tensor])
def test_domains_and_data_in_any_container(container: Callable) -> None:
    case = make_case("cross_entropy", 8, 4, 3, 0)
    penalty = make_penalty("hgp")
    expected = penalty(case.features, case.logits, case.targets, torch.arange(8) % 3)
    arrays = (case.features.numpy(), case.logits.numpy(), container(case.targets.tolist()))
    torch.testing.assert_close(penalty(*arrays, container([i % 3 for i in range(8)])), expected)
    if container is not torch.tensor:
        names = ["art", "photo", "sketch"]
        found = penalty(case.features, case.logits, case.targets, container([names[i % 3] for i in range(8)]))
        torch.testing.assert_close(found, expected)


def test_weights_may_be_tensors() -> None:
    case = make_case("cross_entropy", 9, 4, 3, 0)
    arguments = (case.features, case.logits, case.targets, torch.arange(9) % 3)
    weight = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    value, terms = ha.HessianAlignment("hgp", weight, torch.tensor(0.3)).with_terms(*arguments)
    torch.testing.assert_close(value, make_penalty("hgp")(*arguments))
    value.backward()
    torch.testing.assert_close(weight.grad, terms["hessian"].mean())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo looks at it
@pytest.mark.parametrize("method", [*SETTINGS, "flat"])
def test_compiled_loops(method: str) -> None:
    """Dynamo may break the graph, but neither crash nor change a number."""
    case = make_case("cross_entropy", 12, 5, 3, 0)
    penalty = ha.HessianFlatness(1.0, "off_diagonal") if method == "flat" else make_penalty(method)
    targets, head = case.targets, torch.nn.Linear(5, 3)

    def loss(features: Tensor, domains: Tensor | SortedDomains) -> Tensor:
        logits = head(features)
        return torch.nn.functional.cross_entropy(logits, targets) + penalty(
            features, logits, targets, domains
        )

    compiled = torch.compile(loss, backend="aot_eager")
    for domains in (torch.arange(3).repeat_interleave(4), SortedDomains([4, 4, 4])):
        slopes = []
        for function in (loss, compiled):
            features = case.features.float().requires_grad_()
            slopes.append(torch.autograd.grad(function(features, domains), features)[0])
        torch.testing.assert_close(*slopes)


@EVERY_METHOD
def test_a_second_derivative_is_right_or_refused(method: str) -> None:
    """Against central differences of the first; spectral norms keep no derivative of their eigenvectors."""
    case = make_case("cross_entropy", 12, 5, 3, 0)
    domains = torch.arange(12) % 3
    penalty = make_penalty(method, detach_centre=False)
    direction = torch.randn_like(case.features)

    def slope(shift: float, create_graph: bool = False) -> tuple[Tensor, Tensor]:
        features = (case.features.detach() + shift * direction).requires_grad_()
        value = penalty(features, features @ case.weight[:, :-1].T, case.targets, domains)
        return torch.autograd.grad(value, features, create_graph=create_graph)[0], features

    first, features = slope(0, create_graph=True)
    if method == "spectral":
        with pytest.raises(RuntimeError, match="can be differentiated once only"):
            torch.autograd.grad((first * direction).sum(), features)
        return
    found = torch.autograd.grad((first * direction).sum(), features)[0]
    expected = (slope(1e-5)[0] - slope(-1e-5)[0]) / 2e-5
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)


OLD = tuple(map(int, torch.__version__.split(".")[:2])) < (2, 10)


@pytest.mark.parametrize(
    "domains",
    [
        SortedDomains([4, 4, 4]),
        pytest.param(
            torch.arange(12) % 3, marks=pytest.mark.skipif(OLD, reason="torch.func reads no ids before 2.10")
        ),
    ],
    ids=["sorted", "ids"],
)
def test_the_spectral_penalty_in_torch_func_has_first_derivatives_only(
    domains: Tensor | SortedDomains,
) -> None:
    """Backwards; forwards, and twice, they are refused."""
    case = make_case("cross_entropy", 12, 5, 3, 0)

    def value(features: Tensor) -> Tensor:
        return make_penalty("spectral")(features, case.logits.detach(), case.targets, domains)

    features = case.features.detach()
    features_ = features.clone().requires_grad_()
    expected = torch.autograd.grad(value(features_), features_)[0]
    torch.testing.assert_close(torch.func.grad(value)(features), expected)
    with pytest.raises(NotImplementedError, match="forward mode"):
        torch.func.jvp(value, (features,), (features,))
    # The second in the words of PyTorch before 2.10.
    with pytest.raises(RuntimeError, match=r"once only|doesn't have storage"):
        torch.func.jacrev(torch.func.jacrev(value))(features)


@pytest.mark.parametrize("method", [method for method in SETTINGS if method != "spectral"])
def test_sorted_domains_pass_vmap(method: str) -> None:
    """Several heads at once; ids would be read, which vmap refuses."""
    case = make_case("cross_entropy", 12, 5, 3, 0)
    heads = torch.stack([case.weight, 2 * case.weight])

    def value(head: Tensor) -> Tensor:
        logits = case.features @ head[:, :-1].T
        return make_penalty(method)(case.features, logits, case.targets, SortedDomains([4, 4, 4]))

    for function in (value, torch.func.grad(value)):
        torch.testing.assert_close(
            torch.vmap(function)(heads), torch.stack([function(head) for head in heads])
        )
