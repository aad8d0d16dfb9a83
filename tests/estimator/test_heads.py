"""Heads other than the aligned ones: each is what its rule says, on small data; one contract for all."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import Tensor

import hessalign as ha
from hessalign.estimator import (
    AFRClassifier,
    DFRClassifier,
    FishrClassifier,
    GroupDROClassifier,
    IRMClassifier,
    JTTClassifier,
    VRExClassifier,
    interpolate_heads,
)
from hessalign.estimator.problem import Problem
from hessalign.estimator.reweighted import L1
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning
from hessalign.metrics import evaluate
from tests.cases import sigmoid_loss, softmax_loss
from tests.estimator.samples import Samples, coloured, shifted_classes

PENALISED = [VRExClassifier, IRMClassifier, FishrClassifier]
COMPARING = [*PENALISED, GroupDROClassifier]
REWEIGHTED = [AFRClassifier, DFRClassifier, JTTClassifier]
ALL = [*COMPARING, *REWEIGHTED]


@pytest.mark.no_cover  # the other tests are measured
@pytest.mark.filterwarnings("ignore::hessalign.exceptions.HessalignWarning")  # the checks know no domains
@parametrize_with_checks([IRMClassifier(), GroupDROClassifier(), JTTClassifier()])
def test_scikit_learns_checks(estimator, check) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::hessalign.exceptions.HessalignWarning")
@parametrize_with_checks(
    [VRExClassifier(), FishrClassifier(), AFRClassifier(), DFRClassifier(n_subsets=2)],
    expected_failed_checks=lambda estimator: (
        {"check_sample_weight_equivalence_on_dense_data": "draws samples at random, repeated ones as others"}
        if isinstance(estimator, AFRClassifier | DFRClassifier)
        else {}
    ),
)
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


@pytest.mark.no_cover  # others measure a search
@pytest.mark.parametrize("head", ALL)
def test_auto_falls_back_to_the_plain_head_and_says_so(head: type) -> None:
    random = np.random.default_rng(0)
    y, domains = random.integers(0, 2, 240), np.repeat(["a", "b", "c", "d"], 60)
    X = random.normal(size=(240, 4)) + 0.7 * y[:, None]
    name = next(iter(head._hyper))
    found = head("auto").fit(X, y, sample_domain=domains)
    plain = ha.HessianAlignedClassifier("none", C="auto").fit(X, y, sample_domain=domains)
    neutral = head._hyper[name].neutral
    assert found.plain_
    np.testing.assert_equal(getattr(found, f"{name}_"), float("nan") if neutral is None else neutral)
    strength = head._strength_name
    assert getattr(found, f"{strength}_") == plain.C_
    np.testing.assert_allclose(found.coef_, plain.coef_, atol=5e-3)
    tried = found.auto_results_
    assert tried["plain"][tried["chosen"]].all()
    assert not tried["plain"].all()
    assert len(set(map(str, tried[name][tried["plain"]]))) == 1


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


@pytest.mark.no_cover  # test_persistence is measured
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


@pytest.mark.parametrize("head", COMPARING)
def test_what_has_no_effect_says_so(head: type) -> None:
    samples = shifted_classes()
    with pytest.warns(NoEffectWarning, match="above 0 have no effect without sample_domain"):
        fitted = head().fit(samples.X, samples.y)
    plain = ha.HessianAlignedClassifier("none").fit(samples.X, samples.y)
    np.testing.assert_allclose(fitted.coef_, plain.coef_, atol=1e-6)
    if not head._uses_groups:
        with pytest.warns(NoEffectWarning, match="sample_group has no effect: the head is"):
            head().fit(samples.X, samples.y, sample_domain=samples.domains, sample_group=samples.y)


def biased(samples: int = 600, classes: int = 2, seed: int = 0) -> tuple:
    """A weak feature that tells the class, a strong one that does so nine times in ten; and the groups."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, samples)
    background = np.where(random.random(samples) < 0.9, y, random.integers(0, classes, samples))
    means = np.eye(classes)
    X = random.normal(size=(samples, 2 * classes)) + np.hstack([2 * means[y], 4 * means[background]])
    return X, y, classes * y + background


@pytest.mark.parametrize("classes", [2, 3])
def test_just_train_twice_is_two_weighted_fits(classes: int) -> None:
    X, y, _ = biased(classes=classes)
    plain = ha.HessianAlignedClassifier("none", C=0.3, tol=1e-8).fit(X, y)
    wrong = plain.predict(X) != y
    factors = np.where(wrong, 7.0, 1.0)
    weight = factors * len(y) / factors.sum()
    expected = ha.HessianAlignedClassifier("none", C=0.3, tol=1e-8).fit(X, y, weight)
    found = JTTClassifier(7.0, C=0.3, tol=1e-8).fit(X, y)
    np.testing.assert_allclose(found.coef_, expected.coef_, atol=1e-4)
    assert found.error_share_ == pytest.approx(wrong.mean())
    assert found.converged_
    wrong = ha.HessianAlignedClassifier("none", C=1e-4).fit(X, y).predict(X) != y
    weaker = JTTClassifier(7.0, C=0.3, first_C=1e-4).fit(X, y)
    assert weaker.error_share_ == pytest.approx(wrong.mean())
    separable = np.column_stack([X, 100.0 * y])
    with pytest.warns(NoEffectWarning, match="the first head makes no error on the samples; take a smaller"):
        JTTClassifier().fit(separable, y)


def test_just_train_twice_on_noise_is_doubted() -> None:
    # Half of what makes the label is noise: its errors are no group, and 20 times their weight is more than
    # that of all others.
    random = np.random.default_rng(0)
    X = random.normal(size=(900, 5))
    y, site = (X[:, 0] + 0.5 * random.normal(size=900) > 0).astype(int), np.arange(900) % 3
    with pytest.warns(UntrustworthyWarning, match=r"the first gets 12 % wrong in all: .* lower upweight"):
        head = JTTClassifier().fit(X, y, sample_domain=site)
    weight = np.where(ha.HessianAlignedClassifier("none").fit(X, y).predict(X) == y, 1.0, 20.0)
    reference = LogisticRegression(tol=1e-8).fit(X, y, 900 * weight / weight.sum())
    np.testing.assert_allclose(head.coef_, reference.coef_, atol=1e-3)
    assert JTTClassifier("auto", C=1.0).fit(X, y, sample_domain=site).upweight_ == 1


@pytest.mark.parametrize("classes", [2, 3])
def test_afr_ends_where_its_objective_is_flat(classes: int) -> None:
    X, y, _ = biased(classes=classes)
    head = AFRClassifier(4.0, 0.1, C=0.3, tol=1e-9, random_state=3).fit(X, y)
    held_out = head._held_out(y)
    assert np.bincount(y[held_out]).sum() == pytest.approx(0.2 * len(y), abs=classes)
    scale = head.scale_
    first = LogisticRegression(C=0.3 * scale**2, tol=1e-10, max_iter=10_000).fit(
        X[~held_out] / scale, y[~held_out]
    )
    assert first.coef_.shape == head.coef_.shape
    probability = first.predict_proba(X[held_out] / scale)[np.arange(held_out.sum()), y[held_out]]
    weight = np.exp(-4.0 * probability) / np.bincount(y[held_out])[y[held_out]]
    weight = torch.from_numpy(weight / weight.sum())
    features, labels = torch.from_numpy(X[held_out] / scale), torch.from_numpy(y[held_out])
    sample_loss = sigmoid_loss if classes == 2 else softmax_loss
    targets = labels[:, None].double() if classes == 2 else labels

    def objective(theta: Tensor) -> Tensor:
        logits = features @ theta[:, :-1].T + theta[:, -1]
        pull = (theta[:, :-1] - torch.from_numpy(first.coef_)).square().sum()
        return torch.vmap(sample_loss)(logits, targets) @ weight + 0.1 * pull

    theta = torch.from_numpy(np.column_stack([head.coef_ * scale, head.intercept_]))
    assert torch.func.grad(objective)(theta).abs().max() < 1e-5


@pytest.mark.parametrize("classes", [2, 3])
def test_dfr_is_the_mean_of_heads_on_balanced_subsets(classes: int) -> None:
    X, y, groups = biased(600 if classes == 2 else 3000, classes)
    head = DFRClassifier(0.3, n_subsets=30).fit(X, y, sample_group=groups)
    smallest = np.bincount(groups).min()
    assert head.group_size_ == smallest
    # With the groups' weights instead of cut groups it is about the same head, fitted once.
    scaler = StandardScaler().fit(X)
    weight = (smallest / np.bincount(groups))[groups]
    rows, kind = scaler.transform(X), {"C": 0.3, "solver": "liblinear", **L1}
    if classes == 2:
        once = LogisticRegression(**kind).fit(rows, y, weight).coef_
    else:
        once = [LogisticRegression(**kind).fit(rows, y == c, weight).coef_[0] for c in range(classes)]
    np.testing.assert_allclose(head.coef_ * scaler.scale_, once, atol=0.35)
    plain = LogisticRegression().fit(X, y)
    worst = [
        evaluate(y, fitted.predict_proba(X), groups=groups).groups.worst("accuracy")
        for fitted in (plain, head)
    ]
    assert worst[1] > worst[0] + 0.1
    again = DFRClassifier(0.3, n_subsets=30).fit(X, y, sample_group=groups)
    np.testing.assert_array_equal(again.coef_, head.coef_)
    probabilities = head.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(1), 1)
    assert (head.classes_[probabilities.argmax(1)] == head.predict(X)).all()
    assert head.loss_ == pytest.approx(evaluate(y, probabilities).overall["log_loss"], rel=1e-6)


def test_dfr_of_one_subset_with_equal_groups_is_the_published_regression() -> None:
    X, y, _ = biased(200)
    rows = np.concatenate([np.flatnonzero(y == label)[:80] for label in (0, 1)])
    X, y = X[rows], y[rows]
    scaler = StandardScaler().fit(X)
    expected = LogisticRegression(C=0.1, solver="liblinear", tol=1e-8, random_state=0, **L1).fit(
        scaler.transform(X), y
    )
    head = DFRClassifier(0.1, n_subsets=1).fit(X, y)
    np.testing.assert_allclose(head.coef_ * scaler.scale_, expected.coef_, atol=2e-3)
    np.testing.assert_allclose(
        head.decision_function(X), expected.decision_function(scaler.transform(X)), atol=0.02
    )


@pytest.mark.parametrize("head", REWEIGHTED)
def test_reweighting_helps_the_smallest_group(head: type) -> None:
    X, y, groups = biased(3000)
    new_X, new_y, new_groups = biased(3000, seed=1)
    kind = {"sample_group": groups} if head is DFRClassifier else {}
    plain, found = ha.HessianAlignedClassifier("none").fit(X, y), head().fit(X, y, **kind)
    worst = [
        evaluate(new_y, fitted.predict_proba(new_X), groups=new_groups).groups.worst("accuracy")
        for fitted in (plain, found)
    ]
    assert worst[1] > worst[0] + (0.01 if head is AFRClassifier else 0.05)


@pytest.mark.parametrize("head", [DFRClassifier, JTTClassifier])
def test_auto_finds_reweighting_where_groups_need_it(head: type) -> None:
    X, y, groups = biased(1000)
    name = next(iter(head._hyper))
    found = head("auto", scoring="worst_group_accuracy").fit(X, y, sample_group=groups)
    assert not found.plain_
    assert np.isfinite(getattr(found, f"{name}_"))
    tried = found.auto_results_
    assert tried["scores"].shape[1] == 5
    assert tried["mean_score"][tried["chosen"]] > tried["mean_score"][tried["plain"]].max()


def test_groups_too_small_for_dfr_are_named() -> None:
    X, y, groups = biased(50)
    with pytest.warns(UntrustworthyWarning, match=r"the smallest of [34] groups has [123] samples"):
        DFRClassifier(n_subsets=1).fit(X, y, sample_group=groups)
    one_of_a_kind, alone = np.eye(1, 50, dtype=int)[0], np.eye(1, 50, 49, dtype=int)[0]
    with pytest.raises(ValueError, match="draws of 1 samples from each of 2 groups never held every class"):
        DFRClassifier(n_subsets=200).fit(X[:50], one_of_a_kind, sample_group=alone)


def test_a_head_between_two(tmp_path: Path) -> None:
    samples = shifted_classes()
    names = np.array(["cat", "dog", "hen"])[samples.y]
    first = ha.HessianAlignedClassifier("none", C=0.01).fit(samples.X, names)
    second = LogisticRegression().fit(samples.X, names)
    between = interpolate_heads(first, second, 0.25)
    logits = 0.75 * first.decision_function(samples.X) + 0.25 * second.decision_function(samples.X)
    np.testing.assert_allclose(between.decision_function(samples.X), logits)
    between.save(tmp_path / "head.safetensors")
    loaded = ha.HessianAlignedClassifier.load(tmp_path / "head.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(samples.X), between.predict_proba(samples.X))
    for share in (0.0, 1.0):
        np.testing.assert_array_equal(
            interpolate_heads(first, second, share).coef_, (first, second)[int(share)].coef_
        )
    with pytest.raises(ValueError, match="share: must be a finite number of at least 0 and of at most 1"):
        interpolate_heads(first, second, 2)
    with pytest.raises(NotFittedError):
        interpolate_heads(first, LogisticRegression())
    with pytest.raises(ValueError, match=r"must have the same classes, got .* and .0, 1, 2."):
        interpolate_heads(first, LogisticRegression().fit(samples.X, samples.y))
    with pytest.raises(ValueError, match=r"the same shape of coef_, got \(3, 3\) and \(3, 2\)"):
        interpolate_heads(first, LogisticRegression().fit(samples.X[:, :2], names))
    with pytest.raises(ValueError, match="first: must be a linear classifier with coef_"):
        interpolate_heads(StandardScaler().fit(samples.X), second)


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
        (VRExClassifier("auto"), {"sample_domain": [0, 1] * 45}, "penalty_weight 'auto' needs at least 3"),
        (GroupDROClassifier("auto"), {"sample_domain": None, "sample_group": np.arange(90)},
         "sample_group: 'auto' without domains holds out a part of each group"),
        (GroupDROClassifier(), {"sample_group": [0.5] * 90}, "sample_group: group ids must be integers or"),
        (GroupDROClassifier(), {"sample_group": [0, 1]}, "sample_group: must hold one group id for each of"),
        (JTTClassifier(0.5), {}, "upweight: must be 'auto' or a finite number of at least 1, got 0.5"),
        (JTTClassifier(first_C=0), {}, "first_C: must be None or a finite number above 0, got 0"),
        (AFRClassifier(holdout=1), {}, "holdout: must be a finite number above 0 and below 1, got 1"),
        (AFRClassifier(), {"y": [0] * 89 + [1]}, "y: a share of 0.2 of each class is held out, which needs"),
        (AFRClassifier("auto"), {"sample_domain": None}, "gamma 'auto' needs at least 2 domains"),
        (DFRClassifier(n_subsets=0), {}, "n_subsets: must be a whole number of at least 1, got 0"),
        (DFRClassifier(0), {}, "C: must be 'auto' or a finite number above 0, got 0"),
        (DFRClassifier(random_state=-1), {}, "random_state: must be a whole number of at least 0, got -1"),
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


def test_jtt_fits_its_first_head_once(monkeypatch) -> None:
    data = shifted_classes()
    strengths = []
    plain = Problem.plain

    def counted(problem, decay, tol, start=None):
        strengths.append(1 / (decay * problem.data.total))
        return plain(problem, decay, tol, start)

    monkeypatch.setattr(Problem, "plain", counted)
    head = JTTClassifier(7.0, first_C=1e-3).fit(data.X, data.y)
    assert strengths == pytest.approx([1, 1e-3])
    assert not hasattr(head, "_first_heads")
    strengths.clear()
    JTTClassifier("auto", C=1.0, first_C=1e-3).fit(data.X, data.y, sample_domain=data.domains)
    # Once for each of three folds, however many weights are tried; once in the end, unless it is plain.
    assert 3 <= np.isclose(strengths, 1e-3).sum() <= 4
