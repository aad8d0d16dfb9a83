"""Diversity and correlation shift against what they are for known densities; sharpness against torch.func."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import norm

import hessalign as ha
from hessalign.datasets.features_file import save_features
from hessalign.diagnostics.densities import SHARED, DensityShift, density_shift
from tests.cli.command import hessalign

SAMPLES = 2000


def bandwidth(samples: int, width: int) -> float:
    """Silverman's, of half the samples."""
    return (4 / ((width + 2) * samples / 2)) ** (1 / (width + 4))


def shift(features, labels) -> DensityShift:
    first, second = zip(features, labels, strict=True)
    return density_shift(first, second, np.random.default_rng(0))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.parametrize("distance", [2.0, 3.0, 4.0])
def test_diversity_is_what_two_gaussians_do_not_share(distance: float, random) -> None:
    """The ratio of the blurred densities is below a hundredth beyond a distance from the middle."""
    features = random.normal(size=(2, SAMPLES, 1)) + np.array([0.0, distance])[:, None, None]
    found = shift(features, np.tile(np.arange(SAMPLES) % 2, (2, 1)))
    spread = np.hypot(1, bandwidth(1000, 1))
    end = distance / 2 - np.log(1 / SHARED) * spread**2 / distance
    truth = norm.cdf(end / spread) - norm.cdf((end - distance) / spread)
    assert found.diversity.value == pytest.approx(truth, abs=0.05)
    assert found.diversity.z > 20
    assert found.correlation.z < 4  # the classes are as they are in the other domain


def test_correlation_is_how_often_a_flipped_label_differs(random) -> None:
    """The sign tells the label in nine of ten, in the other domain in one of ten; blurred by the kernel."""
    features = random.normal(size=(2, SAMPLES, 1))
    wrong = random.random((2, SAMPLES)) < np.array([[0.1], [0.9]])
    found = shift(features, (features[:, :, 0] > 0) ^ wrong)
    truth = 0.8 * 2 / np.pi * np.arctan(1 / bandwidth(1000, 1))
    assert found.correlation.value == pytest.approx(truth, abs=0.03)
    assert found.correlation.chance < 0.1
    assert found.correlation.z > 20
    assert found.diversity.z < 4


def test_classes_far_apart_lose_nothing_by_the_kernel(random) -> None:
    """Without a blurred border, the shift is that of the probabilities: 0.9 against 0.1."""
    side = random.integers(0, 2, (2, SAMPLES))
    features = random.normal(size=(2, SAMPLES, 6))
    features[:, :, 0] += 12 * side
    found = shift(features, side ^ (random.random((2, SAMPLES)) < np.array([[0.1], [0.9]])))
    assert found.correlation.value == pytest.approx(0.8, abs=0.06)


def test_shares_of_classes_count_as_correlation(random) -> None:
    features = random.normal(size=(2, SAMPLES, 1))
    labels = random.random((2, SAMPLES)) < np.array([[0.5], [0.9]])
    assert shift(features, labels).correlation.value == pytest.approx(0.4, abs=0.04)


@pytest.mark.parametrize(("samples", "width"), [(120, 2), (400, 5), (1000, 40)])
def test_equal_domains_have_what_chance_gives(samples: int, width: int, random) -> None:
    found = shift(random.normal(size=(2, samples, width)), random.integers(0, 3, (2, samples)))
    for size in (found.diversity, found.correlation):
        assert abs(size.value - size.chance) < 0.05
        assert size.z < 4


def test_classes_that_no_domain_shares_are_all_diversity(random) -> None:
    features = random.normal(size=(2, 400, 3))
    features[1] += 8
    found = shift(features, np.repeat([[0], [1]], 400, axis=1))
    assert found.diversity.value > 0.99
    assert found.correlation.value < 0.01


@pytest.mark.parametrize(
    ("samples", "classes", "width", "note"),
    [
        (99, 2, 2, "99 samples are too few for densities of 2 classes; 100 of each domain are needed"),
        (150, 10, 2, "150 samples are too few for densities of 10 classes; 200 of each domain are needed"),
        (200, 60, 2, "60 classes are too many for densities; 50 can be told"),
        (200, 2, 0, "the features do not vary"),
    ],
)
def test_what_samples_cannot_tell_is_not_told(
    samples: int, classes: int, width: int, note: str, random
) -> None:
    found = shift(random.normal(size=(2, samples, width)), np.tile(np.arange(samples) % classes, (2, 1)))
    assert np.isnan(found.diversity.value)
    assert np.isnan(found.correlation.value)
    assert (found.directions, found.note) == (0, note)


def test_a_report_tells_how_sharp_the_loss_of_each_domain_is() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(3, 4).double()
    features, y, domains = torch.randn(240, 3).double(), torch.randint(0, 4, (240,)), ["a", "b", "b"] * 80
    report = ha.alignment_report(features, head(features), y, domains, replicates=0)
    chosen = torch.tensor([name == "b" for name in domains])

    def loss(weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(features[chosen] @ weight.T + bias, y[chosen])

    (ww, wb), (bw, bb) = torch.func.hessian(loss, (0, 1))(head.weight.detach(), head.bias.detach())
    whole = torch.cat(
        [
            torch.cat([ww.reshape(12, 12), wb.reshape(12, 4)], 1),
            torch.cat([bw.reshape(4, 12), bb.reshape(4, 4)], 1),
        ]
    )
    row = report.to_frame("domains").row(1, named=True)
    assert row["trace"] == pytest.approx(float(whole.trace()), rel=1e-12)
    assert row["largest eigenvalue"] == pytest.approx(float(torch.linalg.eigvalsh(whole)[-1]), rel=1e-9)
    assert 0 < row["trace error"] < row["trace"]
    assert report.to_frame("shift")["note"].to_list() == [
        "80 samples are too few for densities of 4 classes; 100 of each domain are needed"
    ]


def test_the_command_tells_both(tmp_path, random) -> None:
    """In the terminal, as JSON and on the page; a pair without samples enough says so."""
    y, site = np.tile([0, 1], 180), np.repeat(["north", "south", "west"], [150, 150, 60])
    features = (random.normal(size=(360, 3)) + 3 * y[:, None] + 6 * (site == "south")[:, None]).astype(
        "float32"
    )
    save_features(tmp_path / "sites.safetensors", features, y, site)
    source, page = tmp_path / "sites.safetensors", tmp_path / "page.html"
    out = hessalign("inspect", source, "--replicates", 0, "--html", page).stdout
    assert "diversity" in out
    assert "trace" in out
    assert "60 samples are too few" in out
    assert "Diversity and correlation shift" in page.read_text(encoding="utf-8")
    (document,) = json.loads(hessalign("inspect", source, "--replicates", 0, "--json").stdout).values()
    by_pair = {(row["first"], row["second"]): row for row in document["shift"]}
    assert by_pair["north", "south"]["diversity"] > 0.9
    assert by_pair["north", "west"]["diversity"] is None
    assert [row["samples"] for row in document["domains"]] == [150, 150, 60]
