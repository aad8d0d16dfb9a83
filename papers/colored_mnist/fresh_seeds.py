"""The chosen configurations on seeds that had no part in the choice, judged as was written down before.

What is asked, and what would answer it, stands in ``results/fresh_seeds/README.md``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hessalign.experiments.colored_mnist import RecordStore, RestartRecord, group_restarts, published
from papers.colored_mnist.evidence import ROOT, Ended, Evidence, best_of_paper, ended
from papers.colored_mnist.intervals import Interval, against_paper, mean_of, paired, welch
from papers.colored_mnist.tables import accuracies, grid, signed

STORE = RecordStore(ROOT / "results" / "fresh_seeds")
SEEDS = (100, 101, 102, 103, 104)
AIM, CHOSEN_STEP = 70.0, 670
"""Of questions 2 and 3."""


@dataclass(frozen=True)
class Fresh:
    """The four configurations on the fresh seeds, and on the old ones."""

    diagonal: Ended
    hgp: Ended
    flat: Ended
    hgp_imbalanced: Ended
    old: dict[str, Ended]

    def named(self) -> dict[str, Ended]:
        """By the names of the design."""
        return {
            "diagonal": self.diagonal,
            "HGP": self.hgp,
            "flat head": self.flat,
            "HGP, imbalanced": self.hgp_imbalanced,
        }


def fresh_seeds(evidence: Evidence) -> Fresh:
    """The records on fresh seeds.

    Args:
        evidence: Has those on the old seeds.

    Returns:
        All of them.

    Raises:
        ValueError: If a configuration lacks a seed, from which nothing may be judged.
    """
    groups = [ended(group) for group in group_restarts(STORE.load_all())]

    def find(method: str, split: str) -> Ended:
        for run in groups:
            spec = run.restarts[0].spec
            if (spec.method, spec.split) == (method, split):
                seeds = tuple(sorted(record.spec.seed for record in run.restarts))
                if seeds != SEEDS:
                    raise ValueError(
                        f"{method} on {split!r}: the design has seeds {SEEDS}, there are {seeds}"
                    )
                return run
        raise ValueError(f"{method} on {split!r}: there is no record on fresh seeds")

    found = Fresh(
        diagonal=find("diagonal", "balanced"),
        hgp=find("hgp", "balanced"),
        flat=find("diagonal-flat-off", "script"),
        hgp_imbalanced=find("hgp", "script"),
        old={},
    )
    for name, run in found.named().items():
        old = run.restarts[0].spec.configuration()
        same = [group for group in evidence.groups if group[0].spec.configuration() == old]
        found.old[name] = ended(same[0])
    return found


def targets(run: Ended, step: int | None = None) -> list[float]:
    """Target accuracies in percent by seed, at the last step or at another one."""
    records = sorted(run.restarts, key=lambda record: record.spec.seed)
    return [_target(record, step) for record in records]


def fresh_table(evidence: Evidence, fresh: Fresh) -> str:
    """A row for each configuration: train and target accuracy, and the old seeds' beside the new ones'."""
    rows = []
    for name, run in fresh.named().items():
        old = fresh.old[name]
        difference = welch(targets(run), targets(old))
        rows.append(
            [
                f"{name}{evidence.cite(old)}",
                *accuracies(run),
                str(old.n),
                accuracies(old)[1],
                signed(difference),
            ]
        )
    return grid("Fresh seeds | >Train | >Target | >Old seeds | >Target | >New minus old", rows)


@dataclass(frozen=True)
class Judged:
    """An answer.

    Attributes:
        question: Its number in the design.
        asked: In words.
        points: Mean or difference, with its interval.
        verdict: ``"holds"``, ``"refuted"`` or ``"open"``; of a reproduction ``"agrees"`` or ``"differs"``.
        is_difference: Whether points are one.
    """

    question: int
    asked: str
    points: Interval
    verdict: str
    is_difference: bool = True


def judge(fresh: Fresh) -> list[Judged]:
    """The questions of the design, in its order, with the intervals that answer them."""
    best, best8 = best_of_paper("script")
    paper = {split: published(split)["hgp"] for split in ("balanced", "script")}
    above = paired(targets(fresh.diagonal), targets(fresh.hgp))
    mean = mean_of(targets(fresh.diagonal))
    last, chosen = (
        against_paper(targets(fresh.flat, step), best8.target, best8.target_std)
        for step in (None, CHOSEN_STEP)
    )
    answers = [
        Judged(1, "Table 7: diagonal above HGP, on the same seeds", above, above.above(0)),
        Judged(2, f"Table 7: diagonal above {AIM:g}", mean, mean.above(AIM), is_difference=False),
        Judged(3, f"Table 8: flat head above the paper's {best}, last step", last, last.above(0)),
        Judged(3, f"the same at step {CHOSEN_STEP}", chosen, chosen.above(0)),
    ]
    for table, run, split in ((7, fresh.hgp, "balanced"), (8, fresh.hgp_imbalanced, "script")):
        found = against_paper(targets(run), paper[split].target, paper[split].target_std)
        verdict = "agrees" if found.above(0) == "open" else "differs"
        answers.append(Judged(4, f"Table {table}: HGP as in the paper's row", found, verdict))
    return answers


def judged_table(answers: Sequence[Judged]) -> str:
    """A row for each answer."""
    rows = [
        [
            str(answer.question),
            answer.asked,
            signed(answer.points) if answer.is_difference else _absolute(answer.points),
            answer.verdict,
        ]
        for answer in answers
    ]
    return grid("Question | What is asked | >Points, 95 % interval | Verdict", rows)


def _absolute(found: Interval) -> str:
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _target(record: RestartRecord, step: int | None) -> float:
    if step is None:
        return record.final.target_accuracy
    return next(metrics.target_accuracy for metrics in record.history if metrics.step == step)
