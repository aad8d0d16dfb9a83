"""``hessalign inspect`` on a trained run and on networks of ``hessalign cmnist``."""

import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch

from hessalign.datasets import Digits, load_mnist
from hessalign.datasets.features_file import save_features
from tests.cli.command import hessalign, words

FEW = ["--per-domain", "40", "--replicates", "50"]


@pytest.fixture(scope="module", autouse=True)
def few_digits() -> Iterator[None]:
    """Rotated MNIST of the first 300 digits of each file: nothing here depends on the others."""
    digits = load_mnist("test")
    few = Digits(digits.images[:300], digits.digits[:300])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("hessalign.datasets.mnist.load_mnist", lambda split: few)
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    for algorithm in ("erm", "mtl"):
        result = hessalign(
            *("train", "--dataset", "rotated_mnist", "--algorithm", algorithm, "--target", "5"),
            *("--steps", "1", "--set", "batch_size=8", "--device", "cpu", "--evaluate-samples", "20"),
            *("--out", str(folder / algorithm)),
        )
        assert result.returncode == 0, result.stderr
    return {name: folder / name for name in ("erm", "mtl")}


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    out = tmp_path_factory.mktemp("cmnist")
    arguments = ["cmnist", "--fast", "--steps", "3", "--methods", "erm,diagonal", "--out", str(out)]
    assert hessalign(*arguments).returncode == 0
    records = {path: path.read_bytes() for path in (out / "restarts").iterdir()}
    assert all(path.suffix == ".json" for path in records)
    result = hessalign(*arguments, "--save-models")
    assert result.returncode == 0, result.stderr
    assert "done already" not in result.stderr
    again = hessalign(*arguments, "--save-models")
    assert "2 of 2 restarts are done already" in words(again.stderr)
    for path, content in records.items():
        assert json.loads(path.read_bytes())["history"] == json.loads(content)["history"]
    return sorted((out / "restarts").glob("*.safetensors"), reverse=True)


def test_a_run_against_another(runs: dict[str, Path], tmp_path: Path) -> None:
    page, figures = tmp_path / "report.html", tmp_path / "figures"
    result = hessalign(
        "inspect",
        str(runs["erm"]),
        "--against",
        str(runs["mtl"]),
        *FEW,
        "--html",
        str(page),
        "--plots",
        str(figures),
    )
    assert result.returncode == 0, result.stderr
    for text in ("erm: what differs", "mtl: distances", "Side by side", "0 – 15", "transfer bound"):
        assert text in result.stdout
    assert "erm against mtl" in page.read_text(encoding="utf-8")
    assert (figures / "plane.png").exists()
    document = json.loads(hessalign("inspect", str(runs["erm"]), *FEW, "--json").stdout)
    distances = document["erm"]["distances"]
    assert len(distances) == 15 * 6
    assert all(row["low"] <= row["high"] for row in distances if row["low"] is not None)
    samples = document["erm"]["samples"]
    assert all(0 <= row["sample"] < 240 for row in samples)


def test_networks_of_the_colored_mnist_experiment(networks: list[Path]) -> None:
    erm, aligned = networks
    result = hessalign("inspect", str(erm), "--against", str(aligned), *FEW, "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert list(document) == ["ERM", "Exact diagonal"]
    pairs = {(row["first"], row["second"]) for row in document["ERM"]["distances"]}
    assert pairs == {
        ("source 80 %", "source 90 %"),
        ("source 80 %", "target 10 %"),
        ("source 90 %", "target 10 %"),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "source: there is no file or folder nowhere"),
        (["{tmp}"], "{tmp} holds no run, no checkpoint and no shared model"),
        (["{erm}", "--against", "{erm}"], "against: {erm} is the same as the first"),
        (["{erm}", "--dataset", "colored_mnist"], "dataset: colored_mnist has inputs of shape (2, 28, 28)"),
        (["{erm}", "--radius", "-1"], "'--radius': must be a finite number above 0, got -1.0"),
        (["{erm}", "--html", "{tmp}/no/page.html"], "html: there is no folder"),
        (["{erm}", "--device", "abacus"], "device: 'abacus' cannot be used here"),
    ],
)
def test_bad_input_is_one_sentence(
    runs: dict[str, Path], tmp_path: Path, arguments: list[str], message: str
) -> None:
    names = {"tmp": tmp_path, "erm": runs["erm"]}
    result = hessalign("inspect", *(argument.format(**names) for argument in arguments), "--per-domain", "20")
    assert result.returncode == 2, result.stderr
    assert message.format(**names) in words(result.stderr)
    assert "Traceback" not in result.stderr


def test_many_domains_are_told_by_those_that_stand_out(tmp_path: Path) -> None:
    """The terminal is short, the page small, and all there is lies beside it and in the JSON."""
    random = torch.Generator().manual_seed(0)
    domains = torch.arange(24).repeat_interleave(12)
    labels = torch.arange(len(domains)) % 2
    features = (
        torch.randn(len(domains), 4, generator=random) + labels.unsqueeze(1) + (domains % 2).unsqueeze(1)
    )
    kept = (domains != 5) | (torch.arange(len(domains)) % 12 == 0)  # a domain of one sample
    source, page = tmp_path / "sites.safetensors", tmp_path / "sites.html"
    names = [f"site {number}" for number in range(24)]
    save_features(source, features[kept], labels[kept], domains[kept], domain_names=names)
    result = hessalign("inspect", str(source), "--html", str(page), "--replicates", "0")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) < 250
    assert "261 more pairs lie between the most different and the most alike" in words(result.stdout)
    assert "domains: 1 of 24 have a single sample (site 5)" in words(result.stdout)
    assert page.stat().st_size < 800_000
    pairs = pl.read_parquet(tmp_path / "sites.tables" / "pairs.parquet")
    assert len(pairs) == 24 * 23 // 2
    document = json.loads(hessalign("inspect", str(source), "--replicates", "0", "--json").stdout)
    (report,) = document.values()
    assert len(report["pairs"]) == len(pairs)


def test_help_teaches() -> None:
    result = hessalign("inspect", "--help")
    assert result.returncode == 0
    for word in ("--against", "--html", "hessalign inspect runs/erm --against runs/hgp", "--save-models"):
        assert word in result.stdout
