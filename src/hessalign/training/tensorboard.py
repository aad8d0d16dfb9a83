"""The scalars of a run for TensorBoard."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from hessalign.runs.layout import TENSORBOARD
from hessalign.training.trainer import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

STEPS_BETWEEN = 10


class TensorBoard:
    """Writes a run's scalars below its folder as they become known.

    ``train/*`` are the scalars of single updates, every tenth step and at evaluations, and with them
    ``speed/images_per_second``; ``accuracy/DOMAIN/in`` and ``/out`` are measured at evaluations. A run that
    resumes replaces what was written beyond its checkpoint.

    Args:
        folder: Of the run.

    Raises:
        ValueError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        if find_spec("tensorboard") is None:
            raise ValueError("tensorboard: it is not installed; pip install 'hessalign[tensorboard]'")
        self._folder = folder / TENSORBOARD
        self._writer: SummaryWriter | None = None

    def write(self, progress: Progress) -> None:
        """Add what a step brought."""
        evaluated = progress.record is not None and progress.record["step"] == progress.step
        writer = self._opened(progress.step)
        if evaluated or progress.step % STEPS_BETWEEN == 0:
            for name, value in progress.metrics.items():
                writer.add_scalar(f"train/{name}", float(value), progress.step)
            writer.add_scalar("speed/images_per_second", progress.images_per_second, progress.step)
        if evaluated and progress.record is not None:
            for domain, accuracies in progress.record["accuracies"].items():
                for split, accuracy in accuracies.items():
                    writer.add_scalar(f"accuracy/{domain}/{split}", accuracy, progress.step)
            writer.flush()

    def close(self) -> None:
        """Bring everything to disk."""
        if self._writer is not None:
            self._writer.close()

    def _opened(self, first_step: int) -> "SummaryWriter":
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 (an extra that may be missing)

            self._writer = SummaryWriter(str(self._folder), purge_step=first_step)
        return self._writer
