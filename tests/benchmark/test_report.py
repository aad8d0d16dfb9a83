"""Tables computed by hand: cells, averages, ranks, marks, differences, settings."""

from pathlib import Path

import pytest

from hessalign.benchmark.readers import read_sweep
from hessalign.benchmark.report import make_report
from hessalign.benchmark.tables import Cell, Row, Table, finished_rows
from tests.benchmark.run_folders import write_domainbed_run, write_own_run, write_result


def tables(folder: Path, **options) -> list[Table]:
    return list(make_report(read_sweep(folder), ["source-validation"], **options).tables)


def means(table: Table) -> dict[str, list[float | None]]:
    return {
        row.algorithm: [cell.mean and pytest.approx(cell.mean, abs=1e-9) for cell in row.cells]
        for row in table.rows
    }


def write_table(out: Path) -> None:
    """Two algorithms, two target domains, two trials."""
    for algorithm, target, trial, accuracy in (
        ("erm", 0, 0, 0.60),
        ("erm", 0, 1, 0.70),
        ("erm", 1, 0, 0.80),
        ("erm", 1, 1, 0.90),
        ("hgp", 0, 0, 0.64),
        ("hgp", 0, 1, 0.72),
        ("hgp", 1, 0, 0.85),
        ("hgp", 1, 1, 0.75),
    ):
        write_result(out, accuracy, target=target, algorithm=algorithm, trial_seed=trial)


def test_cells_and_averages_by_hand(tmp_path: Path) -> None:
    write_table(tmp_path)
    by_target, summary = tables(tmp_path)
    assert [column.label for column in by_target.columns] == ["domain 0", "domain 1", "Avg"]
    assert means(by_target) == {"erm": [65.0, 85.0, 75.0], "hgp": [68.0, 80.0, 74.0]}
    erm = by_target.rows[0]
    assert erm.label == "ERM"
    # ±5 around the mean: population deviation 5, over the root of 2; sample deviation 7.07
    assert erm.cells[0].standard_error == pytest.approx(5 / 2**0.5)
    assert erm.cells[0].sample_deviation == pytest.approx(50**0.5)
    assert (erm.cells[0].n, erm.cells[0].runs) == (2, 2)
    assert erm.cells[2].standard_error is None
    # summary: trial means of ERM are 70 and 80, of HGP 74.5 and 73.5
    assert [column.label for column in summary.columns] == ["toy", "Avg"]
    assert means(summary) == {"erm": [75.0, 75.0], "hgp": [74.0, 74.0]}
    assert summary.rows[0].cells[0].standard_error == pytest.approx(5 / 2**0.5)
    assert summary.rows[1].cells[0].standard_error == pytest.approx(0.5 / 2**0.5)


def test_domainbeds_folder_gives_domainbeds_table(tmp_path: Path) -> None:
    """Three environments, each left out in two trials, two draws each; every number here is set by hand."""
    for trial in (0, 1):
        for target in (0, 1, 2):
            for draw in (0, 1):
                # draw 1 has the better validation; its test accuracy is 0.5 + target/8 + trial/16
                test = 0.5 + target / 8 + trial / 16 if draw else 1.0
                evaluation = [(test if e == target else 1.0, 0.25 + draw / 4) for e in range(3)]
                write_domainbed_run(
                    tmp_path / f"{trial}{target}{draw}",
                    {0: evaluation},
                    test_envs=[target],
                    trial_seed=trial,
                    hparams_seed=draw,
                )
    report = make_report(read_sweep(tmp_path), ["source-validation", "oracle"])
    for by_target, summary in (report.tables[:2], report.tables[2:]):
        assert means(by_target) == {"erm": [53.125, 65.625, 78.125, 65.625]}
        assert [cell.standard_error for cell in by_target.rows[0].cells[:3]] == pytest.approx(
            [3.125 / 2**0.5] * 3
        )
        assert summary.rows[0].cells[0].mean == pytest.approx(65.625)
        assert summary.rows[0].cells[0].standard_error == pytest.approx(3.125 / 2**0.5)


def test_summary_over_datasets_in_the_order_of_the_field(tmp_path: Path) -> None:
    for dataset, accuracy in (("pacs", 0.8), ("vlcs", 0.6), ("mine", 0.1)):
        write_result(tmp_path, accuracy, dataset=dataset)
    *_, summary = tables(tmp_path)
    assert [column.label for column in summary.columns] == ["VLCS", "PACS", "mine", "Avg"]
    assert means(summary) == {"erm": [60.0, 80.0, 10.0, 50.0]}


def test_rows_are_in_the_order_of_the_papers_tables(tmp_path: Path) -> None:
    for algorithm in ("zebra", "hgp", "erm", "aardvark", "irm", "exact_hessian"):
        write_result(tmp_path, 0.5, algorithm=algorithm)
    table, _ = tables(tmp_path)
    assert [row.label for row in table.rows] == ["ERM", "IRM", "HGP", "Exact Hessian", "aardvark", "zebra"]


def ranks(*values: float | None, **fields) -> list[str | None]:
    rows = [
        Row(algorithm=str(i), label="", cells=(Cell(mean=value, **fields),)) for i, value in enumerate(values)
    ]
    return [row.cells[0].rank for row in finished_rows(rows)]


def test_ranks_go_by_the_printed_decimal_and_are_shared() -> None:
    assert ranks(70.0, 71.04, 70.96, 69.0) == ["second", "best", "best", None]
    assert ranks(70.04, 70.0, 71.0, 69.0) == ["second", "second", "best", None]
    assert ranks(70.0, None, float("nan"), 69.0) == ["best", None, None, "second"]
    assert ranks(70.0, 70.0) == ["best", "best"]
    assert ranks(70.0) == [None]
    assert ranks(70.0, 71.0, every_target=False) == [None, None]


def test_a_missing_target_leaves_the_average_open(tmp_path: Path) -> None:
    write_table(tmp_path)
    write_result(tmp_path, 0.99, target=0, algorithm="irm")
    by_target, summary = tables(tmp_path)
    assert means(by_target)["irm"] == [99.0, None, None]
    irm = {row.algorithm: row for row in summary.rows}["irm"].cells[0]
    assert (irm.mean, irm.every_target, irm.rank) == (99.0, False, None)
    assert {row.algorithm: row for row in summary.rows}["erm"].cells[0].rank == "best"
    assert any(sentence.startswith("‡") for sentence in summary.explanations)


def test_cells_with_fewer_runs_are_marked(tmp_path: Path) -> None:
    write_table(tmp_path)
    write_result(tmp_path, 0.5, target=0, algorithm="erm", hparams_seed=1)
    by_target, _ = tables(tmp_path)
    assert [[cell.fewer_runs for cell in row.cells] for row in by_target.rows] == [
        [False, False, False],
        [True, False, False],
    ]
    assert any(sentence.startswith("†") for sentence in by_target.explanations)


def test_differences_by_hand(tmp_path: Path) -> None:
    """HGP minus ERM: 4 and 2 on domain 0, 5 and −15 on domain 1."""
    write_table(tmp_path)
    write_result(tmp_path, 0.9, target=1, algorithm="irm", trial_seed=7)  # no partner
    *_, table = tables(tmp_path, baseline="erm")
    assert table.kind == "differences"
    assert [row.algorithm for row in table.rows] == ["irm", "hgp"]
    assert means(table) == {"irm": [None, None, None], "hgp": [3.0, -5.0, -1.0]}
    first, second, both = table.rows[1].cells
    assert (first.n, second.n, both.n) == (2, 2, 4)
    assert first.standard_error == pytest.approx(2**0.5 / 2**0.5)
    assert second.standard_error == pytest.approx(200**0.5 / 2**0.5)
    # 5, 3, 6 and −14 from their mean −1
    assert both.sample_deviation == pytest.approx(((25 + 9 + 36 + 196) / 3) ** 0.5)
    assert both.standard_error == pytest.approx(((25 + 9 + 36 + 196) / 3) ** 0.5 / 2)


def test_an_unknown_baseline_is_refused(tmp_path: Path) -> None:
    write_table(tmp_path)
    with pytest.raises(ValueError, match="baseline: 'coral' has no runs here; allowed are erm, hgp"):
        tables(tmp_path, baseline="coral")


def test_each_setting_has_tables_of_its_own(tmp_path: Path) -> None:
    write_result(tmp_path, 0.6, dataset="vlcs")
    write_result(tmp_path, 0.7, dataset="vlcs", steps=41)
    write_result(tmp_path, 0.8, dataset="pacs", steps=41)
    found = tables(tmp_path)
    assert [(table.title.split(",")[0], table.setting, means(table)["erm"]) for table in found] == [
        ("VLCS", "steps 21", [60.0, 60.0]),
        ("VLCS", "steps 41", [70.0, 70.0]),
        ("PACS", "steps 41", [80.0, 80.0]),
        ("Averages over target domains", "steps 21", [60.0, 60.0]),
        ("Averages over target domains", "steps 41", [70.0, 80.0, 75.0]),
    ]
    assert all(f"[{table.setting}]" in table.title for table in found)


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    four = ("vlcs", "pacs", "office_home", "domain_net")
    for dataset in four:
        for target in (0, 1):
            write_result(tmp_path, 0.5, dataset=dataset, target=target)
    vlcs, *_, summary = tables(tmp_path, compare=True)
    assert [cell.published for cell in vlcs.rows[0].cells] == [None, None, 77.5]
    assert [cell.published for cell in summary.rows[0].cells] == [77.5, 85.5, 66.5, 40.9, 67.6]
    assert "Table 9" in str(summary.rows[0].cells[0].published_source)
    assert make_report(read_sweep(tmp_path), ["source-validation"], compare=True).notes == ()
    assert any(sentence.startswith("Published: Hemati") for sentence in summary.explanations)
    assert all(cell.published is None for cell in tables(tmp_path)[-1].rows[0].cells)


def test_part_of_a_dataset_is_not_compared_with_the_whole(tmp_path: Path) -> None:
    write_result(tmp_path, 0.5, dataset="vlcs", target=0)
    for table in tables(tmp_path, compare=True):
        assert [cell.published for cell in table.rows[0].cells] == [None, None]
    told = "No published figure fits these runs"
    notes = {
        compare: make_report(read_sweep(tmp_path), ["source-validation"], compare=compare).notes
        for compare in (False, True)
    }
    assert [any(told in note for note in notes[compare]) for compare in (False, True)] == [False, True]


def test_a_rule_without_results_says_why(tmp_path: Path) -> None:
    write_table(tmp_path)
    report = make_report(read_sweep(tmp_path), ["leave-one-domain-out"])
    assert report.tables == ()
    assert report.notes[-1].endswith("needs runs with every pair of target domains.")


def test_pairs_alone_are_refused(tmp_path: Path) -> None:
    write_own_run(tmp_path, {20: [(0.5, 0.5)] * 3}, target_domains=(0, 1))
    with pytest.raises(ValueError, match="no run has a single target domain"):
        tables(tmp_path)


def test_hashes_are_shown_by_their_first_digits(tmp_path: Path) -> None:
    for data in ("a" * 64, "b" * 64):
        write_result(tmp_path, 0.5, dataset="features_file", data=data)
    titles = [table.title for table in tables(tmp_path) if table.kind == "targets"]
    assert [title.rpartition(" [")[2] for title in titles] == ["data aaaaaaaaaaaa]", "data bbbbbbbbbbbb]"]
