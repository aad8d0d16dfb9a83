"""What a run's own numbers say against it: a penalty that swamps the risk, a constant prediction."""

import math
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hessalign.algorithms import Algorithm, DomainBatch
from hessalign.exceptions import UntrustworthyWarning

SWAMPED = 100.0
"""Weighted penalty in units of the risk from which it is said to swamp it."""
PATIENCE = 50
"""Updates that every network may need before it predicts more than one class."""


class Doubts:
    """The doubts about a run, or about runs of one algorithm that are trained together, each told once.

    They concern algorithms with a penalty, which name its weights.

    Args:
        algorithm: Of the runs.
        speak: Whether this process is the one that warns.
    """

    def __init__(self, algorithm: Algorithm, *, speak: bool) -> None:
        self._algorithm = algorithm
        self._weights = " or ".join(algorithm.penalty_weights)
        self._left = {"penalty", "predictions"} if speak and algorithm.penalty_weights else set()

    def of_run(self, step: int, means: Mapping[str, float], batch: DomainBatch) -> None:
        """Look at an evaluation of one run.

        Args:
            step: Of the evaluation.
            means: Of the metrics since the last one.
            batch: The latest; what the network predicts for it stands for the source domains.
        """
        if not self._left:
            return
        self._algorithm.eval()
        with torch.no_grad():
            predicted = self._algorithm(batch.inputs).argmax(1)
        self._algorithm.train()
        self.of_runs(step, [means], [predicted], [batch.targets])

    def of_runs(
        self,
        step: int,
        means: Sequence[Mapping[str, float]],
        predicted: Sequence[Tensor],
        targets: Sequence[Tensor],
    ) -> None:
        """Look at an evaluation of several runs.

        Args:
            step: Of the evaluation.
            means: Of each run: means of its metrics since the last one.
            predicted: Of each run: predicted classes of samples of the source domains, ``(n,)``.
            targets: Of each run: their true classes.
        """
        if "penalty" in self._left:
            self._of_penalties(step, means)
        if "predictions" in self._left and step >= PATIENCE:
            self._of_predictions(step, predicted, targets)

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
                f"are predicted as class {constant[0]}: a constant prediction aligns all domains and tells "
                f"nothing; a smaller {self._weights}, or more steps, may mend it",
            )

    def _tell(self, kind: str, words: str) -> None:
        self._left.discard(kind)
        warnings.warn(words, UntrustworthyWarning, stacklevel=5)


def _runs(some: Sequence[object], every: Sequence[object]) -> str:
    return f" in {len(some)} of {len(every)} runs" if len(every) > 1 else ""
