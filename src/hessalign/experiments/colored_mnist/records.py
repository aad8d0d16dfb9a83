"""Finished restarts on disk: one JSON file each, written whole or not at all."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from hessalign.experiments.colored_mnist.config import RestartSpec
from hessalign.experiments.colored_mnist.restart import DivergedRestart, RestartRecord
from hessalign.files import write_atomically
from hessalign.runs import hold, layout
from hessalign.runs.seals import sha256

DIVERGED = ".diverged"
"""Ending of what is kept of a restart that diverged."""
DIGEST = "sha256"
"""Field of a record's file, by which damage is seen; records from before there was one have none."""


class RecordStore:
    """The restarts in a folder.

    Args:
        folder: The experiment's; records lie in its sub-folder ``restarts``.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import torch
        >>> from hessalign.experiments.colored_mnist import RecordStore, RestartSpec, run_restart
        >>> spec = RestartSpec(method="erm", seed=0, steps=2, hidden=4, subsample=200)
        >>> record = run_restart(spec, torch.device("cpu"))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = RecordStore(Path(folder))
        ...     before = store.has(spec)
        ...     store.save(record)
        ...     before, store.has(spec)
        (False, True)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "restarts"

    def path(self, spec: RestartSpec) -> Path:
        """Where the record of a restart lies."""
        return self.folder / f"{spec.method}-seed{spec.seed}-{spec.identity()}.json"

    def has(self, spec: RestartSpec) -> bool:
        """Whether the restart is finished."""
        return self.path(spec).exists()

    def model_path(self, spec: RestartSpec) -> Path:
        """Where the trained network lies, if it was kept."""
        return self.path(spec).with_suffix(".safetensors")

    def has_model(self, spec: RestartSpec) -> bool:
        """Whether the restart is finished and its network was kept."""
        return self.has(spec) and self.model_path(spec).exists()

    def prepare(self) -> None:
        """Make the folder and find out whether files can be written to it.

        Raises:
            OSError: If they cannot.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=self.folder).close()

    @contextmanager
    def held(self, spec: RestartSpec) -> Iterator[None]:
        """Be the only process that runs a restart.

        Raises:
            HeldError: If another one does.
        """
        with hold(self.folder, 0, self._lock(spec)):
            try:
                yield
            finally:
                # Whoever takes the lock looks whether the restart is finished, so it has served.
                (self.folder / self._lock(spec)).unlink(missing_ok=True)

    def wait_while_held(self, spec: RestartSpec) -> None:
        """Return when no other process runs the restart."""
        layout.wait_while_held(self.folder, self._lock(spec))

    def save(self, record: RestartRecord) -> None:
        """Write a record, with its digest.

        Raises:
            OSError: If it cannot be written; what was there stays.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path(record.spec), _sealed(record))

    def save_diverged(self, restart: DivergedRestart) -> None:
        """Write down that a restart diverged.

        Raises:
            OSError: If it cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.path(restart.spec).with_suffix(DIVERGED)
        write_atomically(path, _sealed(restart))

    def diverged(self, spec: RestartSpec) -> DivergedRestart | None:
        """What is known of a restart that diverged; None where it did not, or was not run.

        Returns:
            The restart as it was written down, or None.

        Raises:
            ValueError: If the file is damaged, naming it.
        """
        path = self.path(spec).with_suffix(DIVERGED)
        return _read(DivergedRestart, path) if path.exists() else None

    def check(self) -> None:
        """Refuse a folder in which something is damaged.

        Raises:
            ValueError: Naming the file.
            OSError: If one cannot be read.
        """
        self.load_all()
        for path in sorted(self.folder.glob(f"*{DIVERGED}")):
            _read(DivergedRestart, path)

    def load_all(self) -> list[RestartRecord]:
        """Every record in the folder, in the order of the file names.

        Returns:
            The records.

        Raises:
            ValueError: If a file is not a record of a finished restart, or two are of the same one.
            OSError: If it cannot be read.
        """
        records = {path: _read(RestartRecord, path) for path in sorted(self.folder.glob("*.json"))}
        first: dict[RestartSpec, Path] = {}
        for path, record in records.items():
            if record.spec in first:
                raise ValueError(f"{path}: holds the same restart as {first[record.spec]}; move one away")
            first[record.spec] = path
        return list(records.values())

    def load(self, spec: RestartSpec) -> RestartRecord:
        """The record of a finished restart.

        Returns:
            The record.

        Raises:
            ValueError: If the file is not the record of that restart.
            OSError: If it cannot be read.
        """
        record = _read(RestartRecord, self.path(spec))
        if record.spec != spec:
            raise ValueError(f"{self.path(spec)}: holds another restart than its name tells; move it away")
        return record

    def _lock(self, spec: RestartSpec) -> str:
        return f".{self.path(spec).stem}.lock"


Kept = TypeVar("Kept", RestartRecord, DivergedRestart)


def _read(kind: type[Kept], path: Path) -> Kept:
    try:
        document = json.loads(path.read_bytes())
        digest = document.pop(DIGEST, None) if isinstance(document, dict) else None
        kept = kind.model_validate(document)
        if digest is not None and digest != _digest(kept):
            raise ValueError("its SHA-256 differs from the recorded one")
    except (ValueError, RecursionError) as error:
        problem = str(error)
        if isinstance(error, ValidationError):
            problem = f"{error.error_count()} problems, first: {error.errors()[0]['msg']}"
        raise ValueError(
            f"{path}: not the record of a finished restart ({problem}); move the file away to run that "
            "restart again"
        ) from error
    return kept


def _sealed(kept: RestartRecord | DivergedRestart) -> str:
    document = {DIGEST: _digest(kept), **kept.model_dump(mode="json", by_alias=True)}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _digest(kept: RestartRecord | DivergedRestart) -> str:
    return sha256(kept.model_dump_json(by_alias=True).encode())
