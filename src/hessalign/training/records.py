"""The metrics of a run as JSON lines, one for each evaluation."""

import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hessalign.files import write_atomically

FILE = "metrics.jsonl"


def append_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Add a line and bring it to disk."""
    with (folder / FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_records(folder: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace all lines at once."""
    write_atomically(folder / FILE, "".join(json.dumps(record) + "\n" for record in records))


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line that was torn by a kill is left out."""
    path = folder / FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def keep_records_before(folder: Path, step: int) -> None:
    """Drop what a killed run wrote after the checkpoint at which it resumes."""
    write_records(folder, [record for record in read_records(folder) if record["step"] < step])


def source_accuracy(record: Mapping[str, Any], target_domains: Collection[int]) -> float:
    """Mean accuracy on the held-out parts of the source domains, 0 to 1."""
    parts = record["accuracies"].values()  # domains in index order
    sources = [part["out"] for index, part in enumerate(parts) if index not in target_domains]
    return float(sum(sources) / len(sources))
