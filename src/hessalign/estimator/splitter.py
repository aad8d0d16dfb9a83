# ruff: noqa: N803 (scikit-learn's names)
"""Cross-validation over domains."""

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.model_selection import LeaveOneGroupOut

from hessalign.estimator.inputs import read_views
from hessalign.inputs import read_domains

Fold = tuple[NDArray[np.intp], NDArray[np.intp]]


class LeaveOneDomainOut(LeaveOneGroupOut):  # type: ignore[misc]
    """Each domain in turn is held out for testing: how well does the model do on a domain it never saw?

    Views of a sample (``sample_id``) are trained on and never tested on: of the domain held out only the
    first row of each sample is.

    Domain ids reach it as ``groups``, as in any of scikit-learn's splitters for groups, or, with metadata
    routing enabled, as ``sample_domain``, the name under which the estimators take them too.

    Examples:
        >>> from hessalign import LeaveOneDomainOut
        >>> folds = LeaveOneDomainOut().split([[1.0], [2.0], [3.0]], groups=["clinic", "clinic", "field"])
        >>> [test.tolist() for train, test in folds]
        [[0, 1], [2]]
    """

    __metadata_request__split: ClassVar = {"sample_domain": True, "sample_id": True}

    def split(
        self,
        X: ArrayLike,
        y: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        sample_domain: ArrayLike | None = None,
        sample_id: ArrayLike | None = None,
    ) -> Iterator[Fold]:
        """Indices of training and test samples, a pair for each domain, in ascending order of the ids.

        Args:
            X: ``n`` samples.
            y: Not used.
            groups: Domain ids, ``(n,)``, integers or strings.
            sample_domain: The same under the other name; one of the two is needed.
            sample_id: Id of the sample that each row is a view of, ``(n,)``; by default each is a sample.

        Returns:
            Pairs of index arrays.

        Raises:
            ValueError: If neither or both are given, there are fewer than two domains, or views of one sample
                are of several.
        """
        codes = _codes(groups, sample_domain)
        ids = None if sample_id is None else read_views(sample_id, {"sample_domain": codes})
        folds: Iterator[Fold] = super().split(X, y, codes)
        if ids is None:
            return folds
        first = np.unique(ids, return_index=True)[1]
        return ((train, test[np.isin(test, first)]) for train, test in folds)

    def get_n_splits(
        self,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        *,
        sample_domain: ArrayLike | None = None,
        sample_id: ArrayLike | None = None,
    ) -> int:
        """Number of domains; arguments as for [split][hessalign.estimator.LeaveOneDomainOut.split].

        Returns:
            The number.

        Raises:
            ValueError: If neither or both of ``groups`` and ``sample_domain`` are given.
        """
        return int(_codes(groups, sample_domain).max()) + 1


def _codes(groups: ArrayLike | None, sample_domain: ArrayLike | None) -> NDArray[Any]:
    given = [ids for ids in (groups, sample_domain) if ids is not None]
    if len(given) != 1:
        raise ValueError(
            "groups, sample_domain: LeaveOneDomainOut needs the domain ids under exactly one of these names, "
            f"got {'neither' if not given else 'both'}"
        )
    domains = read_domains("groups, sample_domain", given[0], len(np.asarray(given[0])))
    if len(domains.names) < 2:
        raise ValueError(
            f"groups, sample_domain: leaving a domain out needs at least 2 domains, got {len(domains.names)}"
        )
    return domains.codes
