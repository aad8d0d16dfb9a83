"""Model selection: which checkpoint of which hyper-parameters is reported. DomainBed's rules, and another.

For one dataset, algorithm, target domain and trial, each rule gives every draw of hyper-parameters a
*validation* accuracy that may guide the choice, and a *test* accuracy that is reported: that on the larger
(``in``) split of the target domain, or another metric there, which has no part in the choice. The draw with
the largest validation accuracy is chosen; of equal ones that with the highest hparams_seed. A validation
accuracy that is not a number comes last. A run that diverged has its accuracies until then, and none at the
evaluation that found it out: of its checkpoints only the former ones can be chosen, and where the rule takes
the last one, the run comes last.

Source: Gulrajani and Lopez-Paz, "In Search of Lost Domain Generalization", ICLR 2021, and its code, whose
choices are met bit for bit up to seven source domains (from eight on, sums may round differently).

The fourth rule, ``worst-group``, is no part of that protocol: it looks at the worst group of the source
domains' held-out samples, as Sagawa et al. (ICLR 2020) do.
"""

from collections.abc import Callable
from typing import Literal

import polars as pl

Rule = Literal["source-validation", "leave-one-domain-out", "oracle", "worst-group"]
"""Name of a rule of selection."""
RULES: tuple[Rule, ...] = ("source-validation", "leave-one-domain-out", "oracle")
"""The rules of DomainBed's protocol."""
RULE_LABELS: dict[Rule, str] = {
    "source-validation": "source-validation (training-domain) selection",
    "leave-one-domain-out": "leave-one-domain-out selection",
    "oracle": "oracle (test-domain validation) selection",
    "worst-group": "worst-group (training-domain) selection",
}

CELL = ("dataset", "setting", "algorithm", "target")
"""What a cell of a table is about."""
TRIAL = (*CELL, "trial_seed")
"""What one choice is made for."""
DRAW = (*TRIAL, "hparams_seed")
"""What the choice is made from."""


def select(accuracies: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """The chosen draw of every dataset, setting, algorithm, target domain and trial.

    Args:
        accuracies: As in [Records][hessalign.benchmark.readers.Records].
        rule: Name of a rule.

    Returns:
        A row for each choice: ``dataset, setting, algorithm, target, trial_seed``; ``hparams_seed``, ``run``
        and ``step`` of what was chosen; its ``validation`` and ``test`` accuracy, 0 to 1, or of the latter
        the metric in ``reported``; and ``draws``, the number of draws that it was chosen from.

    Raises:
        ValueError: If the rule needs a column that is not there.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from hessalign.algorithms import get_algorithm
        >>> from hessalign.backbones import BackboneSpec
        >>> from hessalign.benchmark import read_sweep, select
        >>> from hessalign.datasets import find_data
        >>> from hessalign.datasets.features_file import save_features
        >>> from hessalign.training import Machine, RunSpec, train
        >>> y, site = np.arange(24) % 2, np.arange(24) // 8
        >>> X = (np.random.default_rng(0).normal(size=(24, 3)) + 3 * y[:, None]).astype("float32")
        >>> hparams = get_algorithm("erm").hparams_class.with_defaults("features", {"batch_size": 4})
        >>> spec = RunSpec(
        ...     dataset="features_file",
        ...     algorithm="erm",
        ...     target_domains=(2,),
        ...     backbone=BackboneSpec(name="identity"),
        ...     hparams=hparams.model_dump(),
        ...     steps=4,
        ...     evaluate_every=2,
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     place = Path(folder)
        ...     written = save_features(place / "sites.safetensors", X, y, site)
        ...     dataset = find_data(f"{folder}/sites.safetensors").open(seed=0)
        ...     record = train(spec, dataset, place / "run", Machine("cpu"))
        ...     records = read_sweep(place)
        >>> choices = select(records.accuracies, "oracle")
        >>> choices["step"].to_list(), choices["test"].to_list() == [record["accuracies"]["2"]["in"]]
        ([3], True)
    """
    return best_draws(candidates(accuracies, rule))


def candidates(accuracies: pl.DataFrame, rule: Rule) -> pl.DataFrame:
    """Validation and test accuracy of every draw, at the checkpoint that the rule takes; a row for each."""
    if "reported" not in accuracies.columns:
        accuracies = accuracies.with_columns(reported=pl.col("inside"))
    return _CANDIDATES[rule](accuracies)


def source_validation(accuracies: pl.DataFrame) -> pl.DataFrame:
    """The checkpoint with the largest mean accuracy on the held-out (``out``) splits of the source domains.

    Only runs with a single target domain count. Of equal checkpoints the first is taken.

    Args:
        accuracies: As [select][hessalign.benchmark.select] takes them.

    Returns:
        As of ``candidates``.
    """
    is_target = pl.col("domain") == pl.col("target")
    checkpoints = _by_record(
        _single_target(accuracies),
        validation=pl.col("outside").filter(~is_target),
        test=pl.col("reported").filter(is_target),
    )
    return _best_checkpoints(checkpoints)


def worst_group(accuracies: pl.DataFrame) -> pl.DataFrame:
    """The checkpoint with the largest accuracy on the worst group of the source domains.

    A group is a domain and a class; its accuracy is that on the held-out (``out``) split of the domain. Only
    runs with a single target domain count. Of equal checkpoints the first is taken.

    Args:
        accuracies: As [select][hessalign.benchmark.select] takes them.

    Returns:
        As of ``candidates``.

    Raises:
        ValueError: If there is no column ``worst_outside``.
    """
    if "worst_outside" not in accuracies.columns:
        raise ValueError("accuracies: the rule 'worst-group' needs the column worst_outside")
    is_target = pl.col("domain") == pl.col("target")
    worst = pl.col("worst_outside").filter(~is_target)
    checkpoints = _by_record(
        _single_target(accuracies),
        # A domain without held-out samples leaves the worst group unknown.
        validation=pl.when(worst.is_nan().any()).then(float("nan")).otherwise(worst.min()).first().implode(),
        test=pl.col("reported").filter(is_target),
    )
    return _best_checkpoints(checkpoints)


def leave_one_domain_out(accuracies: pl.DataFrame) -> pl.DataFrame:
    """The step with the largest cross-validated accuracy over the source domains.

    At a step, the run with target ``e`` alone gives the test accuracy, and for each other domain ``j`` the
    run with targets ``e`` and ``j`` gives the accuracy on ``j``'s larger (``in``) split; the validation
    accuracy is their mean. A step at which a pair is missing, or at which there are several records with
    target ``e`` alone, is dropped, and so is one at which the run with target ``e`` alone had diverged and
    has no accuracies. Of equal steps the first is taken.

    Args:
        accuracies: As [select][hessalign.benchmark.select] takes them.

    Returns:
        As of ``candidates``.
    """
    measured = _single_target(accuracies).filter(~pl.col("inside").is_nan().all().over("record"))
    singles = _by_record(
        measured,
        validation=pl.col("inside"),
        test=pl.col("reported").filter(pl.col("domain") == pl.col("target")),
    ).filter(pl.len().over(*DRAW, "step") == 1)
    checkpoints = singles.drop("validation").join(_left_out_accuracies(accuracies), on=[*DRAW, "step"])
    return _best_checkpoints(checkpoints.filter(pl.col("pairs") == pl.col("domains") - 1).drop("pairs"))


def oracle(accuracies: pl.DataFrame) -> pl.DataFrame:
    """The last step, judged on the held-out (``out``) split of the target domain itself: an upper bound.

    Only runs with a single target domain count. No earlier checkpoint is taken.

    Args:
        accuracies: As [select][hessalign.benchmark.select] takes them.

    Returns:
        As of ``candidates``.
    """
    target = _single_target(accuracies).filter(pl.col("domain") == pl.col("target"))
    checkpoints = _by_record(target, validation=pl.col("outside"), test=pl.col("reported"))
    last = checkpoints.sort("step", maintain_order=True).group_by(DRAW, maintain_order=True).last()
    return last.select(checkpoints.columns)


_CANDIDATES: dict[Rule, Callable[[pl.DataFrame], pl.DataFrame]] = {
    "source-validation": source_validation,
    "leave-one-domain-out": leave_one_domain_out,
    "oracle": oracle,
    "worst-group": worst_group,
}


def best_draws(draws: pl.DataFrame) -> pl.DataFrame:
    """Of each trial the draw with the largest validation accuracy; of equal ones the highest hparams_seed."""
    ranked = draws.with_columns(draws=pl.len().over(TRIAL)).sort(
        _worst_if_not_a_number("validation"), "hparams_seed", descending=True
    )
    chosen = ranked.group_by(TRIAL, maintain_order=True).first().sort(TRIAL)
    return chosen.select(*TRIAL, "hparams_seed", "run", "step", "validation", "test", "draws")


def _best_checkpoints(checkpoints: pl.DataFrame) -> pl.DataFrame:
    """Of each draw the step with the largest validation accuracy; of equal ones the first."""
    ranked = checkpoints.sort(
        _worst_if_not_a_number("validation"), "step", descending=[True, False], maintain_order=True
    )
    return ranked.group_by(DRAW, maintain_order=True).first()


def _worst_if_not_a_number(column: str) -> pl.Expr:
    return pl.col(column).fill_nan(float("-inf"))


def _single_target(accuracies: pl.DataFrame) -> pl.DataFrame:
    """Accuracies of runs with one target domain, which the new column ``target`` names."""
    single = accuracies.filter(pl.col("targets").list.len() == 1)
    return single.with_columns(target=pl.col("targets").list.first())


def _by_record(accuracies: pl.DataFrame, validation: pl.Expr, test: pl.Expr) -> pl.DataFrame:
    """A row for each record: the mean of some accuracies, one accuracy, and the number of ``domains``."""
    first = [pl.col(name).first() for name in (*DRAW, "run", "step")]
    grouped = accuracies.group_by("record", maintain_order=True).agg(
        *first, validation=validation, test=test.first(), domains=pl.len()
    )
    return grouped.drop("record").with_columns(_mean("validation"))


def _left_out_accuracies(accuracies: pl.DataFrame) -> pl.DataFrame:
    """``validation`` and its number of ``pairs`` of each draw and step, over runs with two target domains."""
    # A run with targets e and j serves e with its accuracy on j, and j with that on e. Of several runs with
    # the same pair the last counts.
    is_target = pl.col("targets").list.contains(pl.col("domain"))
    pairs = accuracies.filter((pl.col("targets").list.len() == 2) & is_target)
    other = pairs.with_columns(target=pl.col("targets").list.sum() - pl.col("domain"))
    key = (*DRAW, "step")
    distinct = other.unique([*key, "domain"], keep="last", maintain_order=True).sort(
        "domain", maintain_order=True
    )
    grouped = distinct.group_by(key).agg(validation=pl.col("inside"), pairs=pl.len())
    return grouped.with_columns(_mean("validation"))


def _mean(column: str) -> pl.Expr:
    """Mean of a column of lists; unlike that of a group it sums in order, as numpy does for few values."""
    return pl.col(column).list.mean()
