"""What steps report between two evaluations: means of their scalars, and their speed."""

import time
from collections.abc import Mapping
from operator import itemgetter

import torch
from torch import Tensor

from hessalign.algorithms.base import Metrics


class Meter:
    """Means of the reported scalars, and speed, since the last evaluation.

    Nothing is read from the device before means are asked for, so that no step waits for it.

    Args:
        runs: Number of runs whose scalars are reported; those of several are ``(R,)``.
        sums: As ``sums`` made them, of a run that goes on between two
            evaluations; none by default.
    """

    def __init__(self, runs: int = 1, sums: Mapping[str, Tensor] | None = None) -> None:
        self._runs = runs
        self.restart()
        for key, value in sorted((sums or {}).items(), key=itemgetter(0)):  # in order of their first report
            _, kind, name = key.split(" ", maxsplit=2)
            if kind == "sum":
                self._sums[name] = value
            else:
                self._counts[name] = int(value)

    def restart(self) -> None:
        """Begin anew, now."""
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._steps = self._samples = 0
        self._started = time.perf_counter()

    def add(self, metrics: Metrics, samples: int) -> None:
        """Count a step; its scalars stay on their device."""
        for name, value in metrics.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1
        self._steps += 1
        self._samples += samples

    def means(self) -> list[dict[str, float]]:
        """Of each run: means over the steps that reported a scalar, and its share of a step's seconds."""
        means = {name: _mean(total, self._counts[name]) for name, total in self._sums.items()}
        # The scalars have been read, so the device has done all that the clock is asked about.
        seconds = (time.perf_counter() - self._started) / max(1, self._steps) / self._runs
        return [
            {
                **{name: values[run] for name, values in means.items()},
                "step_seconds": seconds,
            }
            for run in range(self._runs)
        ]

    def sums(self, run: int = 0) -> dict[str, Tensor]:
        """What a run needs to go on between two evaluations as if there had been none."""
        sums = {}
        for place, (name, total) in enumerate(self._sums.items()):
            sums[f"{place:04d} sum {name}"] = total.reshape(-1)[run].cpu().clone()
            sums[f"{place:04d} count {name}"] = torch.tensor(self._counts[name])
        return sums

    def samples_per_second(self) -> float:
        """Of all processes together, loading included."""
        return self._samples / max(1e-9, time.perf_counter() - self._started)


def _mean(total: Tensor, count: int) -> list[float]:
    """Of each run; those of several are divided where they are, in their own precision."""
    return (total / count).tolist() if total.ndim else [float(total) / count]
