"""Inferred groups: the optimum of the published objective; found where planted; doubts are told."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from hessalign.estimator import DFRClassifier, infer_groups
from hessalign.estimator.groups import _by_errors
from hessalign.exceptions import UntrustworthyWarning
from hessalign.metrics import evaluate


def biased(samples: int = 800, classes: int = 2, seed: int = 0) -> tuple:
    """A weak feature that tells the class, and a strong one that does so nine times in ten."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, samples)
    background = np.where(random.random(samples) < 0.9, y, (y + 1) % classes)
    means = np.eye(classes)
    noise = 0.7 * random.normal(size=(samples, 2 * classes))
    return noise + np.hstack([means[y], 4 * means[background]]), y, background


@pytest.mark.parametrize("classes", [2, 3])
def test_no_gradient_step_improves_on_the_environments_of_eiil(classes: int) -> None:
    """The objective as published, in its own form, climbed from many starts."""
    X, y, _ = biased(80, classes)
    rows = np.arange(len(y))
    found = _by_errors(X, y, rows, LogisticRegression(), 0)
    logits = np.empty((len(y), classes))
    splitter = StratifiedKFold(5, shuffle=True, random_state=0)
    for kept, held_out in splitter.split(X, y):
        scores = LogisticRegression().fit(X[kept], y[kept]).decision_function(X[held_out])
        logits[held_out] = np.column_stack([0 * scores, scores]) if classes == 2 else scores
    given, labels = torch.from_numpy(logits), torch.from_numpy(y)

    def objective(q: torch.Tensor) -> torch.Tensor:
        def penalty(share: torch.Tensor) -> torch.Tensor:
            scale = torch.ones((), dtype=torch.float64)
            slope = torch.func.grad(
                lambda s: (
                    share * torch.nn.functional.cross_entropy(s * given, labels, reduction="none")
                ).mean()
            )(scale)
            return slope.square()

        return penalty(q) + penalty(1 - q)

    best = objective(torch.from_numpy(found.astype(float)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        q = torch.rand(len(y), generator=generator, dtype=torch.float64)
        for _ in range(30):
            q = (q + 1e4 * torch.func.grad(objective)(q)).clamp(0, 1)
        assert objective(q) <= best + 1e-12
    assert objective(q) == pytest.approx(float(best), rel=0.05)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("method", ["eiil", "clusters"])
def test_planted_groups_are_found_and_help(method: str, classes: int) -> None:
    X, y, background = biased(900, classes)
    names = np.array(["cow", "dog", "hen"])[y]
    found = infer_groups(X, names, method=method, refits=3)
    assert np.mean((found.environments > 0) == (background != y)) > 0.9
    assert found.agreement > 0.7
    assert found.certainty.mean() > 0.9
    assert found.counts.tolist() == np.bincount(found.groups).tolist()
    assert found.labels[0] == ("cow", 0)
    assert "class cow, environment 0: " in str(found)
    new_X, new_y, new_background = biased(900, classes, seed=1)
    new_groups = classes * new_y + new_background
    worst = [
        evaluate(
            np.array(["cow", "dog", "hen"])[new_y], head.predict_proba(new_X), groups=new_groups
        ).groups.worst("accuracy")
        for head in (
            LogisticRegression().fit(X, names),
            DFRClassifier(n_subsets=5).fit(X, names, sample_group=found.groups),
        )
    ]
    assert worst[1] > worst[0] + 0.1


def test_what_is_not_to_be_trusted_says_so() -> None:
    X, y = make_blobs(200, centers=[[0.0, 0.0], [9.0, 9.0]], random_state=0)
    with pytest.warns(UntrustworthyWarning, match="no class was split: the groups are the classes"):
        infer_groups(X, y, refits=2)
    noise = np.random.default_rng(0).normal(size=(300, 5))
    with pytest.warns(UntrustworthyWarning, match="on resampled data the groups come out otherwise"):
        infer_groups(noise, np.arange(300) % 2, refits=3)
    biased_X, biased_y, background = biased(400)
    rare = (background == biased_y) | (np.arange(400) % 8 == 0)
    with pytest.warns(UntrustworthyWarning, match="a group has [0-9] samples only"):
        infer_groups(biased_X[rare], biased_y[rare], LogisticRegression(), refits=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "guess"}, "method: 'guess' is not known; allowed are 'eiil', 'clusters'"),
        ({"refits": 0}, "refits: must be a whole number of at least 1, got 0"),
        ({"head": 3}, "head: must be a classifier with decision_function, got a? ?int"),
        ({"head": LogisticRegression(), "method": "clusters"}, "head: only 'eiil' takes one"),
        ({"y": [0] * 80}, r"y: needs at least 2 classes of 10 samples each, got 0 \(80\)"),
        ({"y": [0] * 75 + [1] * 5}, r"of 10 samples each, got 0 \(75\), 1 \(5\)"),
        ({"y": [0, 1]}, "X, y: must hold one entry for each sample, got 80 and 2"),
        ({"X": np.full((80, 2), np.nan)}, "Input X contains NaN"),
        ({"random_state": -1}, "random_state: must be a whole number of at least 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    X, y, _ = biased(80)
    with pytest.raises(ValueError, match=message):
        infer_groups(**{"X": X, "y": y} | arguments)
