"""The records, configuration by configuration, and the footnotes that name them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TypeAlias

from hessalign.experiments.colored_mnist import (
    METHODS,
    PUBLISHED_PROBES,
    PenaltyTerms,
    PublishedAccuracy,
    RecordStore,
    RestartRecord,
    RestartSpec,
    Row,
    Setting,
    Split,
    describe_reduction,
    group_restarts,
    published,
    summarise_group,
)
from papers.colored_mnist.panels import Panel, save_panels

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "results" / "colored_mnist"
STORES = (RecordStore(RESULTS), RecordStore(RESULTS / "studies"))
"""Of the tables, and of the sweeps, which would fill the tables with rows."""
FIGURES = "colored-mnist"
"""Folder of the figures, beside the page."""

Group = Sequence[RestartRecord]
"""Restarts of one configuration, which differ by their seed alone."""


@dataclass(frozen=True)
class Ended:
    """Where the restarts of a configuration ended, as the page tells it.

    Attributes:
        restarts: At least one.
        row: Their means and standard deviations, beside the paper's.
    """

    restarts: Group
    row: Row

    @property
    def train(self) -> float:
        """Train accuracy in percent, mean over restarts."""
        return self.row.source_accuracy

    @property
    def target(self) -> float:
        """Target accuracy in percent, mean over restarts."""
        return self.row.target_accuracy

    @property
    def n(self) -> int:
        """Number of restarts."""
        return self.row.restarts

    @property
    def both(self) -> str:
        """Train and target accuracy."""
        return f"{self.train:.1f} / {self.target:.1f}"

    @property
    def last_terms(self) -> PenaltyTerms:
        """Terms of the penalty at the end of the first restart that has any."""
        return with_terms(self.restarts)[0].terms[-1]

    @property
    def terms_before(self) -> PenaltyTerms:
        """The same at the last recorded step before the full weight."""
        return terms_before(with_terms(self.restarts)[0])


class Evidence:
    """All records, and what was cited of them.

    Args:
        has_notes: Whether marks are put for footnotes; a page without them has an appendix that has them.

    Attributes:
        groups: Records that differ by their seed alone together.
        figures: How to draw each figure that was shown, by file name, and what it shows.
    """

    def __init__(self, *, has_notes: bool) -> None:
        records = all_records()
        self._has_notes = has_notes
        self.groups = group_restarts(records.values())
        self.figures: dict[str, tuple[Callable[[Path], None], object]] = {}
        self._paths = {record.spec: path for path, record in records.items()}
        self._notes: dict[tuple[tuple[int, RestartSpec], ...], int] = {}

    def find(self, setting: Setting, method: str, **wanted: object) -> list[RestartRecord]:
        """The restarts of one configuration, none where it has no record.

        Args:
            setting: What the table's rows share.
            method: A key of ``METHODS``.
            **wanted: Other fields of the restarts; probes are the table's unless given.

        Returns:
            The group of records, empty where there is none.
        """
        usual = {"probes": PUBLISHED_PROBES[setting.split], "hutchinson": "expected", "alpha": 1.0}
        expected = {**usual, **wanted, "method": method}
        if not METHODS[method].uses_probes:
            expected["probes"] = None
        for group in self.groups:
            spec = group[0].spec
            if spec.setting() == setting and all(getattr(spec, k) == v for k, v in expected.items()):
                return group
        return []

    def run(self, split: Split, method: str, **wanted: object) -> Ended:
        """Where a configuration ended, in the published setting.

        Args:
            split: Which table it belongs to.
            method: A key of ``METHODS``.
            **wanted: Other fields of the setting, and those of [find][].

        Returns:
            The restarts and their row.

        Raises:
            ValueError: If there is no record: the page's sentences are written about those there are.
        """
        setting = Setting(split=split, **{k: v for k, v in wanted.items() if k in Setting.model_fields})
        others = {name: value for name, value in wanted.items() if name not in Setting.model_fields}
        group = self.find(setting, method, **others)
        if not group:
            raise ValueError(
                f"{method}: the page needs its records on {split!r}, {wanted or 'with all defaults'}"
            )
        return ended(group)

    def cite(self, *cited: "Cited") -> str:
        """Marks to put after a statement: for each configuration a footnote that names its records."""
        if not self._has_notes:
            return ""
        by_configuration: dict[RestartSpec, list[RestartRecord]] = {}
        for record in _records_of(cited):
            by_configuration.setdefault(record.spec.configuration(), []).append(record)
        keys = [
            tuple(sorted({(record.spec.seed, record.spec) for record in group}, key=itemgetter(0)))
            for group in by_configuration.values()
        ]
        return "".join(f"[^{self._notes.setdefault(key, len(self._notes) + 1)}]" for key in keys)

    def footnotes(self) -> str:
        """The notes of all marks so far."""
        return "\n".join(
            f"[^{number}]: " + ", ".join(f"`{self._paths[spec]}`" for _, spec in key)
            for key, number in self._notes.items()
        )

    def show(self, name: str, caption: str, draw: Callable[[Path], None], shown: object) -> str:
        """A figure.

        Args:
            name: The file's, in the folder of figures.
            caption: In words, for those who do not see it.
            draw: Writes it to a path.
            shown: What it shows, which tells whether it is up to date.

        Returns:
            The figure in Markdown.
        """
        self.figures[name] = (draw, shown)
        return f"![{caption}]({FIGURES}/{name})"

    def curves(self, name: str, caption: str, panels: Sequence[Panel], *cited: "Cited") -> str:
        """A figure of curves with its caption and the records that it is drawn from."""
        shown = tuple(panels)
        figure = self.show(name, caption, lambda path: save_panels(shown, path), shown)
        return f"{figure}\n\n{caption}{self.cite(cited)}"


Cited: TypeAlias = "RestartRecord | Ended | Iterable[Cited]"
"""What a footnote can name the records of."""


def _records_of(cited: Cited) -> Iterator[RestartRecord]:
    if isinstance(cited, RestartRecord):
        yield cited
    else:
        for each in cited.restarts if isinstance(cited, Ended) else cited:
            yield from _records_of(each)


def all_records() -> dict[str, RestartRecord]:
    """Of both folders, by path from that of the results; where both have a restart, the one with terms."""
    found: dict[RestartSpec, tuple[str, RestartRecord]] = {}
    for store in STORES:
        for record in store.load_all():
            if record.spec not in found or record.terms:
                path = store.path(record.spec).relative_to(RESULTS).as_posix()
                found[record.spec] = (path, record)
    return dict(found.values())


def ended(group: Group) -> Ended:
    """Where restarts of one configuration ended."""
    return Ended(group, summarise_group(group))


def with_terms(group: Group) -> list[RestartRecord]:
    """Those whose terms were recorded."""
    return [record for record in group if record.terms]


def on_common_seeds(*groups: Group) -> list[list[RestartRecord]]:
    """Of each group, the restarts with the seeds that all groups have."""
    seeds = set.intersection(*({record.spec.seed for record in group} for group in groups))
    return [[record for record in group if record.spec.seed in seeds] for group in groups]


def terms_before(record: RestartRecord) -> PenaltyTerms:
    """The terms at the last recorded step before the full weight."""
    return [terms for terms in record.terms if terms.step < record.spec.anneal_step][-1]


def name_of(setting: Setting) -> str:
    """A setting in words."""
    return describe_reduction(setting) or "the published setting"


def best_of_paper(split: Split) -> tuple[str, PublishedAccuracy]:
    """The row of the paper with the highest target accuracy: its method, and its figures."""
    method, accuracy = max(published(split).items(), key=lambda item: item[1].target)
    return METHODS[method].label, accuracy
