# ruff: noqa: N803 (scikit-learn's names)
r"""Features with what differs between domains taken out, for whatever comes after them in a pipeline."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import (
    OneToOneFeatureMixin,
    TransformerMixin,
)
from sklearn.covariance import empirical_covariance, ledoit_wolf, oas
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from hessalign.checks import require_choice, require_flag, require_number, require_whole
from hessalign.estimator.inputs import HOW_TO_PASS, as_plain, checked, classes_and_codes, warn
from hessalign.estimator.persistence import Persistent
from hessalign.exceptions import NoEffectWarning, UntrustworthyWarning
from hessalign.inputs import Domains, read_domains

Array = NDArray[np.float64]
Shrinkage = Literal["ledoit_wolf", "oas", "none"]

COVARIANCES = {
    "ledoit_wolf": lambda centred: ledoit_wolf(centred, assume_centered=True)[0],
    "oas": lambda centred: oas(centred, assume_centered=True)[0],
    "none": lambda centred: empirical_covariance(centred, assume_centered=True),
}
# Directions whose variance is below this share of the largest have none to divide by.
LEAST_VARIANCE = 1e-10
# Differences of means below this share of the means are their rounding.
ROUNDING = 1e-12


class DomainTransformer(OneToOneFeatureMixin, TransformerMixin, Persistent):  # type: ignore[misc]
    """What the transformers share: domains that reach them through pipelines, checks, files."""

    # Pipelines and searches pass domain ids on without being asked for it one by one.
    __metadata_request__fit: ClassVar = {"sample_domain": True}

    n_features_in_: int
    domains_: NDArray[Any]

    def _domains(self, sample_domain: Any, samples: int) -> Domains:
        """Domains of the samples; one of them all if none are given, with a warning."""
        if sample_domain is None:
            warn(
                self,
                "no effect across domains without sample_domain: all samples count as one domain; "
                f"{HOW_TO_PASS}",
                NoEffectWarning,
            )
            sample_domain = np.zeros(samples, dtype=np.intp)
        return read_domains("sample_domain", sample_domain, samples)


class SubspaceRemoval(DomainTransformer):
    """What ISR-Mean and ISR-Cov share: directions that are projected out."""

    _tensors: ClassVar = {"components_": "components"}
    components: int | None
    scale: float
    classes: Any
    components_: Array

    def __init__(self, components: int | None = None, *, scale: float = 0.0, classes: Any = None) -> None:
        self.components = components
        self.scale = scale
        self.classes = classes

    def fit(self, X: ArrayLike, y: ArrayLike, *, sample_domain: ArrayLike | None = None) -> Self:
        """Find the directions.

        Args:
            X: Features, ``(n, d)``, finite.
            y: Class labels, ``(n,)``, numbers or strings.
            sample_domain: Domain id of each sample, ``(n,)``, integers or strings. Without it, or with one
                domain, there is nothing to find; a NoEffectWarning says so.

        Returns:
            The transformer itself.

        Raises:
            ValueError: If a parameter is wrong, shapes do not match, a value is NaN or infinite, or no class
                has samples in two domains.
        """
        if self.components is not None:
            require_whole("components", self.components, least=1, otherwise="None or ")
        require_number("scale", self.scale, least=0, most=1)
        features, labels = checked(self, X, y, dtype=np.float64)
        names, codes = classes_and_codes(labels)
        domains = self._domains(sample_domain, len(features))
        self.domains_ = domains.names
        wanted = range(len(names)) if self.classes is None else self._wanted(names)
        count = len(domains.names)
        width = features.shape[1]
        limit = min(max(1, count - 1) if self.components is None else int(self.components), width)
        self.components_ = np.zeros((0, width))
        if count == 1 or width == 1:
            if sample_domain is not None:
                what = f"only one domain, {domains.names[0]!s}" if count == 1 else "only one feature"
                warn(self, f"no effect: {what}, so no direction can be removed", NoEffectWarning)
            return self
        cells = [
            [features[(codes == label) & (domains.codes == domain)] for domain in range(count)]
            for label in wanted
        ]
        cells = [[cell for cell in row if len(cell)] for row in cells]
        if max(map(len, cells)) < 2:
            raise ValueError(
                "sample_domain, y: no class has samples in 2 domains, so nothing shows how domains differ "
                "within a class"
            )
        self.components_ = self._directions([row for row in cells if len(row) > 1], limit)
        return self

    def transform(self, X: ArrayLike) -> Array:
        """Features without the directions found (times ``scale`` along them), ``(n, d)``."""
        check_is_fitted(self)
        features: Array = checked(self, X, dtype=np.float64, reset=False)
        return features - (1 - self.scale) * (features @ self.components_.T) @ self.components_

    def __sklearn_tags__(self) -> Tags:
        tags: Any = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags

    def _wanted(self, names: NDArray[Any]) -> list[int]:
        wanted = list(np.atleast_1d(np.asarray(as_plain(self.classes))))
        unknown = [label for label in wanted if label not in names]
        if unknown or not wanted:
            raise ValueError(
                f"classes: must be labels of y, {', '.join(map(str, names))}, got {self.classes!r}"
            )
        return [int(np.flatnonzero(names == label)[0]) for label in wanted]

    @abstractmethod
    def _directions(self, cells: list[list[Array]], limit: int) -> Array:
        """At most ``limit`` orthonormal rows, from the samples of each class by domain."""


class ISRMean(SubspaceRemoval):
    r"""Invariant-feature subspace recovery by means: the directions along which class means move are removed.

    For each class the means ``μ_e`` of its features in each domain are taken; the leading principal
    directions of ``μ_e − mean_e μ_e`` span where the domains move them. Wang, Si, Li and Zhao, "Provable
    Domain Generalization via Invariant-Feature Subspace Recovery" (ICML 2022), Algorithm 1, of one class. Of
    several classes all differences are taken together, so that large ones count for more.

    Features keep their coordinates: ``z − (1 − scale) Uᵀ U z`` with the directions' rows ``U``.

    Args:
        components: Directions to remove; None (default): one less than there are domains, the most that ``m``
            means can show. At most ``d``.
        scale: What is left along them, 0 (default) for nothing to 1 for everything.
        classes: A label, or several, whose means are compared; None (default) for all.

    Attributes:
        components_: The directions, orthonormal rows, ``(k, d)``.
        domains_: Domain ids, ascending.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import ISRMean
        >>> random = np.random.default_rng(0)
        >>> y, site = random.integers(0, 2, 400), random.integers(0, 3, 400)
        >>> X = random.normal(size=(400, 3)) + np.outer(y, [1, 0, 0]) + np.outer(site, [0, 0, 5])
        >>> np.abs(ISRMean(components=1).fit(X, y, sample_domain=site).components_).round(1).tolist()
        [[0.0, 0.0, 1.0]]
    """

    def _directions(self, cells: list[list[Array]], limit: int) -> Array:
        means = [np.array([cell.mean(0) for cell in row]) for row in cells]
        moves = np.concatenate([each - each.mean(0) for each in means])
        _, sizes, directions = np.linalg.svd(moves, full_matrices=False)
        size = max(float(np.abs(each).max()) for each in means)
        return np.asarray(directions[sizes > LEAST_VARIANCE * size][:limit])


class ISRCov(SubspaceRemoval):
    r"""Invariant-feature subspace recovery by covariances: the directions whose spread changes are removed.

    For each class the covariances ``Σ_e`` of its features in each domain are taken. Removed are the leading
    eigenvectors of ``mean_e (Σ_e − Σ̄)²``, averaged over classes. With two domains that is the published
    rule, the eigenvectors of ``Σ_1 − Σ_0`` of the largest absolute eigenvalues; it holds for any number of
    them. Wang, Si, Li and Zhao (ICML 2022), Algorithm 2.

    Args:
        components: Directions to remove; None (default): one less than there are domains. At most ``d``.
        scale: What is left along them, 0 (default) for nothing to 1 for everything.
        classes: A label, or several, whose covariances are compared; None (default) for all.

    Attributes:
        components_: The directions, orthonormal rows, ``(k, d)``.
        domains_: Domain ids, ascending.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import ISRCov
        >>> random = np.random.default_rng(0)
        >>> y, site = random.integers(0, 2, 400), random.integers(0, 2, 400)
        >>> X = random.normal(size=(400, 3)) * np.where(site[:, None] == 0, 1.0, [1.0, 1.0, 3.0])
        >>> np.abs(ISRCov().fit(X, y, sample_domain=site).components_).round(1).tolist()
        [[0.0, 0.0, 1.0]]
    """

    def _directions(self, cells: list[list[Array]], limit: int) -> Array:
        width = cells[0][0].shape[1]
        fewest = min(len(cell) for row in cells for cell in row)
        if fewest <= width:
            warn(
                self,
                f"a class has {fewest} samples in a domain and the features {width} dimensions: covariances "
                "from so few differ by chance; reduce the dimension first (PCA), or take ISRMean",
                UntrustworthyWarning,
            )
        total = np.zeros((width, width))
        for row in cells:
            covariances = np.array([empirical_covariance(cell) for cell in row if len(cell) > 1])
            if len(covariances) < 2:
                continue
            differences = covariances - covariances.mean(0)
            total += (differences @ differences).mean(0)
        _, directions = np.linalg.eigh(total)
        return np.asarray(directions[:, ::-1].T[:limit])


class DomainCentering(DomainTransformer):
    r"""Each domain's own mean is subtracted, also a new domain's, which needs no labels for it.

    ``z − μ_e``, and with ``with_std`` divided by the domain's standard deviation. It takes out a shift of
    style that a domain's samples share. **It takes out a shift in the share of classes as well**: where one
    clinic has more sick patients, their features move to the middle of all, and predictions get worse by
    much. Look at the shares of classes in the sources first.

    A domain that was not seen in ``fit`` gets its mean from the samples given to ``transform``, all of that
    domain that are there. Without ``sample_domain`` new samples are moved by the mean of the sources' means.

    Args:
        with_std: Divide by each domain's standard deviation, too; default False.

    Attributes:
        domains_: Domain ids, ascending, ``(m,)``.
        means_: Their means, ``(m, d)``.
        scales_: What features are divided by, ``(m, d)``; 1 without ``with_std`` and where nothing varies.

    Examples:
        >>> from hessalign.estimator import DomainCentering
        >>> X, site = [[1.0], [3.0], [10.0], [14.0]], ["a", "a", "b", "b"]
        >>> centering = DomainCentering().fit(X, sample_domain=site)
        >>> centering.transform([[100.0], [104.0], [2.5]], sample_domain=["new", "new", "a"]).tolist()
        [[-2.0], [2.0], [0.5]]
    """

    __metadata_request__transform: ClassVar = {"sample_domain": True}
    __metadata_request__fit_transform: ClassVar = {"sample_domain": True}
    _tensors: ClassVar = {"means_": "means", "scales_": "scales"}
    means_: Array
    scales_: Array

    def __init__(self, *, with_std: bool = False) -> None:
        self.with_std = with_std

    def fit(self, X: ArrayLike, y: object = None, *, sample_domain: ArrayLike | None = None) -> Self:
        """Take each domain's statistics.

        Args:
            X: Features, ``(n, d)``, finite.
            y: Not used.
            sample_domain: Domain id of each sample, ``(n,)``, integers or strings. Without it all samples are
                one domain; a NoEffectWarning says so.

        Returns:
            The transformer itself.

        Raises:
            ValueError: If a parameter is wrong, shapes do not match, or a value is NaN or infinite.
        """
        self._check()
        features = checked(self, X, dtype=np.float64)
        domains = self._domains(sample_domain, len(features))
        found = [self._statistics(features[domains.codes == code]) for code in range(len(domains.names))]
        self._warn_of_few(np.bincount(domains.codes), domains.names, features.shape[1])
        self.domains_ = domains.names
        self.means_ = np.array([mean for mean, _ in found])
        self._keep([spread for _, spread in found])
        return self

    def transform(self, X: ArrayLike, *, sample_domain: ArrayLike | None = None) -> Array:
        """Features by their domains' statistics, ``(n, d)``.

        Args:
            X: Features, ``(n, d)``.
            sample_domain: Domain id of each sample, ``(n,)``; ids that ``fit`` did not see are new domains.
                None: the average statistics of the sources.

        Returns:
            The features, ``(n, d)``.

        Raises:
            ValueError: If shapes do not match, or a value is NaN or infinite.
        """
        check_is_fitted(self)
        features = checked(self, X, dtype=np.float64, reset=False)
        if sample_domain is None:
            return self._apply(features, self.means_.mean(0), self._average())
        domains = read_domains("sample_domain", sample_domain, len(features))
        known = {name: position for position, name in enumerate(self.domains_.tolist())}
        result: Array = np.empty((len(features), self._outputs(features.shape[1])))
        new = []
        for code, name in enumerate(domains.names.tolist()):
            rows = domains.codes == code
            if name in known:
                mean, spread = self.means_[known[name]], self._spread(known[name])
            else:
                mean, spread = self._statistics(features[rows])
                new.append(code)
            result[rows] = self._apply(features[rows], mean, spread)
        self._warn_of_few(np.bincount(domains.codes)[new], domains.names[new], features.shape[1])
        return result

    def fit_transform(
        self, X: ArrayLike, y: object = None, *, sample_domain: ArrayLike | None = None
    ) -> Array:
        """Fit, and transform the same samples by their own domains; arguments as for ``fit``."""
        self.fit(X, y, sample_domain=sample_domain)
        own = (
            np.repeat(self.domains_, len(np.asarray(as_plain(X)))) if sample_domain is None else sample_domain
        )
        return self.transform(X, sample_domain=own)

    def _check(self) -> None:
        require_flag("with_std", self.with_std)

    def _statistics(self, features: Array) -> tuple[Array, Array]:
        """Mean and spread of a domain."""
        deviation = features.std(0) if self.with_std and len(features) > 1 else np.ones(features.shape[1])
        return features.mean(0), np.where(deviation > 0, deviation, 1.0)

    def _keep(self, spreads: list[Array]) -> None:
        self.scales_ = np.array(spreads)

    def _spread(self, position: int) -> Array:
        return np.asarray(self.scales_[position])

    def _average(self) -> Array:
        """Spread of a domain nothing is known of."""
        average: Array = np.sqrt(np.square(self.scales_).mean(0))
        return average

    def _apply(self, features: Array, mean: Array, spread: Array) -> Array:
        return (features - mean) / spread

    def _outputs(self, width: int) -> int:
        """Columns of the result."""
        return width

    def _least(self, width: int) -> int:
        """Samples that a domain's statistics take at least."""
        return 2

    def _warn_of_few(self, counts: NDArray[np.intp], names: NDArray[Any], width: int) -> None:
        least = self._least(width)
        few = [f"{name!s} ({count})" for name, count in zip(names, counts, strict=True) if count < least]
        if few:
            more = f" and {len(few) - 5} more" if len(few) > 5 else ""
            warn(
                self,
                f"statistics of domains with fewer than {least} samples are not to be trusted: "
                f"{', '.join(few[:5])}{more}",
                UntrustworthyWarning,
            )


class DomainWhitening(DomainCentering):
    r"""Each domain is centred and whitened by itself: mean 0, covariance ``I``; one head then serves all.

    ``Σ_e^(−1/2) (z − μ_e)``, symmetric, with a shrunken covariance. Rosenfeld, Ravikumar and Risteski,
    "Domain-Adjusted Regression" (DARE, 2022) fit one convex head on such features. A new domain has its own
    statistics, from the samples given to ``transform``, which need no labels; without ``sample_domain`` the
    mean of the sources' means and covariances stands for it. As with
    [DomainCentering][hessalign.estimator.DomainCentering], a shift in the share of classes is taken out, too,
    which costs accuracy.

    Args:
        shrinkage: ``"ledoit_wolf"`` (default), ``"oas"`` (scikit-learn's estimates; safe with few samples) or
            ``"none"``, the plain covariance.

    Attributes:
        domains_: Domain ids, ascending, ``(m,)``.
        means_: Their means, ``(m, d)``.
        covariances_: Their covariances, ``(m, d, d)``.

    Examples:
        >>> import numpy as np
        >>> from hessalign.estimator import DomainWhitening
        >>> random = np.random.default_rng(0)
        >>> site = np.repeat([0, 1], 500)
        >>> X = random.normal(size=(1000, 2)) * np.where(site[:, None] == 0, 1.0, [5.0, 0.1])
        >>> white = DomainWhitening(shrinkage="none").fit_transform(X, sample_domain=site)
        >>> np.cov(white[site == 1].T).round(1).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """

    _tensors: ClassVar = {"means_": "means", "covariances_": "covariances"}
    covariances_: Array

    def __init__(self, *, shrinkage: Shrinkage = "ledoit_wolf") -> None:
        self.shrinkage = shrinkage

    def _check(self) -> None:
        require_choice("shrinkage", self.shrinkage, tuple(COVARIANCES))

    def _statistics(self, features: Array) -> tuple[Array, Array]:
        mean = features.mean(0)
        if len(features) == 1:
            return mean, np.eye(features.shape[1])
        return mean, np.asarray(COVARIANCES[self.shrinkage](features - mean))

    def _keep(self, spreads: list[Array]) -> None:
        self.covariances_ = np.array(spreads)

    def _spread(self, position: int) -> Array:
        return np.asarray(self.covariances_[position])

    def _average(self) -> Array:
        average: Array = self.covariances_.mean(0)
        return average

    def _apply(self, features: Array, mean: Array, spread: Array) -> Array:
        variances, directions = np.linalg.eigh(spread)
        kept = variances > LEAST_VARIANCE * max(variances[-1], np.finfo(float).tiny)
        roots = np.where(kept, 1 / np.sqrt(np.where(kept, variances, 1.0)), 1.0)
        return np.asarray(((features - mean) @ directions * roots) @ directions.T)

    def _least(self, width: int) -> int:
        return width + 1 if self.shrinkage == "none" else 2


class DomainInformedFeatures(DomainCentering):
    r"""Features beside a few numbers that tell where they come from: ``[z, c_e]``, or ``[z, c_e, z ⊗ c_e]``.

    ``c_e`` is where the domain's mean lies among those of the sources: its coordinates along their leading
    principal components, with a mean square of 1 over the sources. A new domain's comes of the samples given
    to ``transform``, all of that domain that are there, without their labels. So one head may do otherwise in
    another domain, which pays where the relation between features and label differs between domains, and the
    features show which kind of domain it is. Where that relation is the same it costs accuracy, and so does a
    new domain that lies far from all sources.

    Features that are augmented by the domain's distribution of features: Blanchard, Lee and Scott,
    "Generalizing from Several Related Classification Tasks to a New Unlabeled Sample" (NeurIPS 2011), and
    Blanchard, Deshmukh, Dogan, Lee and Scott, "Domain Generalization by Marginal Transfer Learning" (JMLR
    2021), who multiply a kernel of features by one of distributions: a linear head on ``[z, c, z ⊗ c]`` is
    that with linear kernels. When it pays: Zhu, Deng, Shi, Gangrade and Scott, "Domain Generalization: A Tale
    of Two ERMs" (2025). On ``[z, c]`` a linear head can do no more than move its intercepts by domain.

    Args:
        components: Numbers for each domain, at least 1; None (default): one fewer than there are sources.
            Fewer where the means span no more.
        interactions: Whether ``z ⊗ c_e`` is among the columns, so that slopes may differ by domain; default
            False.

    Attributes:
        domains_: Domain ids, ascending, ``(m,)``.
        means_: Their means, ``(m, d)``.
        components_: From a mean about the sources' mean to ``c``, ``(k, d)``.

    Examples:
        >>> from hessalign.estimator import DomainInformedFeatures
        >>> X, site = [[1.0], [3.0], [10.0], [14.0]], ["a", "a", "b", "b"]
        >>> informed = DomainInformedFeatures().fit(X, sample_domain=site)
        >>> informed.transform([[2.0], [12.0]], sample_domain=["a", "b"]).round(6).tolist()
        [[2.0, -1.0], [12.0, 1.0]]
        >>> informed.transform([[6.0], [8.0]], sample_domain=["new", "new"]).round(6).tolist()
        [[6.0, 0.0], [8.0, 0.0]]
    """

    _tensors: ClassVar = {"means_": "means", "components_": "components"}
    components_: Array

    def __init__(self, components: int | None = None, *, interactions: bool = False) -> None:
        self.components = components
        self.interactions = interactions

    def fit(self, X: ArrayLike, y: object = None, *, sample_domain: ArrayLike | None = None) -> Self:
        """Take each domain's mean, and the components of the means; see ``DomainCentering``."""
        super().fit(X, sample_domain=sample_domain)
        centred = self.means_ - self.means_.mean(0)
        _, lengths, directions = np.linalg.svd(centred, full_matrices=False)
        # What is as small as the rounding of the means is none.
        least = max(LEAST_VARIANCE * lengths[0], ROUNDING * np.linalg.norm(self.means_))
        found = int((lengths > least).sum())
        count = min(found, len(centred) - 1 if self.components is None else int(self.components))
        # A sign of its own for each direction, so that equal data give equal columns.
        largest = np.abs(directions[:count]).argmax(1)
        signs = np.sign(directions[np.arange(count), largest])
        scales = signs * np.sqrt(len(centred)) / lengths[:count]
        self.components_ = directions[:count] * scales[:, None]
        if count == 0 and sample_domain is not None:
            what = "one domain" if len(centred) == 1 else "the domains' means agree"
            warn(self, f"no effect: {what}, so nothing tells domains apart", NoEffectWarning)
        return self

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the columns: the features', ``domain0`` …, and their products."""
        check_is_fitted(self)
        own = super().get_feature_names_out(input_features).tolist()
        told = [f"domain{number}" for number in range(len(self.components_))]
        products = [f"{name} {number}" for number in told for name in own] if self.interactions else []
        return np.array([*own, *told, *products], dtype=object)

    def _check(self) -> None:
        if self.components is not None:
            require_whole("components", self.components, least=1, otherwise="None or ")
        require_flag("interactions", self.interactions)

    def _statistics(self, features: Array) -> tuple[Array, Array]:
        return features.mean(0), np.ones(0)

    def _keep(self, spreads: list[Array]) -> None:
        """Domains have no spreads here."""

    def _spread(self, position: int) -> Array:
        return np.ones(0)

    def _average(self) -> Array:
        return np.ones(0)

    def _outputs(self, width: int) -> int:
        count = len(self.components_)
        return width + count + (width * count if self.interactions else 0)

    def _apply(self, features: Array, mean: Array, spread: Array) -> Array:
        told = self.components_ @ (mean - self.means_.mean(0))
        columns = [features, np.broadcast_to(told, (len(features), len(told)))]
        if self.interactions:
            columns += [features * number for number in told]
        return np.hstack(columns)
