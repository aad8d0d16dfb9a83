"""A sweep over one number, as curves."""

from collections.abc import Callable, Sequence
from statistics import fmean

from colored_mnist_page.page import Page
from hessalign.experiments.colored_mnist import METHODS, RestartRecord, RestartSpec, summarise_group
from hessalign.experiments.colored_mnist.curves import Curve, Level, Panel

Group = Sequence[RestartRecord]

SWEPT: dict[str, tuple[str, Callable[[RestartSpec], float | None]]] = {
    "probes": ("probes k", lambda spec: spec.probes),
    "alpha": ("α", lambda spec: spec.alpha),
    "flatness": ("γ", lambda spec: spec.gamma),
}
"""What the sweeps that have a figure go over: its name, and where a restart lies."""


def _part(name: str) -> Callable[[Group], float]:
    return lambda group: fmean(getattr(record.parts[-1], name) for record in group)


ACCURACIES: dict[str, Callable[[Group], float]] = {
    "train accuracy [%]": lambda group: summarise_group(group).source_accuracy,
    "target accuracy [%]": lambda group: summarise_group(group).target_accuracy,
}
PARTS: dict[str, Callable[[Group], float]] = {
    "off(H), mean over domains": _part("off_diagonal"),
    "distance of the gradients": _part("gradient_distance"),
    "distance of the diagonals": _part("diagonal_distance"),
    "mean ‖z‖²": _part("feature_square"),
}


def sweep_figure(page: Page, name: str, groups: Sequence[Group]) -> None:
    """Accuracies and parts of the penalty at the last step over what is swept, a curve for each method.

    Configurations outside the sweep, say without probes, are levels to compare with.
    """
    if name not in SWEPT:
        return
    x_label, position = SWEPT[name]
    by_method: dict[str, dict[float, Group]] = {}
    fixed: dict[str, Group] = {}
    for group in groups:
        label, x = METHODS[group[0].spec.method].label, position(group[0].spec)
        if x is None:
            fixed[label] = group
        else:
            by_method.setdefault(label, {})[x] = group
    panels = []
    for title, value in (ACCURACIES | PARTS).items():
        curves = tuple(
            Curve(label, tuple(of), tuple(value(group) for group in of.values()))
            for label, of in by_method.items()
        )
        levels = tuple(Level(label, value(group)) for label, group in fixed.items())
        panels.append(Panel(title, x_label, curves, True, title in PARTS, True, levels))
    records = [record for group in groups for record in group]
    caption = f"Over {x_label}, at the last step."
    page.figure(f"{name}-{len(page.figures)}.png", caption, panels, records)
