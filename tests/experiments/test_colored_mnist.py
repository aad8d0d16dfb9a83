"""The Colored MNIST experiment: data, network, penalties, training, records."""

import json
import re
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hessalign.datasets import load_mnist
from hessalign.exceptions import DivergedError
from hessalign.experiments.colored_mnist import (
    METHODS,
    RecordStore,
    RestartRecord,
    RestartSpec,
    Setting,
    describe_reduction,
    fast_setting,
    make_colored_mnist,
    make_penalty,
    plan_restarts,
    published,
    run_restart,
    summarise,
    summarise_group,
)
from hessalign.experiments.colored_mnist.data import ColoredMNIST, make_held_out_sources
from hessalign.experiments.colored_mnist.figure import draw_figure, save_figure
from hessalign.experiments.colored_mnist.methods import DomainOutput, measure_terms
from hessalign.experiments.colored_mnist.network import ColoredMLP
from hessalign.experiments.colored_mnist.restart import objective
from hessalign.experiments.colored_mnist.table import TABLE_7, TABLE_8

SUPPLEMENT = Path(__file__).parents[3] / "shared" / "reference" / "hessian_alignment_supplement.md"
CPU = torch.device("cpu")
TINY = Setting(hidden=8, subsample=2000).with_steps(5)


def tiny(method: str, seed: int = 0, **changes) -> RestartSpec:
    settings = {
        "probes": 150 if METHODS[method].uses_probes else None,
        "gamma": 0.5 if METHODS[method].uses_gamma else None,
    }
    return RestartSpec(**{**dict(TINY), "method": method, "seed": seed, **settings, **changes})


@pytest.fixture(scope="module")
def balanced() -> ColoredMNIST:
    return make_colored_mnist("balanced", torch.Generator().manual_seed(0))


# --- data ------------------------------------------------------------------------------------------------


def colours(images) -> Tensor:
    zeros, ones = images.colour_counts
    return torch.cat([torch.zeros(zeros), torch.ones(ones)])


def test_labels_and_colours_have_the_published_noise(balanced: ColoredMNIST) -> None:
    """Rates within five standard errors; the colour is the noisy label's, not the digit's."""
    for images, rate in zip((*balanced.sources, balanced.target), (0.2, 0.1, 0.9), strict=True):
        disagreement = (colours(images) != images.labels).double().mean().item()
        assert disagreement == pytest.approx(rate, abs=5 * (rate * (1 - rate) / len(images.labels)) ** 0.5)
    assert [len(images.labels) for images in (*balanced.sources, balanced.target)] == [25_000, 25_000, 10_000]


def test_labels_are_the_digits_halves_with_a_quarter_flipped(balanced: ColoredMNIST) -> None:
    """Undo the grouping by colour through the images themselves: the last 10,000 training digits."""
    digits = load_mnist("train")
    by_image: dict[bytes, set[float]] = {}
    thinned = digits.images[50_000:, ::2, ::2].flatten(1)
    for image, digit in zip(thinned.numpy(), digits.digits[50_000:].tolist(), strict=True):
        by_image.setdefault(image.tobytes(), set()).add(float(digit < 5))
    pixels = (balanced.target.all_pixels() * 255).round().to(torch.uint8).numpy()
    clean = [by_image[image.tobytes()] for image in pixels]
    flipped = [
        label not in halves for label, halves in zip(balanced.target.labels.tolist(), clean, strict=True)
    ]
    assert sum(flipped) / len(flipped) == pytest.approx(0.25, abs=5 * (0.25 * 0.75 / 10_000) ** 0.5)


def test_an_image_fills_the_channel_of_its_colour(balanced: ColoredMNIST) -> None:
    images = balanced.target
    both = images.two_channels().view(-1, 2, 196)
    filled, empty = colours(images).long(), 1 - colours(images).long()
    rows = torch.arange(len(both))
    assert torch.equal(both[rows, filled], images.all_pixels())
    assert (both[rows, empty] == 0).all()
    assert images.pixels.max() == 1
    assert images.pixels.min() == 0


def test_pixels_that_are_dark_in_all_images_are_left_out(balanced: ColoredMNIST) -> None:
    domains = (*balanced.sources, balanced.target)
    columns = balanced.target.columns
    assert all(torch.equal(images.columns, columns) for images in domains)
    dark = torch.stack([images.pixels.amax(0) == 0 for images in domains]).all(0)
    assert len(columns) % 8 == 0
    assert int(dark.sum()) < 8
    assert len(columns) < 196


def test_seeds_repeat_and_differ(balanced: ColoredMNIST) -> None:
    again = make_colored_mnist("balanced", torch.Generator().manual_seed(0))
    other = make_colored_mnist("balanced", torch.Generator().manual_seed(1))
    assert torch.equal(again.sources[0].all_pixels(), balanced.sources[0].all_pixels())
    assert torch.equal(again.target.labels, balanced.target.labels)
    assert not torch.equal(other.target.labels, balanced.target.labels)


def test_imbalanced_splits() -> None:
    digits = load_mnist("train").digits[:50_000]
    low, high = int((digits < 5).sum()), int((digits >= 5).sum())
    script = make_colored_mnist("script", torch.Generator().manual_seed(0))
    assert [len(images.labels) for images in script.sources] == [low + 1500, high - 1500]
    text = make_colored_mnist("text", torch.Generator().manual_seed(0))
    assert [len(images.labels) for images in text.sources] == [min(low, high)] * 2
    # A class share of s shows in the noisy labels as s·0.75 + (1 − s)·0.25.
    for images, share in zip(
        (*script.sources, *text.sources), (low / (low + 1500), 0.0, 0.95, 0.05), strict=True
    ):
        expected = 0.75 * share + 0.25 * (1 - share)
        assert images.labels.mean().item() == pytest.approx(expected, abs=5 * (0.25 / 20_000) ** 0.5)


@pytest.mark.parametrize("split", ["balanced", "script", "text"])
def test_a_subsample_is_dealt_like_the_whole(split: str) -> None:
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    whole = make_colored_mnist(split, generators[0])
    part = make_colored_mnist(split, generators[1], subsample=10_000)
    sizes = [[len(images.labels) for images in data.sources] for data in (whole, part)]
    assert sum(sizes[1]) <= 10_000
    for all_images, some in zip(*sizes, strict=True):
        assert some == pytest.approx(all_images / 5, rel=0.05)
    for all_images, some in zip(whole.sources, part.sources, strict=True):
        assert some.labels.mean().item() == pytest.approx(all_images.labels.mean().item(), abs=0.04)
    target = {image.tobytes() for image in whole.target.all_pixels().numpy()}
    assert not any(
        image.tobytes() in target for images in part.sources for image in images.all_pixels().numpy()
    )
    assert len(part.target.labels) == 10_000


def test_held_out_sources_are_the_source_domains_of_other_images(balanced: ColoredMNIST) -> None:
    held_out = make_held_out_sources("balanced", torch.Generator().manual_seed(0))
    assert [len(images.labels) for images in held_out] == [5000, 5000]
    trained = {image.tobytes() for images in balanced.sources for image in images.all_pixels().numpy()}
    for images, rate in zip(held_out, (0.2, 0.1), strict=True):
        disagreement = (colours(images) != images.labels).double().mean().item()
        assert disagreement == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 5000) ** 0.5)
        assert not any(image.tobytes() in trained for image in images.all_pixels().numpy())


# --- network and penalties -------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [16, 13])
def test_network_is_the_plain_perceptron_on_both_channels(balanced: ColoredMNIST, hidden: int) -> None:
    network = ColoredMLP(hidden, torch.Generator().manual_seed(0)).double()
    images = replace(balanced.target, pixels=balanced.target.pixels.double())
    features, logits = network(images)
    plain = torch.nn.Sequential(network.first, torch.nn.ReLU(), network.second, torch.nn.ReLU())
    expected = plain(images.two_channels())
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(logits, network.head(expected).squeeze(1))
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(logits.square().mean(), parameters)
    wanted = torch.autograd.grad(network.head(expected).square().mean(), parameters)
    for gradient, value in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(gradient, value)


def test_initial_weights_are_xavier_uniform() -> None:
    network = ColoredMLP(16, torch.Generator().manual_seed(0))
    weights = [parameter.abs().max() for name, parameter in network.named_parameters() if "weight" in name]
    limits = [(6 / (fan_in + fan_out)) ** 0.5 for fan_in, fan_out in ((392, 16), (16, 16), (16, 1))]
    assert all(0.8 * limit < weight <= limit for weight, limit in zip(weights, limits, strict=True))
    assert all((p == 0).all() for name, p in network.named_parameters() if "bias" in name)


def two_outputs() -> tuple[list[DomainOutput], Tensor]:
    """Two domains of unequal size with a head whose parameters autograd can reach."""
    generator = torch.Generator().manual_seed(0)
    head = torch.randn(4, dtype=torch.float64, generator=generator, requires_grad=True)
    outputs = []
    for samples in (5, 8):
        features = torch.randn(samples, 3, dtype=torch.float64, generator=generator)
        labels = (torch.rand(samples, generator=generator) < 0.5).double()
        logits = features @ head[:3] + head[3]
        outputs.append(
            DomainOutput(features, logits, labels, F.binary_cross_entropy_with_logits(logits, labels))
        )
    return outputs, head


def penalty(method: str, outputs: list[DomainOutput], **changes) -> Tensor:
    of = make_penalty(tiny(method, **changes), torch.Generator().manual_seed(0))
    assert of is not None
    return of(outputs)


def test_irm_is_the_squared_derivative_in_a_scale_of_the_logits() -> None:
    outputs, _ = two_outputs()
    slopes = []
    for output in outputs:
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        loss = F.binary_cross_entropy_with_logits(output.logits * scale, output.labels)
        slopes.append(torch.autograd.grad(loss, scale)[0])
    expected = (slopes[0] ** 2 + slopes[1] ** 2) / 2
    torch.testing.assert_close(penalty("irm", outputs), expected)


def test_vrex_is_the_squared_difference_of_the_losses() -> None:
    outputs, _ = two_outputs()
    torch.testing.assert_close(penalty("vrex", outputs), (outputs[0].loss - outputs[1].loss) ** 2)


def test_fishr_aligns_variances_of_sample_gradients() -> None:
    outputs, head = two_outputs()
    variances = []
    for output in outputs:
        losses = F.binary_cross_entropy_with_logits(output.logits, output.labels, reduction="none")
        rows = [torch.autograd.grad(loss, head, retain_graph=True)[0] for loss in losses]
        variances.append(torch.stack(rows).var(0, unbiased=False))
    mean = (variances[0] + variances[1]) / 2
    expected = ((variances[0] - mean) ** 2).sum() + ((variances[1] - mean) ** 2).sum()
    torch.testing.assert_close(penalty("fishr", outputs), expected)


def test_hgp_and_diagonal_follow_the_published_script() -> None:
    """Sums over domains, derivative through the centre, both weights one."""
    outputs, head = two_outputs()

    def gradient_and_hessian(loss: Tensor) -> tuple[Tensor, Tensor]:
        gradient = torch.autograd.grad(loss, head, create_graph=True)[0]
        rows = [torch.autograd.grad(g, head, retain_graph=True)[0] for g in gradient]
        return gradient.detach(), torch.stack(rows)

    (g1, h1), (g2, h2) = (gradient_and_hessian(output.loss) for output in outputs)
    mean_g, mean_h = (g1 + g2) / 2, (h1 + h2) / 2
    aligned = ((g1 - mean_g) ** 2).sum() + ((g2 - mean_g) ** 2).sum()
    products = ((h1 @ g1 - mean_h @ mean_g) ** 2).sum() + ((h2 @ g2 - mean_h @ mean_g) ** 2).sum()
    diagonals = ((h1.diag() - mean_h.diag()) ** 2).sum() + ((h2.diag() - mean_h.diag()) ** 2).sum()
    whole = ((h1 - mean_h) ** 2).sum() + ((h2 - mean_h) ** 2).sum()
    torch.testing.assert_close(penalty("gradient", outputs), aligned)
    torch.testing.assert_close(penalty("hgp", outputs), aligned + products)
    torch.testing.assert_close(penalty("hgp-beta0", outputs), products)
    torch.testing.assert_close(penalty("diagonal", outputs), aligned + diagonals)
    torch.testing.assert_close(penalty("diagonal-beta0", outputs), diagonals)
    torch.testing.assert_close(penalty("frobenius", outputs), aligned + whole)
    torch.testing.assert_close(penalty("frobenius-beta0", outputs), whole)
    torch.testing.assert_close(penalty("diagonal", outputs, alpha=3.0), aligned + 3 * diagonals)
    torch.testing.assert_close(penalty("frobenius-beta0", outputs, alpha=3.0), 3 * whole)

    size = (h1**2).sum() + (h2**2).sum()
    off = size - (h1.diag() ** 2).sum() - (h2.diag() ** 2).sum()
    torch.testing.assert_close(penalty("gradient-flat", outputs), aligned + 0.5 * size)
    torch.testing.assert_close(penalty("gradient-flat-off", outputs, gamma=2.0), aligned + 2 * off)
    both = aligned + 3 * diagonals + 0.5 * off
    torch.testing.assert_close(penalty("diagonal-flat-off", outputs, alpha=3.0), both)
    torch.testing.assert_close(penalty("frobenius-flat", outputs), aligned + whole + 0.5 * size)
    spectral = torch.linalg.matrix_norm(torch.stack([h1 - mean_h, h2 - mean_h]), ord=2).square().sum()
    torch.testing.assert_close(penalty("spectral", outputs), aligned + spectral)


def test_a_flat_method_without_its_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="gamma: 'gradient-flat' needs the weight"):
        make_penalty(tiny("gradient-flat", gamma=None), torch.Generator())


def test_objective_anneals_and_divides() -> None:
    outputs, _ = two_outputs()
    network = ColoredMLP(2, torch.Generator().manual_seed(0)).double()
    norm = sum(weights.square().sum() for weights in network.parameters())
    plain = (outputs[0].loss + outputs[1].loss) / 2 + 0.00110794568 * norm
    slope = penalty("vrex", outputs)
    spec = RestartSpec(method="vrex", seed=0)
    penalty_of = make_penalty(spec, torch.Generator())
    weight = 91257.18613115903
    for step, expected in ((189, plain + slope), (190, (plain + weight * slope) / weight)):
        loss, found = objective(spec, step, outputs, network, penalty_of)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(found, slope)
    erm, nothing = objective(RestartSpec(method="erm", seed=0), 300, outputs, network, None)
    torch.testing.assert_close(erm, plain)
    assert nothing == 0


# --- restarts --------------------------------------------------------------------------------------------


def test_equal_specs_give_equal_bits() -> None:
    first, second, other = (
        run_restart(tiny("hutchinson", seed, hutchinson="sampled"), CPU) for seed in (0, 0, 1)
    )
    assert first.history == second.history
    assert first.final != other.final
    assert [metrics.step for metrics in first.history] == [0, 4]


def test_rows_without_the_hessian_are_identical() -> None:
    """α = 0 leaves gradient alignment whatever the method, so Table 7 must repeat itself."""
    gradient = run_restart(tiny("gradient"), CPU).history
    for method in ("hgp-alpha0", "hutchinson-alpha0", "diagonal-alpha0", "frobenius-alpha0"):
        assert run_restart(tiny(method), CPU).history == gradient, method
    assert run_restart(tiny("gradient-flat", gamma=0.0), CPU).history == gradient
    assert run_restart(tiny("hgp"), CPU).history != gradient


def test_a_fresh_optimizer_starts_like_the_first_one() -> None:
    """Adam's first step moves every weight that has a gradient by the learning rate."""

    def last_step(fresh: bool) -> list[torch.Tensor]:
        weights = []
        for steps in (21, 22):
            spec = tiny("erm", steps=steps, anneal_step=20, fresh_optimizer=fresh, weight_norm=0.1)
            run_restart(spec, CPU, keep=lambda network: weights.append(network.head.weight.detach().clone()))
        return weights

    (before, after), (same, usual) = last_step(True), last_step(False)
    torch.testing.assert_close(same, before, rtol=0, atol=0)
    moved, learning_rate = (after - before).abs(), tiny("erm").learning_rate
    torch.testing.assert_close(moved, torch.full_like(moved, learning_rate), rtol=1e-3, atol=0)
    assert ((usual - same).abs() - learning_rate).abs().max() > 0.01 * learning_rate


def test_steps_that_another_gradient_sizes_are_refused_where_they_cannot_be_made() -> None:
    """Their records can be read, and so be planned again."""
    for variant in ("expected-sampled-steps", "sampled-expected-steps"):
        with pytest.raises(ValueError, match=r"papers\.colored_mnist has .*; here expected, sampled can run"):
            run_restart(tiny("hutchinson", hutchinson=variant), CPU)


def test_every_method_trains() -> None:
    for method in METHODS:
        record = run_restart(tiny(method), CPU)
        assert record.history[-1].loss < record.history[0].loss, method


def test_a_diverging_loss_is_reported() -> None:
    for method in ("erm", "hgp"):
        with pytest.raises(
            DivergedError, match=rf"{method}, seed 0, diverged: the loss of source domain 0 was"
        ):
            run_restart(tiny(method, learning_rate=1e30), CPU)


def test_parts_are_those_of_dense_hessians() -> None:
    outputs, head = two_outputs()
    gradients, hessians = [], []
    for output in outputs:
        gradient = torch.autograd.grad(output.loss, head, create_graph=True)[0]
        hessians.append(torch.stack([torch.autograd.grad(g, head, retain_graph=True)[0] for g in gradient]))
        gradients.append(gradient.detach())
    (g1, g2), (h1, h2) = gradients, hessians
    mean = (h1 + h2) / 2
    products = torch.stack([h1 @ g1, h2 @ g2]) - mean @ (g1 + g2) / 2
    square, diagonal_square = h1.square().sum() + h2.square().sum(), (h1.diag() ** 2 + h2.diag() ** 2).sum()
    expected = {
        "gradient_distance": ((g1 - g2) ** 2).sum() / 2,
        "hgp_distance": products.square().sum(),
        "diagonal_distance": ((h1 - h2).diag() ** 2).sum() / 2,
        "hessian_distance": ((h1 - h2) ** 2).sum() / 2,
        "hessian_square": square / 2,
        "off_diagonal": (square - diagonal_square) / 2,
        "off_diagonal_of_mean": mean.square().sum() - mean.diag().square().sum(),
        "feature_square": sum(output.features.square().sum(1).mean() for output in outputs) / 2,
        "curvature": sum((s := output.logits.sigmoid()).mul(1 - s).mean() for output in outputs) / 2,
    }
    found = measure_terms(7, outputs, outputs[:1])
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value.item(), rel=1e-9), name
    assert found.source_losses == tuple(output.loss.item() for output in outputs)
    right = ((outputs[0].logits > 0) == (outputs[0].labels == 1)).double().mean()
    assert found.held_out_accuracies == (pytest.approx(100 * float(right)),)
    assert (found.step, found.held_out_images) == (7, (5,))
    first = outputs[0]
    of_class = [
        100 * float(((first.logits > 0) == (first.labels == 1))[first.labels == label].double().mean())
        for label in (0, 1)
    ]
    assert found.held_out_class_accuracies == (pytest.approx(tuple(of_class)),)
    assert found.held_out_class_images == (tuple(int((first.labels == label).sum()) for label in (0, 1)),)
    each = zip(first.logits, first.labels, strict=True)
    losses = [F.binary_cross_entropy_with_logits(logit, label).item() for logit, label in each]
    assert found.held_out_losses == (pytest.approx(fmean(losses)),)
    assert found.held_out_loss_errors == (pytest.approx(stdev(losses) / 5**0.5),)


def test_logging_parts_changes_nothing_else() -> None:
    spec = tiny("hutchinson", hutchinson="sampled", subsample=1000)
    plain, logged = run_restart(spec, CPU), run_restart(spec, CPU, log_terms=True)
    assert plain.history == logged.history
    assert plain.terms == ()
    assert [terms.step for terms in logged.terms] == [metrics.step for metrics in logged.history]


def test_records_from_before_a_field_was_added_are_read_and_found(tmp_path: Path) -> None:
    """As version 0.1.0 wrote them: no subsample, alpha, gamma or terms, and the same name of the file."""
    store, spec = RecordStore(tmp_path), tiny("hgp", subsample=None)
    document = run_restart(spec, CPU).model_dump(mode="json", by_alias=True)
    for name in ("subsample", "alpha", "gamma"):
        del document["spec"][name]
    del document["parts"]
    store.prepare()
    store.path(spec).write_text(json.dumps(document))
    assert store.load(spec).spec == spec
    assert RestartSpec(method="hgp", seed=0).identity() == "b60358723dab"


# --- plan, records, summary ------------------------------------------------------------------------------


def test_plan_goes_seed_by_seed_and_gives_probes_where_they_matter() -> None:
    specs = plan_restarts(Setting(split="script"), ["erm", "hutchinson"], range(3, 5), 200, "sampled")
    assert [(spec.seed, spec.method) for spec in specs] == [
        (3, "erm"),
        (3, "hutchinson"),
        (4, "erm"),
        (4, "hutchinson"),
    ]
    assert [spec.probes for spec in specs[:2]] == [None, 200]
    assert [spec.hutchinson for spec in specs[:2]] == ["expected", "sampled"]


def test_identity_depends_on_everything_that_matters() -> None:
    base = tiny("hgp")
    changed = [
        tiny("erm"),
        tiny("hgp", 1),
        tiny("hgp", steps=6),
        tiny("hgp", split="text"),
        tiny("hgp", probes=3),
        tiny("hgp", alpha=3.0),
        tiny("hgp", gamma=0.0),
        tiny("hgp", subsample=1000),
        tiny("hgp", fresh_optimizer=True),
    ]
    assert len({spec.identity() for spec in (base, *changed)}) == 10
    assert base.identity() == tiny("hgp").identity()


def test_steps_keep_the_schedules_proportions() -> None:
    assert Setting().with_steps(501) == Setting()
    assert Setting().with_steps(50).anneal_step == 19


def test_fast_setting_says_what_it_changes() -> None:
    assert describe_reduction(Setting(), 150) is None
    assert describe_reduction(Setting(split="text"), 200) is None
    assert describe_reduction(Setting(subsample=1000)) == "1000 source images instead of 50000"
    description = describe_reduction(fast_setting("balanced"), 2000)
    assert description == (
        "steps 211 instead of 501, anneal step 80 instead of 190, "
        "hidden 64 instead of 390, learning rate 0.001959 instead of 0.0004899, "
        "Hutchinson probes 2000 instead of 150"
    )


def test_store_keeps_records_and_refuses_others(tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    record = run_restart(tiny("erm"), CPU)
    assert not store.has(record.spec)
    store.save(record)
    assert store.has(record.spec)
    assert store.load_all() == [record]
    assert [path.suffix for path in store.folder.iterdir()] == [".json"]

    path = store.path(record.spec)
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=f"{re.escape(str(path))}: not the record of a finished restart"):
        store.load_all()


def test_a_failed_write_leaves_the_old_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RecordStore(tmp_path)
    record = run_restart(tiny("erm"), CPU)
    store.save(record)
    before = store.path(record.spec).read_bytes()

    def full_disk(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        store.save(record.model_copy(update={"seconds": 0.0}))
    assert store.path(record.spec).read_bytes() == before
    assert len(list(store.folder.iterdir())) == 1


def finished(method: str, seed: int, source: float, target: float, **changes) -> RestartRecord:
    record = run_restart(tiny("erm"), CPU) if not _CACHE else _CACHE[0]
    _CACHE.append(record)
    final = record.final.model_copy(update={"source_accuracy": source, "target_accuracy": target})
    return record.model_copy(update={"spec": tiny(method, seed, **changes), "final": final})


_CACHE: list[RestartRecord] = []


def test_summary_by_hand() -> None:
    records = [
        finished("hgp", 0, 70.0, 60.0),
        finished("hgp", 1, 72.0, 66.0),
        finished("erm", 0, 86.0, 14.0),
        finished("hutchinson", 0, 60.0, 74.0),
        finished("hutchinson", 0, 62.0, 73.0, hutchinson="sampled"),
        finished("hutchinson", 0, 63.0, 72.0, probes=9),
        finished("hutchinson", 0, 64.0, 71.0, alpha=0.1),
        finished("gradient-flat", 0, 65.0, 70.0, gamma=0.25),
        finished("hgp", 2, 0.0, 0.0, split="text"),
        finished("hgp", 2, 0.0, 0.0, hidden=9),
    ]
    rows = summarise(records, TINY)
    assert [row.label for row in rows] == [
        "ERM",
        "HGP",
        "Hutchinson, k = 9",
        "Hutchinson, α = 0.1",
        "Hutchinson",
        "Hutchinson, sampled",
        "Gradient + flat head, γ = 0.25",
    ]
    assert [row.paper_target_accuracy for row in rows[2:5]] == [74.0, None, 74.0]
    hgp = rows[1]
    assert (hgp.restarts, hgp.source_accuracy, hgp.source_accuracy_std) == (2, 71.0, 1.0)
    assert (hgp.target_accuracy, hgp.target_accuracy_std) == (63.0, 3.0)
    assert (hgp.paper_source_accuracy, hgp.paper_target_accuracy_std) == (71.0, 1.3)
    assert rows[0].target_accuracy_std == 0
    assert summarise(records[-2:-1], TINY.model_copy(update={"split": "text"}))[0].paper_target_accuracy == 30


def test_figure_is_drawn(tmp_path: Path) -> None:
    rows = summarise([finished("hgp", 0, 70.0, 60.0), finished("diagonal", 0, 71.0, 62.0)], TINY)
    save_figure(rows, "title", "note", tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_long_names_leave_the_figure_its_room() -> None:
    weights = {"anneal_step": 1, "alpha": 3.0, "gamma": 0.01}
    row = summarise_group([finished("diagonal-flat-off", 0, 70.0, 60.0, **weights)])
    assert len(row.label) > 70
    figure = draw_figure([row], "title", None)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_position().width > 0.6
    legend = axes.get_legend()
    assert legend is not None
    (name,) = (text.get_text() for text in legend.get_texts())  # and no word of the paper, which has no row
    assert name.replace("\n", " ") == f"{row.label} (n = 1)"


# --- the paper -------------------------------------------------------------------------------------------


@pytest.mark.skipif(not SUPPLEMENT.exists(), reason="the supplement is not on this machine")
@pytest.mark.parametrize(("table", "number"), [(TABLE_7, 7), (TABLE_8, 8)])
def test_published_figures_are_those_of_the_supplement(table: dict, number: int) -> None:
    names = {
        "ERM": "erm",
        "IRM": "irm",
        "V-REx": "vrex",
        "Fishr": "fishr",
        "HGP": "hgp",
        "HGP ($\\alpha = 0$)": "hgp-alpha0",
        "HGP ($\\beta = 0$)": "hgp-beta0",
        "Hutchinson": "hutchinson",
        "Hutchinson ($\\alpha = 0$)": "hutchinson-alpha0",
        "Hutchinson ($\\beta = 0$)": "hutchinson-beta0",
    }
    text = SUPPLEMENT.read_text(encoding="utf-8")
    section = text[text.index(f"Table {number}: Comparison") :].split("\n\n")[1]
    found = {}
    for line in section.splitlines()[1:]:
        name, source, target = line.split("\t")
        found[names[name]] = tuple(map(float, (source + " \\pm " + target).split(" \\pm ")))
    assert found == {
        method: (row.source, row.source_std, row.target, row.target_std) for method, row in table.items()
    }
    assert published("balanced") is TABLE_7
    assert published("text") is TABLE_8
