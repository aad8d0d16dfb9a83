"""Scalars of runs for TensorBoard, Weights & Biases, MLflow and Trackio, behind one small interface.

Each tracker works in a thread of its own, which takes scalars from a queue. So a run waits for none of them,
and one that fails or hangs is given up with a warning: no run stops for it. Nothing leaves the machine unless
the tracker's own environment variables say so.
"""

import os
import re
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from queue import Full, Queue
from threading import Thread
from typing import Any, Protocol

from hessalign.checks import did_you_mean
from hessalign.exceptions import HessalignWarning

PROJECT = "hessalign"
MOST_WAITING = 10_000
"""Sets of scalars that wait for a slow tracker; what comes on top of them is lost to it."""
SECONDS_AT_END = 30.0
"""To wait for a tracker when the run is done."""
MLFLOW_FORBIDS = re.compile(r"[^\w\-. :/]")
LONGEST_PARAM = 500


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker is told of a run.

    Attributes:
        name: For a person.
        identity: The same for a run that goes on.
        config: What determines the run, as JSON.
        folder: Of the run alone.
        store: Where runs that belong together are kept; the same folder for a run on its own.
    """

    name: str
    identity: str
    config: Mapping[str, Any]
    folder: Path
    store: Path


class Tracker(Protocol):
    """Takes scalars; called in one thread only."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Keep the scalars of a step."""

    def close(self) -> None:
        """Bring everything to disk."""


class Tracking:
    """Several trackers of a run at once.

    Args:
        names: Among ``tensorboard``, ``wandb``, ``mlflow`` and ``trackio``.
        run: What they are told of it.

    Raises:
        ValueError: If a name is not known, or what it needs is not installed.
    """

    def __init__(self, names: Sequence[str], run: TrackedRun) -> None:
        check_trackers(names)
        self._threads = [_Background(name, run) for name in names]

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Hand on the scalars of a step; tensors are read by the trackers' threads."""
        for thread in self._threads:
            thread.log(step, values)

    def close(self) -> None:
        """Wait until all is written, or for half a minute."""
        end = time.monotonic() + SECONDS_AT_END
        for thread in self._threads:
            thread.finish()
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are not there, before any work is done.

    Args:
        names: Of trackers.

    Raises:
        ValueError: Naming the one that is not known or not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise ValueError(
                f"track: {name!r} is not known; allowed are {', '.join(TRACKERS)}"
                f"{did_you_mean(name, [*TRACKERS])}"
            )
        if find_spec(name) is None:
            raise ValueError(f"{name}: it is not installed; pip install 'hessalign[{name}]'")


class _Background:
    """One tracker in a thread; it begins with the first scalars."""

    def __init__(self, name: str, run: TrackedRun) -> None:
        self._name, self._run = name, run
        self._queue: Queue[tuple[int, Mapping[str, Any]] | None] = Queue(MOST_WAITING)
        self._thread: Thread | None = None
        self._problem: str | None = None
        self._told = False
        self._lost = 0

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        if self._problem is not None:
            self._tell(self._problem)
            return
        if self._thread is None:
            self._thread = Thread(target=self._work, daemon=True, name=f"{PROJECT}-{self._name}")
            self._thread.start()
        try:
            self._queue.put_nowait((step, values))
        except Full:
            self._lost += 1

    def finish(self) -> None:
        with suppress(Full):
            self._queue.put_nowait(None)

    def join(self, seconds: float) -> None:
        if self._thread is None:
            return
        self._thread.join(seconds)
        if self._problem is not None:
            self._tell(self._problem)
        elif self._thread.is_alive():
            self._tell("it has not written everything in time")
        elif self._lost:
            self._tell(f"it was too slow for {self._lost} of the steps, whose scalars it lacks")

    def _work(self) -> None:
        tracker: Tracker | None = None
        try:
            while (item := self._queue.get()) is not None:
                step, values = item
                if tracker is None:
                    tracker = TRACKERS[self._name](self._run, step)
                tracker.log(step, {name: float(value) for name, value in values.items()})
            if tracker is not None:
                tracker.close()
        except (
            BaseException
        ) as error:  # whatever a tracker raises, SystemExit among it, is no matter of the run's
            reason = " ".join(str(error).split())[:300]
            self._problem = f"{type(error).__name__}: {reason}"

    def _tell(self, problem: str) -> None:
        if not self._told:
            self._told = True
            warnings.warn(
                f"track: {self._name} is given up ({problem}); the run itself is not concerned",
                HessalignWarning,
                stacklevel=4,
            )


class _TensorBoard:
    """Event files in the run's folder; those of steps that a run does again are replaced."""

    def __init__(self, run: TrackedRun, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (an extra that may be missing)

        self._writer = SummaryWriter(str(run.folder / "tensorboard"), purge_step=first_step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class _WandB:
    """A run in ``wandb/`` of the store, offline unless ``WANDB_MODE`` says otherwise."""

    def __init__(self, run: TrackedRun, first_step: int) -> None:
        import wandb  # noqa: PLC0415 (an extra that may be missing)

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        run.store.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=run.identity,
            resume="allow" if mode == "online" else None,
            config=dict(run.config),
            dir=str(run.store),
            mode=mode,
            reinit="create_new",
            settings=wandb.Settings(silent=True, disable_git=True, save_code=False, console="off"),
        )
        # Its own count never goes back, as the steps of a run do that goes on from its checkpoint.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """A run in the files ``mlflow/`` of the store, or wherever ``MLFLOW_TRACKING_URI`` says."""

    def __init__(self, run: TrackedRun, first_step: int) -> None:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # plain files, which need no database
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # a run tells nobody that it runs
        from mlflow import MlflowClient, entities  # noqa: PLC0415 (an extra that may be missing)

        uri = os.environ.get("MLFLOW_TRACKING_URI") or (run.store.absolute() / "mlflow").as_uri()
        self._client, self._metric = MlflowClient(tracking_uri=uri), entities.Metric
        experiment = self._experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        tag = f"{PROJECT}.identity"
        found = self._client.search_runs([experiment], f"tags.`{tag}` = '{run.identity}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
            return
        created = self._client.create_run(experiment, tags={tag: run.identity}, run_name=run.name)
        self._id = created.info.run_id
        params = [
            entities.Param(_allowed(name), str(value)[:LONGEST_PARAM]) for name, value in _flat(run.config)
        ]
        self._client.log_batch(self._id, params=params)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [self._metric(_allowed(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def close(self) -> None:
        self._client.set_terminated(self._id)

    def _experiment(self, name: str) -> str:
        found = self._client.get_experiment_by_name(name)
        if found is None:
            with suppress(Exception):  # another process may have made it meanwhile
                return str(self._client.create_experiment(name))
            found = self._client.get_experiment_by_name(name)
            if found is None:
                raise OSError(f"there is no experiment {name}, and none can be made")
        return str(found.experiment_id)


class _Trackio:
    """A run in the database ``trackio/`` of the store, or wherever ``TRACKIO_DIR`` says."""

    def __init__(self, run: TrackedRun, first_step: int) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(run.store.absolute() / "trackio"))
        import trackio  # noqa: PLC0415 (an extra that may be missing)

        # It tells on stdout what it does, where a command's result goes.
        for name in [name for name in sys.modules if name.partition(".")[0] == "trackio"]:
            vars(sys.modules[name])["print"] = lambda *_, **__: None
        self._run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", PROJECT),
            name=f"{run.name} {run.identity}",
            config=dict(run.config),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: dict[str, Callable[[TrackedRun, int], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "mlflow": _MLflow,
    "trackio": _Trackio,
}
"""By name, which is that of the module and of the extra; made when the first scalars come."""


def _allowed(name: str) -> str:
    """A name that MLflow takes: other signs become their numbers."""
    return MLFLOW_FORBIDS.sub(lambda found: f"_{ord(found[0]):x}_", name)


def _flat(config: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for name, value in config.items():
        pairs += (
            _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(f"{prefix}{name}", value)]
        )
    return pairs
