"""Published figures are those of the documents they are from."""

import re
from pathlib import Path

import pytest

from hessalign.algorithms.registry import registered_name
from hessalign.benchmark.paper import (
    DOMAINBED_ERM_BY_TARGET,
    DOMAINBED_LEAVE_ONE_DOMAIN_OUT,
    DOMAINBED_ORACLE,
    DOMAINBED_SOURCE_VALIDATION,
    TABLE_9,
    TABLE_10,
    TABLES,
    PublishedTable,
    published_accuracy,
    published_average,
    published_target_accuracy,
)

SHARED = Path(__file__).parents[3] / "shared"
SUPPLEMENT = SHARED / "reference" / "hessian_alignment_supplement.md"
FACTS = SHARED / "DOMAINBED_FACTS.md"


@pytest.mark.skipif(not SUPPLEMENT.exists(), reason="the supplement is not on this machine")
@pytest.mark.parametrize(("table", "number"), [(TABLE_9, 9), (TABLE_10, 10)])
def test_tables_of_the_supplement(table: PublishedTable, number: int) -> None:
    text = SUPPLEMENT.read_text(encoding="utf-8")
    section = text[text.index(f"Table {number}: DomainBed") :].split("\n\n")[1]
    header, *lines = section.splitlines()
    assert header.split("\t") == ["Algorithm", "VLCS", "PACS", "OfficeHome", "DomainNet", "Avg"]
    rows = [re.sub("</?u>", "", line).split("\t") for line in lines]
    assert {registered_name(name): tuple(map(float, figures)) for name, *figures in rows} == table.rows


@pytest.mark.skipif(not FACTS.exists(), reason="the notes on DomainBed are not on this machine")
def test_tables_of_domainbed() -> None:
    text = FACTS.read_text(encoding="utf-8")
    section = text[text.index("## 9.") : text.index("## 10.")]
    rows = [line.strip("|").split("|") for line in section.splitlines() if re.match(r"\| [A-Z]", line)]
    found = {registered_name(name.strip()): tuple(map(float, figures)) for name, *figures in rows}
    assert found == DOMAINBED_SOURCE_VALIDATION.rows
    number = r"\d+\.\d"
    for words, table in (("LOO", DOMAINBED_LEAVE_ONE_DOMAIN_OUT), ("oracle", DOMAINBED_ORACLE)):
        (line,) = re.findall(rf"ERM, {words}: ([^;(]*\({number}\))", section)
        assert tuple(map(float, re.findall(number, line))) == table.rows["erm"]
    for name, dataset in (("ColoredMNIST", "colored_mnist"), ("RotatedMNIST", "rotated_mnist")):
        (line,) = re.findall(rf"ERM {name} per env, IID: ([\d ./]*\d)", section)
        assert tuple(map(float, re.findall(number, line))) == DOMAINBED_ERM_BY_TARGET[dataset]


def test_where_two_tables_print_a_figure_they_agree() -> None:
    for first in TABLES:
        for second in TABLES:
            if first.rule == second.rule:
                for algorithm in first.rows.keys() & second.rows.keys():
                    for dataset in set(first.datasets) & set(second.datasets):
                        column = first.datasets.index(dataset), second.datasets.index(dataset)
                        figures = first.rows[algorithm][column[0]], second.rows[algorithm][column[1]]
                        assert figures[0] == figures[1], (algorithm, dataset)


@pytest.mark.parametrize("table", TABLES)
def test_averages_are_those_of_their_rows(table: PublishedTable) -> None:
    """To the rounding of the figures, each up to 0.05 off, and of the average itself."""
    for algorithm, (*figures, average) in table.rows.items():
        assert len(figures) == len(table.datasets)
        assert sum(figures) / len(figures) == pytest.approx(average, abs=0.1001), algorithm


def test_figures_are_cited_from_where_they_stand() -> None:
    hgp = published_accuracy("oracle", "hgp", "pacs")
    assert hgp is not None
    assert (hgp.accuracy, hgp.source) == (86.5, "Hemati et al., ICCV 2023, supplement, Table 10")
    erm = published_accuracy("source-validation", "erm", "terra_incognita")
    assert erm is not None
    assert (erm.accuracy, erm.source) == (46.1, "Gulrajani and Lopez-Paz, ICLR 2021 (DomainBed)")
    assert published_accuracy("leave-one-domain-out", "hgp", "pacs") is None
    assert published_accuracy("oracle", "hgp", "colored_mnist") is None
    assert published_accuracy("oracle", "mine", "pacs") is None
    assert published_accuracy("oracle", "hgp (variant domainbed)", "pacs") == hgp


def test_an_average_is_given_for_just_its_datasets() -> None:
    four = published_average("source-validation", "erm", ["pacs", "vlcs", "domain_net", "office_home"])
    seven = published_average("source-validation", "erm", DOMAINBED_ORACLE.datasets)
    assert four is not None
    assert seven is not None
    assert (four.accuracy, seven.accuracy) == (67.6, 66.6)
    assert published_average("source-validation", "erm", ["pacs", "vlcs"]) is None


def test_figures_by_target_domain() -> None:
    last = published_target_accuracy("source-validation", "erm", "colored_mnist", 2)
    assert last is not None
    assert last.accuracy == 10.0
    assert published_target_accuracy("oracle", "erm", "colored_mnist", 2) is None
    assert published_target_accuracy("source-validation", "hgp", "colored_mnist", 2) is None
    assert published_target_accuracy("source-validation", "erm", "colored_mnist", 3) is None
