"""From records to all tables of a sweep."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import polars as pl

from hessalign.benchmark.names import (
    algorithm_label,
    dataset_label,
    metric_label,
    metric_unit,
    sorted_algorithms,
    sorted_datasets,
)
from hessalign.benchmark.paper import (
    PROTOCOL,
    TABLES,
    Published,
    published_accuracy,
    published_average,
    published_target_accuracy,
)
from hessalign.benchmark.readers import Records, Run, describe_value
from hessalign.benchmark.selection import RULE_LABELS, Rule
from hessalign.benchmark.tables import (
    AVERAGE,
    Cell,
    Column,
    Report,
    Row,
    Table,
    describe_accuracies,
    describe_differences,
    finished_rows,
    paired_differences,
)
from hessalign.checks import did_you_mean
from hessalign.runs import MEASURED

ACCURACY = "mean ± standard error (population, DomainBed) over trials."
DIFFERENCE = "mean ± standard error (sample) over n pairs of equal trial and target domain."
SHOWN_CONFIG = ("backbone.name", "backbone.weights", "steps", "validation_images")


@dataclass(frozen=True, eq=False)
class _Block:
    """What the tables of one dataset in one setting under one rule are made from.

    Attributes:
        rule: How models are selected.
        example: A run of the dataset in the setting.
        setting: Its name.
        targets: Target domains that runs have.
        algorithms: That have runs with one target domain, in the order of tables.
        selected: The rule's choices.
        metric: What is reported of them.
    """

    rule: Rule
    example: Run
    setting: str
    targets: tuple[int, ...]
    algorithms: tuple[str, ...]
    selected: pl.DataFrame
    metric: str

    @property
    def dataset(self) -> str:
        return self.example.dataset

    def published(self, algorithm: str) -> Published | None:
        """Of the whole dataset, so nothing where some of its domains were never left out."""
        if len(self.targets) < len(self.example.domain_names):
            return None
        return published_accuracy(self.rule, algorithm, self.dataset)

    def title(self) -> str:
        return _title(dataset_label(self.dataset), self.rule, self.setting, self.metric)

    def tests(self, algorithm: str, target: int) -> pl.DataFrame:
        return self.selected.filter(algorithm=algorithm, target=target)

    def columns(self, last: str) -> tuple[Column, ...]:
        names = self.example.domain_names
        return (*(Column(key=str(target), label=names[target]) for target in self.targets), _average(last))


def make_report(
    records: Records, rules: Sequence[Rule], baseline: str | None = None, compare: bool = False
) -> Report:
    """All tables: for each rule every dataset by target domain, a summary over datasets, and differences.

    Args:
        records: Of the sweep.
        rules: Rules of selection.
        baseline: Algorithm that differences are taken from; None for no differences.
        compare: Whether to set published figures beside ours.

    Returns:
        The tables, in the order of reading, and notes on what is missing or was left out.

    Raises:
        ValueError: If the baseline has no runs, no run has a single target domain, the records lack what a
            rule looks at, or published figures are asked for of what nobody has published.
    """
    if compare and records.metric != "accuracy":
        raise ValueError(
            f"compare: published figures are accuracies, and the metric is {records.metric}; leave one of "
            "the two out"
        )
    if "worst-group" in rules:
        records.require("worst_group_accuracy", "select: the rule worst-group")
    if not (records.accuracies["targets"].list.len() == 1).any():
        raise ValueError("folder: no run has a single target domain, so there is nothing to report")
    algorithms = sorted_algorithms(records.accuracies["algorithm"].unique())
    if baseline is not None and baseline not in algorithms:
        raise ValueError(
            f"baseline: {baseline!r} has no runs here; allowed are {', '.join(algorithms)}"
            f"{did_you_mean(baseline, algorithms)}"
        )
    tables: list[Table] = []
    notes = list(records.notes)
    for rule in rules:
        blocks = _blocks(records, rule)
        full = [block for block in blocks if not block.selected.is_empty()]
        notes += [_why_empty(block) for block in blocks if block.selected.is_empty()]
        tables += [_by_target(block, compare) for block in full]
        settings = list(dict.fromkeys(block.setting for block in full))
        tables += [_summary([block for block in full if block.setting == name], compare) for name in settings]
        if baseline is not None:
            tables += [_differences(block, baseline) for block in full if baseline in block.algorithms]
    cells = [cell for table in tables for row in table.rows for cell in row.cells]
    if compare and cells and not any(cell.published for cell in cells):
        datasets = sorted_datasets({name for table in TABLES for name in table.datasets})
        notes.append(
            "No published figure fits these runs, so none stands beside them: the published tables hold "
            f"averages over all target domains of {', '.join(datasets)}."
        )
    return Report(tables=tuple(tables), notes=tuple(notes))


def _blocks(records: Records, rule: Rule) -> list[_Block]:
    """One for each dataset and setting, in the order of tables."""
    selected = records.choices(rule)
    runs = records.accuracies.filter(pl.col("targets").list.len() == 1)
    keys = runs.select("dataset", "setting", "algorithm", target=pl.col("targets").list.first()).unique()
    blocks = []
    for dataset in sorted_datasets(keys["dataset"]):
        for setting in sorted(keys.filter(dataset=dataset)["setting"].unique()):
            here = keys.filter(dataset=dataset, setting=setting)
            blocks.append(
                _Block(
                    rule=rule,
                    example=records.example(dataset, setting),
                    setting=setting,
                    targets=tuple(sorted(here["target"].unique())),
                    algorithms=tuple(sorted_algorithms(here["algorithm"])),
                    selected=selected.filter(dataset=dataset, setting=setting),
                    metric=records.metric,
                )
            )
    return blocks


def _by_target(block: _Block, compare: bool) -> Table:
    """Cells by target domain, and their mean without an error, as DomainBed has it."""

    def cell(algorithm: str, target: int) -> Cell:
        published = (
            published_target_accuracy(block.rule, algorithm, block.dataset, target) if compare else None
        )
        chosen = block.tests(algorithm, target)
        if chosen.is_empty():
            return Cell().beside(published)
        accuracies = describe_accuracies(chosen["test"].to_list(), runs=int(chosen["draws"].sum()))
        return accuracies.beside(published)

    def row(algorithm: str) -> Row:
        cells = [cell(algorithm, target) for target in block.targets]
        published = block.published(algorithm) if compare else None
        return _row(algorithm, [*cells, Cell(mean=_mean(cells)).beside(published)])

    rows = finished_rows(map(row, block.algorithms), block.metric)
    return Table(
        kind="targets",
        metric=block.metric,
        rule=block.rule,
        dataset=block.dataset,
        setting=block.setting,
        shared=dict(block.example.config),
        title=block.title(),
        columns=block.columns("Avg"),
        rows=rows,
        explanations=(_of_figures(block.metric), _extent(block), *_about_cells(rows)),
    )


def _summary(blocks: Sequence[_Block], compare: bool) -> Table:
    """Cells by dataset: the mean over target domains within each trial, then mean and error over trials."""
    rule, setting, metric = blocks[0].rule, blocks[0].setting, blocks[0].metric
    datasets = [block.dataset for block in blocks]

    def cell(algorithm: str, block: _Block) -> Cell:
        published = block.published(algorithm) if compare else None
        chosen = block.selected.filter(algorithm=algorithm)
        if chosen.is_empty():
            return Cell().beside(published)
        trials = chosen.group_by("trial_seed", maintain_order=True).agg(pl.col("test"), targets=pl.len())
        accuracies = describe_accuracies(
            trials["test"].list.mean().to_list(),
            runs=int(chosen["draws"].sum()),
            every_target=bool((trials["targets"] == len(block.targets)).all()),
        )
        return accuracies.beside(published)

    def row(algorithm: str) -> Row:
        cells = [cell(algorithm, block) for block in blocks]
        cited = compare and all(cell.published is not None for cell in cells)
        published = published_average(rule, algorithm, datasets) if cited else None
        every_target = all(cell.every_target for cell in cells)
        average = Cell(mean=_mean(cells), every_target=every_target)
        return _row(algorithm, [*cells, average.beside(published)])

    rows = finished_rows(
        map(row, sorted_algorithms(name for block in blocks for name in block.algorithms)), metric
    )
    return Table(
        kind="summary",
        metric=metric,
        rule=rule,
        setting=setting,
        title=_title("Averages over target domains", rule, setting, metric),
        columns=(*(Column(key=name, label=dataset_label(name)) for name in datasets), _average("Avg")),
        rows=rows,
        explanations=(_of_figures(metric), *_about_cells(rows)),
    )


def _differences(block: _Block, baseline: str) -> Table:
    """Differences from the baseline by target domain, and over all of them together."""
    pairs = paired_differences(block.selected, baseline)

    def cell(chosen: pl.DataFrame) -> Cell:
        if chosen.is_empty():
            return Cell()
        return describe_differences(chosen["difference"].to_list())

    def row(algorithm: str) -> Row:
        own = pairs.filter(algorithm=algorithm)
        return _row(algorithm, [*(cell(own.filter(target=target)) for target in block.targets), cell(own)])

    return Table(
        kind="differences",
        metric=block.metric,
        rule=block.rule,
        dataset=block.dataset,
        setting=block.setting,
        shared=dict(block.example.config),
        baseline=baseline,
        title=f"{block.title()}: difference from {algorithm_label(baseline)}",
        columns=block.columns("All"),
        rows=tuple(row(name) for name in block.algorithms if name != baseline),
        explanations=(_of_differences(block.metric),),
    )


def _row(algorithm: str, cells: Sequence[Cell]) -> Row:
    return Row(algorithm=algorithm, label=algorithm_label(algorithm), cells=tuple(cells))


def _average(label: str) -> Column:
    return Column(key=AVERAGE, label=label)


def _mean(cells: Sequence[Cell]) -> float | None:
    """Plain mean of the cells' means; None if one of them has none."""
    means = [cell.mean for cell in cells if cell.mean is not None]
    return sum(means) / len(means) if len(means) == len(cells) else None


def _title(subject: str, rule: Rule, setting: str, metric: str) -> str:
    shown = [subject, *([metric_label(metric)] if metric != "accuracy" else []), RULE_LABELS[rule]]
    return f"{', '.join(shown)}{f' [{setting}]' if setting else ''}"


def _of_figures(metric: str) -> str:
    if metric == "accuracy":
        return f"Percent, {ACCURACY}"
    better = "larger" if MEASURED[metric] else "smaller"
    label = metric_label(metric)
    return (
        f"{label[:1].upper()}{label[1:]} on the target domain in {metric_unit(metric)}, {better} is better; "
        f"{ACCURACY}"
    )


def _of_differences(metric: str) -> str:
    unit = metric_unit(metric).replace("percent", "percentage points")
    return f"{unit[:1].upper()}{unit[1:]}, {DIFFERENCE}"


def _extent(block: _Block) -> str:
    """How much was run, and on what."""
    trials = block.selected["trial_seed"].n_unique()
    draws = block.selected["draws"].to_list()
    shown = [
        f"{name} {describe_value(block.example.config[name])}"
        for name in SHOWN_CONFIG
        if block.example.config.get(name) is not None
    ]
    return f"{', '.join((f'Trials {trials}', f'draws of hyper-parameters {max(draws)}', *shown))}."


def _about_cells(rows: Sequence[Row]) -> list[str]:
    """Sentences about marks that occur."""
    cells = [cell for row in rows for cell in row.cells]
    sources = sorted({cell.published_source for cell in cells if cell.published_source is not None})
    marks: list[tuple[Callable[[Cell], bool], str]] = [
        (lambda cell: cell.fewer_runs, "† rests on fewer runs than another cell of the column."),
        (lambda cell: not cell.every_target, "‡ lacks a target domain in some trial, and is not ranked."),
    ]
    sentences = [sentence for holds, sentence in marks if any(map(holds, cells))]
    if sources:
        sentences.append(f"Published: {'; '.join(sources)} ({PROTOCOL}).")
    return sentences


def _why_empty(block: _Block) -> str:
    reason = (
        "needs runs with every pair of target domains" if block.rule == "leave-one-domain-out" else "no run"
    )
    return f"No table for {block.title()}: {reason}."
