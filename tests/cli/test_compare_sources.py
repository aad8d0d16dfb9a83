"""Tables of ``hessalign compare``: what a cell is does not depend on its place, and dirt is named."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hessalign.cli.compare_sources import Samples, read_samples
from tests.cli.command import hessalign, words

ROWS = 300
HEADER = "label,domain,chol,age\n"


def lines(chol: list[str]) -> list[str]:
    """Rows whose first feature is given, and whose second is a number."""
    return [
        f"{'well' if row % 2 else 'ill'},{'abc'[row % 3]},{cell},{row}.5" for row, cell in enumerate(chol)
    ]


def read(folder: Path, text: str, name: str = "sites.csv") -> Samples:
    (folder / name).write_text(text, encoding="utf-8")
    return read_samples(folder / name, standardize=False)


def numeric(samples: Samples) -> list[int]:
    """Columns that are numbers."""
    return samples.arguments["preprocessing"].transformers[0][2]


@pytest.mark.parametrize(
    "sign", ["", " ", "?", "NA", "nan", "NaN", "-", "N/A", "null", ".", "None", "#N/A", "<NA>", "NaT"]
)
@pytest.mark.parametrize("late", [False, True], ids=["first", "last"])
def test_signs_of_missing_values_leave_numbers_numbers(tmp_path, sign, late) -> None:
    chol = [sign] * 120 + [str(200 + row) for row in range(ROWS - 120)]
    samples = read(tmp_path, HEADER + "\n".join(lines(chol[::-1] if late else chol)))
    values = samples.arguments["X"][:, 0]
    assert numeric(samples) == [0, 1]
    assert np.isnan(values).sum() == 120
    assert np.nanmax(values) == 200 + ROWS - 121
    told = f"Read as missing: chol ({sign} 120 times)."
    assert samples.notes == ((told,) if sign.strip() else ())


@pytest.mark.parametrize(
    ("dirt", "message"),
    [
        (
            "1,5",
            "holds 299 numbers and 1 other, the first '1,5' in row {row}; write decimals with a point, 1.5",
        ),
        (
            "53 mg",
            "holds 299 numbers and 1 other, the first '53 mg' in row {row}; correct it or leave the cell",
        ),
        ("<3", "the first '<3' in row {row}"),
        ("inf", "holds infinite numbers, the first inf in row {row}"),
    ],
)
@pytest.mark.parametrize("row", [8, 250])
def test_a_number_with_a_slip_is_named(tmp_path, dirt, message, row) -> None:
    chol = [str(each) for each in range(ROWS)]
    chol[row - 1] = f'"{dirt}"'
    with pytest.raises(ValueError, match="the column 'chol'") as caught:
        read(tmp_path, HEADER + "\n".join(lines(chol)))
    assert message.format(row=row) in str(caught.value)


def test_decimal_commas_are_named(tmp_path) -> None:
    text = "label;domain;chol\n" + "\n".join(f"{row % 2};{row % 3};{row},25" for row in range(9))
    with pytest.raises(ValueError, match=r"the first '0,25' in row 1; write decimals with a point, 0\.25"):
        read(tmp_path, text)


def test_a_fraction_after_many_whole_numbers(tmp_path) -> None:
    samples = read(tmp_path, HEADER + "\n".join(lines([str(row) for row in range(ROWS - 1)] + ["53.5"])))
    assert samples.arguments["X"][-1, 0] == 53.5


@given(
    st.permutations(range(24)),
    st.lists(st.sampled_from(["1", "2.5", "-3e2", "?", "", "red", "blue", "NA"]), min_size=24, max_size=24),
)
def test_the_order_of_rows_makes_no_difference(tmp_path_factory, order, cells) -> None:
    folder = tmp_path_factory.mktemp("order")
    rows = lines(cells)
    found = []
    for arranged in (rows, [rows[row] for row in order]):
        try:
            found.append(read(folder, HEADER + "\n".join(arranged)))
        except ValueError as error:
            found.append(str(error).split(", the first")[0])
    first, again = found
    if not isinstance(first, Samples):
        assert "numbers and" in first
        assert again == first
        return
    for name in ("X", "y", "sample_domain"):
        np.testing.assert_array_equal(again.arguments[name], first.arguments[name][list(order)])
    assert again.notes == first.notes
    assert numeric(again) == numeric(first)


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("label,domain,a", ","),
        ("Label;DOMAIN;a", ";"),
        ("a\t domain\tlabel ", "\t"),
        ("\ufefflabel,domain,a", ","),
    ],
)
def test_delimiters_capitals_and_blanks(tmp_path, header, separator) -> None:
    places = {name.strip("\ufeff ").lower(): place for place, name in enumerate(header.split(separator))}
    rows = []
    for row in range(6):
        cells = [""] * 3
        cells[places["label"]], cells[places["domain"]], cells[places["a"]] = (
            " ill",
            f"{row % 3} ",
            f" {row}.5",
        )
        rows.append(separator.join(cells))
    samples = read(tmp_path, "\n".join([header, *rows, "", ""]), "sites.CSV")
    assert samples.arguments["X"].ravel().tolist() == [row + 0.5 for row in range(6)]
    assert samples.arguments["y"].tolist() == ["ill"] * 6
    assert samples.arguments["sample_domain"].tolist() == ["0", "1", "2"] * 2


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["0", "1"], [0, 1]),
        (["0.0", "1.0"], [0, 1]),
        (["True", "False"], ["True", "False"]),
        (["2", "b"], ["2", "b"]),
        ([0.0, 1.0], [0, 1]),
        ([True, False], ["true", "false"]),
        ([7, 9], [7, 9]),
    ],
)
def test_labels_are_classes(tmp_path, labels, expected) -> None:
    frame = pl.DataFrame({"label": labels * 3, "domain": [0, 0, 1, 1, 2, 2], "a": [0.0, 1, 2, 3, 4, 5]})
    path = tmp_path / ("sites.csv" if isinstance(labels[0], str) else "sites.parquet")
    (frame.write_csv if path.suffix == ".csv" else frame.write_parquet)(path)
    assert read_samples(path, standardize=False).arguments["y"].tolist() == expected * 3


def test_a_table_is_the_same_as_parquet(tmp_path) -> None:
    text = HEADER + "\n".join(lines(["?", "3", "", "4.5", "x", "y"] * 2))
    text = text.replace("chol", "kind").replace(",3,", ",z,").replace(",4.5,", ",?,")
    from_csv = read(tmp_path, text)
    pl.read_csv(tmp_path / "sites.csv").write_parquet(tmp_path / "sites.parquet")
    from_parquet = read_samples(tmp_path / "sites.parquet", standardize=False)
    np.testing.assert_array_equal(from_csv.arguments["X"], from_parquet.arguments["X"])
    assert from_csv.notes == from_parquet.notes
    assert from_csv.notes[0] == "Columns of text, with their number of categories: kind (3)."


def test_what_a_column_was_taken_for_stands_below_the_table(tmp_path) -> None:
    random = np.random.default_rng(0)
    y = random.integers(0, 2, 60)
    frame = pl.DataFrame(
        {
            "label": y,
            "domain": ["n", "e", "w"] * 20,
            "dose": [f"{value:.3f}" if row else "?" for row, value in enumerate(y + random.normal(size=60))],
            "patient": [f"[b]{row}" for row in range(60)],
            "empty": [None] * 60,
        }
    )
    frame.write_csv(tmp_path / "sites.csv")
    ended = hessalign("compare", tmp_path / "sites.csv", "--heads", "equal domains", "--format", "markdown")
    assert ended.returncode == 0, ended.stderr
    shown = words(ended.stdout)
    assert "Columns of text, with their number of categories: patient (60)." in shown
    assert "patient: 60 categories in 60 rows; a name or a date of each row tells nothing" in shown
    assert "Read as missing: dose (? 1 times)." in shown
    assert "Columns without any value, which tell nothing: empty." in shown


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "its first line is empty"),
        ("label,domain,a\n", "has no row below its header"),
        ("label,domain,a,a\nx,y,1,2\n", "has the column 'a' more than once; rename or remove one"),
        ("label,Label,domain,a\nx,y,1,2\n", "has 'label' and 'Label'; only one column may be label"),
        (",label,domain,a\n0,x,y,1\n", "has a column without a name; if it numbers the rows, remove it"),
        ("label,domain,a\nx,y,1\nx,y\n", "line 3: 2 values for 3 columns"),
        ("label,domain,a\nx,y,1\nx,y,1,5\n", "line 3: 4 values for 3 columns"),
        ("label,domain,a\nx,y,1\n,y,2\n", "row 2, has a row without a label"),
        ("label,domain,a\nx,y,1\nx,NA,2\n", "row 2, has a row without a domain; 'NA' reads as missing"),
        (
            "target,domain,a\nx,y,1\n",
            "must have the columns label and domain and at least one more, got 'target'",
        ),
        ("label,domain\nx,y\n", "at least one more"),
        (
            "label,domain,a\n0.2,y,1\n",
            "row 1: label 0.2 is no class; write classes as whole numbers or names",
        ),
        ("label,domain,a\nx,y,1\nz,y,1\n", "needs at least 3 domains, a target and two sources, got 1"),
        ("label,domain,a\nx,1,1\nx,2,1\nx,3,1\n", "needs at least 2 classes, got one class, x"),
    ],
)
def test_a_table_that_is_none_is_one_sentence(tmp_path, text, message) -> None:
    (tmp_path / "sites.csv").write_text(text)
    ended = hessalign("compare", tmp_path / "sites.csv")
    assert ended.returncode == 2
    assert message in words(ended.stderr)


def test_text_of_another_encoding(tmp_path) -> None:
    (tmp_path / "sites.csv").write_bytes("label,domain,a\nschön,y,1\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"is not UTF-8 text .*; save it as UTF-8"):
        read_samples(tmp_path / "sites.csv", standardize=False)
