"""Tasks of a SLURM cluster, through submitit."""

import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from hessalign.benchmark.job import Job, Outcome, outcome_of_death, perform_as_worker

COMMANDS = ("sbatch", "srun", "sacct", "scancel")
OURS = ("array", "time", "cpus-per-task", "gpus-per-node", "nodes", "signal", "output", "error", "open-mode")
"""Options of sbatch that the engine sets itself."""
MOST_IN_ARRAY = 1000
"""What clusters allow by default is 1,001."""
MOST_TIMEOUTS = 20
"""How often a task that ran out of time is queued again."""
SECONDS_BETWEEN_LOOKS = 1.0


class SlurmEngine:
    """One array job, with one task for each run, or for each group of runs that are trained together.

    A task that SLURM preempts, or that nears its time limit, is queued again and goes on from its run's
    checkpoint. Every node needs this environment, the data at the same path, and the sweep's folder on a file
    system that all share; scripts and logs lie there in ``slurm``.

    Args:
        out: Folder of the sweep.
        cpus_per_run: Cores of a task, and PyTorch's threads; 1 by default.
        gpus_per_run: GPUs of a task; 0 by default.
        minutes: Time limit of a task; 240 by default.
        at_a_time: Tasks that run at once at most; 256 by default.
        retries: How often a failed run is done again; 1 by default.
        sbatch: Further options of ``sbatch`` by their names: ``{"partition": "gpu"}``.
        cluster: ``"slurm"`` (default); ``"local"`` starts each task as a process of this machine, to try it.

    Raises:
        ValueError: If submitit is not installed, there is no SLURM here, or an option is one that the engine
            sets itself.

    Examples:
        >>> import tempfile
        >>> from contextlib import closing
        >>> from pathlib import Path
        >>> from hessalign.benchmark.engines import SlurmEngine
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with closing(SlurmEngine(Path(folder), minutes=10, cluster="local")) as engine:
        ...         list(engine.perform([])), engine.running()
        ([], [])
    """

    def __init__(
        self,
        out: Path,
        cpus_per_run: int = 1,
        gpus_per_run: int = 0,
        minutes: int = 240,
        at_a_time: int = 256,
        retries: int = 1,
        sbatch: Mapping[str, str] | None = None,
        cluster: Literal["slurm", "local"] = "slurm",
    ) -> None:
        self._submitit = _submitit()
        self._retries = retries
        self._task = _Task(cpus_per_run)
        self._pending: list[_Pending] = []
        if cluster == "local":
            self._executor = self._submitit.LocalExecutor(out / "slurm", max_num_timeout=MOST_TIMEOUTS)
            self._executor.update_parameters(timeout_min=minutes)
            return
        missing = [command for command in COMMANDS if shutil.which(command) is None]
        if missing:
            raise ValueError(f"engine: 'slurm' needs SLURM's commands, and {missing[0]} is not here")
        further = {name.replace("_", "-"): value for name, value in (sbatch or {}).items()}
        ours = [name for name in further if name in OURS]
        if ours:
            raise ValueError(f"slurm: {ours[0]} is set by the engine; allowed are other options of sbatch")
        self._executor = self._submitit.SlurmExecutor(out / "slurm", max_num_timeout=MOST_TIMEOUTS)
        self._executor.update_parameters(
            job_name="hessalign",
            time=minutes,
            cpus_per_task=cpus_per_run,
            **({"gpus_per_node": gpus_per_run} if gpus_per_run else {}),
            array_parallelism=at_a_time,
            wckey=None,  # submitit has its own name there, of no meaning here
            additional_parameters=further,
        )

    def script(self, tasks: int) -> str:
        """What is handed to ``sbatch`` for so many tasks, without submitting anything."""
        count = min(tasks, MOST_IN_ARRAY)
        again = self._submitit.SlurmExecutor(self._executor.folder, MOST_TIMEOUTS)
        again.parameters = {**self._executor.parameters, **({"map_count": count} if count > 1 else {})}
        text: str = again._make_submission_file_text(again._submitit_command_str, "")
        return text

    def perform(self, groups: Sequence[Sequence[Job]]) -> Iterator[Outcome]:
        """The outcome of each job of each group, as they come in."""
        for start in range(0, len(groups), MOST_IN_ARRAY):
            self._submit(groups[start : start + MOST_IN_ARRAY], 1)
        while self._pending:
            done = [pending for pending in self._pending if pending.task.done()]
            for pending in done:
                self._pending.remove(pending)
                for outcome in self._outcomes(pending):
                    if outcome.status == "failed" and pending.attempt <= self._retries:
                        self._submit([[outcome.job]], pending.attempt + 1)
                    else:
                        yield outcome
            if not done:
                time.sleep(SECONDS_BETWEEN_LOOKS)

    def running(self) -> list[Sequence[Job]]:
        """The groups whose tasks have begun to write a log."""
        return [pending.jobs for pending in list(self._pending) if pending.task.paths.stdout.exists()]

    def close(self) -> None:
        """Cancel what is pending."""
        for pending in self._pending:
            pending.task.cancel(check=False)
        self._pending = []

    def _submit(self, groups: Sequence[Sequence[Job]], attempt: int) -> None:
        try:
            tasks = self._executor.map_array(self._task, groups)
        except self._submitit.core.utils.FailedJobError as error:
            reason = " ".join(str(error).split())[-300:]
            raise ValueError(f"engine: sbatch refuses the job ({reason})") from error
        self._pending += [_Pending(task, jobs, attempt) for task, jobs in zip(tasks, groups, strict=True)]

    def _outcomes(self, pending: "_Pending") -> list[Outcome]:
        utils = self._submitit.core.utils
        try:
            outcomes: list[Outcome] = pending.task.result()
        except (utils.UncompletedJobError, utils.FailedJobError) as error:
            reason = " ".join(str(error).split())[:300]
            sentence = f"SLURM's job {pending.task.job_id} ended before its runs ({reason})"
            return [outcome_of_death(job, sentence) for job in pending.jobs]
        return outcomes


class _Pending:
    """A task that was submitted."""

    def __init__(self, task: Any, jobs: Sequence[Job], attempt: int) -> None:
        self.task, self.jobs, self.attempt = task, jobs, attempt


class _Task:
    """What a task does, and does again from the checkpoint when it is queued again."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __call__(self, jobs: Sequence[Job]) -> list[Outcome]:
        return perform_as_worker(jobs, self.threads)

    def checkpoint(self, jobs: Sequence[Job]) -> Any:
        return _submitit().helpers.DelayedSubmission(self, jobs)


def _submitit() -> ModuleType:
    try:
        import submitit  # noqa: PLC0415, an extra that only this engine needs
    except ImportError:
        raise ValueError("engine: 'slurm' is not installed; run  pip install 'hessalign[slurm]'") from None
    found: ModuleType = submitit
    return found
