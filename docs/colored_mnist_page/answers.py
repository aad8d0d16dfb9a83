"""What the sweeps answer, in words."""

from collections.abc import Callable, Sequence

from colored_mnist_page.over_probes import over_probes
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
GUESSING = 55.0
"""A train accuracy below this, in percent, is hardly more than guessing."""
NEAR_ALIGNED = 10.0
"""Target accuracies that are fewer points below that of aligned gradients count as near to it."""


def probes_as_flatness(page: Page, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """Whether k probes do what a flat off-diagonal of weight 2/k does."""
    setting = groups[0][0].spec.setting()
    pairs = [
        on_common_seeds(group, flat)
        for group in groups
        if group[0].spec.probes
        and group[0].spec.hutchinson == "expected"
        and (flat := _as_flat(page, setting, group[0].spec.probes))
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
        "Hutchinson in expectation over k probes beside alignment without probes and a flat off-diagonal of "
        "weight 2/k: "
        f"{listed}. off(H) of the former is {', '.join(f'{ratio:.2f}' for ratio in ratios)} times as large"
    )
    alike = all(1 / ALIKE < ratio < ALIKE for ratio in ratios)
    text += (
        ": the probes' noise acts as the regulariser of weight 2/k that its expectation contains."
        if alike
        else ": the probes' noise does something else besides."
    )
    page.claim(text, *(group for pair in pairs for group in pair))


def number_of_probes(page: Page, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """What more probes do, and whether it is what a weaker flat off-diagonal does."""
    over_probes(page, groups)
    probes_as_flatness(page, groups)


def _as_flat(page: Page, setting: Setting, probes: int) -> list[RestartRecord] | None:
    """Alignment with the flatness that so many probes amount to: of diagonals, else of gradients alone."""
    methods = ("diagonal-flat-off", "gradient-flat-off")
    found = (page.find(setting, method, gamma=implied_gamma(probes)) for method in methods)
    return next((measured for group in found if group and (measured := with_parts(group))), None)


def best_alphas(page: Page, groups: Sequence[Sequence[RestartRecord]]) -> None:
    """How far another weight alone leads the methods without gradient alignment."""
    by_method: dict[str, list[Sequence[RestartRecord]]] = {}
    for group in groups:
        if summarise_group(group).source_accuracy > GUESSING:
            by_method.setdefault(group[0].spec.method, []).append(group)
    best = {
        method: max(of, key=lambda g: summarise_group(g).target_accuracy) for method, of in by_method.items()
    }
    listed = ", ".join(_target_at_alpha(group) for group in best.values())
    alphas = sorted({group[0].spec.alpha for group in groups})
    text = (
        f"The best target accuracy over {len(alphas)} weights α from {alphas[0]:g} to {alphas[-1]:g}, chosen "
        f"with the target in sight, those aside that end with a train accuracy below {GUESSING:g}: {listed}."
    )
    aligned = page.find(groups[0][0].spec.setting(), "gradient")
    if aligned:
        reached = summarise_group(aligned).target_accuracy
        near = [m for m, g in best.items() if reached - summarise_group(g).target_accuracy < NEAR_ALIGNED]
        text += f" Aligned gradients alone reach {reached:.1f} in this setting."
        if near == ["hgp-beta0"]:
            text += (
                " So the supplement's guess that α was tuned for another loss holds for HGP: a much larger "
                "one aligns the gradients that are in its products. It does not hold for distances of "
                "Hessians alone, the exact ones included: those rows fail for want of gradient alignment."
            )
        elif not near:
            text += " So the rows fail for want of gradient alignment, whatever α is."
    page.claim(text, *best.values(), aligned or [])


def _target_at_alpha(group: Sequence[RestartRecord]) -> str:
    row = summarise_group(group)
    return f"{METHODS[row.method].label} {row.target_accuracy:.1f} at α = {row.alpha:g}"


ANSWERS: dict[str, Callable[[Page, Sequence[Sequence[RestartRecord]]], None]] = {
    "forms": probes_as_flatness,
    "probes": number_of_probes,
    "alpha": best_alphas,
}
