"""Where and how a run is computed."""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from subprocess import Popen
from threading import Thread
from typing import Any, Literal, get_args

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from lightning_fabric.utilities.rank_zero import rank_zero_only

from hessalign.training.processes import Processes

Strategy = Literal["auto", "ddp"]
NUMBERED = ("cuda", "gpu", "mps")
"""Accelerators of which there may be several."""


@dataclass(frozen=True)
class Machine:
    """Where and how a run is computed; nothing here belongs to its identity.

    Attributes:
        accelerator: As Lightning Fabric takes it: ``"auto"``, ``"cpu"``, ``"gpu"``, ``"mps"`` ...; or one
            device by its number, ``"cuda:1"``.
        precision: As Lightning Fabric takes it: ``"32-true"``, ``"bf16-mixed"`` ...
        workers: Processes that load samples, for each of the devices.
        devices: Number of processes that share each update, one on each device; 1 by default.
        strategy: Which of Fabric's launchers starts them: ``"auto"`` (default) or ``"ddp"``, which run the
            program once for each process.

    Examples:
        >>> from hessalign.training import Machine
        >>> machine = Machine("cpu", workers=2)
        >>> machine.computes_here, machine.is_first_process
        (True, True)
    """

    accelerator: str = "auto"
    precision: str = "32-true"
    workers: int = 0
    devices: int = 1
    strategy: Strategy = "auto"

    @property
    def is_first_process(self) -> bool:
        """Whether this process is the first of a run's, or its only one: the one that writes and speaks."""
        return self.devices == 1 or getattr(rank_zero_only, "rank", 0) == 0

    @property
    def computes_here(self) -> bool:
        """Whether it is the processor that computes, in main memory."""
        return self.accelerator == "cpu" or (self.accelerator == "auto" and not torch.cuda.is_available())


def make_fabric(machine: Machine) -> Fabric:
    """Lightning Fabric for a machine; nothing is started yet.

    Returns:
        Not launched.

    Raises:
        ValueError: If there is no such machine here.

    Examples:
        >>> from hessalign.training import Machine, make_fabric
        >>> make_fabric(Machine("cpu")).device
        device(type='cpu')
    """
    if not torch.cuda.is_available():
        # Lightning lets PyTorch ask the driver's library for devices. Without a driver that is looked for at
        # each step of an optimizer, which takes longer than the step of a head. Not done where this is
        # imported: who asks for a GPU there keeps the processes that are forked from it from any.
        os.environ.pop("PYTORCH_NVML_BASED_CUDA_CHECK", None)
    if machine.devices < 1:
        raise ValueError(f"devices: must be a whole number of at least 1, got {machine.devices!r}")
    if machine.strategy not in get_args(Strategy):
        raise ValueError(
            f"strategy: {machine.strategy!r} is not known; allowed are {', '.join(get_args(Strategy))}"
        )
    if machine.precision == "16-mixed":
        raise ValueError(
            "precision: '16-mixed' needs its losses scaled, which algorithms with steps of their own do not "
            "do; use 'bf16-mixed'"
        )
    accelerator, _, index = machine.accelerator.partition(":")
    if ":" in machine.accelerator and not (index.isdecimal() and accelerator in NUMBERED):
        raise ValueError(
            f"accelerator: {machine.accelerator!r} is not known; one device is 'cuda:1', by its number"
        )
    if index and machine.devices > 1:
        raise ValueError(f"devices: {machine.devices} processes cannot have {machine.accelerator!r} alone")
    try:
        precision: Any = machine.precision
        return Fabric(
            accelerator=accelerator,
            devices=[int(index)] if index else machine.devices,
            strategy=machine.strategy,
            precision=precision,
            # Of a SLURM cluster a run is one task, whatever the job has more: Fabric starts its processes.
            plugins=[LightningEnvironment()] if _has_slurm() else None,
        )
    except (ValueError, RuntimeError, ImportError, MisconfigurationException) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"accelerator, devices, precision: {machine.accelerator!r} with {machine.devices} and "
            f"{machine.precision!r} is not available here ({reason})"
        ) from error


def _has_slurm() -> bool:
    return "SLURM_NTASKS" in os.environ or shutil.which("srun") is not None


@contextmanager
def launched(fabric: Fabric) -> Iterator[Processes]:
    """Start the other processes of a run; at its end, good or bad, none of them is left.

    Each of them runs the program from its beginning and meets this one here.

    Yields:
        The processes, this one among them.
    """
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # every process would introduce itself
    fabric.launch()
    watched: list[Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
    started = list(watched)
    if fabric.global_rank > 0:
        Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        yield Processes.of(fabric)
        for process in started:
            process.wait()
    finally:
        watched.clear()  # Fabric would kill this process, too, when it finds that another one was
        for process in started:
            process.kill()
            process.wait()
        if dist.is_initialized():
            dist.destroy_process_group()


def _end_with_parent(parent: int) -> None:
    """Do not outlive the process that started this one, which may be killed while this one waits for it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
