"""Accuracies that others have published for the benchmark, in percent."""

from collections.abc import Collection
from dataclasses import dataclass

from hessalign.benchmark.names import without_variant
from hessalign.benchmark.selection import Rule

FOUR = ("vlcs", "pacs", "office_home", "domain_net")
SEVEN = (
    "colored_mnist",
    "rotated_mnist",
    "vlcs",
    "pacs",
    "office_home",
    "terra_incognita",
    "domain_net",
)

PROTOCOL = "3 trials, 20 draws, 5,001 steps, ResNet-50, on MNIST a small CNN"
"""What all of them rest on."""


@dataclass(frozen=True)
class PublishedTable:
    """Averages over target domains, as a table prints them.

    Attributes:
        source: Where it stands.
        rule: How models were selected.
        datasets: Of the columns.
        rows: Of each algorithm, an accuracy for each dataset and then their average.
    """

    source: str
    rule: Rule
    datasets: tuple[str, ...]
    rows: dict[str, tuple[float, ...]]


@dataclass(frozen=True)
class Published:
    """One figure and where it stands."""

    accuracy: float
    source: str


TABLE_9 = PublishedTable(
    source="Hemati et al., ICCV 2023, supplement, Table 9",
    rule="source-validation",
    datasets=FOUR,
    rows={
        "erm": (77.5, 85.5, 66.5, 40.9, 67.6),
        "irm": (78.5, 83.5, 64.3, 33.9, 65.1),
        "group_dro": (76.7, 84.4, 66.0, 33.3, 65.1),
        "mixup": (77.4, 84.6, 68.1, 39.2, 67.3),
        "mldg": (77.2, 84.9, 66.8, 41.2, 67.5),
        "coral": (78.8, 86.2, 68.7, 41.5, 68.8),
        "mmd": (77.5, 84.6, 66.3, 23.4, 63.0),
        "dann": (78.6, 83.6, 65.9, 38.3, 66.6),
        "cdann": (77.5, 82.6, 65.8, 38.3, 66.1),
        "mtl": (77.2, 84.6, 66.4, 40.6, 67.2),
        "sagnet": (77.8, 86.3, 68.1, 40.3, 68.1),
        "arm": (77.6, 85.1, 64.8, 35.5, 65.8),
        "vrex": (78.3, 84.9, 66.4, 33.6, 65.8),
        "rsc": (77.1, 85.2, 65.5, 38.9, 66.7),
        "and_mask": (78.1, 84.4, 65.5, 37.2, 66.3),
        "sand_mask": (77.4, 84.6, 65.8, 32.1, 65.0),
        "fish": (77.8, 85.5, 68.6, 42.7, 68.7),
        "fishr": (77.8, 85.8, 67.8, 41.7, 68.3),
        "hgp": (77.6, 84.7, 68.2, 41.1, 67.9),
        "hutchinson": (76.8, 83.9, 68.2, 41.6, 67.6),
    },
)

TABLE_10 = PublishedTable(
    source="Hemati et al., ICCV 2023, supplement, Table 10",
    rule="oracle",
    datasets=FOUR,
    rows={
        "erm": (77.6, 86.7, 66.4, 41.3, 68.0),
        "irm": (76.9, 84.5, 63.0, 28.0, 63.1),
        "group_dro": (77.4, 87.1, 66.2, 33.4, 66.0),
        "mixup": (78.1, 86.8, 68.0, 39.6, 68.1),
        "mldg": (77.5, 86.8, 66.6, 41.6, 68.1),
        "coral": (77.7, 87.1, 68.4, 41.8, 68.8),
        "mmd": (77.9, 87.2, 66.2, 23.5, 63.7),
        "dann": (79.7, 85.2, 65.3, 38.3, 67.1),
        "cdann": (79.9, 85.8, 65.3, 38.5, 67.4),
        "mtl": (77.7, 86.7, 66.5, 40.8, 67.9),
        "sagnet": (77.6, 86.4, 67.5, 40.8, 68.1),
        "arm": (77.8, 85.8, 64.8, 36.0, 66.1),
        "vrex": (78.1, 87.2, 65.7, 30.1, 65.3),
        "rsc": (77.8, 86.2, 66.5, 38.9, 67.4),
        "and_mask": (76.4, 86.4, 66.1, 37.9, 66.7),
        "sand_mask": (76.2, 85.9, 65.9, 32.2, 65.1),
        "fish": (77.8, 85.8, 66.0, 42.7, 68.1),
        "fishr": (78.2, 86.9, 68.2, 43.4, 69.2),
        "hgp": (77.3, 86.5, 67.4, 41.2, 68.1),
        "hutchinson": (77.9, 86.3, 68.4, 41.9, 68.6),
    },
)

DOMAINBED = "Gulrajani and Lopez-Paz, ICLR 2021 (DomainBed)"

DOMAINBED_SOURCE_VALIDATION = PublishedTable(
    source=DOMAINBED,
    rule="source-validation",
    datasets=SEVEN,
    rows={
        "erm": (51.5, 98.0, 77.5, 85.5, 66.5, 46.1, 40.9, 66.6),
        "irm": (52.0, 97.7, 78.5, 83.5, 64.3, 47.6, 33.9, 65.4),
        "group_dro": (52.1, 98.0, 76.7, 84.4, 66.0, 43.2, 33.3, 64.8),
        "mixup": (52.1, 98.0, 77.4, 84.6, 68.1, 47.9, 39.2, 66.7),
        "mldg": (51.5, 97.9, 77.2, 84.9, 66.8, 47.7, 41.2, 66.7),
        "coral": (51.5, 98.0, 78.8, 86.2, 68.7, 47.6, 41.5, 67.5),
        "mmd": (51.5, 97.9, 77.5, 84.6, 66.3, 42.2, 23.4, 63.3),
        "dann": (51.5, 97.8, 78.6, 83.6, 65.9, 46.7, 38.3, 66.1),
        "cdann": (51.7, 97.9, 77.5, 82.6, 65.8, 45.8, 38.3, 65.6),
        "mtl": (51.4, 97.9, 77.2, 84.6, 66.4, 45.6, 40.6, 66.2),
        "sagnet": (51.7, 98.0, 77.8, 86.3, 68.1, 48.6, 40.3, 67.2),
        "arm": (56.2, 98.2, 77.6, 85.1, 64.8, 45.5, 35.5, 66.1),
        "vrex": (51.8, 97.9, 78.3, 84.9, 66.4, 46.4, 33.6, 65.6),
        "rsc": (51.7, 97.6, 77.1, 85.2, 65.5, 46.6, 38.9, 66.1),
    },
)

DOMAINBED_LEAVE_ONE_DOMAIN_OUT = PublishedTable(
    source=DOMAINBED,
    rule="leave-one-domain-out",
    datasets=SEVEN,
    rows={"erm": (36.7, 97.7, 77.2, 83.0, 65.7, 41.4, 40.6, 63.2)},
)

DOMAINBED_ORACLE = PublishedTable(
    source=DOMAINBED,
    rule="oracle",
    datasets=SEVEN,
    rows={"erm": (57.8, 97.8, 77.6, 86.7, 66.4, 53.0, 41.3, 68.7)},
)

TABLES = (TABLE_9, TABLE_10, DOMAINBED_SOURCE_VALIDATION, DOMAINBED_LEAVE_ONE_DOMAIN_OUT, DOMAINBED_ORACLE)
"""Where two of them print the same figure, the first is cited."""

DOMAINBED_ERM_BY_TARGET = {
    "colored_mnist": (71.7, 72.9, 10.0),
    "rotated_mnist": (95.9, 98.9, 98.8, 98.9, 98.9, 96.4),
}
"""ERM with source-validation selection, by target domain in index order."""


def published_accuracy(rule: Rule, algorithm: str, dataset: str) -> Published | None:
    """Average over the dataset's target domains; None if nobody has published it."""
    algorithm = without_variant(algorithm)
    for table in TABLES:
        if table.rule == rule and algorithm in table.rows and dataset in table.datasets:
            return Published(table.rows[algorithm][table.datasets.index(dataset)], table.source)
    return None


def published_average(rule: Rule, algorithm: str, datasets: Collection[str]) -> Published | None:
    """Average over datasets; None unless a table averages over just these."""
    algorithm = without_variant(algorithm)
    for table in TABLES:
        if table.rule == rule and algorithm in table.rows and set(datasets) == set(table.datasets):
            return Published(table.rows[algorithm][-1], table.source)
    return None


def published_target_accuracy(rule: Rule, algorithm: str, dataset: str, target: int) -> Published | None:
    """Accuracy on one target domain; None if nobody has published it."""
    known = DOMAINBED_ERM_BY_TARGET.get(dataset, ())
    if rule != "source-validation" or algorithm != "erm" or target >= len(known):
        return None
    return Published(known[target], DOMAINBED)
