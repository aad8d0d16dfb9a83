"""The page in the making: records, footnotes, figures, and how numbers are written."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hessalign.experiments.colored_mnist import (
    METHODS,
    PUBLISHED_PROBES,
    PenaltyParts,
    RecordStore,
    RestartRecord,
    RestartSpec,
    Row,
    Setting,
    Split,
    describe_reduction,
    label_of,
)
from hessalign.experiments.colored_mnist.curves import Curve, Panel, save_panels

RESULTS = Path(__file__).parents[2] / "results" / "colored_mnist"
STORES = (RecordStore(RESULTS), RecordStore(RESULTS / "studies"))
"""Of the tables, and of the sweeps, which would fill the tables with rows."""
TITLES: dict[Split, str] = {
    "balanced": "Table 7: balanced domains",
    "script": "Table 8, split of the published script",
    "text": "Table 8, split of the text (95 % / 5 %)",
}


def in_a_sentence(split: Split) -> str:
    """The title of a table where a colon follows."""
    return TITLES[split].replace(":", ",")


def all_records() -> dict[str, RestartRecord]:
    """Of both folders, by path from that of the results; where both have a restart, the one with parts."""
    found: dict[RestartSpec, tuple[str, RestartRecord]] = {}
    for store in STORES:
        for record in store.load_all():
            if record.spec not in found or record.parts:
                path = store.path(record.spec).relative_to(RESULTS).as_posix()
                found[record.spec] = (path, record)
    return dict(found.values())


@dataclass
class Sources:
    """The footnotes of the page: which records each statement rests on.

    Attributes:
        paths: Where the record of a restart lies, from the folder of the results.
        numbers: Of the notes, by the paths that they name.
    """

    paths: dict[RestartSpec, str]
    numbers: dict[tuple[str, ...], int] = field(default_factory=dict)

    def note(self, records: Sequence[RestartRecord]) -> str:
        """A mark to put after a statement."""
        names = tuple(sorted({self.paths[record.spec] for record in records}))
        return f"[^{self.numbers.setdefault(names, len(self.numbers) + 1)}]"

    def lines(self) -> list[str]:
        """The notes themselves."""
        return [
            f"[^{number}]: "
            + ", ".join(f"[{Path(name).name}](../results/colored_mnist/{name})" for name in names)
            for names, number in self.numbers.items()
        ]


Figure = Callable[[Path], None]


@dataclass
class Page:
    """Text and figures in the making.

    Attributes:
        groups: All records, those that differ by their seed alone together.
        sources: Of the statements.
        lines: Of the text.
        figures: How to draw each figure, by file name, and what it shows.
    """

    groups: list[list[RestartRecord]]
    sources: Sources
    lines: list[str] = field(default_factory=list)
    figures: dict[str, tuple[Figure, object]] = field(default_factory=dict)

    def add(self, *lines: str) -> None:
        """Append lines."""
        self.lines += lines

    def claim(self, text: str, *groups: Sequence[RestartRecord]) -> None:
        """Append a statement with its records."""
        self.add(f"* {text}{self.sources.note([record for group in groups for record in group])}")

    def missing(self, what: str, command: str) -> None:
        """Say that there are no records."""
        self.add(f"*No records yet of {what}: `{command}`.*", "")

    def find(self, setting: Setting, method: str, **wanted: object) -> list[RestartRecord] | None:
        """The restarts of one configuration; probes are the table's unless given."""
        for group in self.groups:
            spec = group[0].spec
            expected = {"probes": PUBLISHED_PROBES[setting.split], "hutchinson": "expected", "alpha": 1.0}
            expected |= wanted
            if not METHODS[method].uses_probes:
                expected["probes"] = None
            same = all(getattr(spec, name) == value for name, value in expected.items())
            if same and spec.setting() == setting and spec.method == method:
                return group
        return None

    def figure(
        self, name: str, caption: str, panels: Sequence[Panel], records: Sequence[RestartRecord]
    ) -> None:
        """Append a figure of curves that are drawn from records."""
        shown = tuple(panels)
        self.figures[name] = (lambda path: save_panels(shown, path), shown)
        self.add(f"![{caption}](colored-mnist/{name})", "", caption + self.sources.note(records), "")


def accuracy(mean: float, deviation: float, restarts: int) -> str:
    """As in the tables."""
    return f"{mean:.1f}" if restarts == 1 else f"{mean:.1f} ± {deviation:.1f}"


def mark(ours: float, paper: float, deviation: float) -> str:
    """Whether a mean lies inside the paper's ±, at the paper's precision, or how far from its mean."""
    difference = round(round(ours, 1) - paper, 1)
    return "inside" if abs(difference) <= deviation else f"off by {difference:+.1f}"


def both(row: Row) -> str:
    """Train and target accuracy."""
    return f"{row.source_accuracy:.1f} / {row.target_accuracy:.1f}"


def slashed(accuracies: Sequence[float]) -> str:
    """Of several domains."""
    return " / ".join(f"{a:.1f}" for a in accuracies)


def name_of(setting: Setting) -> str:
    """A setting in words."""
    return describe_reduction(setting) or "the published setting"


def history_curve(record: RestartRecord, name: str) -> Curve:
    """A field of the metrics over the steps of a restart."""
    steps = tuple(float(metrics.step) for metrics in record.history)
    return Curve(label_of(record.spec), steps, tuple(getattr(m, name) for m in record.history))


def parts_curve(record: RestartRecord, name: str) -> Curve:
    """A part of the penalty over the steps of a restart."""
    steps = tuple(float(parts.step) for parts in record.parts)
    return Curve(label_of(record.spec), steps, tuple(getattr(parts, name) for parts in record.parts))


def parts_before(record: RestartRecord) -> PenaltyParts:
    """The parts at the last recorded step before the full weight."""
    return [parts for parts in record.parts if parts.step < record.spec.anneal_step][-1]


def with_parts(group: Sequence[RestartRecord]) -> list[RestartRecord]:
    """Those whose parts were recorded."""
    return [record for record in group if record.parts]


def on_common_seeds(*groups: Sequence[RestartRecord]) -> list[list[RestartRecord]]:
    """Of each group, the restarts with the seeds that all groups have."""
    seeds = set.intersection(*({record.spec.seed for record in group} for group in groups))
    return [[record for record in group if record.spec.seed in seeds] for group in groups]
