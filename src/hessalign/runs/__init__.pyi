from .layout import (
    CHECKPOINTS,
    DONE,
    ERROR,
    LATEST,
    METRICS,
    SPEC,
    HeldError,
    hold,
    is_finished,
    is_started,
    latest_checkpoint,
)
from .records import append_record, divergence, read_records, source_accuracy, write_records
from .seals import Seal, check_spec, finish, read_as, read_lines

__all__ = [
    "CHECKPOINTS",
    "DONE",
    "ERROR",
    "LATEST",
    "METRICS",
    "SPEC",
    "HeldError",
    "Seal",
    "append_record",
    "check_spec",
    "divergence",
    "finish",
    "hold",
    "is_finished",
    "is_started",
    "latest_checkpoint",
    "read_as",
    "read_lines",
    "read_records",
    "source_accuracy",
    "write_records",
]
