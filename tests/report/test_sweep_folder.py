"""What is found in a sweep's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.report.sweep_folder import read_sweep
from domainbed_adm.sweeping import failures
from domainbed_adm.system.disk import run_lock
from tests.runs import DATA, record, write


def run(folder: Path, step: int, *, done: bool = False, **more: object) -> Path:
    write(folder, record((0.5, 0.5), (0.5, 0.5), step=step, **more))
    if done:
        (folder / "done").write_text("done")
    return folder


def test_states_and_labels(tmp_path: Path) -> None:
    run(tmp_path / "a", 9, done=True)
    run(tmp_path / "b", 4, algorithm="SAM")
    failures.write(run(tmp_path / "c", 4, algorithm="SAGM"), 1, ["ValueError: no luck"], 1)
    failures.write(tmp_path / "d", 2, ["no data"], 1, "FSAM on PACS")
    failures.write(tmp_path / "e", 2, [], 1)
    (tmp_path / "figures").mkdir()
    with run_lock(run(tmp_path / "f", 4, algorithm="SPL_ADM")):
        found = read_sweep(tmp_path)
    assert [(one.folder.name, one.state, one.label) for one in found.runs] == [
        ("a", "done", "ERM on PACS, test_envs 0"),
        ("b", "incomplete", "SAM on PACS, test_envs 0"),
        ("c", "failed", "SAGM on PACS, test_envs 0"),
        ("d", "failed", "FSAM on PACS"),
        ("e", "failed", "e"),
        ("f", "running", "SPL_ADM on PACS, test_envs 0"),
    ]
    assert found.counts() == {"done": 1, "failed": 3, "running": 1, "incomplete": 1}


def test_runs_whose_records_reach_the_end_are_done_without_the_file(tmp_path: Path) -> None:
    run(tmp_path / "a", 9)
    run(tmp_path / "b", 8)
    assert [one.state for one in read_sweep(tmp_path).runs] == ["done", "incomplete"]
    assert read_sweep(DATA / "domainbed_sweep").counts() == {"done": 40, "failed": 0, "running": 0}


def test_names_that_no_terminal_takes_are_the_same_in_the_records_and_the_labels(tmp_path: Path) -> None:
    run(tmp_path / "a", 8, dataset="M\x00")
    run(tmp_path / "b", 9, dataset="M\x00", algorithm="\ud800")
    found = read_sweep(tmp_path)
    assert [one.label for one in found.runs if one.state != "done"] == [r"ERM on M\x00, test_envs 0"]
    assert found.recorded[1].algorithm == r"\ud800"


def test_one_run_is_a_sweep_of_one(tmp_path: Path) -> None:
    assert [one.folder for one in read_sweep(run(tmp_path, 9, done=True)).runs] == [tmp_path]


def test_warnings_are_kept_and_still_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run(tmp_path / "a", 9) / "results.jsonl"
    path.write_text(path.read_text() + '{"torn')
    (line,) = read_sweep(tmp_path).warnings
    assert line.startswith(f"{path} line 2 left out")
    assert capsys.readouterr().err == f"warning: {line}\n"


@pytest.mark.parametrize(("name", "message"), [("none", "no folder .*none: give the output_dir"), (".", "found no")])
def test_nothing_to_read_is_one_line(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_sweep(tmp_path / name)
