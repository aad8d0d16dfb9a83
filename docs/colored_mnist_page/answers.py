"""What the sweeps answer, in words."""

from collections.abc import Callable, Sequence

from colored_mnist_page.page import Page, both, on_common_seeds, with_parts
from hessalign.experiments.colored_mnist import (
    METHODS,
    RestartRecord,
    Setting,
    candidate,
    implied_gamma,
    summarise_group,
)

ALIKE = 1.25
"""Two values of off(H), which goes over orders of magnitude, count as alike up to this factor."""


def probes_as_flatness(page: Page, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """Whether k probes do what a flat off-diagonal of weight 2/k does."""
    setting = groups[0][0].spec.setting()
    pairs = [
        on_common_seeds(group, flat)
        for group in groups
        if group[0].spec.probes and (flat := _as_flat(page, setting, group[0].spec.probes))
    ]
    pairs = [(probed, flat) for probed, flat in pairs if probed]
    if not pairs:
        return
    listed = "; ".join(
        f"k = {probed[0].spec.probes}: {both(summarise_group(probed))} with off(H) "
        f"{candidate(probed).off_diagonal:.1e}, and {both(summarise_group(flat))} with "
        f"{candidate(flat).off_diagonal:.1e} ({summarise_group(flat).label})"
        for probed, flat in pairs
    )
    ratios = [candidate(probed).off_diagonal / candidate(flat).off_diagonal for probed, flat in pairs]
    text = (
        "Hutchinson with k probes beside alignment without probes and a flat off-diagonal of weight 2/k: "
        f"{listed}. off(H) of the former is {', '.join(f'{ratio:.2f}' for ratio in ratios)} times as large"
    )
    alike = all(1 / ALIKE < ratio < ALIKE for ratio in ratios)
    text += (
        ": the probes' noise acts as the regulariser of weight 2/k that its expectation contains."
        if alike
        else ": the probes' noise does something else besides."
    )
    page.claim(text, *(group for pair in pairs for group in pair))
    page.add("")


def _as_flat(page: Page, setting: Setting, probes: int) -> list[RestartRecord] | None:
    """Alignment with the flatness that so many probes amount to: of diagonals, else of gradients alone."""
    methods = ("diagonal-flat-off", "gradient-flat-off")
    found = (page.find(setting, method, gamma=implied_gamma(probes)) for method in methods)
    return next((measured for group in found if group and (measured := with_parts(group))), None)


def best_alphas(page: Page, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """How far another weight alone leads the methods without gradient alignment."""
    by_method: dict[str, list[Sequence[RestartRecord]]] = {}
    for group in groups:
        by_method.setdefault(group[0].spec.method, []).append(group)
    best = [max(of, key=lambda g: summarise_group(g).target_accuracy) for of in by_method.values()]
    listed = ", ".join(
        f"{METHODS[group[0].spec.method].label} {summarise_group(group).target_accuracy:.1f} at "
        f"α = {group[0].spec.alpha:g}"
        for group in best
    )
    text = (
        f"The best target accuracy over α, chosen with the target in sight, out of "
        f"{len({group[0].spec.alpha for group in groups})} weights: {listed}."
    )
    aligned = page.find(groups[0][0].spec.setting(), "gradient")
    if aligned:
        reached = summarise_group(aligned).target_accuracy
        far = reached - max(summarise_group(group).target_accuracy for group in best)
        text += (
            f" Aligned gradients alone reach {reached:.1f} in this setting, {far:.1f} more than any of "
            "these: the rows fail for want of gradient alignment, and α is not to blame."
            if far > 2
            else f" Aligned gradients alone reach {reached:.1f} in this setting: α is to blame."
        )
    page.claim(text, *best, aligned or [])
    page.add("")


ANSWERS: dict[str, Callable[[Page, Sequence[Sequence[RestartRecord]]], None]] = {
    "forms": probes_as_flatness,
    "probes": probes_as_flatness,
    "alpha": best_alphas,
}
