"""What a report takes, and that its numbers are those of the data whatever type, unit or origin it has."""

import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from torch import Tensor

import hessalign as ha
from hessalign.diagnostics import attributes
from hessalign.diagnostics.report import AlignmentReport
from hessalign.exceptions import UntrustworthyWarning
from tests.diagnostics.synthetic import shifted_domains

TABLES = ("distances", "attributes", "groups", "parts", "eigenvalues", "samples", "plane")
FEW = {"replicates": 60, "eigenvalues": 3, "top_samples": 3}


def small(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return shifted_domains("feature mean", seed, samples=120)


def in_pandas(values: np.ndarray) -> object:
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(values) if values.ndim > 1 else pandas.Series(values)


def assert_same(report: AlignmentReport, other: AlignmentReport, **tolerances: float) -> None:
    for name in TABLES:
        assert_frame_equal(report.to_frame(name), other.to_frame(name), **tolerances)


@pytest.mark.parametrize(
    "make",
    [
        lambda values: values.numpy(),
        lambda values: values.tolist(),
        lambda values: pl.DataFrame(values.numpy()) if values.ndim > 1 else pl.Series(values.numpy()),
        lambda values: in_pandas(values.numpy()),
    ],
    ids=["numpy", "lists", "polars", "pandas"],
)
def test_containers_make_no_difference(make: Callable[[Tensor], object]) -> None:
    values = small()
    assert_same(
        ha.alignment_report(*values, **FEW), ha.alignment_report(*map(make, values), **FEW), check_exact=True
    )


def test_strings_name_the_domains_and_order_does_not_matter() -> None:
    features, logits, y, domains = small()
    places = np.array(["*", "[/b]"])[domains.numpy()]
    expected = ha.alignment_report(features, logits, y, domains, ["*", "[/b]"], **FEW)
    report = ha.alignment_report(features, logits, y, places.tolist(), **FEW)
    assert report.names == ("*", "[/b]")
    assert_same(report, expected, check_exact=True)
    mixed = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    without = {**FEW, "top_samples": 0, "replicates": 0}
    shuffled = ha.alignment_report(features[mixed], logits[mixed], y[mixed], places[mixed.numpy()], **without)
    for name in ("distances", "eigenvalues", "parts"):
        ordered = ha.alignment_report(features, logits, y, places, **without)
        assert_frame_equal(shuffled.to_frame(name), ordered.to_frame(name), rel_tol=1e-9)


def test_integer_ids_are_told_as_they_are() -> None:
    features, logits, y, domains = small()
    assert ha.alignment_report(features, logits, y, 7 - 4 * domains, **FEW).names == ("domain 3", "domain 7")


def test_groups_are_named_by_class_even_where_a_class_is_missing() -> None:
    features, logits, y, domains = small()
    kept = y != 0
    report = ha.alignment_report(
        features[kept], logits[kept], y[kept], domains[kept], output_names=["a", "b", "c"], **FEW
    )
    assert report.to_frame("groups")["group"].unique(maintain_order=True).to_list() == ["b", "c"]


def hard_domains(offset: float, apart: float, spread: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two domains with nearly the same samples, features far from 0 or of very different scales; float32."""
    random = torch.Generator().manual_seed(0)
    half = torch.randn(40, 5, generator=random)
    weight = torch.randn(3, 5, generator=random)
    scales = torch.logspace(-3, 3, 5) if spread else torch.ones(5)
    other = half + apart * torch.randn(40, 5, generator=random)
    features = torch.cat([half, other]) * scales + offset
    logits = torch.cat([half, other]) @ weight.T
    labels = torch.randint(0, 3, (40,), generator=random).repeat(2)
    return features.float(), logits.float(), labels, torch.arange(80) // 40


HARD = [(0.0, 1e-4, False), (100.0, 1e-2, False), (0.0, 1e-2, True), (100.0, 1.0, True)]


def exact_distances(features: Tensor, logits: Tensor, y: Tensor, domains: Tensor) -> dict[str, float]:
    """From dense matrices in the machine's widest type."""
    z = np.concatenate([features.numpy(), np.ones((len(y), 1))], axis=1).astype(np.longdouble)
    a = logits.numpy().astype(np.longdouble)
    p = np.exp(a - a.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    residual = p - np.eye(3)[y.numpy()]
    curvature = np.einsum("nc,ck->nck", p, np.eye(3)) - np.einsum("nc,nk->nck", p, p)
    parts = {
        "gradient": np.einsum("nc,nd->ncd", residual, z).reshape(len(y), -1),
        "Hessian diagonal": np.einsum("ncc,nd->ncd", curvature, z**2).reshape(len(y), -1),
        "Hessian Frobenius": np.einsum("nck,nd,ne->ncdke", curvature, z, z).reshape(len(y), -1),
    }
    found = {}
    for name, values in parts.items():
        first, second = (values[domains.numpy() == domain] for domain in (0, 1))
        difference = first.mean(0) - second.mean(0)
        squared = (difference**2).sum()
        noise = sum(
            ((side - side.mean(0)) ** 2).sum() / (len(side) - 1) / len(side) for side in (first, second)
        )
        found[name] = float(squared) ** 0.5
        found[f"{name}, debiased"] = max(0.0, float(squared - noise)) ** 0.5
    return found


@pytest.mark.parametrize(("offset", "apart", "spread"), HARD)
@pytest.mark.filterwarnings("ignore::hessalign.exceptions.UntrustworthyWarning")
def test_float32_loses_nothing(offset: float, apart: float, spread: bool) -> None:
    """Near-equal domains, features about 100, scales from 1e-3 to 1e3: as in float64, and as it should be."""
    features, *rest = hard_domains(offset, apart, spread)
    report = ha.alignment_report(features, *rest, **FEW)
    assert_same(report, ha.alignment_report(features.double(), rest[0].double(), *rest[1:], **FEW))
    expected = exact_distances(features, *rest)
    for quantity, distance, debiased in (
        report.to_frame("distances").select("quantity", "distance", "debiased").iter_rows()
    ):
        if quantity in expected:
            assert distance == pytest.approx(expected[quantity], rel=1e-6), quantity
            assert debiased == pytest.approx(expected[f"{quantity}, debiased"], rel=1e-4), quantity


@pytest.mark.parametrize("shift", ["feature mean", "feature covariance", "label proportions"])
def test_attributes_do_not_depend_on_units_and_origins(shift: str) -> None:
    features, logits, y, domains = shifted_domains(shift, 2, samples=200)
    units = torch.logspace(-3, 3, features.shape[1], dtype=torch.float64)
    plain = ha.alignment_report(features, logits, y, domains, **FEW).to_frame("attributes")
    for moved in (features * units + 100, features * 1e-150, features * units.float()):
        frame = ha.alignment_report(moved, logits, y, domains, **FEW).to_frame("attributes")
        assert_frame_equal(frame, plain, rel_tol=1e-4, abs_tol=1e-9)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda features, logits, y: (features * 1e40, logits, y), "features"),
        (lambda features, logits, y: (features, logits, y.double() * 1e200), "y"),
    ],
)
def test_numbers_too_large_for_a_report_are_named(change: Callable[..., tuple], name: str) -> None:
    features, logits, y, domains = small()
    with pytest.raises(ValueError, match=rf"^{name}: absolute values of up to .*e\+\d+ are too large"):
        ha.alignment_report(*change(features, logits[:, 0], y), domains, loss=ha.SquaredError(), **FEW)


def test_large_float32_features_have_a_finite_report() -> None:
    features, logits, y, domains = small()
    report = ha.alignment_report((features * 1e10).float(), logits, y, domains, **FEW)
    for name in TABLES:
        for column in report.to_frame(name).select(pl.col(pl.Float64)):
            assert column.drop_nulls().is_finite().all(), (name, column.name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda z, a: (torch.full_like(z, 0.1), a), "features: all samples have the same"),
        (lambda z, a: (z, torch.ones_like(a)), "logits: the prediction is constant"),
        (lambda z, a: (z, 1e4 * torch.sign(a) * (1 + a.abs())), "logits: all predictions are certain"),
    ],
)
def test_what_cannot_differ_is_told(change: Callable[..., tuple[Tensor, Tensor]], message: str) -> None:
    features, logits, y, domains = small()
    with pytest.warns(UntrustworthyWarning, match=message):
        report = ha.alignment_report(*change(features, logits), y, domains, **FEW)
    assert any(note.startswith(message) for note in report.notes)


def test_too_few_replicates_are_told() -> None:
    with pytest.warns(UntrustworthyWarning, match="replicates: 20 are too few .* give at least 39"):
        ha.alignment_report(*small(), replicates=20)


def equal_domains(
    samples: int, width: int, seed: int, classes: int = 2
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Three domains of one distribution."""
    random = torch.Generator().manual_seed(seed)
    y = torch.arange(3 * samples) % classes
    features = torch.randn(3 * samples, width, generator=random) + y.unsqueeze(1)
    logits = features @ torch.randn(width, classes, generator=random) / width**0.5
    return features, logits, y, torch.arange(3 * samples) // samples


def test_a_covariance_that_samples_cannot_tell_is_not_ranked() -> None:
    """80 samples of 120 features each: nats that they would give are those of noise."""
    with pytest.warns(UntrustworthyWarning, match="feature covariance: not told for 3 of 3 pairs"):
        report = ha.alignment_report(*equal_domains(80, 120, 0), replicates=0)
    table = report.to_frame("attributes")
    untold = table.filter(pl.col("effect").is_null())
    assert set(untold["attribute"]) == {"feature covariance", "confidence"}
    assert untold["rank"].null_count() == untold["z"].null_count() == len(untold)
    assert not untold["found"].any()
    assert (
        "240 in all and at most 40 of a class in both domains, where 1200 and 361 are needed"
        in untold["note"][0]
    )
    mean = table.filter(pl.col("attribute") == "feature mean")
    assert mean["note"].str.contains("in the 24 leading of 120 directions alone: at least so much").all()
    assert table.filter(pl.col("rank") == 1).height == 3
    figure = report.plot("attributes")
    assert [text.get_text() for text in figure.axes[0].texts] == [" too few samples"] * 6


def test_equal_domains_do_not_differ_by_noise() -> None:
    """Where a covariance is told, it is told apart from chance; widths at the edge of what is told."""
    found, effects = 0, []
    for seed in range(15):
        table = ha.alignment_report(*equal_domains(80, 13, seed), replicates=0).to_frame("attributes")
        rows = table.filter(pl.col("attribute") == "feature covariance")
        assert rows["effect"].null_count() == 0
        found += table["found"].sum()
        effects += rows["z"].to_list()
    assert found == 0
    assert abs(np.mean(effects)) < 4 / math.sqrt(len(effects))


@pytest.mark.filterwarnings("ignore::hessalign.exceptions.UntrustworthyWarning")
def test_why_it_is_not_told_with_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the rule, 13 samples of a class in 24 directions set equal domains nats apart."""
    monkeypatch.setattr(attributes, "SAMPLES_FOR_COVARIANCE", 0)
    effects = []
    for seed in range(5):
        report = ha.alignment_report(*equal_domains(80, 24, seed, classes=6), replicates=0)
        table = report.to_frame("attributes")
        effects += table.filter(pl.col("attribute") == "feature covariance")["effect"].to_list()
    assert np.mean(effects) > 1
