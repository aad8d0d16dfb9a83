"""Numbers by domain and by group as scorers of scikit-learn, which training does without."""

from typing import Any

from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import MetadataRequest

from hessalign.metrics.evaluation import parse_metric, value_for_scoring
from hessalign.metrics.measures import evaluate


class Scorer(BaseEstimator):  # type: ignore[misc]
    """A number of [Evaluation.summary][hessalign.metrics.Evaluation.summary] as a scorer of scikit-learn.

    The higher the better: losses count with their sign changed. Domains and groups reach it as
    ``sample_domain`` and ``sample_group``; through searches and ``cross_validate`` with
    ``sklearn.set_config(enable_metadata_routing=True)``. What is about groups needs one of them.

    Args:
        name: ``"worst_group_accuracy"``, ``"mean_domain_log_loss"``, ``"ece"``, ...; hyphens may stand for
            underscores.

    Examples:
        >>> from hessalign import HessianAlignedClassifier
        >>> from hessalign.metrics import Scorer
        >>> X, y, clinic = [[-1.0], [1.0], [-2.0], [3.0]], [0, 1, 0, 1], ["a", "a", "b", "b"]
        >>> classifier = HessianAlignedClassifier("none").fit(X, y)
        >>> Scorer("worst_group_accuracy")(classifier, X, y, sample_domain=clinic)
        1.0
    """

    def __init__(self, name: str = "worst_group_accuracy") -> None:
        self.name = name

    def __call__(
        self,
        estimator: Any,
        X: ArrayLike,  # noqa: N803 (scikit-learn's name)
        y: ArrayLike,
        *,
        sample_weight: ArrayLike | None = None,
        sample_domain: ArrayLike | None = None,
        sample_group: ArrayLike | None = None,
    ) -> float:
        """Score a fitted classifier.

        Returns:
            The number, the higher the better.

        Raises:
            ValueError: If the name is not known, or is about domains or groups that are not given.
        """
        _, kind = parse_metric(self.name)
        if kind == "domain" and sample_domain is None:
            raise ValueError(f"sample_domain: {self.name!r} needs the domain of each sample, got none")
        if kind == "group" and sample_domain is None and sample_group is None:
            raise ValueError(
                f"sample_group, sample_domain: {self.name!r} needs one of them for each sample, got neither"
            )
        found = evaluate(
            y,
            estimator.predict_proba(X),
            domains=sample_domain,
            groups=sample_group,
            classes=estimator.classes_,
            sample_weight=sample_weight,
        )
        return value_for_scoring(found, self.name)

    def get_metadata_routing(self) -> MetadataRequest:
        """Searches pass domains and groups on without being asked for it."""
        requests = MetadataRequest(owner=self)
        for name in ("sample_domain", "sample_group"):
            requests.score.add_request(param=name, alias=True)
        return requests
