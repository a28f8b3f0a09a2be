"""What a step costs."""

from __future__ import annotations

from typing import Any

from domainbed_adm.leaderboard import Board
from domainbed_adm.report.section_tables import cost_tables
from domainbed_adm.report.tables import Table
from tests.runs import as_runs, record


def timed(algorithm: str, *times: Any, device: str = "cpu", **more: Any) -> list[dict[str, Any]]:
    return [
        record((0.5, 0.5), step=step, algorithm=algorithm, step_time=time, provenance={"device": device}, **more)
        for step, time in enumerate(times)
    ]


def tables(*groups: list[dict[str, Any]]) -> list[Table]:
    return cost_tables(Board(as_runs(*(one for group in groups for one in group)), []))


def shown(table: Table) -> list[list[str]]:
    return [[*row.labels, *(cell.text for cell in row.cells)] for row in table.rows]


def test_median_without_the_first_step_as_ratio_to_sam() -> None:
    (table,) = tables(timed("ERM", 9.0, 0.1), timed("SAM", 9.0, 0.1, 0.2, 0.7), timed("SAM_ADM", None, float("nan")))
    assert table.caption == "PACS, on cpu"
    assert table.columns == ["× SAM", "ms a step"]
    assert shown(table) == [["ERM", "0.50", "100.0"], ["SAM", "1.00", "200.0"]]
    assert [row.cells[1].share for row in table.rows] == [0.5, 1.0]


def test_without_sam_the_ratio_is_to_erm_and_without_both_there_is_none() -> None:
    assert tables(timed("ERM", 0.1), timed("SAGM", 0.2))[0].columns[0] == "× ERM"
    assert tables(timed("SAGM", 0.2))[0].columns == ["ms a step"]


def test_devices_and_datasets_are_not_mixed() -> None:
    found = tables(
        timed("SAM", 0.1, device="b"),
        timed("SAM", 0.4, device="a", mem_gb=2.0, trial_seed=1),
        timed("SAM", 0.2, dataset="VLCS"),
    )
    assert [(table.caption, shown(table)[0][1:]) for table in found] == [
        ("VLCS, on cpu", ["1.00", "200.0"]),
        ("PACS, on a", ["1.00", "400.0", "2.00"]),
        ("PACS, on b", ["1.00", "100.0"]),
    ]


def test_without_step_times_there_is_no_table() -> None:
    assert tables([record((0.5, 0.5))]) == []


def test_a_time_that_is_no_float_is_not_known() -> None:
    assert tables(timed("ERM", 10**400)) == []
    assert shown(tables(timed("ERM", 0.1, mem_gb=10**400))[0]) == [["ERM", "1.00", "100.0"]]


def test_a_run_that_went_on_elsewhere_stands_apart() -> None:
    moved = timed("SAM", 0.1, device="a") + [{**one, "step": 1} for one in timed("SAM", 0.4, device="b")]
    assert [table.caption for table in tables(moved)] == ["PACS, on a, then b"]
