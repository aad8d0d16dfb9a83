"""Four hospitals' penalty from what each of them sends, and what it tells of patients (experimental).

The penalty compares means over each domain's samples: gradient ``G``, Hessian diagonal ``D``, Hessian-
gradient product ``H G``. So no features have to leave a hospital. Each sends ``C (d + 1)`` numbers a
statistic, and the coordinator gets the penalty that it would compute from all samples in one place, and its
slope.

Run it: ``python examples/federated/four_hospitals.py``. The last part shows what such numbers give away: they
are **not** anonymous. Use secure aggregation or noise where they must be.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import hessalign as ha

CLASSES, FEATURES = 3, 8
ALPHA, BETA = 0.5, 2.0
PATIENTS = {"north": 40, "south": 25, "east": 60, "west": 31}


@dataclass
class Hospital:
    """Keeps its patients' features ``(n, d)`` and labels ``(n,)``; every method returns what it sends."""

    features: Tensor
    labels: Tensor

    def statistics(self, head: nn.Linear) -> tuple[Tensor, Tensor]:
        """``G`` and ``D`` at the coordinator's head, ``(C, d + 1)`` each, the bias last."""
        derivatives = self._derivatives(head)
        return derivatives.gradient().detach(), derivatives.diagonal().detach()

    def products(self, head: nn.Linear, mean_gradient: Tensor) -> tuple[Tensor, Tensor]:
        """``H G`` and ``H Ḡ``: what HGP needs in a second round, once the mean gradient is known."""
        derivatives = self._derivatives(head)
        own = derivatives.gradient()
        return derivatives.hvp(own).detach(), derivatives.hvp(mean_gradient).detach()

    def slope(self, head: nn.Linear, of_gradient: Tensor, of_diagonal: Tensor) -> tuple[Tensor, ...]:
        """Slopes for weight and bias of ``⟨G, of_gradient⟩ + ⟨D, of_diagonal⟩``."""
        derivatives = self._derivatives(head)
        pulled = (derivatives.gradient() * of_gradient).sum() + (derivatives.diagonal() * of_diagonal).sum()
        return torch.autograd.grad(pulled, (head.weight, head.bias))

    def _derivatives(self, head: nn.Linear) -> ha.HeadDerivatives:
        return ha.HeadDerivatives.from_logits(self.features, head(self.features), self.labels)


def distance(statistics: list[Tensor], centre: Tensor | None = None) -> Tensor:
    """Mean over hospitals of the squared distance to their mean, or to a centre."""
    stacked = torch.stack(statistics)
    middle = stacked.mean(0) if centre is None else centre
    return (stacked - middle).square().sum((1, 2)).mean()


def error(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference."""
    return float((found - expected).detach().abs().max())


def main() -> None:
    """Compute all of it and print how far it is from the pooled penalty."""
    torch.manual_seed(0)
    head = nn.Linear(FEATURES, CLASSES, dtype=torch.float64)
    hospitals = [
        Hospital(torch.randn(n, FEATURES, dtype=torch.float64) + shift, torch.randint(0, CLASSES, (n,)))
        for shift, n in enumerate(PATIENTS.values())
    ]

    # Round 1: each hospital sends its gradient and the diagonal of its Hessian.
    gradients, diagonals = map(list, zip(*(hospital.statistics(head) for hospital in hospitals), strict=True))
    by_diagonal = ALPHA * distance(diagonals) + BETA * distance(gradients)

    # Round 2, for HGP: the coordinator sends the mean gradient back, and gets two products.
    mean_gradient = torch.stack(gradients).mean(0)
    sent = [hospital.products(head, mean_gradient) for hospital in hospitals]
    own, of_mean = map(list, zip(*sent, strict=True))
    by_hgp = ALPHA * distance(own, torch.stack(of_mean).mean(0)) + BETA * distance(gradients)

    # For training: the coordinator sends each hospital its own distances, and gets the slope for the head.
    share = 2 / len(hospitals)
    slopes = [
        hospital.slope(
            head,
            share * BETA * (gradient - mean_gradient),
            share * ALPHA * (diagonal - torch.stack(diagonals).mean(0)),
        )
        for hospital, gradient, diagonal in zip(hospitals, gradients, diagonals, strict=True)
    ]
    slope = [torch.stack(parts).sum(0) for parts in zip(*slopes, strict=True)]

    # The same with all patients in one place.
    features = torch.cat([hospital.features for hospital in hospitals])
    labels = torch.cat([hospital.labels for hospital in hospitals])
    domains = [name for name, count in PATIENTS.items() for _ in range(count)]
    for method, found in (("diagonal", by_diagonal), ("hgp", by_hgp)):
        pooled = ha.HessianAlignment(method, ALPHA, BETA)(features, head(features), labels, domains)
        print(f"{method}: {float(found):.6f}; from the pooled penalty: {error(found, pooled):.0e}")
    pooled = ha.HessianAlignment("diagonal", ALPHA, BETA)(features, head(features), labels, domains)
    expected = torch.autograd.grad(pooled, (head.weight, head.bias))
    worst = max(error(*pair) for pair in zip(slope, expected, strict=True))
    print(f"slope for the head; from the pooled one: {worst:.0e}")

    what_it_reveals(hospitals[0])


def what_it_reveals(hospital: Hospital) -> None:
    """Three readings of honest messages, each exact."""
    # With an untrained head all probabilities are 1/C: the bias has the gradient 1/C - share of the class.
    untrained = nn.Linear(FEATURES, CLASSES, dtype=torch.float64)
    nn.init.zeros_(untrained.weight)
    nn.init.zeros_(untrained.bias)
    gradient, _ = hospital.statistics(untrained)
    shares = 1 / CLASSES - gradient[:, -1]
    true_shares = hospital.labels.bincount(minlength=CLASSES).double() / len(hospital.labels)
    print(f"shares of the classes, read to {error(shares, true_shares):.0e}")

    # One patient: each row of the gradient is a multiple of (features, 1).
    head = nn.Linear(FEATURES, CLASSES, dtype=torch.float64)
    one = Hospital(hospital.features[:1], hospital.labels[:1])
    gradient, _ = one.statistics(head)
    read = gradient[0, :-1] / gradient[0, -1]
    print(f"features of a single patient, read to {error(read, one.features[0]):.0e}")

    # Messages before and after one patient came, with the numbers of patients: the rest is that patient.
    count = len(hospital.labels)
    before = Hospital(hospital.features[:-1], hospital.labels[:-1])
    difference = count * hospital.statistics(head)[0] - (count - 1) * before.statistics(head)[0]
    read = difference[0, :-1] / difference[0, -1]
    print(f"features of the patient who came last, read to {error(read, hospital.features[-1]):.0e}")


if __name__ == "__main__":
    main()
