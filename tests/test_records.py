from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.records import accuracy, append, environment_count, load_records
from tests.runs import DATA, record, write


def test_append_writes_whole_sorted_lines_of_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(path, {"step": np.int64(3), "loss": math.nan, "acc": np.float32(0.5), "list": (1, [math.inf])})
    append(path, {"a": np.array([1.5, math.nan])})
    assert path.read_text() == '{"acc": 0.5, "list": [1, [null]], "loss": null, "step": 3}\n{"a": [1.5, null]}\n'


def test_append_after_a_torn_line_spoils_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"args": {"trial_se')
    append(path, record((0.5, 0.5), step=7))
    assert [one["step"] for one in load_records(tmp_path)] == [7]
    assert capsys.readouterr().err == f"warning: {path} line 1 left out: not a whole JSON object (torn?)\n"


def test_append_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        append(tmp_path / "results.jsonl", {"x": object()})
    assert not (tmp_path / "results.jsonl").exists()


def test_load_reads_run_folders_in_sorted_order_and_the_folder_itself(tmp_path: Path) -> None:
    write(tmp_path / "b", record((0.1, 0.1), step=2))
    write(tmp_path / "a", record((0.1, 0.1), step=1))
    write(tmp_path, record((0.1, 0.1), step=0))
    (tmp_path / "c").mkdir()
    assert [one["step"] for one in load_records(tmp_path)] == [0, 1, 2]


def test_domainbeds_records_of_2020_read_the_same() -> None:
    records = load_records(DATA / "domainbed_sweep")
    assert len(records) == 200
    assert {environment_count(one) for one in records} == {4}


FOREIGN = {
    "[1]": "not a JSON object",
    '{"step": 1}': "no args",
    '{"step": 1, "args": {"trial_seed": "0"}}': "args has no trial_seed of type int",
    json.dumps({**record(), "hparams": [None]}): "hparams is not a JSON object",
    json.dumps({**record(), "step": None}): "no step",
    json.dumps({**record(), "step": math.nan}): "no step",
    json.dumps({**record(), "step": True}): "no step",
    json.dumps(record(test_envs=())): "args.test_envs is not a list of environment numbers",
    "\udcff{}": "not a whole JSON object (torn?)",
}


@pytest.mark.parametrize(("line", "fault"), FOREIGN.items())
def test_a_foreign_line_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, fault: str
) -> None:
    path = write(tmp_path / "run", record(step=5)) / "results.jsonl"
    with path.open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n\n")
    assert [one["step"] for one in load_records(tmp_path)] == [5]
    assert capsys.readouterr().err == f"warning: {path} line 2 left out: {fault}\n"


def test_a_step_recorded_twice_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """DomainBed appends to the file where a run is started again; the last word counts."""
    first = [record((0.1, 0.1), step=step) for step in (0, 300)]
    again = [record((0.2, 0.2), step=step) for step in (0, 300, 600)]
    path = write(tmp_path / "run", *first, *again) / "results.jsonl"
    found = load_records(tmp_path)
    assert [(one["step"], one["env0_in_acc"]) for one in found] == [(0, 0.2), (300, 0.2), (600, 0.2)]
    assert capsys.readouterr().err == f"warning: {path}: 2 steps are recorded twice; the last of each counts\n"


def test_other_runs_at_the_same_step_are_no_doubles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run", record(), record(hparams_seed=1), record(test_envs=(0, 1)))
    assert len(load_records(tmp_path)) == 3
    assert capsys.readouterr().err == ""


def test_no_folder_and_no_record_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder .*nowhere: --input_dir is the output_dir of a sweep or of one run"):
        load_records(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"found no results.jsonl in .* holds: photos$"):
        load_records(tmp_path)
    (tmp_path / "results.jsonl").write_text("\n")
    with pytest.raises(UserError, match="found no record in"):
        load_records(tmp_path)


def test_accuracy_is_missing_where_absent_null_or_nan() -> None:
    one = record((None, math.nan), (0.25, 1))
    assert [accuracy(one, 0, "in"), accuracy(one, 0, "out"), accuracy(one, 2, "in")] == [None, None, None]
    assert [accuracy(one, 1, "in"), accuracy(one, 1, "out")] == [0.25, 1.0]
    assert environment_count(one) == 2
