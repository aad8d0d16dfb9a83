# ruff: noqa: N803 (scikit-learn's names)
r"""Regression whose gradients and Hessians agree across domains."""

from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin  # type: ignore[import-untyped]
from sklearn.utils import Tags  # type: ignore[import-untyped]
from sklearn.utils.validation import validate_data  # type: ignore[import-untyped]

from hessalign.estimator.auto import Head
from hessalign.estimator.base import HeadEstimator, Method, Weight, require_number
from hessalign.estimator.objective import HeadData
from hessalign.head import SquaredError
from hessalign.head.losses import Activation
from hessalign.head.statistics import Centre


class HessianAlignedRegressor(RegressorMixin, HeadEstimator):  # type: ignore[misc]
    r"""Least squares with alignment of the head's gradients and Hessians across domains.

    Minimises, over ``W`` and ``b``, with the ``n`` samples of all domains,

        (1/n) Σ_i ½ ‖σ(W z_i + b) − y_i‖²  +  (1/m) Σ_e [ α · (Hessian distance of domain e) + β ‖G_e − Ḡ‖² ]
                                           +  (λ/(2 n)) ‖W‖²,     λ = l2

    ``σ`` is an element-wise activation; the Hessian distances are those of
    [HessianAlignment][hessalign.HessianAlignment]. With α = β = 0 and the identity the coefficients are
    those of scikit-learn's ``Ridge(alpha=l2)``. With the identity the Hessian depends on the features
    alone: ``"diagonal"``, ``"hutchinson"``, ``"frobenius"`` and ``"spectral"`` then add a constant, and
    only ``"hgp"`` and ``"gradient"`` change the fit.

    With α, β > 0 L-BFGS starts where the fit without alignment ends; the result is a stationary
    point; nothing is drawn at random. See "Understanding Hessian Alignment for Domain
    Generalization" (Hemati et al., ICCV 2023), Proposition 5.

    Args:
        method: As for [HessianAlignedClassifier][hessalign.HessianAlignedClassifier].
        alpha: Weight of the Hessian distance, default 1e-3, or ``"auto"``: chosen by the mean squared error
            on source domains held out, each in turn.
        beta: Weight of the gradient distance, default 1e-2, or ``"auto"``.
        activation: ``σ``: ``"identity"`` (default), ``"sigmoid"``, ``"tanh"``, ``"softplus"``, or any
            element-wise function of a tensor that can be differentiated twice.
        probes: Read by ``"hutchinson"`` only, default 100.
        centre: Read by ``"hgp"`` only: ``"mean_loss"`` (default) or ``"mean_product"``.
        l2: Strength of ``‖W‖²``, as alpha in ``Ridge``; default 1.
        fit_intercept: As for the classifier, and so are ``tol``, ``max_iter``, ``warm_start``, ``dtype`` and
            ``device``.

    Attributes:
        coef_: ``W``, ``(C, d)``; ``(d,)`` if ``y`` was ``(n,)``.
        intercept_: ``b``, ``(C,)``; a number if ``y`` was ``(n,)``.
        domains_: Domain ids, ascending; this and all other attributes are as for the classifier; the
            scores in ``auto_results_`` are mean squared errors with a minus sign.

    Example:
        >>> import numpy as np
        >>> from hessalign import HessianAlignedRegressor
        >>> random = np.random.default_rng(0)
        >>> X, camera = random.normal(size=(200, 4)), random.integers(0, 2, 200)
        >>> y = X @ [1.0, -1.0, 0.5, 0.0] + 0.1 * random.normal(size=200)
        >>> regressor = HessianAlignedRegressor("hgp").fit(X, y, sample_domain=camera)
        >>> regressor.score(X, y) > 0.99
        True
    """

    def __init__(
        self,
        method: Method = "hgp",
        alpha: Weight = 1e-3,
        beta: Weight = 1e-2,
        *,
        activation: str | Activation = "identity",
        probes: int = 100,
        centre: Centre = "mean_loss",
        l2: float = 1.0,
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
        self.activation = activation
        self.probes = probes
        self.centre = centre
        self.l2 = l2
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
            y: Targets, ``(n,)`` or ``(n, C)``, finite.
            sample_domain: Domain id of each sample, ``(n,)``, integers or strings. Without it there is
                nothing to align.

        Raises:
            ValueError: As for the classifier.
        """
        self._check_settings()
        require_number("l2", self.l2)
        dtype = np.dtype(self.dtype)
        features, y = validate_data(self, X, y, dtype=dtype, multi_output=True, y_numeric=True)
        targets = np.asarray(y, dtype=dtype).reshape(len(features), -1)
        head = self._fit_head(features, targets, targets.shape[1], sample_domain)
        self.coef_, self.intercept_ = head[:, :-1].copy(), head[:, -1].copy()
        if np.ndim(y) == 1:
            self.coef_, self.intercept_ = self.coef_[0], float(self.intercept_[0])
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """``σ(W z + b)``, ``(n,)`` or ``(n, C)`` as ``y`` was."""
        predicted = self._activated(self._logits(X))
        return predicted[:, 0] if self.coef_.ndim == 1 else predicted

    def __sklearn_tags__(self) -> Tags:
        tags: Any = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _loss(self, outputs: int) -> SquaredError:
        return SquaredError(self.activation)

    def _decay(self, samples: int) -> float:
        return self.l2 / samples

    def _score_head(self, head: Head, data: HeadData) -> float:
        """Mean squared error, negative."""
        logits = data.features.cpu().numpy() @ head[:, :-1].T + head[:, -1]
        return -float(np.square(self._activated(logits) - data.targets.cpu().numpy()).mean())

    def _activated(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        predicted = SquaredError(self.activation).predict(torch.from_numpy(logits))
        return np.asarray(predicted.detach())
