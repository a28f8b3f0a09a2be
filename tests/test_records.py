from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.records import accuracy, append, environment_count, finite, load_records, read_file
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


def with_args(**args: object) -> dict:
    return {**record(), "args": {**record()["args"], **args}}


def nested(levels: int) -> dict:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return {**record(), "hparams": {"x": value}}


NO_ENVIRONMENTS = "args.test_envs is not a list of distinct environment numbers"
TOO_DEEP = "lists and objects nested deeper than 50 levels"
FOREIGN = {
    "[1]": "not a JSON object",
    '{"step": 1}': "no args",
    '{"step": 1, "args": {"trial_seed": "0"}}': "args has no trial_seed of type int",
    json.dumps(with_args(trial_seed=True)): "args has no trial_seed of type int",
    json.dumps(with_args(hparams_seed=0.0)): "args has no hparams_seed of type int",
    json.dumps(with_args(algorithm=["ERM"])): "args has no algorithm of type str",
    json.dumps({**record(), "hparams": [None]}): "hparams is not a JSON object",
    json.dumps({**record(), "provenance": None}): "provenance is not a JSON object",
    json.dumps({**record(), "step": None}): "no step",
    json.dumps({**record(), "step": math.nan}): "no step",
    json.dumps({**record(), "step": True}): "no step",
    json.dumps({**record(), "step": -1}): "no step",
    json.dumps({**record(), "step": 10**400}): "no step",
    json.dumps(with_args(test_envs=[])): NO_ENVIRONMENTS,
    json.dumps(with_args(test_envs=[False])): NO_ENVIRONMENTS,
    json.dumps(with_args(test_envs=[-1])): NO_ENVIRONMENTS,
    json.dumps(with_args(test_envs=[0.0])): NO_ENVIRONMENTS,
    json.dumps(with_args(test_envs=[1, 1])): NO_ENVIRONMENTS,
    json.dumps(with_args(test_envs=[[0]])): NO_ENVIRONMENTS,
    json.dumps(record((0.5, 0.5), test_envs=(10**400,))): "args.test_envs names an environment without accuracies",
    json.dumps(record((10**400, 0.5))): "env0_in_acc is not a number in [0, 1]",
    json.dumps(record((0.5, 1.5))): "env0_out_acc is not a number in [0, 1]",
    json.dumps(record((math.inf, 0.5))): "env0_in_acc is not a number in [0, 1]",
    json.dumps(record((True, 0.5))): "env0_in_acc is not a number in [0, 1]",
    json.dumps({**record((0.5, 0.5)), "env0_in_acc": "0.5"}): "env0_in_acc is not a number in [0, 1]",
    "[" * 100_000: TOO_DEEP,
    json.dumps(nested(49)): TOO_DEEP,
    "9" * 5000: "not a whole JSON object (torn?)",
    "\udcff{}": "not a whole JSON object (torn?)",
}


@pytest.mark.parametrize(("line", "fault"), FOREIGN.items(), ids=range(len(FOREIGN)))
def test_a_foreign_line_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, fault: str
) -> None:
    path = write(tmp_path / "run", record(step=5)) / "results.jsonl"
    with path.open("ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n\n")
    assert [one["step"] for one in load_records(tmp_path)] == [5]
    assert capsys.readouterr().err == f"warning: {path} line 2 left out: {fault}\n"


ODD = [
    {**record((0.5, None), (math.nan, 0.1)), "step": 2.5},
    nested(48),
    with_args(trial_seed=-1, hparams_seed=10**400, holdout_fraction=["x", {}], more=None),
    {**record(), "step_time": "slow", "loss": 10**400, "env1_uda_acc": {}},
]


@pytest.mark.parametrize("one", ODD, ids=range(len(ODD)))
def test_an_odd_record_is_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str], one: dict) -> None:
    write(tmp_path / "run", one)
    assert json.dumps(load_records(tmp_path)) == json.dumps([one])
    assert capsys.readouterr().err == ""


def test_what_a_terminal_would_obey_is_escaped_in_names_and_only_there(tmp_path: Path) -> None:
    evil = "\x1b[31mred\n\x9b\ud800\u202e"
    shown = r"\x1b[31mred\n\x9b\ud800\u202e"
    origin = {"environments": [evil, "café"], evil: 1}
    write(tmp_path / "run", record(algorithm=evil, dataset="日本", provenance=origin))
    (found,) = load_records(tmp_path)
    assert (found["args"]["algorithm"], found["args"]["dataset"]) == (shown, "日本")
    assert found["provenance"] == {"environments": [shown, "café"], shown: 1}
    (raw,) = read_file(tmp_path / "run/results.jsonl")
    assert raw["args"]["algorithm"] == evil


def test_a_warning_stays_one_harmless_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run\x1b[2J\n", record(), {"step": 1})
    load_records(tmp_path)
    assert capsys.readouterr().err == rf"warning: {tmp_path}/run\x1b[2J\n/results.jsonl line 2 left out: no args" + "\n"


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "run", record()) / "results.jsonl"

    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError) as caught:
        load_records(tmp_path)
    assert str(caught.value) == f"cannot read {path}: Permission denied"


def test_a_reader_of_warnings_that_has_enough_is_no_unreadable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "run", record(), {"step": 1})

    def close(message: str) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("domainbed_adm.records.warn", close)
    with pytest.raises(BrokenPipeError):
        load_records(tmp_path)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A pipe would be waited for."""
    write(tmp_path / "run", record())
    (tmp_path / "folder" / "results.jsonl").mkdir(parents=True)
    os.mkfifo(tmp_path / "results.jsonl")
    assert len(load_records(tmp_path)) == 1


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1.0), (-0.5, -0.5), (1e308, 1e308), (10**308, 1e308)]
    + [(value, None) for value in (10**309, math.inf, -math.inf, math.nan, True, None, "1", [1], {})],
)
def test_finite(value: object, number: float | None) -> None:
    assert finite(value) == number


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


def test_accuracy_is_missing_where_absent_null_or_no_fraction() -> None:
    one = record((None, math.nan), (0.25, 1), (10**400, 1.5))
    assert [accuracy(one, 0, "in"), accuracy(one, 0, "out"), accuracy(one, 3, "in")] == [None, None, None]
    assert [accuracy(one, 1, "in"), accuracy(one, 1, "out")] == [0.25, 1.0]
    assert [accuracy(one, 2, "in"), accuracy(one, 2, "out")] == [None, None]
    assert environment_count(one) == 3
