"""Algorithms with a step of their own: the parameters after an update against the rule written out here."""

import copy
import math
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Adam

from hessalign.algorithms import DomainBatch, get_algorithm
from hessalign.exceptions import NoEffectWarning
from tests.algorithms.tiny import CLASSES, DOMAINS, make_algorithm, make_batch, parts, snapshot


def network_of(algorithm) -> nn.Sequential:
    return nn.Sequential(algorithm.backbone, algorithm.head)


def assert_same(module: nn.Module, expected: nn.Module) -> None:
    for (name, mine), other in zip(module.named_parameters(), expected.parameters(), strict=True):
        # Adam divides by the gradient's size: where that is tiny, so are the digits two orders of sums share.
        assert torch.allclose(mine, other, rtol=0, atol=1e-8), name


def set_gradients(network: nn.Module, gradients) -> None:
    for parameter, gradient in zip(network.parameters(), gradients, strict=True):
        parameter.grad = gradient


def domain_gradients(network: nn.Module, batch: DomainBatch) -> list[tuple[Tensor, ...]]:
    parameters = list(network.parameters())
    return [torch.autograd.grad(F.cross_entropy(network(x), y), parameters) for x, y in parts(batch)]


def masked_step(network: nn.Module, batch: DomainBatch, mask) -> None:
    optimizer = Adam(network.parameters(), lr=0.01)
    updates = []
    for gradients in zip(*domain_gradients(network, batch), strict=True):
        mean, values = sum(gradients) / len(gradients), torch.zeros_like(gradients[0])
        for index in range(values.numel()):
            values.view(-1)[index] = mask([g.reshape(-1)[index].item() for g in gradients])
        updates.append(values * mean / (1e-10 + values.mean()))
    set_gradients(network, updates)
    optimizer.step()


def sign(x: float) -> int:
    return (x > 0) - (x < 0)


def test_and_mask() -> None:
    algorithm, batch = make_algorithm("and_mask", tau=0.5, lr=0.01), make_batch()
    expected = copy.deepcopy(network_of(algorithm))
    masked_step(expected, batch, lambda gs: float(abs(sum(map(sign, gs)) / len(gs)) >= 0.5))
    algorithm.update(batch, algorithm.make_optimizers())
    assert_same(network_of(algorithm), expected)


def test_sand_mask() -> None:
    algorithm, batch = make_algorithm("sand_mask", tau=0.4, k=0.003, lr=0.01), make_batch()
    expected = copy.deepcopy(network_of(algorithm))

    def mask(gs: list[float]) -> float:
        mean = sum(gs) / len(gs)
        variance = sum((g - mean) ** 2 for g in gs) / (len(gs) - 1)
        return max(0.0, math.tanh(0.003 / variance * (abs(sum(map(sign, gs)) / len(gs)) - 0.4)))

    masked_step(expected, batch, mask)
    algorithm.update(batch, algorithm.make_optimizers())
    assert_same(network_of(algorithm), expected)


def test_sand_mask_refuses_the_threshold_that_never_learns() -> None:
    hparams = get_algorithm("sand_mask").hparams_class
    with pytest.raises(ValueError, match=r"tau: must be below 1, got 1\.0"):
        hparams.with_defaults("large", {"tau": 1.0})
    algorithm, batch = make_algorithm("sand_mask", tau=1.0, variant="domainbed"), make_batch()
    before = snapshot(network_of(algorithm))
    with pytest.warns(NoEffectWarning, match="tau: at 1 the mask is zero everywhere, and nothing is trained"):
        algorithm.update(batch, algorithm.make_optimizers())
    assert all(torch.equal(value, before[name]) for name, value in network_of(algorithm).state_dict().items())


def test_fish_over_two_updates() -> None:
    algorithm = make_algorithm("fish", meta_lr=0.5, lr=0.01)
    optimizers = algorithm.make_optimizers()
    outer = copy.deepcopy(network_of(algorithm))
    inner = copy.deepcopy(outer)
    adam = Adam(inner.parameters(), lr=0.01)
    for seed in (1, 2):
        batch = make_batch(seed=seed)
        algorithm.update(batch, optimizers)
        inner.load_state_dict(outer.state_dict())
        for x, y in parts(batch):
            adam.zero_grad()
            F.cross_entropy(inner(x), y).backward()
            adam.step()
        with torch.no_grad():
            for mine, theirs in zip(outer.parameters(), inner.parameters(), strict=True):
                mine.add_(0.5 * (theirs - mine))
        assert_same(network_of(algorithm), outer)


def test_fish_moves_running_statistics() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    algorithm_class = get_algorithm("fish")
    hparams = algorithm_class.hparams_class.with_defaults("large")
    algorithm = algorithm_class(backbone, 5, CLASSES, DOMAINS, hparams).double()
    algorithm.update(make_batch(), algorithm.make_optimizers())
    assert (backbone[1].running_mean != 0).all()
    assert backbone[1].num_batches_tracked == round(0.5 * DOMAINS)


@pytest.mark.parametrize(
    ("held_out", "variant"), [(1, "paper"), (2, "paper"), (2, "domainbed"), (5, "paper")]
)
def test_mldg(held_out: int, variant: str) -> None:
    algorithm = make_algorithm(
        "mldg", meta_weight=0.7, meta_test_domains=held_out, variant=variant, lr=0.01, weight_decay=0.1
    )
    batch = make_batch()
    network = copy.deepcopy(network_of(algorithm))
    torch.manual_seed(6)
    algorithm.update(batch, algorithm.make_optimizers())

    torch.manual_seed(6)
    order = torch.randperm(DOMAINS).tolist()
    held_out = min(held_out, DOMAINS - 1)
    train, test = order[: DOMAINS - held_out], order[DOMAINS - held_out :]
    domains = parts(batch)
    total = [torch.zeros_like(parameter) for parameter in network.parameters()]
    for number, i in enumerate(train):
        j = test[number % len(test)]
        inner = copy.deepcopy(network)
        x, y = domains[i]
        first = torch.autograd.grad(F.cross_entropy(inner(x), y), list(inner.parameters()))
        set_gradients(inner, first)
        Adam(inner.parameters(), lr=0.01, weight_decay=0.1).step()
        x, y = domains[j]
        second = torch.autograd.grad(F.cross_entropy(inner(x), y), list(inner.parameters()))
        total = [t + (a + 0.7 * b) / DOMAINS for t, a, b in zip(total, first, second, strict=True)]
    set_gradients(network, total)
    Adam(network.parameters(), lr=0.01, weight_decay=0.1).step()
    assert_same(network_of(algorithm), network)


def test_mldg_with_too_few_domains_learns_in_our_variant_only() -> None:
    for domains, variant, moves in ((2, "paper", True), (1, "paper", True), (2, "domainbed", False)):
        algorithm = make_algorithm("mldg", domains=domains, variant=variant)
        before = snapshot(algorithm.head)
        told = nullcontext() if domains > 1 and moves else pytest.warns(NoEffectWarning)
        with told:
            algorithm.update(make_batch(domains), algorithm.make_optimizers())
        assert torch.equal(algorithm.head.weight, before["weight"]) is not moves, (domains, variant)


def adversarial_rule(algorithm, batch: DomainBatch, conditional: bool) -> tuple[Tensor, Tensor]:
    """Classification risk and discriminator loss, with a gradient penalty of 0.3."""
    features = algorithm.backbone(batch.inputs)
    inputs = features + algorithm.class_embeddings(batch.targets) if conditional else features
    losses = F.cross_entropy(algorithm.discriminator(inputs), batch.domains, reduction="none")
    slopes = torch.autograd.grad(losses.sum(), inputs, create_graph=True)[0]
    if conditional:
        counts = [int((batch.targets == k).sum()) for k in range(int(batch.targets.max()) + 1)]
        weights = [1 / (counts[int(y)] * len(counts)) for y in batch.targets]
        loss = sum(weight * value for weight, value in zip(weights, losses, strict=True))
    else:
        loss = losses.mean()
    penalty = (slopes**2).sum(1).mean()
    return F.cross_entropy(algorithm.head(features), batch.targets), loss + 0.3 * penalty


@pytest.mark.parametrize("name", ["dann", "cdann"])
@pytest.mark.parametrize("discriminator_steps", [1, 2])
def test_adversarial_training(name: str, discriminator_steps: int) -> None:
    settings = {
        "adversarial_weight": 0.6,
        "gradient_penalty": 0.3,
        "discriminator_steps": discriminator_steps,
        "beta1": 0.5,
        "mlp_width": 7,
        "mlp_depth": 4,
        "generator_lr": 0.01,
        "discriminator_lr": 0.02,
        "generator_weight_decay": 0.1,
        "discriminator_weight_decay": 0.2,
    }
    ours = make_algorithm(name, **settings)
    theirs = copy.deepcopy(ours)
    assert [type(layer).__name__ for layer in ours.discriminator] == ["Linear", "Dropout", "ReLU"] * 3 + [
        "Linear"
    ]
    conditional = name == "cdann"
    hidden = list(theirs.discriminator.parameters())
    if conditional:
        hidden += list(theirs.class_embeddings.parameters())
    visible = [*theirs.backbone.parameters(), *theirs.head.parameters()]
    discriminator = Adam(hidden, lr=0.02, betas=(0.5, 0.9), weight_decay=0.2)
    generator = Adam(visible, lr=0.01, betas=(0.5, 0.9), weight_decay=0.1)
    optimizers = ours.make_optimizers()
    pattern = {1: "gdgd", 2: "dgddg"}[
        discriminator_steps
    ]  # counting from 1: step t is D's if t mod (1+k) < k
    for step, who in enumerate(pattern):
        batch = make_batch(seed=step)
        ours.update(batch, optimizers)
        risk, domain_loss = adversarial_rule(theirs, batch, conditional)
        theirs.zero_grad()
        (domain_loss if who == "d" else risk - 0.6 * domain_loss).backward()
        (discriminator if who == "d" else generator).step()
        assert_same(ours, theirs)


def test_sagnet() -> None:
    ours = make_algorithm("sagnet", adversarial_weight=0.4, lr=0.01)
    theirs = copy.deepcopy(ours)
    batch = make_batch()
    torch.manual_seed(8)
    ours.update(batch, ours.make_optimizers())

    torch.manual_seed(8)
    samples = len(batch.targets)

    def style(features: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(z.mean(), z.var(unbiased=True)) for z in features]

    def normalise(features: Tensor) -> list[Tensor]:
        return [(z - m) / (v + 1e-5).sqrt() for z, (m, v) in zip(features, style(features), strict=True)]

    def content_randomised(features: Tensor) -> Tensor:
        others = torch.randperm(samples)
        own, content = style(features), normalise(features)
        return torch.stack(
            [content[others[i]].detach() * (own[i][1] + 1e-5).sqrt() + own[i][0] for i in range(samples)]
        )

    def style_randomised(features: Tensor) -> Tensor:
        share, others = torch.rand(samples, 1, dtype=torch.float64), torch.randperm(samples)
        own, content, rows = style(features), normalise(features), []
        for i in range(samples):
            mean = share[i] * own[i][0] + (1 - share[i]) * own[others[i]][0]
            variance = share[i] * own[i][1] + (1 - share[i]) * own[others[i]][1]
            rows.append(content[i] * (variance + 1e-5).sqrt() + mean)
        return torch.stack(rows)

    backbone = Adam(theirs.backbone.parameters(), lr=0.01)
    content_head = Adam(theirs.head.parameters(), lr=0.01)
    style_head = Adam(theirs.style_head.parameters(), lr=0.01)

    theirs.zero_grad()
    F.cross_entropy(theirs.head(style_randomised(theirs.backbone(batch.inputs))), batch.targets).backward()
    backbone.step()
    content_head.step()
    theirs.zero_grad()
    logits = theirs.style_head(content_randomised(theirs.backbone(batch.inputs)))
    F.cross_entropy(logits, batch.targets).backward()
    style_head.step()
    theirs.zero_grad()
    logits = theirs.style_head(content_randomised(theirs.backbone(batch.inputs)))
    (0.4 * -logits.log_softmax(1).mean()).backward()
    backbone.step()
    assert_same(ours, theirs)


class FlatImages(nn.Module):
    """Two-channel images of 4 × 4 pixels, and the context channel, through one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 16, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.flatten(1)).tanh()


def make_arm(variant: str):
    torch.manual_seed(0)
    algorithm_class = get_algorithm("arm")
    hparams = algorithm_class.hparams_class.with_defaults(
        "large", {"batch_size": 3, "variant": variant, "lr": 0.01}
    )
    algorithm = algorithm_class(FlatImages(), 5, CLASSES, DOMAINS, hparams)
    images = torch.randn(9, 2, 4, 4)
    algorithm(images)  # the context network learns how many channels there are
    ids = torch.arange(DOMAINS).repeat_interleave(3)
    return algorithm, DomainBatch(images, torch.randint(0, CLASSES, (9,)), ids, DOMAINS)


def test_arm_adds_the_mean_context_of_the_group() -> None:
    algorithm, batch = make_arm("paper")
    maps = algorithm.context(batch.inputs)
    contexts = torch.stack([maps[3 * (i // 3) : 3 * (i // 3) + 3].mean(0) for i in range(9)])
    logits = algorithm.head(algorithm.backbone(torch.cat([batch.inputs, contexts], dim=1)))
    torch.testing.assert_close(algorithm(batch.inputs), logits)
    expected = F.cross_entropy(logits, batch.targets)
    torch.testing.assert_close(algorithm.objective(batch)[0], expected)
    odd = batch.inputs[:4]
    context = algorithm.context(odd).mean(0).expand(4, 1, 4, 4)
    logits = algorithm.head(algorithm.backbone(torch.cat([odd, context], dim=1)))
    torch.testing.assert_close(algorithm(odd), logits)


@pytest.mark.parametrize(("variant", "trained"), [("paper", True), ("domainbed", False)])
def test_arm_trains_the_context_network_in_our_variant_only(variant: str, trained: bool) -> None:
    algorithm, batch = make_arm(variant)
    before = algorithm.context[0].weight.clone()
    algorithm.update(batch, algorithm.make_optimizers())
    assert torch.equal(algorithm.context[0].weight, before) is not trained
