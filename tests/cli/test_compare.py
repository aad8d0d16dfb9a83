"""``hessalign compare``: files and tables give what the function gives; what is wrong is one sentence."""

import io
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from hessalign.cli.terminal import Console
from hessalign.datasets.features_file import save_features
from hessalign.estimator import HeadComparison, compare_heads
from tests.cli.command import hessalign, words

HEADS = ("--heads", "equal domains")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    y, site = random.integers(0, 2, 90), np.arange(90) % 3
    frame = pl.DataFrame(
        {
            "age": [None if i == 4 else 50 + 20 * label + 5 * random.normal() for i, label in enumerate(y)],
            "kind": [None if i == 7 else ["x", "y", "[b]z"][s] for i, s in enumerate(site)],
            "label": np.array(["ill", "well"])[y],
            "domain": site,
        }
    )
    frame.write_csv(tmp_path / "sites.csv")
    return tmp_path / "sites.csv"


def test_a_features_file_gives_what_the_function_gives(tmp_path) -> None:
    random = np.random.default_rng(0)
    y, site = random.integers(0, 2, 90), np.array(["n", "e", "w"])[np.arange(90) % 3]
    X = (random.normal(size=(90, 3)) + 2 * y[:, None]).astype("float32")
    labels = np.array(["cat", "dog"])[y]
    save_features(tmp_path / "own.safetensors", X, labels, site)
    ended = hessalign("compare", tmp_path / "own.safetensors", *HEADS, "--json")
    found = HeadComparison.from_dict(json.loads(ended.stdout))
    expected = compare_heads(X, labels, sample_domain=site, heads=["equal domains"])
    # The file has its rows in another order, so that sums are rounded otherwise.
    assert_frame_equal(found.to_frame().drop("seconds"), expected.to_frame().drop("seconds"), rel_tol=1e-4)


def test_a_table_with_gaps_and_text(table, tmp_path) -> None:
    out = (
        "--out",
        tmp_path / "out",
        "--resume",
        "--html",
        tmp_path / "page.html",
        "--plot",
        tmp_path / "a.png",
    )
    first = hessalign("compare", table, *HEADS, *out)
    assert first.returncode == 0
    assert (tmp_path / "page.html").exists()
    assert (tmp_path / "a.png").exists()
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == 6
    shown = words(first.stdout)
    assert shown.endswith("on these 3 domains.")
    again = hessalign("compare", table, *HEADS, *out, "--format", "markdown")
    assert again.stdout.rstrip().endswith("on these 3 domains.")
    # Age tells nearly all, once it is filled and standardised; the category tells only the domain.
    rows = [
        line.split(" | ") for line in again.stdout.splitlines() if line.startswith("| logistic regression")
    ]
    assert all(float(accuracy) > 85 for accuracy in rows[1][1:4])


@pytest.mark.parametrize("columns", [60, 80])
def test_a_narrow_terminal_breaks_no_figure(columns) -> None:
    targets, heads = ["art_painting", "cartoon", "photo", "sketch"], ["logistic regression", "V-REx"]
    outcome = {"accuracy": 0.725, "worst_accuracy": 0.7, "log_loss": 1.037, "plain": False, "seconds": 1.0}
    outcome |= {"chosen": "C=0.01 beta=0.1 alpha=0.1", "converged": True, "samples": 30}
    for metric in ("accuracy", "log_loss"):
        outcome |= {f"{metric}_difference": -12.25, f"{metric}_variance": 4.0}
    rows = [{"target": t, "head": h, **outcome} for t in targets for h in (*heads, "best on the sources")]
    shift = {"nats": 0.5, "z": 30.5, "found": True, "shares_to_style": 0.5}
    kinds = ("share of classes", "features within classes", "relation of both")
    found = HeadComparison(
        heads=tuple(heads),
        targets=tuple(targets),
        scoring="accuracy",
        seed=0,
        doubt="",
        notes=(),
        outcomes=pl.DataFrame(rows),
        shifts=pl.DataFrame([{"target": t, "shift": kind, **shift} for t in targets for kind in kinds]),
    )
    for grid in found.grids():
        for part in grid.within(columns):
            console = Console(width=columns, file=io.StringIO())
            console.print(part.to_rich())
            lines = console.file.getvalue().splitlines()
            assert max(map(len, lines)) <= columns
            body = [line for line in lines if line.startswith("│")]
            assert len(body) == len(part.rows) + len(part.totals)
        kept = [header for part in grid.within(columns) for header in part.headers[1:]]
        assert kept == list(grid.headers[1:])
        assert grid.within(columns)[-1].notes == grid.notes
        assert grid.within(columns)[0].title == grid.title
        assert grid.within(500) == [grid]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--resume"], "resume: nothing is kept without --out"),
        (["--heads", "vrex"], "heads"),
        (["--target", "mars"], "targets: must be ids of domains, 0, 1, 2, got 'mars'"),
        (["--json", "--format", "latex"], "json: --json and --format latex contradict each other"),
        (["--plot", "a.gif"], "plot"),
        (["--html", "a.pdf"], "html: must end in .html or .htm, got a.pdf"),
        (["--html", "nowhere/a.html"], "html: there is no folder nowhere"),
        (["--heads", ""], "heads: '' names none; leave the option out for all"),
        (["--heads", ","], "heads: ',' names none"),
    ],
)
def test_what_is_wrong_is_said(table, options, message) -> None:
    ended = hessalign("compare", table, *options)
    assert ended.returncode == 2
    assert message in words(ended.stderr)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"a": [1.0], "label": ["x"]},
            "must have the columns label and domain and at least one more, got 'a', 'label'",
        ),
        ({"label": ["x"], "domain": ["y"]}, "at least one more"),
        ({"a": [1.0], "label": [None], "domain": ["y"]}, "has a row without a label"),
        ({"a": [[1.0]], "label": ["x"], "domain": ["y"]}, "the column 'a' must hold numbers or text"),
        ({"a": [float("inf")], "label": ["x"], "domain": ["y"]}, "holds infinite numbers"),
    ],
)
def test_a_table_that_is_none(tmp_path, columns, message) -> None:
    pl.DataFrame(columns).write_parquet(tmp_path / "sites.parquet")
    ended = hessalign("compare", tmp_path / "sites.parquet")
    assert ended.returncode == 2
    assert message in words(ended.stderr)
