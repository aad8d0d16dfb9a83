"""Accuracies the paper reports (Hemati et al., ICCV 2023, supplement, Tables 7 and 8), in percent."""

from dataclasses import dataclass

from hessalign.experiments.colored_mnist.config import Split


@dataclass(frozen=True)
class PublishedAccuracy:
    """Mean and standard deviation over ten restarts."""

    source: float
    source_std: float
    target: float
    target_std: float


TABLE_7 = {
    "erm": PublishedAccuracy(86.4, 0.2, 14.0, 0.7),
    "irm": PublishedAccuracy(71.0, 0.5, 65.6, 1.8),
    "vrex": PublishedAccuracy(71.7, 1.5, 67.2, 1.5),
    "fishr": PublishedAccuracy(71.0, 0.9, 69.5, 1.0),
    "hgp": PublishedAccuracy(71.0, 1.5, 69.4, 1.3),
    "hgp-alpha0": PublishedAccuracy(70.6, 1.8, 69.3, 1.2),
    "hgp-beta0": PublishedAccuracy(78.9, 0.3, 53.3, 1.7),
    "hutchinson": PublishedAccuracy(61.7, 1.9, 74.0, 1.2),
    "hutchinson-alpha0": PublishedAccuracy(70.6, 1.8, 69.3, 1.2),
    "hutchinson-beta0": PublishedAccuracy(84.9, 0.1, 9.8, 0.2),
}

TABLE_8 = {
    "erm": PublishedAccuracy(86.4, 0.1, 16.7, 0.1),
    "irm": PublishedAccuracy(84.9, 0.1, 14.3, 1.4),
    "vrex": PublishedAccuracy(83.3, 0.2, 35.1, 1.2),
    "fishr": PublishedAccuracy(75.7, 2.7, 35.5, 5.3),
    "hgp": PublishedAccuracy(83.0, 0.2, 30.0, 0.9),
    "hgp-alpha0": PublishedAccuracy(83.2, 0.4, 29.7, 1.7),
    "hgp-beta0": PublishedAccuracy(84.3, 0.1, 20.4, 1.0),
    "hutchinson": PublishedAccuracy(79.4, 0.3, 47.7, 1.4),
    "hutchinson-alpha0": PublishedAccuracy(83.2, 0.4, 29.7, 1.7),
    "hutchinson-beta0": PublishedAccuracy(84.9, 0.1, 9.8, 0.2),
}


def published(split: Split) -> dict[str, PublishedAccuracy]:
    """The table that belongs to a split, by method."""
    return TABLE_7 if split == "balanced" else TABLE_8
