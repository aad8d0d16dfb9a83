# ruff: noqa: N803 (scikit-learn's names)
r"""Logistic regression whose gradients and Hessians agree across domains."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets

from hessalign.checks import require_choice, require_number
from hessalign.estimator.auto import Head
from hessalign.estimator.base import (
    DomainWeight,
    HeadEstimator,
    Method,
    Strength,
    Weight,
    checked,
    decades,
    logits_of,
)
from hessalign.estimator.objective import HeadData, Samples
from hessalign.head import BinaryCrossEntropy, CrossEntropy, HeadLoss
from hessalign.head.statistics import Centre


class HessianAlignedClassifier(ClassifierMixin, HeadEstimator):  # type: ignore[misc]
    r"""Logistic regression with alignment of the head's gradients and Hessians across domains.

    Minimises, over ``W`` and ``b``, with the ``n`` samples of all domains,

        L(W, b)  +  L° [ α · D_H / D_H°  +  β · D_G / D_G° ]  +  (1/(2 C n)) ‖W‖²

    ``L`` is the mean loss, sigmoid cross-entropy of one logit for two classes, softmax cross-entropy for
    more. ``D_H`` is the Hessian distance of [HessianAlignment][hessalign.HessianAlignment], mean over
    domains, and ``D_G`` the mean of ``‖G_e − Ḡ‖²``, both by the head on ``X / scale_``, ``scale_`` being the
    root mean square of all features. ``L°``, ``D_H°`` and ``D_G°`` are their values where the fit without
    alignment ends. So α = 1 weighs as much as the loss there, whatever the scale of the features, and the
    objective, and with it the loss, can rise by no more than ``(α + β) L°``. With α = β = 0 the coefficients
    are those of scikit-learn's ``LogisticRegression(C=C)``. A class may be missing from a domain.

    The penalty is not convex. L-BFGS starts where plain logistic regression ends and goes on along growing
    weights; the result is a stationary point; nothing is drawn at random. See "Understanding Hessian
    Alignment for Domain Generalization" (Hemati et al., ICCV 2023), Proposition 4.

    Args:
        method: ``"gradient"``, ``"hgp"`` (default), ``"hutchinson"``, ``"diagonal"``, ``"frobenius"``,
            ``"spectral"``, or ``"none"`` for no alignment. Hutchinson is the exact expectation over its
            probes. Hutchinson and Frobenius cost the smaller of ``n d² C²/2`` and ``n² (d + 3C)`` operations
            a step, spectral a product with the Hessians for each Lanczos step, the others ``n d C``.
        alpha: Weight of the Hessian distance, in units of the plain fit's loss, default 1e-3, or ``"auto"``:
            chosen from 0 and [AUTO_GRID][hessalign.estimator.auto.AUTO_GRID] by ``scoring`` on source
            domains held out, each in turn, by the one-standard-error rule: the smallest weights that score
            no worse than the best by more than one standard error. Needs at least three domains.
        beta: Weight of the gradient distance in the same units, default 1e-2, or ``"auto"``.
        probes: Read by ``"hutchinson"`` only, default 100.
        centre: Read by ``"hgp"`` only: ``"mean_loss"`` (default) or ``"mean_product"``.
        C: Inverse strength of ``‖W‖²``, as in ``LogisticRegression``; ``"auto"``: chosen on domains held
            out. None (default) is 1, or ``"auto"`` where alpha or beta is ``"auto"``.
        class_weight: None (default), ``"balanced"`` or weights by class, as in ``LogisticRegression``.
        domain_weight: ``"size"`` (default): a domain weighs in the loss as its samples do. ``"equal"``: all
            domains weigh the same. The penalty weighs domains equally in any case.
        scoring: What ``"auto"`` chooses by: None (default, log-loss), ``"accuracy"``, any name of
            scikit-learn's or a scorer; the higher the better.
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
        auto_results_: With ``"auto"``, of everything tried: ``alpha``, ``beta``, ``C``, ``mean_score``,
            ``standard_error`` (of the mean difference to the best: from the domains' differences, and no
            less than what the samples within domains make uncertain), ``chosen``; and, with a column for
            each domain of ``domains_`` held out, ``scores``, ``converged`` and ``refused`` (heads whose loss
            exceeds that of a constant prediction).
        loss_: Mean loss over all samples.
        penalty_: The alignment penalty, weights included.
        objective_: What was minimised.
        gradient_norm_: Largest absolute element of the objective's gradient by the head on ``X / scale_``.
        converged_: Whether that is within the tolerance. If not, a ConvergenceWarning says what to do.
        n_iter_: L-BFGS steps, those to the start included.
        n_features_in_: ``d``.
        feature_names_in_: Names of the features, if they have any.

    Example:
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

    _strength_name: ClassVar[str] = "C"

    def __init__(
        self,
        method: Method = "hgp",
        alpha: Weight = 1e-3,
        beta: Weight = 1e-2,
        *,
        probes: int = 100,
        centre: Centre = "mean_loss",
        C: Strength = None,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
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

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        sample_domain: ArrayLike | None = None,
    ) -> Self:
        """Fit the head.

        Args:
            X: Features, ``(n, d)``, finite. Standardise them in a pipeline if their scales differ.
            y: Class labels, ``(n,)``, numbers or strings, at least two distinct ones.
            sample_weight: Weight of each sample, ``(n,)``, at least 0: in the loss, and in its domain's mean
                gradient and Hessian. All 1 by default.
            sample_domain: Domain id of each sample, ``(n,)``, integers or strings. Without it there is
                nothing to align, and the fit is plain logistic regression; a NoEffectWarning says so.

        Raises:
            ValueError: If a parameter is wrong, shapes do not match, a value is NaN or infinite, or
                ``sample_domain`` names too few domains: one, unless alpha and beta are 0; fewer than
                three for ``"auto"``.
        """
        settings = self._check_settings()
        features, labels = checked(self, X, y, dtype=[np.float64, np.float32])
        classes, codes = _classes_and_codes(labels)
        if len(classes) < 2:
            raise ValueError(f"y: a classifier needs at least 2 classes, got one class, {classes[0]!s}")
        samples, domains, settings = self._read(features, codes, sample_weight, sample_domain, settings)
        self.classes_ = classes
        self._check_class_weight(samples)
        self._fit_head(samples, 1 if len(classes) == 2 else len(classes), domains, settings)
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits, ``(n, C)``; for two classes that of the second one, ``(n,)``."""
        logits = self._logits(X)
        return logits[:, 0] if logits.shape[1] == 1 else logits

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Most probable class of each sample, ``(n,)``."""
        logits = self._logits(X)
        chosen: NDArray[Any] = self.classes_[_classes_of(logits)]
        return chosen

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each class, ``(n, C)``, in the order of ``classes_``."""
        logits = self._logits(X)
        if logits.shape[1] == 1:
            return np.asarray(expit(np.column_stack([-logits, logits])))
        return np.asarray(softmax(logits, axis=1))

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Their logarithms, ``(n, C)``."""
        logits = self._logits(X)
        if logits.shape[1] == 1:
            return np.asarray(log_expit(np.column_stack([-logits, logits])))
        return np.asarray(log_softmax(logits, axis=1))

    def _loss(self, outputs: int) -> HeadLoss:
        return BinaryCrossEntropy() if outputs == 1 else CrossEntropy()

    def _decay(self, strength: float, total: float) -> float:
        return 1 / (strength * total)

    def _strengths(self, scale: float) -> list[float]:
        return decades(scale)

    @property
    def _strength_limits(self) -> Mapping[str, float]:
        return {"above": 0}

    def _constant_loss(self, data: HeadData) -> float:
        if data.width == data.shape[1]:  # without an intercept: the same logit for every class
            return float(np.log(max(2, data.shape[0])))
        frequencies = (data.targets.T @ data.shares).cpu().double().numpy()
        if len(frequencies) == 1:
            frequencies = np.array([1 - frequencies[0], frequencies[0]])
        present = frequencies[frequencies > 0]
        return float(-(present * np.log(present)).sum())

    def _check_class_weight(self, samples: Samples) -> None:
        if not isinstance(self.class_weight, Mapping) and self.class_weight is not None:
            require_choice("class_weight", self.class_weight, ("balanced",))
        if isinstance(self.class_weight, Mapping):
            for label, weight in self.class_weight.items():
                require_number(f"class_weight[{label!r}]", weight, above=0)
        try:
            self._class_factors(samples)
        except ValueError as error:
            raise ValueError(f"class_weight: {error}") from error

    def _class_factors(self, samples: Samples) -> NDArray[np.float64]:
        present, positions = np.unique(samples.targets, return_inverse=True)
        labels = self.classes_[present]
        factors = compute_class_weight(
            self.class_weight, classes=labels, y=labels[positions], sample_weight=samples.weight
        )
        return np.asarray(factors[positions])

    def _set_head(self, head: Head) -> None:
        self.coef_, self.intercept_ = head[:, :-1].copy(), head[:, -1].copy()

    def _labels(self, targets: NDArray[Any]) -> NDArray[Any]:
        labels: NDArray[Any] = self.classes_[targets]
        return labels

    @property
    def _default_scoring(self) -> str:
        return "neg_log_loss"

    def _sample_scores(self, head: Head, samples: Samples, scoring: str) -> NDArray[np.float64] | None:
        logits = logits_of(head, samples.features)
        if scoring == "accuracy":
            return np.asarray(_classes_of(logits) == samples.targets, dtype=np.float64)
        if scoring == "neg_log_loss":
            if logits.shape[1] == 1:
                return np.asarray(log_expit(np.where(samples.targets == 1, 1, -1) * logits[:, 0]))
            return np.asarray(log_softmax(logits, axis=1)[np.arange(len(logits)), samples.targets])
        return None


def _classes_and_codes(y: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The labels, ascending, and each sample's position among them."""
    try:
        check_classification_targets(y)
        return np.unique(y, return_inverse=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"y: class labels must be all numbers or all strings ({error})") from error


def _classes_of(logits: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.asarray(logits[:, 0] > 0, dtype=np.intp) if logits.shape[1] == 1 else logits.argmax(1)
