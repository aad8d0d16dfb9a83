# ruff: noqa: N803 (scikit-learn's names)
r"""Groups where nobody named any: by a head's errors, or by clusters within classes; and how sure."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score, silhouette_score
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import StratifiedKFold
from sklearn.utils import check_array

from hessalign.checks import require_choice, require_whole
from hessalign.estimator.aligned import HessianAlignedClassifier
from hessalign.estimator.inputs import as_plain, classes_and_codes, warn
from hessalign.exceptions import UntrustworthyWarning

Array = NDArray[np.float64]
Codes = NDArray[np.intp]
Method = Literal["eiil", "clusters"]

# Parts of the samples, each predicted by a head that was fitted on the others.
PARTS = 5
# Clusters are looked for among so many principal components, and at most so many in a class.
COMPONENTS = 10
MOST_CLUSTERS = 5
# Samples that the silhouette is taken of: it compares all pairs.
SILHOUETTE_SAMPLES = 2000
# Agreement of refits below which groups are not to be trusted, and the fewest samples of a group.
LEAST_AGREEMENT = 0.5
FEWEST = 10


@dataclass(frozen=True, eq=False)
class InferredGroups:
    """What [infer_groups][hessalign.estimator.infer_groups] found.

    Attributes:
        groups: Group of each sample, ``(n,)``, ``0 … G−1``: class and environment. For ``sample_group=``.
        environments: Environment of each sample, ``(n,)``, within which the classes lie together. Those of
            EIIL (0: the head's reliance pays, 1: it misleads) are what IRM takes as ``sample_domain=``.
        labels: Class and environment of each group, ``G`` pairs.
        counts: Samples of each group, ``(G,)``.
        certainty: Of each sample, ``(n,)``: share of the refits on resampled data that put it into the same
            environment of its class.
        agreement: Of the refits with the groups, 1 for the same and 0 for chance (adjusted Rand index, mean
            over refits and over classes).

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import infer_groups
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(0, 2, 600)
        >>> background = np.where(random.random(600) < 0.9, y, 1 - y)
        >>> X = random.normal(size=(600, 2)) * 0.5 + np.column_stack([y, 4 * background])
        >>> found = infer_groups(X, y, refits=2)
        >>> len(found.labels), int(found.counts.sum()), found.certainty.shape
        (4, 600, (600,))
    """

    groups: Codes
    environments: Codes
    labels: list[tuple[Any, int]]
    counts: Codes
    certainty: Array
    agreement: float

    def __str__(self) -> str:
        """The groups, their sizes and how sure they are, in a few lines."""
        lines = [
            f"class {label!s}, environment {environment}: {count} samples, certainty "
            f"{self.certainty[self.groups == group].mean():.2f}"
            for group, ((label, environment), count) in enumerate(zip(self.labels, self.counts, strict=True))
        ]
        return "\n".join([*lines, f"agreement of refits: {self.agreement:.2f}"])


def infer_groups(
    X: ArrayLike,
    y: ArrayLike,
    head: Any = None,
    *,
    method: Method = "eiil",
    refits: int = 20,
    random_state: int = 0,
) -> InferredGroups:
    r"""Groups for DFR, group DRO or IRM where none are known.

    ``"eiil"``: environments that a reference head violates invariance in the most. Creager, Jacobsen and
    Zemel, "Environment Inference for Invariant Learning" (ICML 2021) maximise, over soft assignments ``q``,

        ( mean_i q_i s_i )²  +  ( mean_i (1 − q_i) s_i )²,     s_i = r_i·a_i,

    ``s_i`` being the derivative of sample ``i``'s loss by a scale on its logits ``a_i``, by gradient steps.
    The expression is convex in ``q`` and depends on it through ``mean q s`` only, so its maximum is known:
    ``q_i = 1`` where ``s_i > 0``. With two classes these are exactly the head's errors. The head is a linear
    one, and no sample is judged by a head that was fitted on it.

    ``"clusters"``: within each class a Gaussian mixture among the leading principal components, with 1 to 5
    clusters by the silhouette. Sohoni, Dunnmon, Angus, Gu and Ré, "No Subclass Left Behind" (GEORGE, NeurIPS
    2020), whose features are those of a trained network.

    No data tells whether a feature that errors share is spurious or merely rare. What can be told is how
    stable the groups are: all of it is repeated on resampled data.

    Args:
        X: Features, ``(n, d)``, finite. Standardise them first if their scales differ.
        y: Class labels, ``(n,)``.
        head: ``"eiil"`` only: reference classifier with ``decision_function``, fitted anew here; None
            (default): ``HessianAlignedClassifier("none")``.
        method: ``"eiil"`` (default) or ``"clusters"``.
        refits: How often it is repeated on resampled data, default 20.
        random_state: Of folds, mixtures and resampling, default 0.

    Returns:
        Groups, environments and how sure they are. An UntrustworthyWarning says where they should not be
        used.

    Raises:
        ValueError: If an argument is wrong, a value is NaN or infinite, or a class has too few samples.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import DFRClassifier, infer_groups
        >>> random = np.random.default_rng(0)
        >>> y = random.integers(0, 2, 600)
        >>> background = np.where(random.random(600) < 0.9, y, 1 - y)
        >>> X = random.normal(size=(600, 2)) * 0.5 + np.column_stack([y, 4 * background])
        >>> found = infer_groups(X, y, refits=5)
        >>> bool(np.mean(found.environments == (background != y)) > 0.95), found.agreement > 0.8
        (True, True)
        >>> head = DFRClassifier().fit(X, y, sample_group=found.groups)
    """
    require_choice("method", method, ("eiil", "clusters"))
    require_whole("refits", refits, least=1)
    require_whole("random_state", random_state, least=0)
    if head is not None and method != "eiil":
        raise ValueError(f"head: only 'eiil' takes one, got {type(head).__name__} for {method!r}")
    if head is not None and not hasattr(head, "decision_function"):
        raise ValueError(f"head: must be a classifier with decision_function, got {type(head).__name__}")
    features = check_array(as_plain(X), dtype=np.float64, input_name="X")
    classes, codes = classes_and_codes(np.asarray(as_plain(y)))
    if len(codes) != len(features):
        raise ValueError(f"X, y: must hold one entry for each sample, got {len(features)} and {len(codes)}")
    counts = np.bincount(codes)
    if len(classes) < 2 or counts.min() < 2 * PARTS:
        raise ValueError(
            f"y: needs at least 2 classes of {2 * PARTS} samples each, got "
            + ", ".join(f"{name!s} ({count})" for name, count in zip(classes, counts, strict=True))
        )
    reference = HessianAlignedClassifier("none") if head is None else head

    def split(rows: Codes, seed: int) -> Codes:
        """Environments of all samples by what is fitted on some rows."""
        if method == "eiil":
            return _by_errors(features, codes, rows, reference, seed)
        return _by_clusters(features, codes, rows, seed)

    everything = np.arange(len(codes))
    environments = split(everything, random_state)
    certainty, agreement = _stability(environments, codes, split, refits, random_state)
    pairs, groups = np.unique(codes * (environments.max() + 1) + environments, return_inverse=True)
    labels = [divmod(int(pair), int(environments.max()) + 1) for pair in pairs]
    found = InferredGroups(
        groups,
        environments,
        [(classes[label].item(), environment) for label, environment in labels],
        np.bincount(groups),
        certainty,
        agreement,
    )
    _warn_of_doubts(found)
    return found


def _by_errors(features: Array, codes: Codes, rows: Codes, head: Any, seed: int) -> Codes:
    """1 where a larger scale of the logits would cost a sample, by heads that were not fitted on it."""
    slopes = np.empty(len(codes))
    splitter = StratifiedKFold(PARTS, shuffle=True, random_state=seed)
    for _, held_out in splitter.split(features, codes):
        kept = rows[~np.isin(rows, held_out)]
        if len(np.unique(codes[kept])) < len(np.unique(codes)):
            raise ValueError("y: a class has too few samples for a head that is fitted on others")
        fitted = clone(head).fit(features[kept], codes[kept])
        logits = np.asarray(fitted.decision_function(features[held_out]))
        if logits.ndim == 1:
            slopes[held_out] = (expit(logits) - codes[held_out]) * logits
        else:
            residual = softmax(logits, axis=1)
            residual[np.arange(len(held_out)), codes[held_out]] -= 1
            slopes[held_out] = (residual * logits).sum(1)
    return (slopes > 0).astype(np.intp)


def _by_clusters(features: Array, codes: Codes, rows: Codes, seed: int) -> Codes:
    """Cluster of each sample within its class, the largest first."""
    components = min(COMPONENTS, features.shape[1], len(rows) - 1)
    reduced = PCA(components, random_state=seed).fit(features[rows]).transform(features)
    environments = np.zeros(len(codes), dtype=np.intp)
    for label in range(codes.max() + 1):
        members, chosen = np.flatnonzero(codes == label), rows[codes[rows] == label]
        best, score = np.zeros(len(members), dtype=np.intp), 0.0
        for count in range(2, min(MOST_CLUSTERS, len(np.unique(chosen)) // FEWEST) + 1):
            mixture = GaussianMixture(count, random_state=seed, reg_covar=1e-3).fit(reduced[chosen])
            found = mixture.predict(reduced[members])
            if len(np.unique(found)) < 2:
                continue
            sampled = min(SILHOUETTE_SAMPLES, len(members))
            value = silhouette_score(reduced[members], found, sample_size=sampled, random_state=seed)
            if value > score:
                best, score = found, value
        sizes = np.bincount(best)
        environments[members] = np.argsort(np.argsort(-sizes, kind="stable"))[best]
    return environments


def _stability(
    environments: Codes, codes: Codes, split: Callable[[Codes, int], Codes], refits: int, seed: int
) -> tuple[Array, float]:
    """How often resampled data put each sample where it is, and how well whole splits agree."""
    random = np.random.default_rng(seed)
    same, scores = np.zeros(len(codes)), []
    by_class = [np.flatnonzero(codes == label) for label in range(codes.max() + 1)]
    for refit in range(refits):
        rows = np.concatenate([random.choice(members, len(members)) for members in by_class])
        again = split(rows, seed + 1 + refit)
        same += again == environments
        scores.append(np.mean([adjusted_rand_score(environments[m], again[m]) for m in by_class]))
    return same / refits, float(np.mean(scores))


def _warn_of_doubts(found: InferredGroups) -> None:
    if len(found.labels) == len({label for label, _ in found.labels}):
        warn(found, "no class was split: the groups are the classes", UntrustworthyWarning)
    elif found.agreement < LEAST_AGREEMENT:
        warn(
            found,
            f"on resampled data the groups come out otherwise (agreement {found.agreement:.2f}, 1 for the "
            "same and 0 for chance): they are not to be trusted",
            UntrustworthyWarning,
        )
    elif found.counts.min() < FEWEST:
        label, environment = found.labels[int(found.counts.argmin())]
        warn(
            found,
            f"a group has {found.counts.min()} samples only (class {label!s}, environment {environment}): "
            "what is fitted on it is not to be trusted",
            UntrustworthyWarning,
        )
