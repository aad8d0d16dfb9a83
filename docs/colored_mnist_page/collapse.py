"""Why the rows without gradient alignment collapse."""

from colored_mnist_page.page import Page, both, name_of, parts_before
from hessalign.experiments.colored_mnist import Setting, summarise_group


def without_gradients(page: Page) -> None:
    """Why the rows with β = 0 collapse."""
    page.add("## Without gradient alignment (β = 0)", "")
    found = [
        group
        for group in page.groups
        if group[0].spec.method in ("hutchinson-beta0", "diagonal-beta0", "hgp-beta0", "frobenius-beta0")
        and group[0].spec.alpha == 1
        and group[0].spec.split == "balanced"
    ]
    for group in found:
        row, first = summarise_group(group), group[0]
        before = [m for m in first.history if m.step < first.spec.anneal_step][-1]
        text = (
            f"{row.label} ends at {both(row)} (n = {row.restarts}; {name_of(first.spec.setting())}); "
            f"at step {before.step}, before the full weight, it stood at {before.source_accuracy:.1f} / "
            f"{before.target_accuracy:.1f}."
        )
        if first.parts:
            then, last = parts_before(first), first.parts[-1]
            text += (
                f" From there ‖H‖_F² went from {then.hessian_square:.2g} to {last.hessian_square:.2g}, the "
                f"mean curvature p(1 − p) from {then.curvature:.2g} to {last.curvature:.2g}, mean ‖z‖² from "
                f"{then.feature_square:.2g} to {last.feature_square:.2g}, and the distance of the gradients "
                f"from {then.gradient_distance:.1e} to {last.gradient_distance:.1e}."
            )
            if last.curvature < then.curvature / 2 and last.feature_square > then.feature_square:
                text += (
                    " So the head became flat by confidence, not by small features: predictions saturate, "
                    "and nothing in the penalty minds that they follow colour."
                )
        page.claim(text, group)
    page.add("")
    if not any(group[0].spec.setting() == Setting() for group in found):
        page.missing(
            "these rows at the published size",
            "hessalign cmnist --methods hgp-beta0,hutchinson-beta0 --log-parts",
        )
