"""Compare unbiased with plug-in penalties, and write docs/batch-noise.md from the records.

Design and commands are in results/batch_noise/README.md: ``pacs FEATURES RUNS`` and ``colored_mnist RUNS
[PENALTY ...]`` do the runs that are missing and write a record; without arguments the page is written.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.stats import t as student
from torch.nn import functional as F

import hessalign as ha
from hessalign.algorithms import get_algorithm
from hessalign.datasets.base import DomainDataset
from hessalign.datasets.registry import find_data
from hessalign.files import write_atomically
from hessalign.grid import markdown_table
from hessalign.loop import DomainBalancedSampler
from hessalign.runs.layout import is_finished
from hessalign.runs.records import read_records, source_accuracy
from hessalign.training import Machine, RunSpec, choose_backbone, train, train_together

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "batch-noise.md", ROOT / "results" / "batch_noise"
START, END = "<!-- written by python docs/write_batch_noise.py -->", "<!-- end of what it writes -->"
SIZES, STEPS, RATE, PROBES, EVALUATED = (8, 32), 100, 1e-3, 300, 300
PENALTIES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "gradient": ("hgp", "beta", {"centre": "mean_product"}),
    "hgp": ("hgp", "alpha", {"centre": "mean_product"}),
    "exact_diagonal": ("exact_diagonal", "alpha", {}),
    "exact_hessian": ("exact_hessian", "alpha", {}),
    "hutchinson": ("hutchinson", "alpha", {"probes": PROBES}),
}
"""Algorithm, the weight that is not 0, and what else is set, by the name of the penalty."""
TERMS: dict[str, ha.HessianAlignment] = {
    "gradient": ha.HessianAlignment("gradient"),
    "hgp": ha.HessianAlignment("hgp", centre="mean_product"),
    "exact_diagonal": ha.HessianAlignment("diagonal"),
    "exact_hessian": ha.HessianAlignment("frobenius"),
    "hutchinson": ha.HessianAlignment("hutchinson", probes=PROBES, expected=True),
}
FEATURE_SHARES, FEATURE_TRIALS = (0.1, 10**-0.5, 1.0, 10**0.5, 10.0), 5
MNIST_SHARES, MNIST_TARGET, MNIST_TRIALS = (0.1, 1.0, 10.0), 2, 3
MNIST_TENTH = {"hgp": 0.0073, "exact_hessian": 0.12}
"""Weights of a tenth of the loss at n = 32: docs/choosing-weights.md."""
ERM = "erm"


@dataclass(frozen=True)
class Run:
    """One run and what came of it: accuracies from 0 to 1 and the weighted penalty's mean over the steps.

    None where it diverged.
    """

    penalty: str
    unbiased: bool
    n: int
    share: float
    weight: float
    target: int
    trial: int
    target_accuracy: float | None = None
    source_accuracy: float | None = None
    mean_penalty: float | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        arm = "unbiased" if self.unbiased else "plug-in"
        return f"{self.penalty}-{arm}-n{self.n}-share{self.share:.3g}-target{self.target}-trial{self.trial}"

    def spec(self, data: DomainDataset, samples: int | None) -> RunSpec:
        """What is to be run."""
        settings: dict[str, Any] = {"batch_size": self.n, "lr": RATE}
        algorithm = ERM
        if self.penalty != ERM:
            algorithm, weight, options = PENALTIES[self.penalty]
            settings |= {"alpha": 0.0, "beta": 0.0, weight: self.weight, "unbiased": self.unbiased, **options}
        hparams = (
            get_algorithm(algorithm).hparams_class.with_defaults(data.search_space, settings).model_dump()
        )
        return RunSpec(
            dataset=data.name,
            data=data.fingerprint,
            algorithm=algorithm,
            target_domains=(self.target,),
            backbone=choose_backbone(data, dropout=hparams["dropout"]),
            hparams=hparams,
            seed=self.trial,
            trial_seed=self.trial,
            steps=STEPS,
            evaluate_every=STEPS,
            evaluation_samples=samples,
        )

    def with_result(self, folder: Path, data: DomainDataset) -> "Run":
        """Its accuracies after the last step."""
        record = read_records(folder)[-1]
        target = record["accuracies"][data.domains[self.target].name]["in"]
        source = source_accuracy(record, (self.target,))
        return Run(
            **{
                **asdict(self),
                "target_accuracy": None if target is None else round(target, 5),
                "source_accuracy": None if np.isnan(source) else round(source, 5),
                "mean_penalty": None if target is None else float(f"{record.get('penalty', 0.0):.4g}"),
            }
        )


def plan(
    penalties: Iterable[str],
    shares: Sequence[float],
    targets: Iterable[int],
    trials: Iterable[int],
    weight: Any,
) -> list[Run]:
    """Pairs side by side, trial after trial; ERM first."""
    targets = list(targets)
    return [
        run
        for trial, penalty in product(trials, (ERM, *penalties))
        for n, share, target in product(SIZES, (0.0,) if penalty == ERM else shares, targets)
        for run in (
            [Run(ERM, False, n, 0.0, 0.0, target, trial)]
            if penalty == ERM
            else [
                Run(penalty, unbiased, n, share, weight(penalty, share, target), target, trial)
                for unbiased in (False, True)
            ]
        )
    ]


def feature_weights(data: DomainDataset, target: int) -> dict[str, float]:
    """Weight of one loss for each penalty, after plain training on the target's source domains."""
    torch.manual_seed(0)
    sources = [domain for number, domain in enumerate(data.domains) if number != target]
    features = torch.stack([domain.plain[row][0] for domain in sources for row in range(len(domain))])
    targets = torch.cat([torch.as_tensor(domain.targets) for domain in sources])
    domains = torch.arange(len(sources)).repeat_interleave(torch.tensor([len(domain) for domain in sources]))
    head = torch.nn.Linear(features.shape[1], len(data.class_names))
    optimizer = torch.optim.Adam(head.parameters(), lr=RATE)
    for chosen in DomainBalancedSampler(domains, max(SIZES), batches=STEPS):
        loss = F.cross_entropy(head(features[chosen]), targets[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        batches = [
            (features[chosen], head(features[chosen]), targets[chosen], domains[chosen])
            for chosen in DomainBalancedSampler(domains, max(SIZES), batches=20, seed=1)
        ]
    return {
        name: term.suggest(batches, share=1.0).weights[PENALTIES[name][1]] for name, term in TERMS.items()
    }


def run_features(file: str, out: Path) -> None:
    """All runs on features that are missing, those of one kind together; then the record."""
    data = find_data(file).open(0)
    weights = [feature_weights(data, target) for target in range(len(data.domains))]
    runs = plan(
        PENALTIES,
        FEATURE_SHARES,
        range(len(data.domains)),
        range(FEATURE_TRIALS),
        lambda penalty, share, target: float(f"{share * weights[target][penalty]:.4g}"),
    )
    kinds = sorted({(run.n, run.penalty, run.unbiased) for run in runs})
    for kind in kinds:
        alike = [run for run in runs if (run.n, run.penalty, run.unbiased) == kind]
        for first in range(0, len(alike), 60):
            chosen = alike[first : first + 60]
            train_together(
                [run.spec(data, None) for run in chosen],
                data,
                [out / run.name for run in chosen],
                Machine("cpu"),
                checkpoints=False,
            )
            tell(*kind, len(chosen))
    write_record("pacs_features", runs, out, lambda run: data)


def run_mnist(out: Path, *penalties: str) -> None:
    """All runs on Colored MNIST that are missing, one after the other; the record is written after each."""
    opened = [find_data("colored_mnist").open(trial) for trial in range(MNIST_TRIALS)]

    def data(run: Run) -> DomainDataset:
        return opened[run.trial]

    runs = [
        run
        for penalty in MNIST_TENTH
        for run in plan(
            [penalty],
            MNIST_SHARES,
            [MNIST_TARGET],
            range(MNIST_TRIALS),
            lambda penalty, share, target: float(f"{10 * share * MNIST_TENTH[penalty]:.4g}"),
        )
    ]
    runs = list(dict.fromkeys(runs))  # both penalties stand beside the same runs of ERM
    for run in runs:
        if not penalties or run.penalty in (ERM, *penalties):
            spec, folder = run.spec(data(run), EVALUATED), out / run.name
            train(spec, data(run), folder, Machine("cpu"), keep_checkpoint=False)
            write_record("colored_mnist", runs, out, data)
            tell(run.name)


def write_record(name: str, runs: Sequence[Run], out: Path, data: Callable[[Run], DomainDataset]) -> None:
    """Finished runs, a line for each; of a penalty only those trials of which all runs are finished."""
    unfinished = {(run.penalty, run.trial) for run in runs if not is_finished(out / run.name)}
    kept = [run for run in runs if (run.penalty, run.trial) not in unfinished]
    rows = [json.dumps(astuple(run.with_result(out / run.name, data(run)))) for run in kept]
    head = {"steps": STEPS, "lr": RATE, "domains": [domain.name for domain in data(runs[0]).domains]}
    columns = json.dumps([field.name for field in fields(Run)])
    about = json.dumps(head | {"data": data(runs[0]).fingerprint, "hessalign": ha.__version__})
    text = f'{{"about": {about},\n"columns": {columns},\n"runs": [\n' + ",\n".join(rows) + "\n]}\n"
    write_atomically(RESULTS / f"{name}.json", text.encode())


def tell(*words: object) -> None:
    """A line of progress."""
    sys.stderr.write(" ".join(map(str, words)) + "\n")


PAIR = ["penalty", "n", "share", "target", "trial"]
MEASURES = ("target_accuracy", "source_accuracy")


@dataclass(frozen=True)
class Estimate:
    """A mean of trials or of domains, and how sure it is; in percentage points."""

    mean: float
    error: float | None
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """From one value of each trial, or of each domain."""
        error = float(np.std(values, ddof=1)) / len(values) ** 0.5 if len(values) > 1 else None
        return cls(float(np.mean(values)), error, len(values))

    @property
    def counts(self) -> bool:
        """Whether it differs from 0 by the 95 % quantile of Student's t."""
        if self.error is None:
            return False
        return abs(self.mean) > float(student.ppf(0.975, self.count - 1)) * self.error

    def __str__(self) -> str:
        """Mean ± standard error."""
        return f"{self.mean:+.1f}" + ("" if self.error is None else f" ± {self.error:.1f}")


def read_runs(name: str) -> pl.DataFrame | None:
    """The recorded runs, accuracies in percent; None where there is no record."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return None
    record = json.loads(path.read_text(encoding="utf-8"))
    runs = pl.DataFrame(record["runs"], schema=record["columns"], orient="row", infer_schema_length=None)
    return runs.with_columns(*(pl.col(name).cast(pl.Float64) * 100 for name in MEASURES))


def paired(runs: pl.DataFrame) -> pl.DataFrame:
    """Differences unbiased − plug-in of all pairs of which neither run diverged."""
    plug_in, unbiased = (
        runs.filter(pl.col("penalty") != ERM, pl.col("unbiased") == arm) for arm in (False, True)
    )
    both = plug_in.join(unbiased, on=PAIR, suffix="_unbiased", validate="1:1")
    both = both.with_columns(*((pl.col(f"{name}_unbiased") - pl.col(name)).alias(name) for name in MEASURES))
    return both.select(*PAIR, *MEASURES).drop_nulls()


def over(pairs: pl.DataFrame, unit: str, measure: str = MEASURES[0]) -> Estimate:
    """Mean over all else first, then over the trials or the target domains."""
    means = pairs.group_by(unit, maintain_order=True).agg(pl.col(measure).mean())
    return Estimate.of(means[measure].to_list())


def difference_table(runs: pl.DataFrame) -> tuple[list[str], dict[str, tuple[Estimate, Estimate]]]:
    """The differences by weight, and those that are judged: over trials and over target domains."""
    pairs, judged = paired(runs), {}
    shares, domains = sorted(pairs["share"].unique()), pairs["target"].n_unique()
    headings = ["penalty", "n", *(f"{share:.2g}" for share in shares), "mean over weights"]
    headings += ["error over domains"] * (domains > 1) + ["on source domains"]
    table = []
    for (penalty, n), rows in pairs.group_by("penalty", "n", maintain_order=True):
        by_weight = [str(over(rows.filter(pl.col("share") == share), "trial")) for share in shares]
        mean, by_domain = judged[f"`{penalty}` at n = {n}"] = over(rows, "trial"), over(rows, "target")
        cells = [f"`{penalty}`", str(n), *by_weight, f"**{mean}**" if mean.counts else str(mean)]
        if domains > 1:
            cells.append(f"± {by_domain.error:.1f}")
        table.append([*cells, str(over(rows, "trial", MEASURES[1]))])
    return markdown_table(headings, table).splitlines(), judged


def carried(runs: pl.DataFrame) -> list[str]:
    """Accuracy by weight in each arm, and what the best weight at the smaller n loses at the larger."""
    small, large = SIZES
    arms = runs.filter(pl.col("penalty") != ERM)
    shares = sorted(arms["share"].unique())
    headings = ["penalty", "arm", "n", *(f"{share:.2g}" for share in shares), "best at n = 8 loses at n = 32"]
    table = []
    for n in SIZES:
        erm = runs.filter(pl.col("penalty") == ERM, pl.col("n") == n)
        level = f"{erm[MEASURES[0]].mean():.1f} (source {erm[MEASURES[1]].mean():.1f})"
        table.append(["no penalty", "", str(n), level, *[""] * len(shares)])
    for (penalty, unbiased), rows in arms.group_by("penalty", "unbiased", maintain_order=True):
        means = {
            n: [
                rows.filter(pl.col("n") == n, pl.col("share") == share)[MEASURES[0]].mean()
                for share in shares
            ]
            for n in SIZES
        }
        best = {n: int(np.argmax([-1 if mean is None else mean for mean in means[n]])) for n in SIZES}
        chosen, ideal = (rows.filter(pl.col("n") == large, pl.col("share") == shares[best[n]]) for n in SIZES)
        loss = ideal.join(chosen, on=["target", "trial"], suffix="_chosen").with_columns(
            pl.col(MEASURES[0]) - pl.col(f"{MEASURES[0]}_chosen")
        )
        for n in SIZES:
            cells = [
                "–" if mean is None else f"**{mean:.1f}**" if place == best[n] else f"{mean:.1f}"
                for place, mean in enumerate(means[n])
            ]
            last = (
                ""
                if n == small
                else "same weight"
                if best[small] == best[large]
                else f"{over(loss, 'trial')}"
            )
            arm = "unbiased" if unbiased else "plug-in"
            table.append([f"`{penalty}`", arm, str(n), *cells, last])
    return markdown_table(headings, table, "ll" + "r" * (len(headings) - 2)).splitlines()


def dependence(runs: pl.DataFrame) -> list[str]:
    """How an arm's accuracy changes from the smaller n to the larger at one weight, less ERM's change."""
    small, large = (runs.filter(pl.col("n") == n) for n in SIZES)
    key = ["penalty", "unbiased", "share", "target", "trial"]
    both = large.join(small, on=key, suffix="_small", validate="1:1")
    both = both.with_columns((pl.col(MEASURES[0]) - pl.col(f"{MEASURES[0]}_small")).alias(MEASURES[0]))
    erm = both.filter(pl.col("penalty") == ERM).select("target", "trial", pl.col(MEASURES[0]).alias("erm"))
    changes = both.filter(pl.col("penalty") != ERM).join(erm, on=["target", "trial"])
    changes = changes.with_columns(pl.col(MEASURES[0]) - pl.col("erm")).drop_nulls(MEASURES[0])
    table = []
    for (penalty,), rows in changes.group_by("penalty", maintain_order=True):
        arms = (over(rows.filter(pl.col("unbiased") == arm), "trial") for arm in (False, True))
        table.append([f"`{penalty}`", *map(str, arms)])
    return markdown_table(["penalty", "plug-in", "unbiased"], table).splitlines()


def verdict(judged: dict[str, tuple[Estimate, Estimate]]) -> str:
    """Which comparisons count."""
    higher, lower = (
        [
            f"{name} ({over_trials})"
            for name, (over_trials, _) in judged.items()
            if sign * over_trials.mean > 0 and over_trials.counts
        ]
        for sign in (1, -1)
    )
    text = (
        f"Of {len(judged)} comparisons, target accuracy is higher with `unbiased` in: "
        f"{', '.join(higher) or 'none'}; lower in: {', '.join(lower) or 'none'}."
    )
    if all(over_domains.error is None for _, over_domains in judged.values()):
        return text
    sure = [
        name
        for name, (over_trials, over_domains) in judged.items()
        if over_trials.counts and over_domains.counts
    ]
    return f"{text} Over the target domains, too, by the same rule: {', '.join(sure) or 'none'}."


def collapses(runs: pl.DataFrame, least: float) -> str:
    """In how many runs of each arm the network no longer tells the source domains' classes apart."""
    counts = []
    for arm, name in ((False, "plug-in"), (True, "unbiased")):
        rows = runs.filter(pl.col("penalty") != ERM, pl.col("unbiased") == arm)
        counts.append(f"{rows.filter(pl.col(MEASURES[1]) < least).height} of {rows.height} {name}")
    return f"Runs whose accuracy on the source domains is below {least:g} %: {', '.join(counts)}."


def section(title: str, name: str, least: float) -> list[str]:
    """What one record says."""
    runs = read_runs(name)
    if runs is None or paired(runs).is_empty():
        return [f"### {title}", "", "*No records yet.*", ""]
    table, judged = difference_table(runs)
    trials = {
        penalty[0]: rows["trial"].n_unique()
        for penalty, rows in runs.group_by("penalty", maintain_order=True)
    }
    counted = ", ".join(f"{penalty} {count}" for penalty, count in trials.items())
    diverged = runs.filter(pl.col(MEASURES[0]).is_null()).height
    without_noise = runs.filter("unbiased")
    negative = without_noise.filter(pl.col("mean_penalty") < 0).height
    return [
        f"### {title}",
        "",
        f"{len(runs):,} runs, {diverged} of which diverged. Trials: {counted}. In {negative} of the "
        f"{without_noise.height} runs with `unbiased` the penalty was below 0 on average over the steps.",
        "",
        "Target accuracy, unbiased − plug-in, in percentage points, by weight in multiples of the loss:",
        "",
        *table,
        "",
        verdict(judged),
        "",
        collapses(runs, least),
        "",
        "Target accuracy in percent, by weight; bold is the best:",
        "",
        *carried(runs),
        "",
        "Looked at afterwards: how the accuracy changes from n = 8 to n = 32 at the same weight, less ERM's",
        "change, mean over weights:",
        "",
        *dependence(runs),
        "",
    ]


def page() -> str:
    """The whole page, with the section written anew."""
    before, rest = PAGE.read_text(encoding="utf-8").split(START)
    lines = [
        *section("PACS features", "pacs_features", 60),
        *section("Colored MNIST, target −90 %", "colored_mnist", 60),
        "± is the standard error over trials. Bold differences count by the design's rule.",
    ]
    return before + START + "\n\n" + "\n".join(lines) + "\n\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pacs", file, out]:
            run_features(file, Path(out))
        case ["colored_mnist", out, *penalties]:
            run_mnist(Path(out), *penalties)
        case []:
            PAGE.write_text(page(), encoding="utf-8")
        case _:
            raise SystemExit(__doc__)
