"""The scalars of a run, for trackers."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hessalign.exceptions import NoEffectWarning
from hessalign.runs.records import METRICS_FIELD, PREDICTIONS_FIELD, UNDEFINED
from hessalign.trackers import TrackedRun, Tracking
from hessalign.training.spec import RunSpec
from hessalign.training.trainer import Progress

STEPS_BETWEEN = 10
NO_SCALARS = ("step", "accuracies", METRICS_FIELD, UNDEFINED, PREDICTIONS_FIELD)


class RunTracking:
    """Hands a run's scalars to trackers as they become known.

    ``train/*`` are the scalars of single updates, every tenth step and at evaluations, and with them
    ``speed/images_per_second``; ``accuracy/DOMAIN/in`` and ``/out`` are measured at evaluations, and so are
    the other metrics, ``log_loss/DOMAIN/in`` say.

    Args:
        names: Of trackers: ``"tensorboard"``, ``"wandb"``, ``"mlflow"``, ``"trackio"``.
        folder: Of the run.
        spec: The run, which trackers keep as its configuration; None (default) where that is of no use.
        store: Where runs that belong together are kept; None (default) for the folder.

    Raises:
        ValueError: If a tracker is not known or not installed.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hessalign.training import Progress, RunTracking
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tracking = RunTracking(["tensorboard"], Path(folder))
        ...     tracking.write(Progress(0, {"loss": torch.tensor(0.7)}, None, 100.0))
        ...     tracking.close()
        ...     files = list(Path(folder).rglob("events.out.tfevents*"))
        >>> len(files)
        1
    """

    def __init__(
        self, names: Sequence[str], folder: Path, spec: RunSpec | None = None, store: Path | None = None
    ) -> None:
        self._names = names
        self._tracking = Tracking(names, _run(folder, spec, store))
        self._written = False

    def write(self, progress: Progress) -> None:
        """Add what a step brought; nothing is waited for."""
        record = progress.record
        evaluated = record is not None and record["step"] == progress.step
        if not evaluated and progress.step % STEPS_BETWEEN:
            return
        values: dict[str, Any] = {f"train/{name}": value for name, value in progress.metrics.items()}
        values["speed/images_per_second"] = progress.images_per_second
        if evaluated and record is not None:
            values |= _measured(record)
        self._log(progress.step, values)

    def write_records(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Add evaluations of a run that was trained together with others: means instead of single updates."""
        for record in records:
            numbers = {f"train/{name}": value for name, value in record.items() if _is_number(name, value)}
            self._log(record["step"], numbers | _measured(record))

    def close(self) -> None:
        """Wait until all is written, or for half a minute."""
        self._tracking.close()
        if not self._written:
            warnings.warn(
                f"track: the run was done before, so {', '.join(self._names)} has nothing to write",
                NoEffectWarning,
                stacklevel=2,
            )

    def _log(self, step: int, values: Mapping[str, Any]) -> None:
        self._written = True
        self._tracking.log(step, values)


class TensorBoard(RunTracking):
    """Event files for TensorBoard in the folder ``tensorboard`` of a run's folder.

    Args:
        folder: Of the run.

    Raises:
        ValueError: If TensorBoard is not installed.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hessalign.training import Progress, TensorBoard
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     tracking = TensorBoard(Path(folder))
        ...     tracking.write(Progress(0, {"loss": torch.tensor(0.7)}, None, 100.0))
        ...     tracking.close()
        ...     files = list(Path(folder).rglob("events.out.tfevents*"))
        >>> len(files)
        1
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(["tensorboard"], folder)


def _run(folder: Path, spec: RunSpec | None, store: Path | None) -> TrackedRun:
    kept = folder if store is None else store
    if spec is None:
        return TrackedRun(folder.name, folder.name, {}, folder, kept)
    targets = ",".join(map(str, spec.target_domains))
    name = f"{spec.algorithm} on {spec.dataset}, target {targets}, trial {spec.trial_seed}, seed {spec.seed}"
    return TrackedRun(name, spec.identity(), spec.model_dump(mode="json"), folder, kept)


def _measured(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        f"{name}/{domain}/{split}": value
        for name, domains in {"accuracy": record["accuracies"], **record.get(METRICS_FIELD, {})}.items()
        for domain, splits in domains.items()
        for split, value in splits.items()
        if value is not None
    }


def _is_number(name: str, value: Any) -> bool:
    return name not in NO_SCALARS and isinstance(value, int | float)
