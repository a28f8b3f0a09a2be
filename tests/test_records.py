from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.recorded_run import Runs
from domainbed_adm.records import append, keep_steps, load_runs, read_ends, read_runs
from tests.runs import DATA, as_runs, read_records, record, write


def steps(runs: Runs) -> list[float]:
    return [step for run in runs for step in run.steps.tolist()]


def test_append_writes_whole_sorted_lines_of_plain_json(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append(path, {"step": np.int64(3), "loss": math.nan, "acc": np.float32(0.5), "list": (1, [math.inf])})
    append(path, {"a": np.array([1.5, math.nan])})
    assert path.read_text() == '{"acc": 0.5, "list": [1, [null]], "loss": null, "step": 3}\n{"a": [1.5, null]}\n'


def test_append_after_a_torn_line_spoils_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"args": {"trial_se')
    append(path, record((0.5, 0.5), step=7))
    assert steps(load_runs(tmp_path)) == [7]
    assert capsys.readouterr().err == f"warning: {path} line 1 left out: not a whole JSON object (torn?)\n"


def test_append_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        append(tmp_path / "results.jsonl", {"x": object()})
    assert not (tmp_path / "results.jsonl").exists()


def test_load_reads_run_folders_in_sorted_order_and_the_folder_itself(tmp_path: Path) -> None:
    write(tmp_path / "b", record((0.1, 0.1), step=2))
    write(tmp_path / "a", record((0.1, 0.1), step=1, trial_seed=1))
    write(tmp_path, record((0.1, 0.1), step=0, trial_seed=2))
    (tmp_path / "c").mkdir()
    runs = load_runs(tmp_path)
    assert steps(runs) == [0, 1, 2]
    assert [run.folder for run in runs] == [tmp_path, tmp_path / "a", tmp_path / "b"]


def test_domainbeds_records_of_2020_read_the_same() -> None:
    runs = load_runs(DATA / "domainbed_sweep")
    assert (len(runs), runs.n_records) == (40, 200)
    assert {run.n_envs for run in runs} == {4}
    for run in runs:
        lines = read_records(run.folder)
        assert all(line["args"] == run.args and line["hparams"] == run.hparams for line in lines)
        for name in lines[0].keys() - {"args", "hparams"}:
            assert run.column(name).tolist() == [line[name] for line in lines]


def with_args(**args: object) -> dict:
    return {**record(), "args": {**record()["args"], **args}}


FOREIGN = {
    "[1]": "Expected `object`, got `array`",
    '{"step": 1}': "Object missing required field `args`",
    '{"step": 1, "args": {"trial_seed": "0"}}': "args: Expected `int`, got `str` - at `$.trial_seed`",
    '{"step": 1, "args": []}': "args: Expected `object`, got `array`",
    json.dumps(with_args(trial_seed=True)): "args: Expected `int`, got `bool` - at `$.trial_seed`",
    json.dumps(with_args(hparams_seed=0.0)): "args: Expected `int`, got `float` - at `$.hparams_seed`",
    json.dumps(with_args(algorithm=["ERM"])): "args: Expected `str`, got `array` - at `$.algorithm`",
    json.dumps({**record(), "hparams": [None]}): "hparams is not a JSON object",
    json.dumps({**record(), "provenance": None}): "provenance is not a JSON object",
    json.dumps({**record(), "step": None}): "Expected `float`, got `null` - at `$.step`",
    json.dumps({**record(), "step": math.nan}): "Expected `float`, got `null` - at `$.step`",
    json.dumps({**record(), "step": True}): "Expected `float`, got `bool` - at `$.step`",
    json.dumps({**record(), "step": -1}): "Expected `float` >= 0.0 - at `$.step`",
    json.dumps({**record(), "step": 10**400}): "Expected `float`, got `null` - at `$.step`",
    json.dumps(with_args(test_envs=[])): "args: Expected `array` of length >= 1 - at `$.test_envs`",
    json.dumps(with_args(test_envs=[False])): "args: Expected `int`, got `bool` - at `$.test_envs[0]`",
    json.dumps(with_args(test_envs=[-1])): "args: Expected `int` >= 0 - at `$.test_envs[0]`",
    json.dumps(with_args(test_envs=[1, 1])): "args: test_envs names an environment twice",
    json.dumps(record((0.5, 0.5), test_envs=(9,))): "args.test_envs names an environment without accuracies",
    json.dumps(record((0.5, 1.5))): "Expected `float` <= 1.0 - at `$.env0_out_acc`",
    json.dumps(record((True, 0.5))): "Expected `float | null`, got `bool` - at `$.env0_in_acc`",
    json.dumps({**record((0.5, 0.5)), "env0_in_acc": "0.5"}): "Expected `float | null`, got `str` - at `$.env0_in_acc`",
    "[" * 100_000: "lists and objects nested too deep",
    "9" * 5000: "not a whole JSON object (torn?)",
    "\udcff{}": "not a whole JSON object (torn?)",
}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(("line", "fault"), FOREIGN.items(), ids=range(len(FOREIGN)))
def test_a_foreign_line_is_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, fault: str, before: bool
) -> None:
    path = write(tmp_path / "run", record((0.5, 0.5), step=5)) / "results.jsonl"
    foreign = line.encode(errors="surrogateescape") + b"\n\n"
    path.write_bytes(foreign + path.read_bytes() if before else path.read_bytes() + foreign)
    assert steps(load_runs(tmp_path)) == [5]
    assert capsys.readouterr().err == f"warning: {path} line {1 if before else 2} left out: {fault}\n"


ODD = [
    ({**record((0.5, None), (math.nan, 0.1)), "step": 2.5}, {"step": 2.5, "env0_in_acc": 0.5, "env1_out_acc": 0.1}),
    ({**record((0.5, math.inf)), "loss": math.nan, "hparams": {"x": math.nan}}, {"env0_in_acc": 0.5}),
    (with_args(trial_seed=-1, hparams_seed=10**40, holdout_fraction=["x", {}], more=None), {"step": 0}),
    ({**record((0.5, 1)), "step_time": "slow", "loss": 10**400, "env1_uda_acc": {}, "x y": 1}, {"x y": 1.0}),
]


@pytest.mark.parametrize(("one", "known"), ODD, ids=range(len(ODD)))
@pytest.mark.parametrize("behind", [True, False])
def test_an_odd_record_is_a_record_and_what_is_no_number_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], one: dict, known: dict, behind: bool
) -> None:
    plain = {**record((0.2, 0.2), (0.2, 0.2), step=99), "args": one["args"], "loss": 1.0, "step_time": 1.0}
    write(tmp_path / "run", *([plain, one] if behind else [one]))
    (run,) = load_runs(tmp_path)
    assert run.args == one["args"]
    assert {name: run.column(name)[-1] for name in known} == known
    for name in ("loss", "env1_in_acc", "env0_uda_acc", "step_time"):
        assert math.isnan(run.column(name)[-1])
    assert capsys.readouterr().err == ""


def test_what_a_terminal_would_obey_is_escaped_in_names_and_only_there(tmp_path: Path) -> None:
    evil = "\x1b[31mred\n\x9b\u202e"
    shown = r"\x1b[31mred\n\x9b\u202e"
    origin = {"environments": [evil, "café"], evil: 1}
    write(tmp_path / "run", record(algorithm=evil, dataset="日本", provenance=origin))
    (run,) = load_runs(tmp_path)
    assert (run.algorithm, run.dataset) == (shown, "日本")
    assert run.provenance == {"environments": [shown, "café"], shown: 1}
    (raw,) = read_runs(tmp_path / "run/results.jsonl")
    assert raw.algorithm == evil


def test_half_a_character_as_python_writes_it_is_escaped(tmp_path: Path) -> None:
    """From a folder whose name is not UTF-8."""
    first, later = (record((0.5, 0.5), step=step, loss=loss) for step, loss in ((0, 1.0), (5, math.nan)))
    for one in (first, later):
        one["args"]["data_dir"] = "data\udcff"
    (run,) = load_runs(write(tmp_path, first, later))
    assert (run.args["data_dir"], run.steps.tolist()) == (r"data\udcff", [0, 5])


def test_nan_in_a_later_line_does_not_split_a_run(tmp_path: Path) -> None:
    origin = {"device": "cpu"}
    lines = [record((0.5, 0.5), step=i, loss=loss, provenance=origin) for i, loss in enumerate((1.0, math.nan, 3.0))]
    (run,) = load_runs(write(tmp_path, *lines, {**lines[1], "loss": 2.0}))
    assert (run.column("loss").tolist(), run.provenances) == ([1.0, 2.0, 3.0], (origin,))


def test_a_warning_stays_one_harmless_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run\x1b[2J\n", record(), {"step": 1})
    load_runs(tmp_path)
    assert (
        capsys.readouterr().err
        == rf"warning: {tmp_path}/run\x1b[2J\n/results.jsonl line 2 left out: Object missing required field `args`"
        + "\n"
    )


def test_a_file_that_cannot_be_read_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "run", record()) / "results.jsonl"

    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("domainbed_adm.records.open", refuse, raising=False)
    with pytest.raises(UserError) as caught:
        load_runs(tmp_path)
    assert str(caught.value) == f"cannot read {path}: Permission denied"


def test_a_reader_of_warnings_that_has_enough_is_no_unreadable_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "run", record(), {"step": 1})

    def close(message: str) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("domainbed_adm.record_lines.warn", close)
    with pytest.raises(BrokenPipeError):
        load_runs(tmp_path)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A pipe would be waited for."""
    write(tmp_path / "run", record())
    (tmp_path / "folder" / "results.jsonl").mkdir(parents=True)
    os.mkfifo(tmp_path / "results.jsonl")
    assert len(load_runs(tmp_path)) == 1


def test_a_step_recorded_twice_counts_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """DomainBed appends to the file where a run is started again; the last word counts."""
    first = [record((0.1, 0.1), step=step) for step in (0, 300)]
    again = [record((0.2, 0.2), step=step) for step in (0, 300, 600)]
    path = write(tmp_path / "run", *first, *again) / "results.jsonl"
    (run,) = load_runs(tmp_path)
    assert run.steps.tolist() == [0, 300, 600]
    assert run.accuracy(0, "in").tolist() == [0.2] * 3
    assert capsys.readouterr().err == f"warning: {path}: 2 steps are recorded twice; the last of each counts\n"


def test_other_runs_at_the_same_step_are_no_doubles(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "run", record(), record(hparams_seed=1), record(test_envs=(0, 1)))
    assert len(load_runs(tmp_path)) == 3
    assert capsys.readouterr().err == ""


def test_runs_that_a_table_cannot_tell_apart_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The one of 20 steps has the better checkpoint, and must not win with it."""

    def run(folder: str, steps: int, accuracy: float, **more: Any) -> None:
        lines = [record((accuracy, accuracy), (accuracy, accuracy), step=step, **more) for step in (0, steps - 1)]
        write(tmp_path / folder, *({**line, "args": {**line["args"], "steps": steps}} for line in lines))

    run("a", 20, 0.9)
    run("b", 60, 0.5)
    run("c", 60, 0.5, trial_seed=1)
    assert [(run.folder.name, run.last_step) for run in load_runs(tmp_path)] == [("b", 59), ("c", 59)]
    assert capsys.readouterr().err == (
        f"warning: {tmp_path}/a and {tmp_path}/b hold two runs of ERM on PACS, test_envs 0, trial 0, hparams 0 "
        "(steps 20 and 60): only that in b counts, to step 59\n"
    )
    for i in range(9):
        run(f"d{i}", 60, 0.5, trial_seed=1)
    assert [run.folder.name for run in load_runs(tmp_path)] == ["b", "d8"]
    assert "5 more runs are left out for the same reason" in capsys.readouterr().err


def test_no_folder_and_no_record_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no folder .*nowhere: give the output_dir of a sweep or of one run"):
        load_runs(tmp_path / "nowhere")
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match=r"found no results.jsonl in .* holds: photos$"):
        load_runs(tmp_path)
    (tmp_path / "results.jsonl").write_text("\n")
    with pytest.raises(UserError, match="found no record in"):
        load_runs(tmp_path)


def test_keep_steps_leaves_the_lines_as_they_are(tmp_path: Path) -> None:
    lines = [json.dumps(record((value, 0.1), step=step)) for step, value in ((0, 0.1), (5, 0.2), (9, 0.3), (5, 0.4))]
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join([*lines, '{"torn']))
    keep_steps(path, [5, 0, 7])
    assert path.read_text() == f"{lines[3]}\n{lines[0]}\n"


def test_runs_of_one_file_may_record_other_numbers() -> None:
    wide = record(*[(0.5, 0.5)] * 6, algorithm="A", extra=1)
    narrow = record(*[(0.6, 0.6)] * 2, algorithm="B")
    assert [(run.n_envs, "extra" in run.columns.place) for run in as_runs(wide, narrow)] == [(6, True), (2, False)]


@pytest.mark.parametrize("padding", ["", "x" * 6000, "x" * 9000])
def test_the_ends_of_a_run_are_its_first_and_last_record(tmp_path: Path, padding: str) -> None:
    lines = [record((0.1 * step, 0.1), step=step, hparams={"a": padding}) for step in range(5)]
    path = write(tmp_path / "run", *lines) / "results.jsonl"
    (ends,), (run,) = read_ends(path), read_runs(path)
    whole = len(padding) > 8192  # no end holds a line
    assert ends.steps.tolist() == (run.steps.tolist() if whole else [0, 4])
    assert ends.accuracy(0, "in")[-1] == run.accuracy(0, "in")[-1]
    assert (ends.hparams, ends.folder) == (run.hparams, run.folder)


def test_what_is_no_whole_run_is_read_whole(tmp_path: Path) -> None:
    lines = [record(step=step, trial_seed=seed) for seed in (0, 1) for step in (0, 5)]
    for kept in (lines, lines[:1], [lines[1], lines[0], lines[1]], []):
        path = write(tmp_path / "run", *kept) / "results.jsonl"
        assert [(run.trial_seed, run.steps.tolist()) for run in read_ends(path)] == [
            (run.trial_seed, run.steps.tolist()) for run in read_runs(path)
        ]
    path.write_text(json.dumps(lines[0]) + "\n" + json.dumps(lines[1]) + '\n{"torn')
    assert [run.steps.tolist() for run in read_ends(path)] == [[0, 5]]
