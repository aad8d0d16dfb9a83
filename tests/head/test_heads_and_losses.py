"""Every row of docs/heads-and-losses.md: what to pass for which loss and head, against autograd."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import hessalign as ha

PAGE = Path(__file__).parents[2] / "docs" / "heads-and-losses.md"
GENERATOR = torch.Generator().manual_seed(0)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


FEATURES, WEIGHT, BIAS = normal(12, 5), normal(3, 5), normal(3)
CLASSES = torch.randint(0, 3, (12,), generator=GENERATOR)
SOFT = normal(12, 3).softmax(1)
LABELS = (normal(12, 3) > 0).double()
VALUES = normal(12, 3)
SAMPLE_WEIGHT = 0.2 + normal(12).abs()
CLASS_WEIGHT = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)
IGNORED = torch.where(torch.arange(12) % 5 == 0, -100, CLASSES)
DOMAINS = torch.arange(12) // 6


def linear(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return F.linear(features, weight, bias)


def autograd_distances(
    loss: Callable[[Tensor, Tensor], Tensor], head: Callable = linear, with_bias: bool = True
) -> tuple[Tensor, Tensor]:
    """Squared distances of gradient and Hessian to their means over two domains, averaged."""

    def domain_loss(parameters: Tensor, rows: Tensor) -> Tensor:
        weight, bias = (parameters[:, :-1], parameters[:, -1]) if with_bias else (parameters, None)
        return loss(head(FEATURES[rows], weight, bias), rows)

    parameters = torch.cat([WEIGHT, BIAS.unsqueeze(1)], dim=1) if with_bias else WEIGHT
    members = [torch.arange(12)[domain == DOMAINS] for domain in (0, 1)]
    gradients = torch.stack([torch.func.grad(domain_loss)(parameters, rows).flatten() for rows in members])
    size = parameters.numel()
    hessians = torch.stack(
        [torch.func.hessian(domain_loss)(parameters, rows).reshape(size, size) for rows in members]
    )
    return (
        (gradients - gradients.mean(0)).square().sum(1).mean(),
        (hessians - hessians.mean(0)).square().sum((1, 2)).mean(),
    )


def binary(pos_weight: Tensor | None = None) -> Callable[[Tensor, Tensor], Tensor]:
    # torch's mean is over samples and labels, a domain's loss here sums over labels.
    return lambda a, rows: 3 * F.binary_cross_entropy_with_logits(a, LABELS[rows], pos_weight=pos_weight)


def huber(logits: Tensor, target: Tensor) -> Tensor:
    return torch.log(torch.cosh(logits - target)).sum()


LOSSES = {
    "class ids": (lambda a, i: F.cross_entropy(a, CLASSES[i]), CLASSES, {}),
    "class probabilities": (lambda a, i: F.cross_entropy(a, SOFT[i]), SOFT, {}),
    "label_smoothing": (
        lambda a, i: F.cross_entropy(a, CLASSES[i], label_smoothing=0.1),
        CLASSES,
        {"loss": ha.CrossEntropy(label_smoothing=0.1)},
    ),
    "weight": (
        lambda a, i: F.cross_entropy(a, CLASSES[i], CLASS_WEIGHT),
        CLASSES,
        {"loss": ha.CrossEntropy(class_weight=CLASS_WEIGHT)},
    ),
    "weight and label_smoothing": (
        lambda a, i: F.cross_entropy(a, CLASSES[i], CLASS_WEIGHT, label_smoothing=0.1),
        CLASSES,
        {"loss": ha.CrossEntropy(label_smoothing=0.1, class_weight=[0.5, 1.0, 2.5])},
    ),
    "weight with class probabilities": (
        lambda a, i: F.cross_entropy(a, SOFT[i], CLASS_WEIGHT),
        SOFT,
        {"loss": ha.CrossEntropy(class_weight=CLASS_WEIGHT)},
    ),
    "ignore_index": (
        lambda a, i: F.cross_entropy(a, IGNORED[i]),
        IGNORED,
        {"loss": ha.CrossEntropy(ignore_index=-100)},
    ),
    "all three": (
        lambda a, i: F.cross_entropy(a, IGNORED[i], CLASS_WEIGHT, label_smoothing=0.2),
        IGNORED,
        {"loss": ha.CrossEntropy(0.2, CLASS_WEIGHT, -100)},
    ),
    "sample weights": (
        lambda a, i: (
            (SAMPLE_WEIGHT[i] * F.cross_entropy(a, CLASSES[i], reduction="none")).sum()
            / SAMPLE_WEIGHT[i].sum()
        ),
        CLASSES,
        {"sample_weight": SAMPLE_WEIGHT},
    ),
    "binary": (binary(), LABELS, {"loss": "binary_cross_entropy"}),
    "pos_weight": (binary(CLASS_WEIGHT), LABELS, {"loss": ha.BinaryCrossEntropy(pos_weight=CLASS_WEIGHT)}),
    "squared error": (
        lambda a, i: F.mse_loss(a, VALUES[i], reduction="none").sum(1).mean() / 2,
        VALUES,
        {"loss": ha.SquaredError()},
    ),
    "any other": (
        lambda a, i: torch.vmap(huber)(a, VALUES[i]).mean(),
        VALUES,
        {"loss": ha.AutogradLoss(huber)},
    ),
}


def penalties(
    features: Tensor, logits: Tensor, targets: Tensor, options: dict, bias: bool = True
) -> list[Tensor]:
    options = dict(options)
    weight = options.pop("sample_weight", None)
    return [
        ha.HessianAlignment(method, *weights, bias=bias, **options)(
            features, logits, targets, DOMAINS, sample_weight=weight
        )
        for method, weights in (("gradient", (0.0, 1.0)), ("frobenius", (1.0, 0.0)))
    ]


@pytest.mark.parametrize("name", LOSSES)
def test_loss(name: str) -> None:
    loss, targets, options = LOSSES[name]
    expected = autograd_distances(loss)
    found = penalties(FEATURES, linear(FEATURES, WEIGHT, BIAS), targets, options)
    torch.testing.assert_close(found, list(expected), rtol=1e-9, atol=1e-12)


def cosine(features: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return 8 * F.normalize(features, dim=1) @ weight.T


HEADS = {
    "no bias": (lambda z, w, b: z @ w.T, FEATURES, 1.0),
    "temperature": (lambda z, w, b: z @ w.T / 0.5, FEATURES / 0.5, 1.0),
    "cosine": (cosine, 8 * F.normalize(FEATURES, dim=1), 1.0),
}


@pytest.mark.parametrize("name", HEADS)
def test_head(name: str) -> None:
    head, features, _ = HEADS[name]
    expected = autograd_distances(lambda a, i: F.cross_entropy(a, CLASSES[i]), head, with_bias=False)
    found = penalties(features, head(FEATURES, WEIGHT, None), CLASSES, {}, bias=False)
    torch.testing.assert_close(found, list(expected), rtol=1e-9, atol=1e-12)


def test_logits_of_every_token() -> None:
    features, targets = FEATURES.view(4, 3, 5), IGNORED.view(4, 3)
    logits = features @ WEIGHT.T + BIAS
    flat = (features.flatten(0, -2), logits.flatten(0, -2), targets.flatten())
    penalty = ha.HessianAlignment("hgp", loss=ha.CrossEntropy(ignore_index=-100))
    domains = torch.tensor([0, 0, 1, 1]).repeat_interleave(3)
    expected = penalty(FEATURES, linear(FEATURES, WEIGHT, BIAS), IGNORED, domains)
    torch.testing.assert_close(penalty(*flat, domains), expected)
    with pytest.raises(ValueError, match=r"features: .* flatten one row for each token or pixel"):
        penalty(features, logits, targets, domains)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ha.CrossEntropy(label_smoothing=1.5), "label_smoothing: must be .* of at most 1, got 1.5"),
        (lambda: ha.CrossEntropy(class_weight=[1.0, 0.0]), "class_weight: must hold positive finite numbers"),
        (lambda: ha.CrossEntropy(ignore_index=0.5), "ignore_index: must be None or a whole number, got 0.5"),
        (lambda: ha.BinaryCrossEntropy(pos_weight=-1), "pos_weight: must hold positive finite numbers"),
    ],
)
def test_bad_options_are_named(make: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (
            IGNORED,
            {},
            r"class ids must lie .* from -100 to 2; samples to be left out: CrossEntropy\(ignore_index",
        ),
        (SOFT, {"loss": ha.CrossEntropy(ignore_index=-100)}, "ignore_index: goes with class ids"),
        (
            CLASSES,
            {"loss": ha.CrossEntropy(class_weight=[1.0, 2.0])},
            "class_weight: one weight is needed for each",
        ),
        (
            torch.where(DOMAINS == 1, -100, CLASSES),
            {"loss": ha.CrossEntropy(ignore_index=-100)},
            "every domain needs a sample that counts, but of the domain at position 1",
        ),
        (torch.full((12,), -100), {"loss": ha.CrossEntropy(ignore_index=-100)}, "targets: no sample counts"),
        (CLASSES, {"sample_weight": torch.ones(11)}, "sample_weight: must hold one entry for each sample"),
        (CLASSES, {"sample_weight": -torch.ones(12)}, "sample_weight: must be finite, at least 0"),
    ],
)
def test_what_cannot_be_right_is_refused(targets: Tensor, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        penalties(FEATURES, linear(FEATURES, WEIGHT, BIAS), targets, options)


def test_every_row_of_the_page_has_its_test() -> None:
    rows = re.findall(
        r"^\| ([^|]+?) \|.*<!-- test: ([^>]+?) -->", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert {name for _, name in rows} == {*LOSSES, *HEADS, "tokens"} - {"all three"}
