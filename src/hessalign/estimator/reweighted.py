# ruff: noqa: N803 (scikit-learn's names)
r"""Linear heads fitted anew with other weights of the samples: DFR, AFR, JTT; and a head between two."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.preprocessing import StandardScaler
from sklearn.utils.validation import check_is_fitted
from typing_extensions import override

from hessalign.checks import require_number, require_whole
from hessalign.estimator.aligned import HessianAlignedClassifier
from hessalign.estimator.base import DomainWeight, Hyper, Settings, Strength, Weight
from hessalign.estimator.classifier import ClassWeight, HeadClassifier, classes_of
from hessalign.estimator.data import Head, HeadData, Samples
from hessalign.estimator.inputs import warn
from hessalign.estimator.problem import Plain, Problem
from hessalign.estimator.solver import Coordinates, Solution, solve
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning
from hessalign.inputs import Domains

# Since scikit-learn 1.8 the share of L1 is what says it, before that it was the penalty's name.
L1 = {"l1_ratio": 1.0} if LogisticRegression().get_params()["penalty"] == "deprecated" else {"penalty": "l1"}
# Times that a subset is drawn anew because it lacks a class.
MOST_DRAWS = 20
# A second head that loses more samples than so many times what it could gain may well follow noise.
LOST_FOR_NOISE = 2


class ReweightedClassifier(HeadClassifier):
    """What the heads of several steps share."""

    _has_objective: ClassVar[bool] = False

    @override
    def _codes(self, samples: Samples) -> NDArray[np.intp]:
        return np.zeros(len(samples.weight), dtype=np.intp)


class JTTClassifier(ReweightedClassifier):
    r"""Just train twice: logistic regression in which the samples that a first one gets wrong count for more.

    The first head is plain logistic regression. The second minimises the mean loss in which each sample that
    the first predicts wrongly weighs ``upweight`` times as much, with the same ``C``. Liu et al., "Just Train
    Twice: Improving Group Robustness without Training Group Information" (ICML 2021); there the first network
    is stopped early. A linear head that makes no error at all leaves nothing to count for more: take a
    smaller ``first_C``.

    What the first head gets wrong should be a group that it neglects, not noise: where a share ``e`` is
    wrong, it weighs ``upweight e / (1 − e)`` times what the others do, and the second head follows it. Of 900
    samples with a label that noise flips for 12 %, 20 makes that 2.7: the first head gets 88 % of its own
    samples right and the second 58 %, as it does with scikit-learn's weights; 3 gets 88 %. A warning tells
    where the second head loses more than twice as many samples as it could gain; ``"auto"`` chooses 1 there.

    Args:
        upweight: ``λ ≥ 1``, default 20, or ``"auto"``: 1, 3, 10, 30 or 100 by source domains held out and the
            one-standard-error rule towards 1, which is plain logistic regression. With ``sample_group`` and
            no domains a fifth of every group is held out in turn.
        C: Inverse strength of ``‖W‖²``, as in ``LogisticRegression``; ``"auto"``: chosen as well. None
            (default) is 1, or ``"auto"`` where upweight is ``"auto"``.
        first_C: That of the first head; None (default): the same.
        class_weight: None (default), ``"balanced"`` or weights by class, as in ``LogisticRegression``.
        domain_weight: ``"size"`` (default): a domain weighs as its samples do; ``"equal"``: all weigh the
            same.
        scoring: What ``"auto"`` chooses by: None (default, log-loss), ``"worst_group_accuracy"`` and what
            else [hessalign.metrics][hessalign.metrics.Scorer] names, any name of scikit-learn's, or a scorer;
            the higher the better.
        fit_intercept: False fixes the intercept at 0.
        tol: As for [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        max_iter: Most steps of each fit, default 1000.

    Attributes:
        classes_: Class labels, ascending, ``(C,)``.
        coef_: ``W``, ``(C, d)``; ``(1, d)`` for two classes.
        intercept_: ``b``, ``(C,)``; ``(1,)`` for two classes.
        domains_: Domain ids, ascending; ``[0]`` if none were given.
        upweight_: Value used.
        C_: Inverse strength used.
        error_share_: Share of the weight that the first head got wrong.
        plain_: Whether ``"auto"`` chose plain logistic regression.
        auto_results_: With ``"auto"``, everything tried, as for
            [HessianAlignedClassifier][hessalign.HessianAlignedClassifier]; of the plain head, which has no
            upweight, that is 1.
        loss_: Mean loss over all samples.
        converged_: Whether every step was; a ConvergenceWarning says what to do if not.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import JTTClassifier
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(0, 2, 300)
        >>> background = np.where(random.random(300) < 0.9, y, 1 - y)
        >>> X = 0.5 * random.normal(size=(300, 2)) + np.column_stack([2 * y, 4 * background])
        >>> head = JTTClassifier(upweight=5).fit(X, y)
        >>> head.score(X, y) > 0.7
        True
    """

    _hyper: ClassVar[Mapping[str, Hyper]] = {
        "upweight": Hyper((1.0, 3.0, 10.0, 30.0, 100.0), 1.0, {"least": 1})
    }

    def __init__(
        self,
        upweight: Weight = 20.0,
        *,
        C: Strength = None,
        first_C: float | None = None,
        class_weight: ClassWeight = None,
        domain_weight: DomainWeight = "size",
        scoring: Any = None,
        fit_intercept: bool = True,
        tol: float = 3e-4,
        max_iter: int = 1000,
    ) -> None:
        self.upweight = upweight
        self.C = C
        self.first_C = first_C
        self.class_weight = class_weight
        self.domain_weight = domain_weight
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    @override
    def _check_settings(self) -> Settings:
        if self.first_C is not None:
            require_number("first_C", self.first_C, above=0, otherwise="None or ")
        return super()._check_settings()

    @override
    def _fit_head(self, samples: Samples, outputs: int, domains: Domains, settings: Settings) -> None:
        # The samples are kept with the head: an id stands for them only as long as they live.
        self._first_heads: dict[tuple[int, float], tuple[HeadData, Solution]] = {}
        try:
            super()._fit_head(samples, outputs, domains, settings)
        finally:
            del self._first_heads

    @override
    def _solve(
        self, problem: Problem, plain: Plain, values: Mapping[str, float], tol: float, start: Head | None
    ) -> Solution:
        wrong, first = self._wrong(problem, plain, tol)
        factors = np.where(wrong, values["upweight"], 1.0)
        second = replace(plain.objective, data=problem.data.reweighted(factors))
        found = solve(
            second, first.theta if start is None else start, tol, problem.max_iter, Coordinates(second)
        )
        return replace(found, iterations=found.iterations + (first is not plain.solution) * first.iterations)

    def _wrong(self, problem: Problem, plain: Plain, tol: float) -> tuple[NDArray[np.bool_], Solution]:
        """Which rows the first head gets wrong, and that head."""
        first = plain.solution
        if self.first_C is not None:
            # It depends on no upweight: one fit for all that are tried on the same samples.
            key = id(problem.data), tol
            if key not in self._first_heads:
                decay = self._decay(float(self.first_C), problem.data.total)
                self._first_heads[key] = problem.data, problem.plain(decay, tol).solution
            first = self._first_heads[key][1]
        return classes_of(_logits(problem.data, first.theta)) != _labels(problem.data), first

    @override
    def _remark(
        self, problem: Problem, plain: Plain, solution: Solution, values: Mapping[str, float]
    ) -> None:
        wrong, _ = self._wrong(problem, plain, self.tol)
        shares = problem.data.shares.double().cpu().numpy()
        self.error_share_ = float(shares @ wrong)
        if not wrong.any() and values["upweight"] > 1:
            warn(
                self,
                "upweight above 1 has no effect: the first head makes no error on the samples; take a "
                "smaller first_C or C",
                NoEffectWarning,
            )
        lost = classes_of(_logits(problem.data, solution.theta)) != _labels(problem.data)
        lost_share = float(shares @ (lost & ~wrong))
        if lost_share > LOST_FOR_NOISE * self.error_share_ > 0:
            warn(
                self,
                f"the second head gets {100 * lost_share:.0f} % of the samples wrong that the first gets "
                f"right, and the first gets {100 * self.error_share_:.0f} % wrong in all: it follows what "
                "may be noise; lower upweight, or let 'auto' choose it",
                UntrustworthyWarning,
            )


class AFRClassifier(ReweightedClassifier):
    r"""Automatic feature reweighting: fitted anew on what a first head is unsure of, and pulled to that head.

    A first head is fitted on all samples but a share ``holdout``, plain logistic regression. On that share
    the second minimises

        Σ_i μ_i ℓ_i(W, b)  +  pull ‖W − W₁‖²,     μ_i ∝ exp(−γ p_i) / n_{y_i},

    ``p_i`` being the probability that the first head ``W₁`` gives to the sample's class ``y_i`` of
    ``n_{y_i}`` samples, on ``X / scale_``. Qiu, Potapczynski, Izmailov and Wilson, "Simple and Fast Group
    Robustness by Automatic Feature Reweighting" (ICML 2023); there the first head is a network's.

    Args:
        gamma: ``γ ≥ 0``, default 4, or ``"auto"``: 1, 4, 8, 14 or 20, or plain logistic regression, by source
            domains held out and the one-standard-error rule towards the latter. With ``sample_group`` and no
            domains a fifth of every group is held out in turn.
        pull: Weight of the distance to the first head, default 0.2, or ``"auto"``: 0.05, 0.2 or 1.
        C: Inverse strength of ``‖W‖²`` of the first head, as in ``LogisticRegression``; ``"auto"``: chosen as
            well. None (default) is 1, or ``"auto"`` where gamma or pull is ``"auto"``.
        holdout: Share of each class that the second head is fitted on, default 0.2.
        random_state: Which samples these are, default 0.
        class_weight: None (default), ``"balanced"`` or weights by class, as in ``LogisticRegression``.
        domain_weight: ``"size"`` (default): a domain weighs as its samples do; ``"equal"``: all weigh the
            same.
        scoring: What ``"auto"`` chooses by: None (default, log-loss), ``"worst_group_accuracy"`` and what
            else [hessalign.metrics][hessalign.metrics.Scorer] names, any name of scikit-learn's, or a scorer;
            the higher the better.
        fit_intercept: False fixes the intercept at 0.
        tol: As for [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        max_iter: Most steps of each fit, default 1000.

    Attributes:
        classes_: Class labels, ascending, ``(C,)``.
        coef_: ``W``, ``(C, d)``; ``(1, d)`` for two classes.
        intercept_: ``b``, ``(C,)``; ``(1,)`` for two classes.
        domains_: Domain ids, ascending; ``[0]`` if none were given.
        gamma_: Value used.
        pull_: Value used.
        C_: Inverse strength used.
        plain_: Whether ``"auto"`` chose plain logistic regression.
        auto_results_: With ``"auto"``, everything tried, as for
            [HessianAlignedClassifier][hessalign.HessianAlignedClassifier]; of the plain head, which has no
            gamma and pull, that is NaN.
        loss_: Mean loss over all samples.
        converged_: Whether every step was; a ConvergenceWarning says what to do if not.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import AFRClassifier
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(0, 2, 300)
        >>> background = np.where(random.random(300) < 0.9, y, 1 - y)
        >>> X = 0.5 * random.normal(size=(300, 2)) + np.column_stack([2 * y, 4 * background])
        >>> head = AFRClassifier().fit(X, y)
        >>> head.score(X, y) > 0.7
        True
    """

    _hyper: ClassVar[Mapping[str, Hyper]] = {
        "gamma": Hyper((1.0, 4.0, 8.0, 14.0, 20.0), None),
        "pull": Hyper((0.05, 0.2, 1.0), None),
    }

    def __init__(
        self,
        gamma: Weight = 4.0,
        pull: Weight = 0.2,
        *,
        C: Strength = None,
        holdout: float = 0.2,
        random_state: int = 0,
        class_weight: ClassWeight = None,
        domain_weight: DomainWeight = "size",
        scoring: Any = None,
        fit_intercept: bool = True,
        tol: float = 3e-4,
        max_iter: int = 1000,
    ) -> None:
        self.gamma = gamma
        self.pull = pull
        self.C = C
        self.holdout = holdout
        self.random_state = random_state
        self.class_weight = class_weight
        self.domain_weight = domain_weight
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    @override
    def _check_settings(self) -> Settings:
        require_number("holdout", self.holdout, above=0, below=1)
        require_whole("random_state", self.random_state, least=0)
        return super()._check_settings()

    @override
    def _solve(
        self, problem: Problem, plain: Plain, values: Mapping[str, float], tol: float, start: Head | None
    ) -> Solution:
        data, labels = problem.data, _labels(problem.data)
        held_out = self._held_out(labels, data.ids)
        kept = float(data.shares.double().cpu().numpy() @ ~held_out)
        objective = replace(
            plain.objective,
            data=data.reweighted(np.where(held_out, 0.0, 1.0)),
            decay=plain.objective.decay / kept,
        )
        first = solve(objective, plain.solution.theta, tol, problem.max_iter, Coordinates(objective))
        logits = _logits(data, first.theta)
        own = self._log_probabilities(logits, is_plain=True)[np.arange(len(labels)), labels]
        counts = np.bincount(labels[held_out], _parts(data)[held_out], minlength=len(self.classes_))
        factors = np.where(held_out, np.exp(-values["gamma"] * np.exp(own)) / counts[labels], 0.0)
        again = replace(
            objective, data=data.reweighted(factors), decay=2 * values["pull"], anchor=first.theta
        )
        second = solve(
            again, first.theta if start is None else start, tol, problem.max_iter, Coordinates(again)
        )
        done = first.converged and second.converged
        return replace(second, iterations=first.iterations + second.iterations, is_complete=done)

    def _held_out(self, labels: NDArray[np.intp], ids: NDArray[np.intp] | None = None) -> NDArray[np.bool_]:
        """Rows that the second head is fitted on: a share of each class, samples with all their views."""
        ids = np.arange(len(labels)) if ids is None else ids
        of_each = labels[np.unique(ids, return_index=True)[1]]
        held_out = np.zeros(len(of_each), dtype=bool)
        splitter = StratifiedShuffleSplit(
            1, test_size=float(self.holdout), random_state=int(self.random_state)
        )
        try:
            _, chosen = next(splitter.split(of_each, of_each))
        except ValueError as error:
            raise ValueError(
                f"y: a share of {self.holdout:g} of each class is held out, which needs more samples of each "
                f"class ({error})"
            ) from error
        held_out[chosen] = True
        return held_out[ids]


class DFRClassifier(ReweightedClassifier):
    r"""Deep feature reweighting: the mean of L1 logistic regressions on subsets with all groups of one size.

    Features are standardised. Each of ``n_subsets`` times every group is cut, at random, to the size of the
    smallest, and an L1 logistic regression is fitted (liblinear, its intercept penalised, too); coefficients
    and intercepts are averaged. More than two classes are one against the rest each. Groups are
    ``sample_group``, or else domain × class. Kirichenko, Izmailov and Wilson, "Last Layer Re-Training is
    Sufficient for Robustness to Spurious Correlations" (ICLR 2023).

    Args:
        C: Inverse strength of ``‖W‖₁`` as in ``LogisticRegression``, default 1; or ``"auto"``: 0.01, 0.03,
            0.07, 0.1, 0.3, 0.7 or 1 as published, or plain logistic regression, by source domains held out
            and the one-standard-error rule towards the latter. With ``sample_group`` and no domains a fifth
            of every group is held out in turn.
        plain_C: Inverse strength of ``‖W‖²`` of the plain head that ``"auto"`` compares with; None (default):
            chosen, too.
        n_subsets: How many heads are averaged, default 20.
        random_state: Of the subsets, default 0.
        class_weight: None (default), ``"balanced"`` or weights by class, as in ``LogisticRegression``.
        domain_weight: ``"size"`` (default): a domain weighs as its samples do; ``"equal"``: all weigh the
            same.
        scoring: What ``"auto"`` chooses by: None (default, log-loss), ``"worst_group_accuracy"`` and what
            else [hessalign.metrics][hessalign.metrics.Scorer] names, any name of scikit-learn's, or a scorer;
            the higher the better.
        fit_intercept: False fixes the intercept at 0.
        tol: As for [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        max_iter: Most steps of each fit, default 1000.

    Attributes:
        classes_: Class labels, ascending, ``(C,)``.
        coef_: ``W``, ``(C, d)``; ``(1, d)`` for two classes.
        intercept_: ``b``, ``(C,)``; ``(1,)`` for two classes.
        domains_: Domain ids, ascending; ``[0]`` if none were given.
        C_: Value used.
        plain_C_: That of the plain head.
        group_size_: Samples of each group in each subset.
        plain_: Whether ``"auto"`` chose plain logistic regression.
        auto_results_: With ``"auto"``, everything tried, as for
            [HessianAlignedClassifier][hessalign.HessianAlignedClassifier]; of the plain head, which has no
            C, that is NaN.
        loss_: Mean loss over all samples.
        converged_: Whether every step was; a ConvergenceWarning says what to do if not.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import DFRClassifier
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(0, 2, 300)
        >>> background = np.where(random.random(300) < 0.9, y, 1 - y)
        >>> X = 0.5 * random.normal(size=(300, 2)) + np.column_stack([2 * y, 4 * background])
        >>> head = DFRClassifier().fit(X, y, sample_group=2 * y + background)
        >>> head.score(X, y) > 0.7
        True
    """

    _strength_name: ClassVar[str] = "plain_C"
    _hyper: ClassVar[Mapping[str, Hyper]] = {
        "C": Hyper((0.01, 0.03, 0.07, 0.1, 0.3, 0.7, 1.0), None, {"above": 0})
    }
    _own_strength: ClassVar[bool] = False
    _has_no_axes: ClassVar[bool] = False
    _uses_groups: ClassVar[bool] = True

    def __init__(
        self,
        C: Weight = 1.0,
        *,
        plain_C: Strength = None,
        n_subsets: int = 20,
        random_state: int = 0,
        class_weight: ClassWeight = None,
        domain_weight: DomainWeight = "size",
        scoring: Any = None,
        fit_intercept: bool = True,
        tol: float = 3e-4,
        max_iter: int = 1000,
    ) -> None:
        self.C = C
        self.plain_C = plain_C
        self.n_subsets = n_subsets
        self.random_state = random_state
        self.class_weight = class_weight
        self.domain_weight = domain_weight
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter

    @override
    def _check_settings(self) -> Settings:
        require_whole("n_subsets", self.n_subsets, least=1)
        require_whole("random_state", self.random_state, least=0)
        return super()._check_settings()

    @override
    def _codes(self, samples: Samples) -> NDArray[np.intp]:
        return self._group_codes(samples)

    @override
    def _normalised(self, logits: NDArray[np.float64], is_plain: bool) -> NDArray[np.float64]:
        return logits if is_plain else np.asarray(log_expit(logits))

    @override
    def _solve(
        self, problem: Problem, plain: Plain, values: Mapping[str, float], tol: float, start: Head | None
    ) -> Solution:
        data, labels = problem.data, _labels(problem.data)
        features = data.rows[:, : data.width].double().cpu().numpy()
        parts = None if data.ids is None else _parts(data)
        scaler = StandardScaler(with_mean=self.fit_intercept).fit(features, sample_weight=parts)
        features = scaler.transform(features)
        random = np.random.default_rng(int(self.random_state))
        shares = data.shares.double().cpu().numpy()
        weight = None if np.ptp(shares) == 0 and data.ids is None else shares * sum(data.counts)
        heads, is_complete = [], True
        for _ in range(int(self.n_subsets)):
            rows = _subset(data, labels, random)
            fitted = self._fit_subset(
                features[rows], labels[rows], values["C"], weight, rows, random, problem
            )
            is_complete &= bool(max(each.n_iter_.max() for each in fitted) < problem.max_iter)
            heads.append([np.append(each.coef_[0], each.intercept_) for each in fitted])
        mean = np.mean(heads, axis=0)
        weights = mean[:, :-1] / scaler.scale_
        offset = scaler.mean_ if self.fit_intercept else np.zeros(data.width)
        theta = np.column_stack([weights, mean[:, -1] - weights @ offset])[:, : data.shape[1]]
        return Solution(theta, 0.0, 0.0, int(self.n_subsets), is_complete)

    def _fit_subset(
        self,
        features: NDArray[np.float64],
        labels: NDArray[np.intp],
        strength: float,
        weight: NDArray[np.float64] | None,
        rows: NDArray[np.intp],
        random: np.random.Generator,
        problem: Problem,
    ) -> list[LogisticRegression]:
        """The head of a subset: one regression for two classes, else one for each against the rest."""
        regression = LogisticRegression(
            C=strength,
            solver="liblinear",
            fit_intercept=self.fit_intercept,
            max_iter=problem.max_iter,
            random_state=int(random.integers(2**31)),
            **L1,
        )
        passed = {} if weight is None else {"sample_weight": weight[rows]}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # told once, of all subsets
            if problem.data.shape[0] == 1:
                return [regression.fit(features, labels, **passed)]
            return [
                LogisticRegression(**regression.get_params()).fit(features, labels == label, **passed)
                for label in range(problem.data.shape[0])
            ]

    @override
    def _remark(
        self, problem: Problem, plain: Plain, solution: Solution, values: Mapping[str, float]
    ) -> None:
        data, labels = problem.data, _labels(problem.data)
        found = self._log_probabilities(_logits(data, solution.theta), self.plain_)
        self.loss_ = float(-found[np.arange(len(labels)), labels] @ data.shares.double().cpu().numpy())
        self.group_size_ = min(data.counts)
        if self.group_size_ < 2 * len(self.classes_) and not self.plain_:
            warn(
                self,
                f"the smallest of {len(data.sizes)} groups has {self.group_size_} samples, so a subset has "
                f"{self.group_size_ * len(data.sizes)}: heads fitted on so few are not to be trusted",
                UntrustworthyWarning,
            )


def interpolate_heads(first: Any, second: Any, share: float = 0.5) -> HessianAlignedClassifier:
    """A head between two: ``(1 − share) · first + share · second``, coefficients and intercepts.

    Wortsman et al., "Robust fine-tuning of zero-shot models" (WiSE-FT, CVPR 2022), for heads on the same
    features: from the one that was there, a zero-shot head perhaps, to one that was fitted.

    Args:
        first: A fitted linear classifier, of hessalign or scikit-learn, with ``coef_``, ``intercept_`` and
            ``classes_``.
        second: Another with the same classes and features.
        share: Of the second, 0 to 1, default 0.5.

    Returns:
        A fitted classifier that predicts and can be saved; it has no attributes of a fit.

    Raises:
        NotFittedError: If one is not fitted.
        ValueError: If classes or features differ, or the share is out of range.

    Examples:
        >>> import numpy as np
        >>> from sklearn.linear_model import LogisticRegression
        >>> from hessalign.estimator import interpolate_heads
        >>> X, y = np.array([[0.0], [1.0], [2.0], [3.0]]), [0, 0, 1, 1]
        >>> weak, strong = LogisticRegression(C=0.01).fit(X, y), LogisticRegression(C=100).fit(X, y)
        >>> between = interpolate_heads(weak, strong, 0.25)
        >>> bool(between.coef_ == 0.75 * weak.coef_ + 0.25 * strong.coef_)
        True
    """
    require_number("share", share, least=0, most=1)
    for name, head in (("first", first), ("second", second)):
        check_is_fitted(head)
        if not all(hasattr(head, attribute) for attribute in ("coef_", "intercept_", "classes_")):
            raise ValueError(
                f"{name}: must be a linear classifier with coef_, intercept_ and classes_, got a "
                f"{type(head).__name__}"
            )
    if not np.array_equal(first.classes_, second.classes_):
        raise ValueError(
            f"first, second: must have the same classes, got {first.classes_.tolist()} and "
            f"{second.classes_.tolist()}"
        )
    if first.coef_.shape != second.coef_.shape:
        raise ValueError(
            f"first, second: must have the same shape of coef_, got {first.coef_.shape} and "
            f"{second.coef_.shape}"
        )
    result = HessianAlignedClassifier("none")
    result.classes_, result.plain_ = second.classes_, False
    result.coef_ = (1 - share) * first.coef_ + share * second.coef_
    result.intercept_ = np.ones(len(result.coef_)) * (
        (1 - share) * np.asarray(first.intercept_) + share * np.asarray(second.intercept_)
    )
    result.n_features_in_ = result.coef_.shape[1]
    if hasattr(second, "feature_names_in_"):
        result.feature_names_in_ = second.feature_names_in_
    return result


def _labels(data: HeadData) -> NDArray[np.intp]:
    """Position of each row's class."""
    targets = data.targets.double().cpu().numpy()
    return np.asarray(targets[:, 0] if targets.shape[1] == 1 else targets.argmax(1), dtype=np.intp)


def _logits(data: HeadData, theta: Head) -> NDArray[np.float64]:
    weight = torch.as_tensor(theta, dtype=data.rows.dtype, device=data.rows.device)
    return data.logits(weight).double().cpu().numpy()


def _parts(data: HeadData) -> NDArray[np.float64]:
    """The part of its sample that each row is."""
    return np.ones(len(data.rows)) if data.ids is None else 1 / np.bincount(data.ids)[data.ids]


def _subset(data: HeadData, labels: NDArray[np.intp], random: np.random.Generator) -> NDArray[np.intp]:
    """Rows of as many samples of every group as the smallest has, and of every class at least one."""
    starts, size = np.cumsum([0, *data.counts]), min(data.counts)
    classes = len(np.unique(labels))
    for _ in range(MOST_DRAWS):
        rows = np.concatenate(
            [
                start + random.choice(count, size, replace=False)
                for start, count in zip(starts, data.counts, strict=False)
            ]
        )
        if data.ids is not None:  # samples are numbered otherwise than they are sorted by their groups
            seen = data.ids[np.sort(np.unique(data.ids, return_index=True)[1])]
            rows = np.flatnonzero(np.isin(data.ids, seen[rows]))
        if len(np.unique(labels[rows])) == classes:
            return rows
    raise ValueError(
        f"sample_group: {MOST_DRAWS} draws of {size} samples from each of {len(data.sizes)} groups never "
        "held every class; leave out the smallest groups, or let groups be of one class each"
    )
