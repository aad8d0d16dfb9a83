# ruff: noqa: N803 (scikit-learn's names)
r"""Logistic regression whose gradients and Hessians agree across domains."""

from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax, softmax  # type: ignore[import-untyped]
from sklearn.base import ClassifierMixin  # type: ignore[import-untyped]
from sklearn.utils.multiclass import check_classification_targets  # type: ignore[import-untyped]
from sklearn.utils.validation import validate_data  # type: ignore[import-untyped]

from hessalign.estimator.auto import Head
from hessalign.estimator.base import HeadEstimator, Method, Weight
from hessalign.estimator.objective import HeadData
from hessalign.head import BinaryCrossEntropy, CrossEntropy, HeadLoss
from hessalign.head.statistics import Centre


class HessianAlignedClassifier(ClassifierMixin, HeadEstimator):  # type: ignore[misc]
    r"""Logistic regression with alignment of the head's gradients and Hessians across domains.

    Minimises, over ``W`` and ``b``, with the ``n`` samples of all domains,

        (1/n) Σ_i ℓ(W z_i + b, y_i)  +  (1/m) Σ_e [ α · (Hessian distance of domain e) + β ‖G_e − Ḡ‖² ]
                                     +  (1/(2 C n)) ‖W‖²

    ``ℓ`` is sigmoid cross-entropy of one logit for two classes, softmax cross-entropy for more; the Hessian
    distances are those of [HessianAlignment][hessalign.HessianAlignment]. With α = β = 0 the coefficients
    are those of scikit-learn's ``LogisticRegression(C=C)``. A class may be missing from a domain.

    The penalty is not convex. L-BFGS starts where plain logistic regression ends, and the result is a
    stationary point; nothing is drawn at random. See "Understanding Hessian Alignment
    for Domain Generalization" (Hemati et al., ICCV 2023), Proposition 4.

    Args:
        method: ``"gradient"``, ``"hgp"`` (default), ``"hutchinson"``, ``"diagonal"``, ``"frobenius"``,
            ``"spectral"``, or ``"none"`` for no alignment. Hutchinson is the exact expectation over its
            probes. Hutchinson and Frobenius cost the smaller of ``n d² C²/2`` and ``n² (d + 3C)`` operations
            a step, spectral a product with the Hessians for each Lanczos step, the others ``n d C``.
        alpha: Weight of the Hessian distance, default 1e-3, or ``"auto"``: chosen from
            [AUTO_GRID][hessalign.estimator.auto.AUTO_GRID] by mean accuracy on source domains held out, each
            in turn; beta first, then alpha. Needs at least three domains.
        beta: Weight of the gradient distance, default 1e-2, or ``"auto"``.
        probes: Read by ``"hutchinson"`` only, default 100.
        centre: Read by ``"hgp"`` only: ``"mean_loss"`` (default) or ``"mean_product"``.
        C: Inverse strength of ``‖W‖²``, as in ``LogisticRegression``; default 1.
        fit_intercept: False fixes the intercept at 0, and the penalty leaves the derivatives for it out.
        tol: The fit has converged where no element of the objective's gradient exceeds ``tol`` times the
            largest one at ``W = 0``, of the objective or, where larger, of a sample (root mean square);
            default 1e-8.
        max_iter: Most L-BFGS steps, once for the start and once with the penalty; default 1000.
        warm_start: Start at the last fit's coefficients if the shapes agree.
        dtype: ``"float64"`` (default), or ``"float32"``, faster, which needs a tol of 1e-4 or so.
        device: Where PyTorch computes, default ``"cpu"``.

    Attributes:
        classes_: Class labels, ascending, ``(C,)``.
        coef_: ``W``, ``(C, d)``; ``(1, d)`` for two classes.
        intercept_: ``b``, ``(C,)``; ``(1,)`` for two classes.
        domains_: Domain ids, ascending; ``[0]`` if none were given.
        alpha_: Weight used; 0 for a method without a Hessian distance.
        beta_: Weight used.
        auto_results_: With ``"auto"``: ``alpha``, ``beta``, ``mean_score``, ``scores`` (a column for each
            domain of ``domains_`` held out) and ``converged`` of the pairs that were tried.
        loss_: Mean loss over all samples.
        penalty_: The alignment penalty, weights included.
        objective_: What was minimised.
        gradient_norm_: Largest absolute element of the objective's gradient.
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

    def __init__(
        self,
        method: Method = "hgp",
        alpha: Weight = 1e-3,
        beta: Weight = 1e-2,
        *,
        probes: int = 100,
        centre: Centre = "mean_loss",
        C: float = 1.0,
        fit_intercept: bool = True,
        tol: float = 1e-8,
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
        self.fit_intercept = fit_intercept
        self.tol = tol
        self.max_iter = max_iter
        self.warm_start = warm_start
        self.dtype = dtype
        self.device = device

    def fit(self, X: ArrayLike, y: ArrayLike, sample_domain: ArrayLike | None = None) -> Self:
        """Fit the head.

        Args:
            X: Features, ``(n, d)``, finite. Standardise them in a pipeline if their scales differ.
            y: Class labels, ``(n,)``, numbers or strings, at least two distinct ones.
            sample_domain: Domain id of each sample, ``(n,)``, integers or strings. Without it there is
                nothing to align, and the fit is plain logistic regression.

        Raises:
            ValueError: If a parameter is wrong, shapes do not match, a value is NaN or infinite, or
                ``sample_domain`` names too few domains: one, unless alpha and beta are 0; fewer than
                three for ``"auto"``.
        """
        self._check_settings()
        if not (isinstance(self.C, int | float | np.number) and self.C > 0):
            raise ValueError(f"C: must be a number above 0, got {self.C!r}")
        features, y = validate_data(self, X, y, dtype=np.dtype(self.dtype))
        check_classification_targets(y)
        classes, codes = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"y: a classifier needs at least 2 classes, got one class, {classes[0]!s}")
        head = self._fit_head(features, codes, 1 if len(classes) == 2 else len(classes), sample_domain)
        self.classes_, self.coef_, self.intercept_ = classes, head[:, :-1].copy(), head[:, -1].copy()
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

    def _decay(self, samples: int) -> float:
        return 1 / (self.C * samples)

    def _score_head(self, head: Head, data: HeadData) -> float:
        """Accuracy."""
        logits = data.features.cpu().numpy() @ head[:, :-1].T + head[:, -1]
        targets = data.targets.cpu().numpy()
        truth = targets[:, 0] if targets.shape[1] == 1 else targets.argmax(1)
        return float((_classes_of(logits) == truth).mean())


def _classes_of(logits: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.asarray(logits[:, 0] > 0, dtype=np.intp) if logits.shape[1] == 1 else logits.argmax(1)
