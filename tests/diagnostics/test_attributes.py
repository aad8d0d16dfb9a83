"""The report names what was shifted on purpose."""

import pytest
import torch

import hessalign as ha
from hessalign.diagnostics.attributes import AttributeComparison
from hessalign.diagnostics.samples import read_input, split_domains, target_groups
from hessalign.head import CrossEntropy, SquaredError
from tests.diagnostics.synthetic import SHIFTS, shifted_domains

SEEDS = range(100)


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_shifted_attribute_is_named_first(shift: str) -> None:
    right = 0
    for seed in SEEDS:
        domains = split_domains(read_input(*shifted_domains(shift, seed)))
        comparison = AttributeComparison(domains, CrossEntropy(), torch.Generator().manual_seed(seed))
        first = comparison.differences(0, 1)[0]
        right += first.attribute == shift and first.found
    assert right >= 95


def test_nothing_is_found_where_nothing_differs() -> None:
    found = 0
    for seed in SEEDS:
        domains = split_domains(read_input(*shifted_domains("nothing", seed)))
        comparison = AttributeComparison(domains, CrossEntropy(), torch.Generator().manual_seed(seed))
        found += sum(difference.found for difference in comparison.differences(0, 1))
    assert found <= 0.02 * len(SHIFTS) * len(SEEDS)


def test_effects_are_what_the_shifts_amount_to() -> None:
    """Large samples, where the population's divergences are known."""
    features, logits, labels, domains = shifted_domains("feature mean", 0, samples=40_000)
    report = ha.alignment_report(features, logits, labels, domains, replicates=0)
    effects = dict(report.to_frame("attributes").select("attribute", "effect").iter_rows())
    # Moved by half a standard deviation along each of 8 independent directions: 8 · 0.5² nats.
    assert effects["feature mean"] == pytest.approx(2, rel=0.05)
    features, logits, labels, domains = shifted_domains("label proportions", 3, samples=40_000)
    report = ha.alignment_report(features, logits, labels, domains, replicates=0)
    effects = dict(report.to_frame("attributes").select("attribute", "effect").iter_rows())
    proportions = [(1 / 3, share / 3.5) for share in (2.0, 1.0, 0.5)]
    expected = sum(2 * (a - b) ** 2 / (a + b) for a, b in proportions)
    # The largest difference, 0.24, is known to 0.005 from so many samples, its square to 4 %: three of these.
    assert effects["label proportions"] == pytest.approx(expected, rel=0.12)


def test_the_first_rank_of_the_report_is_the_shift_by_name() -> None:
    report = ha.alignment_report(*shifted_domains("confidence", 3), names=["a", "b"], replicates=50)
    ranked = report.to_frame("attributes")
    assert ranked["attribute"][0] == "confidence"
    assert ranked["rank"].to_list() == [1, 2, 3, 4]
    assert ranked["found"][0]


def test_regression_has_bins_of_targets_in_place_of_classes() -> None:
    random = torch.Generator().manual_seed(0)
    features = torch.randn(600, 4, generator=random, dtype=torch.float64)
    outputs = features @ torch.ones(4, 1, dtype=torch.float64)
    targets = outputs.squeeze(1) + 0.1 * torch.randn(600, generator=random, dtype=torch.float64)
    domains = torch.arange(600) % 2
    targets[domains == 1] += 3
    groups = target_groups(targets)
    assert groups.bincount().tolist() == [120] * 5
    report = ha.alignment_report(features, outputs, targets, domains, loss=SquaredError(), replicates=0)
    assert report.attributes[0] == "target distribution"
    assert report.to_frame("attributes")["attribute"][0] in ("target distribution", "feature mean")
    assert set(report.to_frame("parts")["attribute"]) >= {"curvature", "error"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"domains": torch.zeros(800, dtype=torch.long)},
            "domains: at least 2 different ids are needed, got 1",
        ),
        ({"domains": torch.zeros(800)}, "domains: domain ids must be integers or strings, got dtype float32"),
        ({"domains": torch.arange(20) % 2}, "domains: must hold one domain id for each of the 800 samples"),
        ({"y": torch.zeros(20).long()}, "features, logits, y: must hold one entry for each sample"),
        ({"y": torch.full((800,), 3)}, "y: class ids must lie between 0 and 2"),
        ({"y": ["a"] * 800}, "y: 1 different labels cannot be matched to 3 classes; name all classes"),
        ({"y": [1, "a"] * 400}, "y: must hold numbers, got list of <U21"),
        (
            {"logits": torch.zeros(800, 3, device="meta")},
            "logits: a tensor on the device meta holds no numbers",
        ),
        (
            {"features": torch.zeros(800, 8, dtype=torch.complex64)},
            "features: must be a dense tensor of real",
        ),
        ({"features": None}, "features: must be an array with an entry for each sample, got None"),
        ({"domains": (torch.arange(800) == 5).long()}, "domains: .* at least 2 samples .* only 1 of 1"),
        ({"names": ["a", "a"]}, r"names: 2 different strings are needed, got \['a', 'a'\]"),
        ({"names": "ab"}, r"names: 2 different strings are needed, got \['ab'\]"),
        ({"output_names": ["a"]}, "output_names: 3 different strings are needed"),
        ({"radius": 0.0}, "radius: must be a finite number above 0, got 0.0"),
        ({"level": 95}, "level: must be a finite number above 0 and below 1, got 95"),
        ({"replicates": -1}, "replicates: must be a whole number of at least 0, got -1"),
        ({"replicates": 1}, "replicates: must be 0, for no intervals, or at least 2, got 1"),
        ({"seed": -1}, "seed: must be a whole number of at least 0"),
        ({"loss": "hinge"}, "loss: 'hinge' is not known"),
    ],
)
def test_bad_input_is_one_sentence(changes: dict[str, object], message: str) -> None:
    features, logits, labels, domains = shifted_domains("feature mean", 0)
    arguments = {"features": features, "logits": logits, "y": labels, "domains": domains, **changes}
    with pytest.raises(ValueError, match=message):
        ha.alignment_report(**arguments)


def test_unknown_tables_and_plots_are_named() -> None:
    report = ha.alignment_report(*shifted_domains("confidence", 0), replicates=0)
    with pytest.raises(ValueError, match="table: 'distance' is not known; allowed are 'distances'"):
        report.to_frame("distance")
    with pytest.raises(ValueError, match="kind: 'pie' is not known; allowed are 'distances'"):
        report.plot("pie")
