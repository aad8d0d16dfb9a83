# ruff: noqa: N803 (scikit-learn's names)
r"""Linear heads whose gradients and Hessians agree across domains: classification and regression."""

import inspect
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import Tags
from typing_extensions import override

from hessalign.alignment.penalty import READ_BY, without_effect
from hessalign.alignment.penalty import Method as PenaltyMethod
from hessalign.checks import require_choice, require_whole
from hessalign.estimator.auto import HeldOutScore
from hessalign.estimator.base import (
    TERM,
    DomainWeight,
    HeadEstimator,
    Hyper,
    Settings,
    Strength,
    Weight,
    decades,
    logits_of,
    without,
)
from hessalign.estimator.classifier import ClassWeight, HeadClassifier
from hessalign.estimator.data import LARGEST, Head, HeadData, Samples
from hessalign.estimator.inputs import checked, warn
from hessalign.estimator.penalties import Alignment, Penalty
from hessalign.estimator.solver import Solution
from hessalign.exceptions import NoEffectWarning
from hessalign.head import SquaredError
from hessalign.head.losses import Activation
from hessalign.head.statistics import Centre

Method = PenaltyMethod | Literal["none"]
METHODS = ("none", *get_args(PenaltyMethod))
OF_CURVATURE_ALONE = ("diagonal", "hutchinson", "frobenius", "spectral")

# What the named activations can predict.
RANGES = {
    "identity": (-np.inf, np.inf),
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softplus": (0.0, np.inf),
}


class AlignedHead(HeadEstimator):
    """What both share: the alignment penalty."""

    _hyper: ClassVar[Mapping[str, Hyper]] = {"beta": TERM, "alpha": TERM}
    _compares: ClassVar[str | None] = "alignment"
    _plain_by: ClassVar[str] = "method='none'"

    method: Method
    alpha: Weight
    beta: Weight
    probes: int
    centre: Centre

    @override
    def _check_settings(self) -> Settings:
        require_choice("method", self.method, METHODS)
        require_choice("centre", self.centre, get_args(Centre))
        if self.method == "hutchinson":
            require_whole("probes", self.probes, least=1)
        settings = super()._check_settings()
        defaults = inspect.signature(type(self).__init__).parameters
        unread = without_effect(
            self.method, **{name: (getattr(self, name), defaults[name].default) for name in READ_BY}
        )
        if unread is not None:
            warn(self, unread, NoEffectWarning)
        if self.method == "none":
            return Settings(without(settings, "alpha", "beta").values, self._check_strength(False))
        return without(settings, "alpha") if self.method == "gradient" else settings

    @override
    def _penalty(self) -> Penalty | None:
        if self.method == "none":
            return None
        return Alignment(self.method, int(self.probes), self.centre)

    @override
    def _remedy(self, solution: Solution) -> str:
        advice = super()._remedy(solution)
        if self.method == "spectral" and solution.iterations < self.max_iter:
            return f"{advice}; the spectral norm has kinks, where no gradient vanishes"
        return advice


class HessianAlignedClassifier(AlignedHead, HeadClassifier):
    r"""Logistic regression with alignment of the head's gradients and Hessians across domains.

    Minimises, over ``W`` and ``b``, with the ``n`` samples of all domains,

        L(W, b)  +  L° [ α · D_H / D_H°  +  β · D_G / D_G° ]  +  (1/(2 C n)) ‖W‖²

    ``L`` is the mean loss, sigmoid cross-entropy of one logit for two classes, softmax cross-entropy for
    more. ``D_H`` is the Hessian distance of [HessianAlignment][hessalign.HessianAlignment] and ``D_G`` is
    ``‖G_e − Ḡ‖²``, means over domains with ``domain_weight``, both by the head on ``X / scale_``, ``scale_``
    being the root mean square of all features. ``L°``, ``D_H°`` and ``D_G°`` are their values where the fit
    without alignment ends. So α = 1 weighs as much as the loss there, whatever the scale of the features, and
    the objective, and with it the loss, can rise by no more than ``(α + β) L°``. With α = β = 0 the
    coefficients are those of scikit-learn's ``LogisticRegression(C=C)``. A class may be missing from a
    domain.

    The penalty is not convex. L-BFGS starts where plain logistic regression ends and goes on along growing
    weights; the result is a stationary point; nothing is drawn at random. See "Understanding Hessian
    Alignment for Domain Generalization" (Hemati et al., ICCV 2023), Proposition 4.

    Args:
        method: ``"gradient"``, ``"hgp"`` (default), ``"hutchinson"``, ``"diagonal"``, ``"frobenius"``,
            ``"spectral"``, or ``"none"`` for no alignment. Hutchinson is the exact expectation over its
            probes. Hutchinson and Frobenius cost the smaller of ``n d² C²/2`` and ``n² (d + 3C)`` operations
            a step, spectral a product with the Hessians for each Lanczos step, the others ``n d C``.
        alpha: Weight of the Hessian distance, in units of the plain fit's loss, default 1e-3, or ``"auto"``:
            chosen from 0, 0.1, 1, 10, 100 and 1,000 by ``scoring`` on source domains held out, each in turn
            (more than five in five parts), by the one-standard-error rule: the smallest weights that score no
            worse than the best by more than one standard error. Needs at least three domains.
        beta: Weight of the gradient distance in the same units, default 1e-2, or ``"auto"``.
        probes: Read by ``"hutchinson"`` only, default 100.
        centre: Read by ``"hgp"`` only: ``"mean_loss"`` (default) or ``"mean_product"``. A NoEffectWarning
            tells of an option that the method does not read, ``alpha`` among them.
        C: Inverse strength of ``‖W‖²``, as in ``LogisticRegression``; ``"auto"``: chosen on domains held
            out. None (default) is 1, or ``"auto"`` where alpha or beta is ``"auto"``.
        class_weight: None (default), ``"balanced"`` or weights by class, as in ``LogisticRegression``.
        domain_weight: ``"size"`` (default): a domain weighs as its samples do, in the loss and in the mean of
            the distances, so that a domain of one sample does not weigh like one of a thousand. ``"equal"``:
            all domains weigh the same, as in the paper.
        scoring: What ``"auto"`` chooses by: None (default, log-loss), ``"accuracy"``, any name of
            scikit-learn's, ``"worst_group_accuracy"`` and what else
            [hessalign.metrics][hessalign.metrics.Scorer] names, or a scorer; the higher the better.
        fit_intercept: False fixes the intercept at 0; there is nothing of it to align then.
        tol: The fit has converged where no element of the objective's gradient by the head on
            ``X / scale_`` exceeds ``tol · (1 + α + β)`` times a sample's gradient at ``W = 0`` (root mean
            square); default 3e-4, about the 1e-4 of ``LogisticRegression``, whose unit is another.
        max_iter: Most L-BFGS steps, once for the start and once for each weight on the way; default 1000.
        warm_start: Start at the last fit's coefficients if the shapes agree.
        dtype: ``"float64"`` (default), or ``"float32"``, faster.
        device: Where PyTorch computes, default ``"cpu"``.

    Attributes:
        classes_: Class labels, ascending, ``(C,)``.
        coef_: ``W``, ``(C, d)``; ``(1, d)`` for two classes.
        intercept_: ``b``, ``(C,)``; ``(1,)`` for two classes.
        domains_: Domain ids, ascending; ``[0]`` if none were given.
        alpha_: Weight used; 0 for a method without a Hessian distance.
        beta_: Weight used.
        C_: Inverse strength used.
        scale_: Root mean square of all features.
        plain_: Whether ``"auto"`` chose plain logistic regression.
        auto_results_: With ``"auto"``, of everything tried: ``alpha``, ``beta``, ``C``, ``plain``,
            ``mean_score``, ``standard_error`` (of the mean difference to the best: from the domains'
            differences, and no less than what the samples within domains make uncertain), ``chosen``; and,
            with a column for each domain of ``domains_`` held out, ``scores``, ``converged`` and ``refused``
            (heads whose loss exceeds that of a constant prediction).
        loss_: Mean loss over all samples.
        penalty_: The alignment penalty, weights included.
        objective_: What was minimised.
        gradient_norm_: Largest absolute element of the objective's gradient by the head on ``X / scale_``.
        converged_: Whether that is within the tolerance. If not, a ConvergenceWarning says what to do.
        n_iter_: L-BFGS steps, those to the start included.
        n_features_in_: ``d``.
        feature_names_in_: Names of the features, if they have any.

    Examples:
        >>> import numpy as np
        >>> from hessalign import HessianAlignedClassifier
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(0, 2, 300)
        >>> hospital = random.choice(["a", "b", "c"], 300)
        >>> X = random.normal(size=(300, 5)) + y[:, None]
        >>> classifier = HessianAlignedClassifier("hgp", alpha=1.0, beta=1.0)
        >>> classifier.fit(X, y, sample_domain=hospital).converged_
        True
    """

    def __init__(
        self,
        method: Method = "hgp",
        alpha: Weight = 1e-3,
        beta: Weight = 1e-2,
        *,
        probes: int = 100,
        centre: Centre = "mean_loss",
        C: Strength = None,
        class_weight: ClassWeight = None,
        domain_weight: DomainWeight = "size",
        scoring: Any = None,
        fit_intercept: bool = True,
        tol: float = 3e-4,
        max_iter: int = 1000,
        warm_start: bool = False,
        dtype: Literal["float64", "float32"] = "float64",
        device: str = "cpu",
    ) -> None:
        self.method = method
        self.alpha = alpha
        self.beta = beta
        self.probes = probes
        self.centre = centre
        self.C = C
        self.class_weight = class_weight
        self.domain_weight = domain_weight
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.dtype = dtype
        self.device = device


class HessianAlignedRegressor(RegressorMixin, AlignedHead):  # type: ignore[misc]
    r"""Least squares with alignment of the head's gradients and Hessians across domains.

    Minimises, over ``W`` and ``b``, with the ``n`` samples of all domains,

        L(W, b)  +  L° [ α · D_H / D_H°  +  β · D_G / D_G° ]  +  (λ/(2 n)) ‖W‖²,     λ = l2

    with the mean loss ``L = (1/n) Σ_i ½ ‖σ(W z_i + b) − y_i‖²`` and an element-wise activation ``σ``; the
    distances and the units ``L°``, ``D_H°`` and ``D_G°`` are those of
    [HessianAlignedClassifier][hessalign.HessianAlignedClassifier]. With α = β = 0 and the identity the
    coefficients are those of scikit-learn's ``Ridge(alpha=l2)``. With the identity the Hessian depends on
    the features alone: ``"diagonal"``, ``"hutchinson"``, ``"frobenius"`` and ``"spectral"`` then have no
    Hessian distance to reduce (a NoEffectWarning says so), and only ``"hgp"`` and ``"gradient"`` change the
    fit by what they are named after.

    With the identity all of it is a quadratic form, and the minimum is the solution of one system of
    equations. With another activation and α, β > 0 L-BFGS starts where the fit without alignment ends and
    goes on along growing weights; the result is a stationary point; nothing is drawn at random. See
    "Understanding Hessian Alignment for Domain Generalization" (Hemati et al., ICCV 2023), Proposition 5.

    Args:
        method: As for [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        alpha: Weight of the Hessian distance, in units of the plain fit's loss, default 1e-3, or ``"auto"``:
            chosen as by the classifier, by the mean squared error if ``scoring`` names nothing else.
        beta: Weight of the gradient distance in the same units, default 1e-2, or ``"auto"``.
        activation: ``σ``: ``"identity"`` (default), ``"sigmoid"``, ``"tanh"``, ``"softplus"``, or any
            element-wise function of a tensor that can be differentiated twice.
        probes: Read by ``"hutchinson"`` only, default 100.
        centre: Read by ``"hgp"`` only: ``"mean_loss"`` (default) or ``"mean_product"``.
        l2: Strength of ``‖W‖²``, as alpha in ``Ridge``; ``"auto"``: chosen on domains held out. None
            (default) is 1, or ``"auto"`` where alpha or beta is ``"auto"``.
        domain_weight: As for the classifier, and so are ``fit_intercept``, ``tol``, ``max_iter``,
            ``warm_start``, ``dtype`` and ``device``.
        scoring: What ``"auto"`` chooses by: None (default, mean squared error), any name of scikit-learn's
            or a scorer; the higher the better.

    Attributes:
        coef_: ``W``, ``(C, d)``; ``(d,)`` if ``y`` was ``(n,)``.
        intercept_: ``b``, ``(C,)``; a number if ``y`` was ``(n,)``.
        l2_: Strength used.
        domains_: Domain ids, ascending; this and all other attributes are as for the classifier, with
            ``l2`` in the place of ``C`` in ``auto_results_``.

    Examples:
        >>> import numpy as np
        >>> from hessalign import HessianAlignedRegressor
        >>> random = np.random.default_rng(0)
        >>> X, camera = random.normal(size=(200, 4)), random.integers(0, 2, 200)
        >>> y = X @ [1.0, -1.0, 0.5, 0.0] + 0.1 * random.normal(size=200)
        >>> regressor = HessianAlignedRegressor("hgp").fit(X, y, sample_domain=camera)
        >>> regressor.score(X, y) > 0.99
        True
    """

    _strength_name: ClassVar[str] = "l2"

    def __init__(
        self,
        method: Method = "hgp",
        alpha: Weight = 1e-3,
        beta: Weight = 1e-2,
        *,
        activation: str | Activation = "identity",
        probes: int = 100,
        centre: Centre = "mean_loss",
        l2: Strength = None,
        domain_weight: DomainWeight = "size",
        scoring: Any = None,
        fit_intercept: bool = True,
        tol: float = 3e-4,
        max_iter: int = 1000,
        warm_start: bool = False,
        dtype: Literal["float64", "float32"] = "float64",
        device: str = "cpu",
    ) -> None:
        self.method = method
        self.alpha = alpha
        self.beta = beta
        self.activation = activation
        self.probes = probes
        self.centre = centre
        self.l2 = l2
        self.domain_weight = domain_weight
        self.scoring = scoring
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.dtype = dtype
        self.device = device

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        sample_domain: ArrayLike | None = None,
        sample_id: ArrayLike | None = None,
    ) -> Self:
        """Fit the head.

        Args:
            X: Features, ``(n, d)``, finite. Standardise them in a pipeline if their scales differ.
            y: Targets, ``(n,)`` or ``(n, C)``, finite.
            sample_weight: Weight of each sample, ``(n,)``, at least 0: in the loss, and in its domain's mean
                gradient and Hessian. All 1 by default.
            sample_domain: Domain id of each sample, ``(n,)``, integers or strings. Without it there is
                nothing to align; a NoEffectWarning says so.
            sample_id: Id of the sample that each row is a view of, ``(n,)``, integers or strings; its first
                row is the sample as it is. Views of one sample share its weight, are never on both sides of a
                split, and ``"auto"`` scores the first row alone. By default each row is a sample.

        Returns:
            The regressor itself.

        Raises:
            ValueError: As for the classifier.
        """
        settings = self._check_settings()
        features, outcomes = checked(
            self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True
        )
        self._check_targets(outcomes)
        targets = np.asarray(outcomes, dtype=self.dtype).reshape(len(features), -1)
        if self.activation == "identity" and self.method in OF_CURVATURE_ALONE and self.alpha != 0:
            warn(
                self,
                f"alpha above 0 has no effect: with the identity the Hessian that {self.method!r} compares "
                "depends on the features alone; set alpha=0, or take method='hgp' or 'gradient'",
                NoEffectWarning,
            )
            settings = without(settings, "alpha")
        samples, domains = self._read(
            features, targets, sample_weight, sample_domain, None, sample_id, settings
        )
        self._one_target = np.ndim(outcomes) == 1
        self._fit_head(samples, targets.shape[1], domains, settings)
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """``σ(W z + b)``, ``(n,)`` or ``(n, C)`` as ``y`` was."""
        predicted = self._activated(self._logits(X))
        return predicted[:, 0] if self.coef_.ndim == 1 else predicted

    def __sklearn_tags__(self) -> Tags:
        tags: Any = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    @override
    def _loss(self, outputs: int) -> SquaredError:
        return SquaredError(self.activation)

    @override
    def _decay(self, strength: float, total: float) -> float:
        return strength / total

    @override
    def _strengths(self, scale: float) -> list[float]:
        return [1 / inverse for inverse in decades(scale)]

    @property
    @override
    def _strength_limits(self) -> Mapping[str, float]:
        return {"least": 0}

    def _check_targets(self, y: NDArray[Any]) -> None:
        if y.dtype.kind not in "biuf":
            raise ValueError(f"y: targets must be real numbers, got dtype {y.dtype}")
        largest, limit = float(np.abs(y).max()), LARGEST[self.dtype]
        if largest != 0 and not 1 / limit < largest < limit:
            raise ValueError(
                f"y: targets must lie between {1 / limit:g} and {limit:g} by absolute value, or be 0; the "
                f"largest is {largest:g}; rescale them"
            )

    @override
    def _constant_loss(self, data: HeadData) -> float:
        shares = data.shares.unsqueeze(1)
        constant = SquaredError(self.activation).predict(data.targets.new_zeros(1, data.shape[0]))
        if data.width < data.shape[1] and isinstance(self.activation, str):
            constant = (data.targets * shares).sum(0).clamp(*RANGES[self.activation])
        return float(((data.targets - constant).square() * shares).sum() / 2)

    @override
    def _set_head(self, head: Head) -> None:
        self.coef_, self.intercept_ = head[:, :-1].copy(), head[:, -1].copy()
        if self._one_target:
            self.coef_, self.intercept_ = self.coef_[0], float(self.intercept_[0])

    @override
    def _score_of(self, head: Head, samples: Samples, is_plain: bool) -> HeldOutScore:
        targets = np.asarray(samples.targets, dtype=np.float64)
        if self.scoring is None or (
            isinstance(self.scoring, str) and self.scoring == "neg_mean_squared_error"
        ):
            predicted = self._activated(logits_of(head, samples.features))
            scores, weight = -np.square(predicted - targets).mean(1), samples.weight / samples.weight.sum()
            return HeldOutScore(float(scores @ weight), scores, weight)
        return self._score_by_scorer(head, samples, is_plain, targets[:, 0] if self._one_target else targets)

    def _activated(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        predicted = SquaredError(self.activation).predict(torch.from_numpy(logits))
        return np.asarray(predicted.detach())
