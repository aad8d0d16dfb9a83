# ruff: noqa: N803 (scikit-learn's names)
r"""What all classifiers share: labels, groups, probabilities, and the scores that ``"auto"`` chooses by."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, log_expit, log_softmax, softmax
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from typing_extensions import override

from hessalign.checks import require_choice, require_number
from hessalign.estimator.auto import HeldOutScore
from hessalign.estimator.base import HeadEstimator, decades, logits_of
from hessalign.estimator.data import Head, HeadData, Samples
from hessalign.estimator.inputs import checked, classes_and_codes, warn
from hessalign.exceptions import NoEffectWarning
from hessalign.head import BinaryCrossEntropy, CrossEntropy, HeadLoss
from hessalign.metrics import evaluate, is_metric, value_for_scoring

ClassWeight = Mapping[Any, float] | Literal["balanced"] | None


class HeadClassifier(ClassifierMixin, HeadEstimator):  # type: ignore[misc]
    """A linear classifier; see the public ones."""

    __metadata_request__fit: ClassVar = {"sample_domain": True, "sample_group": True, "sample_id": True}
    _strength_name: ClassVar[str] = "C"
    class_weight: ClassWeight
    classes_: NDArray[Any]

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        sample_domain: ArrayLike | None = None,
        sample_group: ArrayLike | None = None,
        sample_id: ArrayLike | None = None,
    ) -> Self:
        """Fit the head.

        Args:
            X: Features, ``(n, d)``, finite. Standardise them in a pipeline if their scales differ.
            y: Class labels, ``(n,)``, numbers or strings, at least two distinct ones.
            sample_weight: Weight of each sample, ``(n,)``, at least 0: in the loss, and in the mean of its
                domain or group. All 1 by default.
            sample_domain: Domain id of each sample, ``(n,)``, integers or strings. A head that compares
                domains is plain logistic regression without it; a NoEffectWarning says so.
            sample_group: Group id of each sample, ``(n,)``, integers or strings: for the heads that are about
                groups, and for ``scoring`` by groups. Where neither is the case a NoEffectWarning says so.
            sample_id: Id of the sample that each row is a view of, ``(n,)``, integers or strings; its first
                row is the sample as it is. Views of one sample share its weight, are never on both sides of a
                split, and ``"auto"`` scores the first row alone. By default each row is a sample.

        Returns:
            The classifier itself.

        Raises:
            ValueError: If a parameter is wrong, shapes do not match, a value is NaN or infinite, or there are
                too few domains: one, for a head that compares them; fewer than three for its ``"auto"``, than
                two for that of the others.
        """
        settings = self._check_settings()
        features, labels = checked(self, X, y, dtype=[np.float64, np.float32])
        classes, codes = classes_and_codes(labels)
        if len(classes) < 2:
            raise ValueError(f"y: a classifier needs at least 2 classes, got one class, {classes[0]!s}")
        self.classes_ = classes
        samples, domains = self._read(
            features, codes, sample_weight, sample_domain, sample_group, sample_id, settings
        )
        if len(np.unique(samples.targets)) < 2:
            only = classes[samples.targets[0]]
            raise ValueError(
                "y, sample_weight: a classifier needs samples of at least 2 classes with a weight above 0, "
                f"got one class, {only!s}"
            )
        by_group = is_metric(self.scoring) and settings.is_auto
        if sample_group is not None and not self._uses_groups and not by_group:
            warn(
                self,
                "sample_group has no effect: the head is not about groups; 'auto' with scoring="
                "'worst_group_accuracy' is",
                NoEffectWarning,
            )
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
        chosen: NDArray[Any] = self.classes_[classes_of(logits)]
        return chosen

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of each class, ``(n, C)``, in the order of ``classes_``."""
        logits = self._logits(X)
        if logits.shape[1] == 1:
            return np.asarray(expit(np.column_stack([-logits, logits])))
        return np.asarray(softmax(self._normalised(logits, self.plain_), axis=1))

    def predict_log_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Their logarithms, ``(n, C)``."""
        return self._log_probabilities(self._logits(X), self.plain_)

    def _normalised(self, logits: NDArray[np.float64], is_plain: bool) -> NDArray[np.float64]:
        """What softmax turns into probabilities, ``(n, C)``: the logits, but of one against the rest."""
        return logits

    def _log_probabilities(self, logits: NDArray[np.float64], is_plain: bool) -> NDArray[np.float64]:
        if logits.shape[1] == 1:
            return np.asarray(log_expit(np.column_stack([-logits, logits])))
        return np.asarray(log_softmax(self._normalised(logits, is_plain), axis=1))

    @override
    def _check_scoring(self) -> None:
        if not is_metric(self.scoring):
            super()._check_scoring()

    @override
    def _loss(self, outputs: int) -> HeadLoss:
        return BinaryCrossEntropy() if outputs == 1 else CrossEntropy()

    @override
    def _decay(self, strength: float, total: float) -> float:
        return 1 / (strength * total)

    @override
    def _strengths(self, scale: float) -> list[float]:
        return decades(scale)

    @property
    @override
    def _strength_limits(self) -> Mapping[str, float]:
        return {"above": 0}

    @override
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

    @override
    def _class_factors(self, samples: Samples) -> NDArray[np.float64]:
        present, positions = np.unique(samples.targets, return_inverse=True)
        labels = self.classes_[present]
        factors = compute_class_weight(
            self.class_weight, classes=labels, y=labels[positions], sample_weight=samples.weight
        )
        return np.asarray(factors[positions])

    @override
    def _set_head(self, head: Head) -> None:
        self.coef_, self.intercept_ = head[:, :-1].copy(), head[:, -1].copy()

    @override
    def _score_of(self, head: Head, samples: Samples, is_plain: bool) -> HeldOutScore:
        scoring = "neg_log_loss" if self.scoring is None else self.scoring
        logits = logits_of(head, samples.features)
        weight = samples.weight / samples.weight.sum()
        if isinstance(scoring, str) and scoring == "accuracy":
            scores = np.asarray(classes_of(logits) == samples.targets, dtype=np.float64)
            return HeldOutScore(float(scores @ weight), scores, weight)
        if isinstance(scoring, str) and scoring == "neg_log_loss":
            found = self._log_probabilities(logits, is_plain)
            scores = found[np.arange(len(logits)), samples.targets.astype(np.intp)]
            return HeldOutScore(float(scores @ weight), scores, weight)
        if is_metric(scoring):
            measured = evaluate(
                samples.targets,
                logits=self._log_probabilities(logits, is_plain),
                domains=samples.domains,
                groups=samples.groups,
                classes=np.arange(len(self.classes_)),
                sample_weight=samples.weight,
            )
            return HeldOutScore(value_for_scoring(measured, scoring))
        return self._score_by_scorer(head, samples, is_plain, self.classes_[samples.targets])

    def _group_codes(self, samples: Samples) -> NDArray[np.intp]:
        """Groups, those given or else domain × class, numbered, ``(n,)``."""
        if samples.groups is not None:
            return samples.groups
        pairs = samples.domains * len(self.classes_) + samples.targets.astype(np.intp)
        return np.asarray(np.unique(pairs, return_inverse=True)[1])


def classes_of(logits: NDArray[np.float64]) -> NDArray[np.intp]:
    """Position of the most probable class, ``(n,)``."""
    return np.asarray(logits[:, 0] > 0, dtype=np.intp) if logits.shape[1] == 1 else logits.argmax(1)
