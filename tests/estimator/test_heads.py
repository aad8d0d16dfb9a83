"""Heads other than the aligned ones: each is what its rule says, on small data; one contract for all."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

import hessalign as ha
from hessalign.estimator import (
    FishrClassifier,
    GroupDROClassifier,
    IRMClassifier,
    VRExClassifier,
)
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning
from hessalign.metrics import evaluate
from tests.cases import sigmoid_loss, softmax_loss
from tests.estimator.samples import Samples, coloured, shifted_classes

PENALISED = [VRExClassifier, IRMClassifier, FishrClassifier]
ALL = [*PENALISED, GroupDROClassifier]


@pytest.mark.filterwarnings("ignore::hessalign.exceptions.NoEffectWarning")  # the checks know no domains
@parametrize_with_checks([IRMClassifier(), GroupDROClassifier()])
def test_scikit_learns_checks(estimator, check) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hessalign.exceptions.NoEffectWarning")
@parametrize_with_checks([VRExClassifier(), FishrClassifier()])
def test_scikit_learns_checks_of_the_others(estimator, check) -> None:
    check(estimator)


def dense_terms(name: str, samples: Samples, shares: Tensor, scale: float, sample_loss: Callable) -> Callable:
    """Mean loss and penalty by torch.func, domain by domain, as functions of ``[W | b]``."""
    features, targets = torch.from_numpy(samples.X) / scale, torch.from_numpy(samples.y)

    def losses(weight: Tensor, factor: Tensor, chosen: Tensor) -> Tensor:
        logits = factor * (features[chosen] @ weight[:, :-1].T + weight[:, -1])
        return torch.vmap(sample_loss)(logits, targets[chosen])

    def terms(weight: Tensor) -> tuple[Tensor, Tensor]:
        one, everything = torch.ones(()).double(), torch.arange(len(targets))
        loss = losses(weight, one, everything) @ shares
        domains = [torch.from_numpy(np.flatnonzero(samples.domains == d)) for d in np.unique(samples.domains)]
        sizes = torch.stack([shares[chosen].sum() for chosen in domains])
        within = [shares[chosen] / shares[chosen].sum() for chosen in domains]
        if name == "VRExClassifier":
            risks = torch.stack([losses(weight, one, c) @ w for c, w in zip(domains, within, strict=True)])
            return loss, (risks - risks @ sizes).square() @ sizes
        if name == "IRMClassifier":
            slopes = [
                torch.func.grad(lambda factor, c=c, w=w: losses(weight, factor, c) @ w)(one)
                for c, w in zip(domains, within, strict=True)
            ]
            return loss, torch.stack(slopes).square() @ sizes
        variances = []
        for c, w in zip(domains, within, strict=True):
            rows = torch.func.jacrev(lambda head, c=c: losses(head, one, c))(weight).flatten(1)
            variances.append(w @ rows.square() - (w @ rows).square())
        stacked = torch.stack(variances)
        return loss, (stacked - sizes @ stacked).square().sum(1) @ sizes

    return terms


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("head", PENALISED)
@pytest.mark.parametrize("domain_weight", ["size", "equal"])
def test_a_penalised_head_ends_where_the_documented_objective_is_flat(
    head: type, classes: int, domain_weight: str
) -> None:
    samples = shifted_classes(classes=classes)
    weight = np.random.default_rng(1).uniform(0.2, 3, len(samples.y))
    kind = {"C": 0.5, "tol": 1e-9, "max_iter": 5000, "domain_weight": domain_weight}
    fitted = head(2.0, **kind).fit(samples.X, samples.y, weight, sample_domain=samples.domains)
    plain = head(0.0, **kind).fit(samples.X, samples.y, weight, sample_domain=samples.domains)
    if domain_weight == "equal":
        weight = weight * (1 / np.bincount(samples.domains, weight))[samples.domains]
    shares = torch.from_numpy(weight / weight.sum())
    total = np.random.default_rng(1).uniform(0.2, 3, len(samples.y)).sum()
    if classes == 2:
        samples = Samples(samples.X, samples.y[:, None].astype(float), samples.domains)
    sample_loss = sigmoid_loss if classes == 2 else softmax_loss
    terms = dense_terms(head.__name__, samples, shares, fitted.scale_, sample_loss)

    def scaled(estimator) -> Tensor:
        return torch.from_numpy(np.column_stack([estimator.coef_ * estimator.scale_, estimator.intercept_]))

    loss, penalty = terms(scaled(plain))

    def objective(theta: Tensor) -> Tensor:
        value, term = terms(theta)
        decay = 1 / (0.5 * total * fitted.scale_**2)
        return value + 2.0 * loss / penalty * term + decay / 2 * theta[:, :-1].square().sum()

    assert fitted.converged_
    assert torch.func.grad(objective)(scaled(fitted)).abs().max() < 1e-6
    assert float(objective(scaled(fitted))) == pytest.approx(fitted.objective_, rel=1e-6)
    assert float(terms(scaled(fitted))[1]) < float(penalty)
    assert not fitted.plain_


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("robustness", [0.5, 1.0])
def test_group_dro_is_optimal(classes: int, robustness: float) -> None:
    samples = shifted_classes(samples=240, classes=classes)
    groups = samples.domains * classes + samples.y
    head = GroupDROClassifier(robustness, C=0.3, tol=1e-7)
    head.fit(samples.X, samples.y, sample_group=groups)
    assert head.converged_
    found = evaluate(samples.y, head.predict_proba(samples.X), groups=groups)
    worst, size = found.groups.worst("log_loss"), (head.coef_**2).sum() / (2 * 0.3 * 240)
    mean = found.overall["log_loss"]
    assert head.objective_ == pytest.approx((1 - robustness) * mean + robustness * worst + size)
    # A certificate: with the groups' weights the plain fit is the same head, and bounds the optimum.
    weight = head.group_weights_[groups] / np.bincount(groups)[groups] * len(groups)
    bound = ha.HessianAlignedClassifier("none", C=0.3, tol=1e-9).fit(samples.X, samples.y, weight)
    assert head.group_weights_.sum() == pytest.approx(1)
    assert bound.objective_ <= head.objective_ <= bound.objective_ + head.gap_ + 1e-5
    assert head.gap_ < 2e-3
    plain = ha.HessianAlignedClassifier("none", C=0.3).fit(samples.X, samples.y)
    before = evaluate(samples.y, plain.predict_proba(samples.X), groups=groups).groups.worst("log_loss")
    assert worst < before


def test_small_groups_can_be_made_to_look_worse() -> None:
    samples = coloured([0.9, 0.1], samples=100)
    rare = samples.rows((samples.domains == 0) | (np.arange(200) % 10 == 0))
    plain, adjusted = (
        GroupDROClassifier(adjustment=a).fit(rare.X, rare.y, sample_domain=rare.domains) for a in (0.0, 4.0)
    )
    assert adjusted.group_weights_[1] > plain.group_weights_[1]


@pytest.mark.parametrize("head", PENALISED)
def test_an_unseen_domain_gains_where_colour_misleads(head: type) -> None:
    samples = coloured([0.8, 0.9, 0.1], samples=400)
    source, target = samples.rows(samples.domains < 2), samples.rows(samples.domains == 2)
    plain, fitted = (head(w).fit(source.X, source.y, sample_domain=source.domains) for w in (0.0, 10.0))
    assert fitted.score(target.X, target.y) > plain.score(target.X, target.y) + 0.05


@pytest.mark.parametrize("head", ALL)
def test_auto_falls_back_to_the_plain_head_and_says_so(head: type) -> None:
    random = np.random.default_rng(0)
    y, domains = random.integers(0, 2, 240), np.repeat(["a", "b", "c", "d"], 60)
    X = random.normal(size=(240, 4)) + 0.7 * y[:, None]
    name = next(iter(head._hyper))
    found = head("auto").fit(X, y, sample_domain=domains)
    plain = ha.HessianAlignedClassifier("none", C="auto").fit(X, y, sample_domain=domains)
    assert found.plain_
    assert getattr(found, f"{name}_") == 0
    assert found.C_ == plain.C_
    np.testing.assert_allclose(found.coef_, plain.coef_, atol=1e-6)
    tried = found.auto_results_
    assert tried["plain"][tried["chosen"]].all()
    assert not tried["plain"].all()
    assert (tried[name][tried["plain"]] == 0).all()


def test_auto_chooses_by_the_worst_group() -> None:
    samples = coloured([0.9, 0.8, 0.2], samples=150)
    groups = samples.domains * 2 + samples.y
    names = np.array(["a", "b", "c"])[samples.domains]
    found = GroupDROClassifier("auto", scoring="worst_group_accuracy")
    found.fit(samples.X, samples.y, sample_domain=names, sample_group=groups)
    tried = found.auto_results_
    rest, held_out = samples.rows(names != "b"), samples.rows(names == "b")
    fold = ha.HessianAlignedClassifier("none", C=tried["C"][0]).fit(rest.X, rest.y)
    right = fold.predict(held_out.X) == held_out.y
    worst = min(right[held_out.y == label].mean() for label in (0, 1))
    assert tried["scores"][0, 1] == pytest.approx(worst, abs=0.03)
    # Groups without domains: a part of each group is held out in turn.
    found.fit(samples.X, samples.y, sample_group=groups)
    assert found.auto_results_["scores"].shape[1] == 5


@pytest.mark.parametrize("head", ALL)
def test_a_head_comes_back_whole(head: type, tmp_path: Path) -> None:
    samples = shifted_classes()
    names = np.array(["cat", "dog", "hen"])[samples.y]
    fitted = head("auto").fit(samples.X, names, sample_domain=samples.domains)
    fitted.save(tmp_path / "head.safetensors")
    loaded = head.load(tmp_path / "head.safetensors")
    assert loaded.get_params() == fitted.get_params()
    assert vars(loaded).keys() == vars(fitted).keys()
    assert loaded.plain_ == fitted.plain_
    np.testing.assert_array_equal(loaded.predict_proba(samples.X), fitted.predict_proba(samples.X))
    assert clone(fitted).get_params() == fitted.get_params()


@pytest.mark.parametrize("head", ALL)
def test_domains_and_groups_reach_heads_in_pipelines(head: type) -> None:
    samples = shifted_classes()
    with config_context(enable_metadata_routing=True):
        pipeline = make_pipeline(StandardScaler(), head())
        with pytest.MonkeyPatch.context() as patch:
            reached = {}
            patch.setattr(
                head, "_codes", lambda self, found: reached.update(groups=found.groups) or found.domains
            )
            kind = {"sample_group": samples.y} if head._uses_groups else {}
            pipeline.fit(samples.X, samples.y, sample_domain=samples.domains, **kind)
    assert pipeline[-1].domains_.tolist() == [0, 1, 2]
    assert (reached["groups"] is not None) == head._uses_groups


@pytest.mark.parametrize("head", ALL)
def test_what_has_no_effect_says_so(head: type) -> None:
    samples = shifted_classes()
    with pytest.warns(NoEffectWarning, match="above 0 have no effect without sample_domain"):
        fitted = head().fit(samples.X, samples.y)
    plain = ha.HessianAlignedClassifier("none").fit(samples.X, samples.y)
    np.testing.assert_allclose(fitted.coef_, plain.coef_, atol=1e-6)
    if not head._uses_groups:
        with pytest.warns(NoEffectWarning, match="sample_group has no effect: the head is"):
            head().fit(samples.X, samples.y, sample_domain=samples.domains, sample_group=samples.y)


def test_groups_have_no_effect_on_alignment_but_on_its_choice() -> None:
    samples = shifted_classes()
    arguments = {"sample_domain": samples.domains, "sample_group": samples.y}
    with pytest.warns(NoEffectWarning, match="sample_group has no effect"):
        ha.HessianAlignedClassifier().fit(samples.X, samples.y, **arguments)
    ha.HessianAlignedClassifier("none", C="auto", scoring="worst_group_accuracy").fit(
        samples.X, samples.y, **arguments
    )


def test_a_penalty_that_swamps_the_loss_is_not_to_be_trusted() -> None:
    samples = coloured([0.9, 0.1], samples=100)
    with pytest.warns(UntrustworthyWarning, match="lower penalty_weight"):
        FishrClassifier(1e5).fit(samples.X, samples.y, sample_domain=samples.domains)


@pytest.mark.parametrize(
    ("head", "arguments", "message"),
    [
        (VRExClassifier(-1), {}, "penalty_weight: must be 'auto' or a finite number of at least 0, got -1"),
        (IRMClassifier("much"), {}, "penalty_weight: must be 'auto' or a finite number"),
        (IRMClassifier(C=0), {}, "C: must be None, 'auto' or a finite number above 0, got 0"),
        (FishrClassifier(scoring="worst_group_f1"), {}, "scoring: 'worst_group_f1' is not known; .*metrics"),
        (GroupDROClassifier(2), {}, "robustness: .* at least 0 and of at most 1, got 2"),
        (GroupDROClassifier(adjustment=-1), {}, "adjustment: must be a finite number of at least 0, got -1"),
        (VRExClassifier(), {"sample_domain": ["a"] * 90}, "the penalty needs at least 2 domains, got only a"),
        (VRExClassifier("auto"), {"sample_domain": [0, 1] * 45}, "penalty_weight 'auto' needs at least 3 dom"),
        (GroupDROClassifier("auto"), {"sample_domain": None, "sample_group": np.arange(90)},
         "sample_group: 'auto' without domains holds out a part of each group"),
        (GroupDROClassifier(), {"sample_group": [0.5] * 90}, "sample_group: group ids must be integers or"),
        (GroupDROClassifier(), {"sample_group": [0, 1]}, "sample_group: must hold one group id for each of"),
        (IRMClassifier(), {"y": np.zeros(90, int)}, "y: a classifier needs at least 2 classes, got one"),
        (IRMClassifier(), {"X": np.full((90, 2), np.nan)}, "Input X contains NaN"),
        (IRMClassifier(), {"sample_weight": -np.ones(90)}, "sample_weight: weights must be at least 0"),
        (IRMClassifier(domain_weight="x"), {}, "domain_weight: 'x' is not known"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(head, arguments: dict, message: str) -> None:
    samples = shifted_classes()
    given = {"X": samples.X, "y": samples.y, "sample_domain": samples.domains} | arguments
    with pytest.raises(ValueError, match=message):
        head.fit(**given)
