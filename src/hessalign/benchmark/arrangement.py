"""Which runs of a sweep are done together."""

from collections.abc import Hashable, Sequence

from hessalign.benchmark.job import Job
from hessalign.training import can_train_together


def arrange(jobs: Sequence[Job], most_together: int) -> list[tuple[Job, ...]]:
    """Put jobs together whose runs can be trained together.

    Args:
        jobs: Of one sweep.
        most_together: Runs in a group; 1 for one by one. What a kill loses grows with it, and memory.

    Returns:
        Groups, each in the order of the jobs and none empty, ordered by their first jobs; a run that must be
        trained alone is a group of its own.
    """
    groups: list[list[Job]] = []
    open_groups: dict[Hashable, list[Job]] = {}
    for job in jobs:
        alike = can_train_together(job.spec) if most_together > 1 else None
        key = (alike, job.source, job.machine, job.keep_checkpoint)
        group = open_groups.get(key) if alike is not None else None
        if group is None or len(group) == most_together:
            group = []
            groups.append(group)
            open_groups[key] = group
        group.append(job)
    return [tuple(group) for group in groups]
