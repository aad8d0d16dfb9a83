# ruff: noqa: N803 (scikit-learn's names)
r"""Regression whose gradients and Hessians agree across domains."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import RegressorMixin
from sklearn.utils import Tags

from hessalign.estimator.auto import Head
from hessalign.estimator.base import (
    OF_CURVATURE_ALONE,
    DomainWeight,
    HeadEstimator,
    Method,
    Strength,
    Weight,
    checked,
    decades,
    logits_of,
)
from hessalign.estimator.objective import LARGEST, HeadData, Samples
from hessalign.exceptions import NoEffectWarning
from hessalign.head import SquaredError
from hessalign.head.losses import Activation
from hessalign.head.statistics import Centre

# What the named activations can predict.
RANGES = {
    "identity": (-np.inf, np.inf),
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softplus": (0.0, np.inf),
}


class HessianAlignedRegressor(RegressorMixin, HeadEstimator):  # type: ignore[misc]
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

    With α, β > 0 L-BFGS starts where the fit without alignment ends and goes on along growing weights; the
    result is a stationary point; nothing is drawn at random. See "Understanding Hessian Alignment for Domain
    Generalization" (Hemati et al., ICCV 2023), Proposition 5.

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
    ) -> Self:
        """Fit the head.

        Args:
            X: Features, ``(n, d)``, finite. Standardise them in a pipeline if their scales differ.
            y: Targets, ``(n,)`` or ``(n, C)``, finite.
            sample_weight: Weight of each sample, ``(n,)``, at least 0: in the loss, and in its domain's mean
                gradient and Hessian. All 1 by default.
            sample_domain: Domain id of each sample, ``(n,)``, integers or strings. Without it there is
                nothing to align; a NoEffectWarning says so.

        Raises:
            ValueError: As for the classifier.
        """
        settings = self._check_settings()
        features, outcomes = checked(
            self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True
        )
        self._check_targets(outcomes)
        targets = np.asarray(outcomes, dtype=self.dtype).reshape(len(features), -1)
        samples, domains, settings = self._read(features, targets, sample_weight, sample_domain, settings)
        if self.activation == "identity" and self.method in OF_CURVATURE_ALONE and settings.alpha != 0:
            self._warn(
                f"alpha above 0 has no effect: with the identity the Hessian that {self.method!r} compares "
                "depends on the features alone; set alpha=0, or take method='hgp' or 'gradient'",
                NoEffectWarning,
            )
            settings = replace(settings, alpha=0.0)
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

    def _loss(self, outputs: int) -> SquaredError:
        return SquaredError(self.activation)

    def _decay(self, strength: float, total: float) -> float:
        return strength / total

    def _strengths(self, scale: float) -> list[float]:
        return [1 / inverse for inverse in decades(scale)]

    @property
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

    def _constant_loss(self, data: HeadData) -> float:
        shares = data.shares.unsqueeze(1)
        constant = SquaredError(self.activation).predict(data.targets.new_zeros(1, data.shape[0]))
        if data.width < data.shape[1] and isinstance(self.activation, str):
            constant = (data.targets * shares).sum(0).clamp(*RANGES[self.activation])
        return float(((data.targets - constant).square() * shares).sum() / 2)

    def _set_head(self, head: Head) -> None:
        self.coef_, self.intercept_ = head[:, :-1].copy(), head[:, -1].copy()
        if self._one_target:
            self.coef_, self.intercept_ = self.coef_[0], float(self.intercept_[0])

    def _labels(self, targets: NDArray[Any]) -> NDArray[Any]:
        return targets[:, 0] if self._one_target else targets

    @property
    def _default_scoring(self) -> str:
        return "neg_mean_squared_error"

    def _sample_scores(self, head: Head, samples: Samples, scoring: str) -> NDArray[np.float64] | None:
        if scoring != "neg_mean_squared_error":
            return None
        predicted = self._activated(logits_of(head, samples.features))
        return np.asarray(-np.square(predicted - np.asarray(samples.targets, dtype=np.float64)).mean(1))

    def _activated(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        predicted = SquaredError(self.activation).predict(torch.from_numpy(logits))
        return np.asarray(predicted.detach())
