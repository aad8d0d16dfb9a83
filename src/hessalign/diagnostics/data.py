"""What a report is: plain tables, and a summary in words. Pages and figures are made of it, elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import polars as pl

from hessalign.checks import require_choice
from hessalign.markup import visible

Table = Literal[
    "distances",
    "attributes",
    "pairs",
    "domains",
    "groups",
    "parts",
    "eigenvalues",
    "samples",
    "plane",
    "shift",
]
Plot = Literal["distances", "eigenvalues", "attributes", "plane"]

OF_PAIRS: tuple[Table, ...] = ("pairs", "distances", "attributes", "groups", "parts", "samples", "shift")
"""Tables with the columns ``first`` and ``second``."""

MOST_PAIRS = 15
"""Pairs that a page tells one by one, those of six domains; of more the most different and the most alike."""

# What is said in words is said of so many pairs, domains and notes.
SAID = 3


@dataclass(frozen=True, eq=False, repr=False)
class DomainReport:
    """Tables about the differences between domains.

    Attributes:
        names: Names of the domains.
        sizes: Number of samples of each.
        radius: δ of the transfer bound.
        level: Share of intervals that hold the truth.
        replicates: Number of bootstrap replicates; 0 for no intervals.
        attributes: Names of the attributes that are told apart.
        notes: What should not be believed, or could not be told, and why; empty for most.
        tables: By name; see [to_frame][hessalign.diagnostics.AlignmentReport.to_frame].
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    radius: float
    level: float
    replicates: int
    attributes: tuple[str, ...]
    notes: tuple[str, ...]
    tables: dict[Table, pl.DataFrame]

    def to_frame(self, table: Table = "distances") -> pl.DataFrame:
        """One of the report's tables.

        Of more pairs than ``pairs`` the most different and the most alike have everything; all others have
        the distances that come in closed form, without intervals, and their attributes.

        Args:
            table: ``"distances"`` (default): for each pair of domains and each quantity the distance, the
                same relative to the quantities' own norms, without what chance adds, and its interval.
                ``"attributes"``: what differs, ranked, for each pair; where too few samples cannot tell,
                there is neither effect nor rank, ``note`` says so, and ``shrunk`` is the difference of
                covariances with shrinkage. ``"pairs"``: a row for each pair, the most different first.
                ``"domains"``: a row for each domain, with those that are nearest and farthest, its place
                among its like, and how sharp its loss is: trace and largest eigenvalue of its Hessian.
                ``"groups"``: what differs, by class. ``"parts"``: squared distances split by attribute of
                Proposition 4 (or 5) and output. ``"eigenvalues"``: leading ones of each domain's Hessian.
                ``"samples"``: those that lengthen a distance most. ``"plane"``: the domains in the plane of
                the two leading aligned directions. ``"shift"``: diversity and correlation shift of OoD-Bench
                for each pair, and what chance gives; where too few samples cannot tell, ``note`` says so.

        Returns:
            The table, to read; a change of it is one of the report.

        Raises:
            ValueError: If there is no such table.
        """
        require_choice("table", table, get_args(Table))
        return self.tables[table]

    def extremes(self, most: int = MOST_PAIRS) -> pl.DataFrame:
        """Names of pairs to tell one by one: all, or two thirds of the most different, one of the most alike.

        Args:
            most: How many at most.

        Returns:
            Columns ``first`` and ``second``, in the order of domains, or else the most different first.
        """
        pairs = self.tables["pairs"]
        if len(pairs) <= most:
            return self.tables["attributes"].select("first", "second").unique(maintain_order=True)
        ranked = pairs.filter(pl.col("full") & pl.col("Hessian distance").is_not_null())
        ranked = ranked if len(ranked) >= most else pairs.filter("full")
        alike = min(most // 3, len(ranked) // 2)
        chosen = pl.concat([ranked.head(min(most, len(ranked)) - alike), ranked.tail(alike)])
        return chosen.select("first", "second")

    def told(self, table: Table, pairs: pl.DataFrame) -> pl.DataFrame:
        """A table of pairs for some of them alone, in their order.

        Args:
            table: Its name, one of those with the columns ``first`` and ``second``.
            pairs: As [extremes][hessalign.diagnostics.data.DomainReport.extremes] gives them.

        Returns:
            Its rows of these pairs, all columns.
        """
        return pairs.join(
            self.tables[table], on=["first", "second"], how="inner", maintain_order="left_right"
        )

    def sentences(self, pairs: pl.DataFrame) -> list[str]:
        """What each of some pairs differs in most, and how far apart the Hessians are, in their own units.

        Args:
            pairs: As [extremes][hessalign.diagnostics.data.DomainReport.extremes] gives them.

        Returns:
            One for each pair.
        """
        columns = ("first", "second", "attribute", "effect", "found", "Hessian distance")
        untold = self.told("attributes", pairs).filter(pl.col("effect").is_null())
        in_part = set(untold.select("first", "second").iter_rows())
        sentences = []
        for first, second, attribute, effect, found, distance in (
            self.told("pairs", pairs).select(columns).iter_rows()
        ):
            if effect is None:
                sentences.append(f"nothing can be told of {first} and {second}")
                continue
            told = (
                f"{first} and {second} differ most in {attribute} ({effect:.2g} nats)"
                if found
                else f"nothing is found to differ between {first} and {second}"
                f"{', as far as so few samples can tell' if (first, second) in in_part else ''}"
            )
            sentences.append(told if distance is None else f"{told}; Hessian distance {distance:.2g}")
        return sentences

    def __repr__(self) -> str:
        """The numbers of domains and samples; ``print`` shows a summary."""
        return f"{type(self).__name__}({len(self.names)} domains, {sum(self.sizes):,} samples)"

    def __str__(self) -> str:
        """A summary in a few lines."""
        domains = [f"{name} ({size:,})" for name, size in zip(self.names, self.sizes, strict=True)]
        more = len(domains) - 2 * SAID
        listed = domains if more <= 1 else [*domains[: 2 * SAID], f"and {more} more"]
        lines = [f"{len(self.names)} domains, {sum(self.sizes):,} samples: {', '.join(listed)}"]
        pairs = self.extremes(2 * SAID)
        count = len(self.tables["pairs"])
        if count > len(pairs):
            lines.append(f"Of {count:,} pairs, the most different and the most alike by Hessian distance:")
        lines += [f"  {sentence}" for sentence in self.sentences(pairs)]
        if self.notes:
            lines.append("Not to be believed, or not told:")
            lines += [f"  {note}" for note in self.notes]
        lines.append("More: to_frame(TABLE), plot(KIND), to_html(PATH)")
        return "\n".join(map(visible, lines))


def compare(reports: Mapping[str, DomainReport]) -> pl.DataFrame:
    """Relative distances of several reports side by side: a column for each title.

    Args:
        reports: By title.

    Returns:
        Columns ``first``, ``second`` and ``quantity``, and one for each title.
    """
    frames = [
        report.to_frame("distances")
        .filter(pl.col("relative").is_not_null())
        .select("first", "second", "quantity", pl.col("relative").alias(title))
        for title, report in reports.items()
    ]
    joined = frames[0]
    for frame in frames[1:]:
        joined = joined.join(frame, on=["first", "second", "quantity"], how="left", maintain_order="left")
    return joined
