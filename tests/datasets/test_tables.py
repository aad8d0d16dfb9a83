"""Tables on disk: text as it stands, and what is no table."""

import io

import polars as pl
import pytest

from hessalign.datasets.tables import csv_header, read_table


def test_values_of_a_csv_file_are_the_text_that_stands_there(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('\ufeffname; count ;note\n01;1e3;"two\nlines; one value"\n\n ;;""\n', encoding="utf-8")
    table = read_table("given", path)
    assert table.to_dicts() == [
        {"name": "01", "count": "1e3", "note": "two\nlines; one value"},
        {"name": " ", "count": None, "note": ""},
    ]
    path.write_text("name,count\n01,5\n")
    pl.read_csv(path).write_parquet(tmp_path / "a.parquet")
    assert read_table("given", tmp_path / "a.parquet").to_dicts() == [{"name": 1, "count": 5}]


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        ("a,b;c,d\n", (), (["a", "b;c", "d"], ",")),
        ("a,b;c,d\n", ("c,d",), (["a,b", "c,d"], ";")),
        ("path\n", ("path",), (["path"], ",")),
        ("Label\tDomain\n", ("label", "domain"), (["Label", "Domain"], "\t")),
        ("", (), ([], ",")),
    ],
)
def test_the_delimiter_is_the_header_s(text, wanted, found) -> None:
    assert csv_header(io.StringIO(text), wanted) == found


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n1,2\n", "given: .* cannot be read as a table: its first line is empty"),
        (b"a,b\n1,2\n1\n", "line 3: 1 values for 2 columns"),
        (b"a,b\n1,2\n1,2,3\n", "line 3: 3 values for 2 columns"),
        (b"a, a\n1,2\n", "has the column 'a' more than once; rename or remove one"),
        (b"a,,\n1,2,3\n", "has 2 columns without a name"),
        (b"a,b\n1,\xf6\n", "is not UTF-8 text .*; save it as UTF-8"),
        (b'a,b\n1,"2\n', "cannot be read as a table|values for 2 columns"),
    ],
)
def test_what_is_no_table_is_one_sentence(tmp_path, content, message) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_table("given", tmp_path / "a.csv")
