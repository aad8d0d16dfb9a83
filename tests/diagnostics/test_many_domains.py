"""Many domains: some pairs in full, all the others in closed form; what is not known is not ranked."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from polars.testing import assert_frame_equal
from sklearn.covariance import ledoit_wolf
from torch import Tensor

import hessalign as ha
from hessalign.diagnostics import means
from hessalign.diagnostics.attributes import _shrunk_product
from hessalign.diagnostics.data import MOST_PAIRS, OF_PAIRS
from hessalign.diagnostics.means import Pairs
from hessalign.diagnostics.page import MOST_ROWS, page
from hessalign.diagnostics.plots import draw
from hessalign.exceptions import UntrustworthyWarning

FEW = {"replicates": 40, "eigenvalues": 2, "top_samples": 2}
QUIET = pytest.mark.filterwarnings("ignore::hessalign.exceptions.UntrustworthyWarning")


def many(
    count: int, samples: int = 12, width: int = 3, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Domains of two kinds in turn: the odd ones lie elsewhere."""
    random = torch.Generator().manual_seed(seed)
    domains = torch.arange(count).repeat_interleave(samples)
    y = torch.arange(len(domains)) % 2
    features = torch.randn(len(domains), width, generator=random, dtype=torch.float64) + y.unsqueeze(1)
    features[domains % 2 == 1] += 2
    head = torch.randn(width, 2, generator=random, dtype=torch.float64)
    return features, features @ head, y, domains


def take(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of the two ways to the Hessians' distances, whatever costs less."""
    by_blocks, by_samples = means._by_blocks, means._by_samples
    if way == "_by_blocks":
        generator = torch.Generator().manual_seed(0)
        monkeypatch.setattr(means, "_by_samples", lambda domains, pairs: by_blocks(domains, generator, pairs))
    else:
        monkeypatch.setattr(means, "_by_blocks", lambda domains, generator, pairs: by_samples(domains, pairs))


@QUIET
@pytest.mark.parametrize("way", ["_by_blocks", "_by_samples"])
def test_what_is_told_of_some_pairs_is_what_is_told_of_all(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    take(way, monkeypatch)
    data = many(6)
    options = {**FEW, "replicates": 0}
    whole, some = ha.alignment_report(*data, **options), ha.alignment_report(*data, **options, pairs=4)
    full = some.to_frame("pairs").filter("full").select("first", "second")
    assert len(full) == 4
    by_distance = whole.to_frame("pairs").select("first", "second")
    assert set(full.rows()) == {*by_distance.head(2).rows(), *by_distance.tail(2).rows()}
    for name in ("attributes", "domains", "eigenvalues", "plane"):
        shown = some.to_frame(name).drop("shrunk", strict=False)
        assert_frame_equal(shown, whole.to_frame(name).drop("shrunk", strict=False), rel_tol=1e-8)
    for name in ("groups", "parts", "samples"):
        expected = full.join(whole.to_frame(name), on=["first", "second"], maintain_order="left_right")
        found = full.join(some.to_frame(name), on=["first", "second"], maintain_order="left_right")
        assert len(some.to_frame(name)) == len(found)
        assert_frame_equal(found, expected, rel_tol=1e-8)
    both = some.to_frame().join(whole.to_frame(), on=["first", "second", "quantity"], how="left")
    for column in ("distance", "relative", "debiased"):
        np.testing.assert_allclose(both[column], both[f"{column}_right"], rtol=1e-8)
    assert dict(some.to_frame()["quantity"].value_counts().iter_rows()) == {
        "gradient": 15,
        "Hessian diagonal": 15,
        "Hessian Frobenius": 15,
        "Hessian spectral": 4,
        "transfer bound": 4,
        "transfer bound, gradient term": 4,
    }


@QUIET
def test_intervals_are_those_of_the_pairs_in_full() -> None:
    some = ha.alignment_report(*many(6), **FEW, pairs=4).to_frame()
    full = some.filter(pl.col("low").is_not_null())
    assert full["quantity"].value_counts()["count"].to_list() == [4] * 5
    assert (full["low"] <= full["debiased"] + 1e-12).all()
    assert (full["debiased"] <= full["high"] + 1e-12).all()


@QUIET
@pytest.mark.parametrize("pairs", [1, 10])
@pytest.mark.parametrize("way", ["_by_blocks", "_by_samples"])
def test_pairs_that_are_nearly_equal_are_exact_beside_far_ones(
    way: str, pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Distances from inner products would cancel: two domains 1e-7 apart, others 1 apart."""
    take(way, monkeypatch)
    features, _, y, domains = many(5)
    head = torch.ones(3, 2, dtype=torch.float64) * torch.tensor([1.0, -0.5])
    features[domains == 2] = features[domains == 0] + 1e-7
    report = ha.alignment_report(features, features @ head, y, domains, **FEW, pairs=pairs)
    derivatives = [
        ha.HeadDerivatives.from_logits(
            features[domains == index], features[domains == index] @ head, y[domains == index]
        )
        for index in (0, 2)
    ]
    expected = float((derivatives[0].hessian() - derivatives[1].hessian()).norm())
    found = report.to_frame().filter(first="domain 0", second="domain 2", quantity="Hessian Frobenius")
    assert expected < 1e-5
    assert found["distance"][0] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_both_ways_to_the_hessians_agree(bias: bool) -> None:
    features, logits, y, domains = many(4)
    derivatives = [
        ha.HeadDerivatives.from_logits(features[rows], logits[rows], y[rows], bias=bias)
        for rows in (domains == index for index in range(4))
    ]
    for pairs in (Pairs.all_of(4), Pairs(4, ((0, 1), (1, 3)))):
        blocks, block_parts = means._by_blocks(derivatives, torch.Generator(), pairs)
        samples, sample_parts = means._by_samples(derivatives, pairs)
        torch.testing.assert_close(block_parts, sample_parts, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(blocks.products, samples.products, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(blocks.norms, samples.norms)
        dense = derivatives[0].hessian() - derivatives[3].hessian()
        assert float(blocks.distances[0, 3]) == pytest.approx(float(dense.square().sum()), rel=1e-8)


@QUIET
def test_like_domains_stand_together() -> None:
    table = ha.alignment_report(*many(20, samples=80), **FEW, pairs=10).to_frame("domains")
    odd = table.filter(pl.int_range(pl.len()) % 2 == 1)["place"].sort().to_list()
    assert odd in (list(range(1, 11)), list(range(11, 21)))
    assert sorted(table["place"]) == list(range(1, 21))
    kinds = {name: place % 2 for place, name in enumerate(table["domain"])}
    assert all(
        kinds[name] == kinds[nearest] for name, nearest in table.select("domain", "nearest").iter_rows()
    )
    assert all(kinds[name] != kinds[far] for name, far in table.select("domain", "farthest").iter_rows())


@QUIET
def test_the_page_of_many_domains_is_small_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    report = ha.alignment_report(*many(60, samples=6), **FEW, pairs=20)
    path = tmp_path / "all <domains>.html"
    report.to_html(path)
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 600_000
    assert "All tables in full: folder all &lt;domains&gt;.tables, as Parquet." in text
    assert f"{MOST_PAIRS} of 1,770 rows; all: all &lt;domains&gt;.tables/pairs.parquet" in text
    folder = tmp_path / "all <domains>.tables"
    assert {file.stem for file in folder.iterdir()} == set(report.tables)
    for name, table in report.tables.items():
        assert_frame_equal(pl.read_parquet(folder / f"{name}.parquet").drop("report"), table)
    assert text.count("<tr>") < 8 * MOST_ROWS
    pairs = report.extremes()
    assert len(pairs) == MOST_PAIRS
    for name in OF_PAIRS:
        assert set(report.told(name, pairs).select("first", "second").rows()) == set(pairs.rows())


@QUIET
def test_a_page_of_few_domains_has_everything_and_no_folder(tmp_path: Path) -> None:
    report = ha.alignment_report(*many(6), **{**FEW, "top_samples": 1})
    report.to_html(tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert "rows; all" not in page({"": report})


@QUIET
def test_figures_of_many_domains_show_all_and_name_those_that_stand_out() -> None:
    report = ha.alignment_report(*many(45, samples=80), **FEW, pairs=20)
    heat = draw({"": report}, "distances")
    maps = [axes for axes in heat.axes if axes.get_label() != "<colorbar>"]
    assert [axes.get_title() for axes in maps] == ["gradient", "Hessian diagonal", "Hessian Frobenius"]
    shown = np.asarray(maps[2].images[0].get_array())
    assert shown.shape == (45, 45)
    # Two kinds of domains make four blocks.
    order = np.argsort(report.to_frame("domains")["place"].to_numpy()) % 2
    assert (np.diff(order) != 0).sum() == 1
    eigenvalues = draw({"": report}, "eigenvalues").axes[0]
    assert len(eigenvalues.get_legend().get_texts()) == 8
    plane = draw({"": report}, "plane").axes[0]
    assert len(plane.collections[0].get_offsets()) == 45
    assert len(plane.get_legend().get_texts()) == 7


@QUIET
def test_a_summary_is_short_however_many_domains_there_are() -> None:
    report = ha.alignment_report(*many(30, samples=6), **FEW, pairs=20)
    assert repr(report) == "AlignmentReport(30 domains, 180 samples)"
    lines = str(report).splitlines()
    assert lines[0].startswith("30 domains, 180 samples: domain 0 (6), domain 1 (6)")
    assert lines[0].endswith("and 24 more")
    assert lines[1] == "Of 435 pairs, the most different and the most alike by Hessian distance:"
    pairs = report.extremes(6)
    for line, (first, second) in zip(lines[2:8], pairs.iter_rows(), strict=True):
        assert first in line
        assert second in line
        assert re.search(r"; Hessian distance \d", line)
    assert len(lines) < 16
    table = report._repr_html_()
    assert table.count("<tr>") == 1 + MOST_PAIRS
    assert "420 more pairs" in table


def with_one_sample(alone: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    features, logits, y, domains = many(4)
    keep = (domains != alone) | (torch.arange(len(domains)) == 12 * alone)
    return features[keep], logits[keep], y[keep], domains[keep]


def test_a_domain_of_one_sample_has_distances_but_no_rank(tmp_path: Path) -> None:
    with pytest.warns(UntrustworthyWarning, match=r"domains: 1 of 4 have a single sample \(domain 1\)"):
        report = ha.alignment_report(*with_one_sample(), **FEW)
    alone = (pl.col("first") == "domain 1") | (pl.col("second") == "domain 1")
    distances = report.to_frame().filter(alone)
    assert distances["distance"].is_finite().all()
    assert distances.select("debiased", "low", "high").null_count().row(0) == (len(distances),) * 3
    assert report.to_frame().filter(~alone)["low"].null_count() == 3  # the gradient terms have no intervals
    attributes = report.to_frame("attributes").filter(alone)
    assert attributes["rank"].null_count() == attributes["effect"].null_count() == len(attributes)
    assert attributes.filter(attribute="label proportions")["note"].unique().to_list() == [
        "a domain has a single sample"
    ]
    assert report.to_frame("pairs")["Hessian distance"].to_list()[-3:] == [None] * 3
    assert report.to_frame("domains").filter(domain="domain 1").row(0)[2:5] == (None, None, None)
    assert "domain 1" not in report.to_frame("samples")["domain"]
    assert "nothing can be told of domain 0 and domain 1" in str(report)
    report.to_html(tmp_path / "page.html")


@QUIET
def test_the_rest_of_a_report_does_not_change_by_a_domain_of_one_sample() -> None:
    features, logits, y, domains = with_one_sample()
    report = ha.alignment_report(features, logits, y, domains, **FEW)
    kept = domains != 1
    other = ha.alignment_report(features[kept], logits[kept], y[kept], domains[kept], **FEW)
    without = report.to_frame().join(other.to_frame(), on=["first", "second", "quantity"])
    np.testing.assert_allclose(without["distance"], without["distance_right"], rtol=1e-9)


def test_at_least_two_domains_need_two_samples() -> None:
    features, logits, y, domains = many(2)
    with pytest.raises(ValueError, match=r"domains: at least 2 need at least 2 samples each .* only 1 of 0"):
        ha.alignment_report(features[11:], logits[11:], y[11:], domains[11:], **FEW)


@QUIET
def test_a_covariance_that_is_not_told_has_a_shrunk_value() -> None:
    """Of equal domains the plain difference is nats; shrunk it is small, and grows where spreads differ."""
    values = {}
    for factor in (1.0, 2.0):
        random = torch.Generator().manual_seed(1)
        y = torch.arange(120) % 2
        features = torch.randn(120, 24, generator=random, dtype=torch.float64) + y.unsqueeze(1)
        features[:60, :12] *= factor
        logits = features @ torch.randn(24, 2, generator=random, dtype=torch.float64)
        report = ha.alignment_report(features, logits, y, torch.arange(120) // 60, **FEW)
        row = report.to_frame("attributes").filter(attribute="feature covariance")
        assert row["effect"].to_list() == row["rank"].to_list() == [None]
        values[factor] = row["shrunk"][0]
        assert (
            report.to_frame("attributes")
            .filter(pl.col("attribute") != "feature covariance")["shrunk"]
            .null_count()
            == 3
        )
    plain = [torch.cov(part.T) for part in torch.randn(2, 30, 24, generator=random, dtype=torch.float64)]
    noise = float((plain[0] - plain[1]).square().sum()) / 2
    assert values[1.0] < noise / 20
    assert values[2.0] > 10 * values[1.0]


def test_shrunk_products_are_those_of_the_matrices() -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(20, 6)), random.normal(size=(15, 6)) * 1.5
    found = [ledoit_wolf(values, assume_centered=True) for values in rows]
    sides = [(torch.from_numpy(values), share) for values, (_, share) in zip(rows, found, strict=True)]
    for one, first in zip(found, sides, strict=True):
        for other, second in zip(found, sides, strict=True):
            assert _shrunk_product(first, second) == pytest.approx((one[0] * other[0]).sum(), rel=1e-10)
