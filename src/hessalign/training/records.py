"""The metrics of a run as JSON lines, one for each evaluation."""

import json
import os
from collections.abc import Collection, Mapping
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


def read_records(folder: Path) -> list[dict[str, Any]]:
    """All whole lines; a last line that was torn by a kill is left out."""
    path = folder / FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def keep_records_before(folder: Path, step: int) -> None:
    """Drop what a killed run wrote after the checkpoint at which it resumes."""
    kept = [json.dumps(record) + "\n" for record in read_records(folder) if record["step"] < step]
    write_atomically(folder / FILE, "".join(kept))


def source_accuracy(record: Mapping[str, Any], target_domains: Collection[int]) -> float:
    """Mean accuracy on the held-out parts of the source domains, 0 to 1."""
    parts = record["accuracies"].values()  # domains in index order
    sources = [part["out"] for index, part in enumerate(parts) if index not in target_domains]
    return float(sum(sources) / len(sources))
