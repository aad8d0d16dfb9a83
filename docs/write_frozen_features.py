# ruff: noqa: N806 (X is what the field calls it)
"""The benchmark on frozen features: its data, its records, and what docs/frozen-features.md says of them.

    python -m docs.write_frozen_features hospitals FOLDER FILE.safetensors
    python -m docs.write_frozen_features sample FEATURES.safetensors N FILE.safetensors
    python -m docs.write_frozen_features record NAME SWEEP
    python -m docs.write_frozen_features spec NAME RULE ALGORITHM TARGET TRIAL
    python -m docs.write_frozen_features

The first two make features: of the four hospitals, and of N samples of each domain, standardised. ``record``
reads the folder of a ``hessalign sweep`` and writes ``results/frozen_features/NAME.json``. ``spec`` prints
the configuration of one of its choices, for ``hessalign train --spec``. Without arguments the page is written
from the records.
"""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from benchmarks.heart_disease import CATEGORIES, read
from numpy.typing import NDArray
from scipy.stats import t as student

import hessalign as ha
from hessalign.benchmark import read_sweep
from hessalign.benchmark.names import algorithm_label
from hessalign.benchmark.tables import paired_differences
from hessalign.datasets.features_file import feature_rows, save_features
from hessalign.estimator.comparison import BASELINE as LOGISTIC
from hessalign.estimator.comparison import BEST_ON_SOURCES
from hessalign.files import write_atomically
from hessalign.grid import markdown_table
from hessalign.training import RunSpec

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "frozen-features.md"
RESULTS = ROOT / "results" / "frozen_features"
START, END = "<!-- written by python -m docs.write_frozen_features -->", "<!-- end of what it writes -->"
GROUPS = {
    "PACS": ("pacs_lite0", "pacs_lite1", "pacs_lite2"),
    "rotated digits": ("rotated",),
    "colored digits": ("colored",),
    "hospitals": ("hospitals",),
}
"""Data sets by whose domains are the same ones."""
HEADS = {"rotated digits": "rotated", "colored digits": "colored", "hospitals": "hospitals"}
BASELINE, CONTROL = "erm", "coral"
RULES = ("source-validation", "oracle")
LEVEL = 0.05
COLUMNS = [
    "rule",
    "algorithm",
    "target",
    "trial",
    "hparams_seed",
    "step",
    "validation",
    "test",
    "seed",
    "hparams",
]
OF_A_RUN = ("algorithm", "target_domains", "hparams", "hparams_seed", "seed", "trial_seed")
"""What the runs of a sweep do not share."""
UNITS = {0: (55, 10), 3: (130, 20), 4: (240, 50), 7: (140, 25), 9: (1, 1), 11: (1, 1)}
"""Centre and unit of each number of a patient: round, so that nothing of a hospital is in them."""


def patients(folder: Path) -> tuple[NDArray[np.float32], list[str], NDArray[np.str_]]:
    """Features, diagnosis and hospital of each patient; the features are no statistic of any hospital.

    Of a number ``(value - centre) / unit``, 0 where it is missing, and whether it is; of a category a column
    for each value, all 0 where it is missing.

    Returns:
        Features ``(n, 31)``, labels and hospitals.
    """
    X, y, hospitals = read(folder)
    columns = []
    for column, (centre, unit) in UNITS.items():
        missing = np.isnan(X[:, column])
        columns += [np.where(missing, 0, (X[:, column] - centre) / unit), missing]
    for column in CATEGORIES:
        values = np.unique(X[:, column][~np.isnan(X[:, column])])
        columns += [X[:, column] == value for value in values]
    labels = ["disease" if ill else "healthy" for ill in y]
    return np.stack(columns, axis=1).astype(np.float32), labels, hospitals


def save_hospitals(folder: Path, file: Path) -> None:
    """The features of all patients, as a file."""
    save_features(file, *patients(folder))


def save_sample(features: Path, size: int, file: Path) -> None:
    """So many samples of each domain, drawn with seed 0, standardised over all of them."""
    rows = feature_rows(features, views=False)
    random = np.random.default_rng(0)
    domains = np.asarray(rows.sample_domain)
    chosen = np.concatenate(
        [
            np.sort(random.choice(np.flatnonzero(domains == domain), size, replace=False))
            for domain in np.unique(domains)
        ]
    )
    X = rows.X[chosen].astype(np.float64)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    save_features(file, X.astype(np.float32), np.asarray(rows.y)[chosen], domains[chosen])


def write_record(name: str, sweep: Path) -> None:
    """What the rules chose in a sweep: a line for each choice, with all that is needed to run it again."""
    records = read_sweep(sweep)
    rows = []
    shared: dict[str, Any] = {}
    for rule in RULES:
        for choice in records.choices(rule).iter_rows(named=True):
            run = records.runs[choice["run"]]
            shared = {key: value for key, value in run.spec.items() if key not in OF_A_RUN}
            rows.append(
                [
                    rule,
                    choice["algorithm"],
                    run.domain_names[choice["target"]],
                    choice["trial_seed"],
                    choice["hparams_seed"],
                    choice["step"],
                    choice["validation"],
                    choice["test"],
                    run.spec["seed"],
                    run.spec["hparams"],
                ]
            )
    about = {"domains": list(run.domain_names), "hessalign": ha.__version__, "shared": shared}
    lines = ",\n".join(json.dumps(row) for row in sorted(rows, key=lambda row: row[:5]))
    text = f'{{"about": {json.dumps(about)},\n"columns": {json.dumps(COLUMNS)},\n"choices": [\n{lines}\n]}}\n'
    write_atomically(RESULTS / f"{name}.json", text.encode())


def read_record(name: str) -> tuple[dict[str, Any], pl.DataFrame] | None:
    """What a record tells of itself, and its choices; None where there is no record."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = [dict(zip(record["columns"], row, strict=True)) for row in record["choices"]]
    frame = pl.DataFrame([{**row, "hparams": json.dumps(row["hparams"])} for row in rows])
    return record["about"], frame


def spec(name: str, rule: str, algorithm: str, target: str, trial: int) -> RunSpec:
    """The configuration of one choice."""
    found = read_record(name)
    if found is None:
        raise SystemExit(f"there is no record {name}")
    about, choices = found
    wanted = {"rule": rule, "algorithm": algorithm, "target": target, "trial": trial}
    chosen = choices.filter(*(pl.col(column) == value for column, value in wanted.items()))
    if len(chosen) != 1:
        raise SystemExit(f"{name} has no choice with {wanted}")
    row = chosen.row(0, named=True)
    return RunSpec(
        **about["shared"],
        algorithm=algorithm,
        target_domains=(about["domains"].index(target),),
        hparams=json.loads(row["hparams"]),
        hparams_seed=row["hparams_seed"],
        seed=row["seed"],
        trial_seed=trial,
    )


@dataclass(frozen=True)
class Estimate:
    """A mean over target domains, in percentage points.

    Attributes:
        mean: Of one number for each domain.
        margin: Half of Student's 95 % interval; NaN for a single domain.
        p: Two-sided, that the mean is 0; 1 where all differences are 0.
        domains: How many.
    """

    mean: float
    margin: float
    p: float
    domains: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """From one number for each domain."""
        count, mean = len(values), float(np.mean(values))
        if count < 2:
            return cls(mean, float("nan"), 1.0, count)
        error = float(np.std(values, ddof=1)) / count**0.5
        p = float(2 * student.sf(abs(mean) / error, count - 1)) if error > 0 else float(mean == 0)
        return cls(mean, float(student.ppf(1 - LEVEL / 2, count - 1)) * error, p, count)

    def __str__(self) -> str:
        """The mean and its interval."""
        return f"{self.mean:+.1f} ± {self.margin:.1f}"


def holm(p: Sequence[float]) -> list[float]:
    """Holm's corrected p values: the k-th smallest of m times m − k + 1, never below a smaller one's."""
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return list(map(float, corrected))


def algorithm_differences(rule: str) -> pl.DataFrame:
    """Test accuracy less the baseline's: one for each algorithm, group of data sets and target domain."""
    frames = []
    for group, names in GROUPS.items():
        for name in names:
            if (found := read_record(name)) is not None:
                choices = found[1].filter(pl.col("rule") == rule)
                frames.append(
                    choices.with_columns(group=pl.lit(group), dataset=pl.lit(name), setting=pl.lit(""))
                )
    paired = paired_differences(pl.concat(frames).rename({"trial": "trial_seed"}), BASELINE)
    by_domain = paired.group_by("group", "algorithm", "target", maintain_order=True)
    return by_domain.agg(pl.len().alias("pairs"), pl.col("difference").mean() * 100).rename(
        {"algorithm": "name"}
    )


def head_differences(measure: str) -> pl.DataFrame:
    """The same of heads against logistic regression, from what ``hessalign compare`` printed."""
    factor = 100 if measure == "accuracy" else 1
    rows, common = [], None
    for group, name in HEADS.items():
        path = RESULTS / f"heads-{name}.json"
        if not path.exists():
            return pl.DataFrame()
        outcomes = json.loads(path.read_text(encoding="utf-8"))["outcomes"]
        names = {row["head"] for row in outcomes}
        common = names if common is None else common & names
        base = {row["target"]: row[measure] for row in outcomes if row["head"] == LOGISTIC}
        rows += [
            {
                "group": group,
                "name": row["head"],
                "target": row["target"],
                "difference": factor * (row[measure] - base[row["target"]]),
            }
            for row in outcomes
        ]
    kept = pl.DataFrame(rows).filter(pl.col("name").is_in(sorted(common or ())), pl.col("name") != LOGISTIC)
    return kept.filter(pl.col("name") != BEST_ON_SOURCES)


def estimates(differences: pl.DataFrame) -> dict[str, tuple[Estimate, float]]:
    """By name: the mean over domains, and its corrected p."""
    found = {
        str(name): Estimate.of(rows["difference"].to_list())
        for (name,), rows in differences.group_by("name", maintain_order=True)
    }
    corrected = holm([each.p for each in found.values()])
    return {name: (each, p) for (name, each), p in zip(found.items(), corrected, strict=True)}


def table(
    differences: pl.DataFrame, beside: Mapping[str, str], heading: str, labels: Mapping[str, str]
) -> str:
    """Differences by group and over all domains, the largest first; bold counts."""
    overall = estimates(differences)
    groups = list(dict.fromkeys(differences["group"]))
    within = {group: estimates(differences.filter(pl.col("group") == group)) for group in groups}
    rows = []
    for name in sorted(overall, key=lambda name: -overall[name][0].mean):
        whole, p = overall[name]
        cells = [_bold(str(within[group][name][0]), within[group][name][1]) for group in groups]
        rows.append([labels.get(name, name), *cells, _bold(str(whole), p), f"{p:.3f}", beside.get(name, "")])
    counts = [
        f"{group} ({differences.filter(pl.col('group') == group)['target'].n_unique()})" for group in groups
    ]
    total = next(iter(overall.values()))[0].domains
    return markdown_table(["", *counts, f"all {total} domains", "p", heading], rows)


def _bold(text: str, p: float) -> str:
    return f"**{text}**" if p < LEVEL else text


def verdict(found: Mapping[str, tuple[Estimate, float]], labels: Mapping[str, str], against: str) -> str:
    """What helps and what harms by the design's rule."""
    by_sign = {
        sign: [
            f"{labels.get(name, name)} ({each})"
            for name, (each, p) in found.items()
            if p < LEVEL and sign * each.mean > 0
        ]
        for sign in (1, -1)
    }
    helps, harms = (", ".join(by_sign[sign]) or "nothing" for sign in (1, -1))
    return f"Of {len(found)}, against {against}. Helps: **{helps}**. Harms: {harms}."


def baselines() -> str:
    """Accuracy of plain training, and how many choices each record holds."""
    rows = []
    for group, names in GROUPS.items():
        for name in names:
            if (found := read_record(name)) is None:
                rows.append([group, f"`{name}`", "not run", "", ""])
                continue
            erm = found[1].filter(pl.col("algorithm") == BASELINE)
            means = [f"{100 * erm.filter(pl.col('rule') == rule)['test'].mean():.1f}" for rule in RULES]
            rows.append([group, f"`{name}`", str(erm["trial"].n_unique()), *means])
    return markdown_table(
        ["data", "record", "trials", "ERM, chosen by the sources", "chosen by the target"], rows
    )


def section() -> Iterable[str]:
    """All that the records say."""
    differences = algorithm_differences(RULES[0])
    labels = {name: algorithm_label(name) for name in differences["name"].unique()}
    oracle = {name: str(each) for name, (each, _) in estimates(algorithm_differences(RULES[1])).items()}
    judged = estimates(differences)
    control = judged[CONTROL]
    yield "Accuracy of plain training on the domain left out, in percent:"
    yield baselines()
    yield "### Algorithms"
    yield verdict(judged, labels, "ERM")
    yield table(differences, oracle, "chosen by the target", labels)
    found = "is too lenient here" if control[1] < LEVEL else "does not take chance for an effect here"
    yield (
        f"The control, {labels[CONTROL]}, trains as ERM does: {control[0]}, corrected p {control[1]:.2f}. "
        f"The rule {found}."
    )
    yield "### Heads"
    heads = head_differences("accuracy")
    if heads.is_empty():
        yield "*No records yet.*"
        return
    losses = {
        name: f"{each.mean:+.3f} ± {each.margin:.3f}"
        for name, (each, _) in estimates(head_differences("log_loss")).items()
    }
    yield verdict(estimates(heads), {}, "logistic regression with its own C")
    yield table(heads, losses, "log-loss, nats", {})


def page() -> str:
    """The whole page, with the section written anew."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    return "\n\n".join([before + START, *section(), END + rest.split(END)[1]])


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["hospitals", folder, file]:
            save_hospitals(Path(folder), Path(file))
        case ["sample", features, size, file]:
            save_sample(Path(features), int(size), Path(file))
        case ["record", name, sweep]:
            write_record(name, Path(sweep))
        case ["spec", name, rule, algorithm, target, trial]:
            sys.stdout.write(spec(name, rule, algorithm, target, int(trial)).model_dump_json(indent=1) + "\n")
        case []:
            PAGE.write_text(page(), encoding="utf-8")
        case _:
            raise SystemExit(__doc__)
