"""Batches and accuracies of many runs on the features of one file, by row numbers of one table."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hessalign.datasets.base import DomainDataset, Samples, split_indices
from hessalign.datasets.features_file import FeatureSamples
from hessalign.loop import draw_samples
from hessalign.training.batches import check_sizes
from hessalign.training.evaluation import NO_CLASS
from hessalign.training.spec import RunSpec

Numbers = NDArray[np.int64]


class FeatureBatches:
    """What each of several runs trains on and is evaluated on.

    Args:
        specs: The runs; all have equally many target domains.
        dataset: Of features.
        samples_per_domain: ``B``, of all runs.

    Attributes:
        plain: Features of all samples, ``(N, d)``.
        domain_ids: Of the rows of a batch, ``(E·B,)``.

    Raises:
        ValueError: If a source domain has fewer than ``B`` training samples.
    """

    def __init__(self, specs: Sequence[RunSpec], dataset: DomainDataset, samples_per_domain: int) -> None:
        self._specs, self._dataset = specs, dataset
        self._samples_per_domain = samples_per_domain
        views = torch.cat([_table(domain.augmented) for domain in dataset.domains])
        self._views = views.shape[1]
        self._table = views.flatten(0, 1)
        self._labels = torch.cat([domain.targets for domain in dataset.domains])
        self.plain = torch.cat([_table(domain.plain)[:, 0] for domain in dataset.domains])
        starts = np.cumsum([0, *map(len, dataset.domains)]).tolist()
        self._splits = [self._split(spec, starts) for spec in specs]
        self._sources = [
            [index for index in range(len(dataset.domains)) if index not in spec.target_domains]
            for spec in specs
        ]
        self.domain_ids = torch.arange(len(self._sources[0])).repeat_interleave(samples_per_domain)
        for sources, split in zip(self._sources, self._splits, strict=True):
            names = [dataset.domains[index].name for index in sources]
            check_sizes(names, [len(split[index][0]) for index in sources], samples_per_domain)

    def batches(self, step: int) -> tuple[Tensor, Tensor]:
        """Inputs ``(R, E·B, d)`` and targets ``(R, E·B)`` of a step, the same as the runs have alone."""
        rows = torch.from_numpy(np.stack([self._rows(run, step) for run in range(len(self._specs))]))
        inputs = self._table.index_select(0, rows.flatten()).unflatten(0, rows.shape).float()
        return inputs, self._labels[rows // self._views]

    def accuracies(self, predicted: Tensor) -> list[dict[str, dict[str, float | None]]]:
        """Of each run: accuracies of every domain's in and out part, by domain name.

        Args:
            predicted: As [predicted_classes][hessalign.training.evaluation.predicted_classes] tells them,
                ``(R, N)``.

        Returns:
            None for an empty part, NaN for one with a sample whose logits are not finite.
        """
        return [
            {
                domain.name: {
                    part: self._accuracy(predicted[run], samples[: self._specs[run].evaluation_samples])
                    for part, samples in zip(("in", "out"), parts, strict=True)
                }
                for domain, parts in zip(self._dataset.domains, split, strict=True)
            }
            for run, split in enumerate(self._splits)
        ]

    def in_source_domains(self, predicted: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Of each run: predictions for its training samples, and their classes."""
        rows = [
            torch.from_numpy(np.concatenate([split[index][0] for index in sources]))
            for split, sources in zip(self._splits, self._sources, strict=True)
        ]
        predictions = [predicted[run, samples] for run, samples in enumerate(rows)]
        return predictions, [self._labels[samples] for samples in rows]

    def _accuracy(self, predicted: Tensor, samples: Numbers) -> float | None:
        classes = predicted[samples]
        if (classes == NO_CLASS).any():
            return float("nan")
        return int((classes == self._labels[samples]).sum()) / len(samples) if len(samples) else None

    def _rows(self, run: int, step: int) -> Numbers:
        rows = []
        for place, domain in enumerate(self._sources[run]):
            inside = self._splits[run][domain][0]
            indices, seeds = draw_samples(
                self._specs[run].seed, step, place, len(inside), self._samples_per_domain
            )
            rows.append(inside[indices] * self._views + seeds % self._views)
        return np.concatenate(rows)

    def _split(self, spec: RunSpec, starts: Sequence[int]) -> list[tuple[Numbers, Numbers]]:
        """Samples in and out of each domain, counted over the whole dataset."""
        parts = []
        for index, domain in enumerate(self._dataset.domains):
            split = split_indices(len(domain), spec.trial_seed, index, spec.holdout_fraction)
            inside, outside = (starts[index] + np.array(part, dtype=np.int64) for part in split)
            parts.append((inside, outside))
        return parts


def _table(samples: Samples) -> Tensor:
    assert isinstance(samples, FeatureSamples)
    return samples.table
