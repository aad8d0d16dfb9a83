"""What speaks against a run that goes on: a huge loss, a penalty that swamps it, a constant prediction."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from hessalign.algorithms import Algorithm
from hessalign.algorithms.base import known_as
from hessalign.exceptions import UntrustworthyWarning

SWAMPED = 100.0
"""Weighted penalty in units of the risk from which it is said to swamp it."""
HUGE = 1000.0
"""Loss in units of that of guessing from which a run is said to be as good as diverged."""
PATIENCE, LEAST_PATIENCE = 50, 20
"""Updates that every network may need before it predicts more than one class. A short run is looked at after
its last update, if it has as many updates as the smaller number."""

Predicted = tuple[Sequence[Tensor], Sequence[Tensor]]
"""Of each run: predicted classes of samples of its source domains, ``(n,)``, and their true classes."""


class Doubts:
    """The doubts about a run, or about runs of one algorithm that are trained together, each told once.

    A huge loss is doubted of every algorithm; a penalty that swamps the risk, and a constant prediction, of
    those with a penalty, which name its weights.

    Args:
        algorithm: Of the runs.
        steps: Of each run.
        class_names: By class id.
        speak: Whether this process is the one that warns.
    """

    def __init__(self, algorithm: Algorithm, steps: int, class_names: Sequence[str], *, speak: bool) -> None:
        self._algorithm, self._class_names = algorithm, class_names
        self._patience = min(PATIENCE, max(LEAST_PATIENCE, steps) - 1)
        self._weights = " or ".join(algorithm.penalty_weights)
        kinds = {"loss", "penalty", "predictions"} if algorithm.penalty_weights else {"loss"}
        self._left = kinds if speak else set()

    def look(
        self, step: int, means: Sequence[Mapping[str, float]], predicted: Callable[[], Predicted]
    ) -> None:
        """Look at an evaluation.

        Args:
            step: Of the evaluation.
            means: Of each run: means of its metrics since the last one.
            predicted: Makes predictions for samples of the source domains; called only if they are needed.
        """
        if "loss" in self._left:
            self._of_losses(step, means)
        if "penalty" in self._left:
            self._of_penalties(step, means)
        if "predictions" in self._left and step >= self._patience:
            self._of_predictions(step, *predicted())

    def _of_losses(self, step: int, means: Sequence[Mapping[str, float]]) -> None:
        guessing = math.log(max(2, self._algorithm.classes))
        risks = [mean.get("risk", mean.get("loss", 0.0)) for mean in means]
        huge = [risk for risk in risks if HUGE * guessing < risk < math.inf]
        if huge:
            self._tell(
                "loss",
                f"loss: at step {step}{_runs(huge, means)} the loss of {known_as(self._algorithm)} is "
                f"{max(huge):.3g}, {max(huge) / guessing:.3g} times that of guessing: finite, but as good as "
                "diverged; choose a smaller lr",
            )

    def _of_penalties(self, step: int, means: Sequence[Mapping[str, float]]) -> None:
        # A risk that has been trained away is no reason to doubt the penalty: that of guessing counts.
        guessing = math.log(max(2, self._algorithm.classes))
        ratios = [abs(mean["loss"] - mean["risk"]) / max(mean["risk"], guessing) for mean in means]
        swamped = [ratio for ratio in ratios if SWAMPED < ratio < math.inf]
        if swamped:
            self._tell(
                "penalty",
                f"penalty: at step {step}{_runs(swamped, means)} the weighted penalty of "
                f"{self._algorithm.name} is {max(swamped):.3g} times the risk, which hardly counts beside "
                f"it; a smaller {self._weights} lets it count",
            )

    def _of_predictions(self, step: int, predicted: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
        constant = [
            int(classes[0])
            for classes, right in zip(predicted, targets, strict=True)
            if int(classes[0]) >= 0  # a run that has diverged predicts none
            and bool((classes == classes[0]).all())
            and bool((right != right[0]).any())
        ]
        if constant:
            self._tell(
                "predictions",
                f"predictions: at step {step}{_runs(constant, predicted)} all samples of the source domains "
                f"are predicted as {self._class_names[constant[0]]!r}: a constant prediction aligns all "
                f"domains and tells nothing; a smaller {self._weights}, or more steps, may mend it",
            )

    def _tell(self, kind: str, words: str) -> None:
        self._left.discard(kind)
        warnings.warn(words, UntrustworthyWarning, stacklevel=6)


def _runs(some: Sequence[object], every: Sequence[object]) -> str:
    return f" in {len(some)} of {len(every)} runs" if len(every) > 1 else ""
