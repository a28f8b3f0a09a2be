import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from domainbed_adm.analysis.difficulty import load_traces, rows
from domainbed_adm.analysis.difficulty_drawings import difficulty_panels, draw_difficulty
from domainbed_adm.analysis.runs import find_runs
from domainbed_adm.cli import main
from domainbed_adm.system.figures import inline
from domainbed_adm.training.difficulty_trace import Trace, load_trace

MEASURES = ("Loss", "GDM", "ADM", "ADM_linear")
HPARAMS = '{"cnn_width": 8, "batch_size": 4}'


def _run(folder, algorithm, trial=0, steps=(0, 2, 4), dataset="RotatedDigits", seed=0, recorded=None):
    """The folder of a run with a trace, as ``train`` leaves it."""
    folder.mkdir(parents=True)
    args = {"trial_seed": trial, "dataset": dataset, "algorithm": algorithm, "test_envs": [0], "hparams_seed": 0}
    records = [{"step": step, "args": args, "hparams": {}} for step in (steps if recorded is None else recorded)]
    (folder / "results.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    random = np.random.default_rng(seed)
    trace = Trace.begin([(1, i) for i in range(12)], MEASURES)
    for step in steps:
        scores = {name: random.random(12).astype(np.float32) for name in MEASURES}
        trace = trace.with_checkpoint(step, scores, random.random(12) < 0.5)
    trace.save(folder / "difficulty.npz")
    return folder


@pytest.fixture
def sweep(tmp_path):
    for algorithm in ("ERM", "SAM"):
        for trial in range(2):
            _run(tmp_path / f"{algorithm}{trial}", algorithm, trial, seed=trial)
    return tmp_path


def test_traces_of_a_method_are_put_together(sweep):
    methods = load_traces(find_runs([sweep]))
    assert [(method.algorithm, len(method.traces)) for method in methods] == [("ERM", 2), ("SAM", 2)]
    assert methods[0].scores("ADM").shape == (3, 24)
    each = [load_traces(find_runs([sweep / f"ERM{trial}"]))[0].figures["ADM"] for trial in range(2)]
    for name in ("variation", "linear_share"):
        expected = np.mean([one[name] for one in each], axis=0)
        assert methods[0].figures["ADM"][name] == pytest.approx(expected)


def test_a_shorter_or_damaged_trace_is_left_out_and_told(sweep, capsys):
    _run(sweep / "short", "SAM", 2, steps=(0, 2))
    _run(sweep / "torn", "SAM", 3)
    (sweep / "torn" / "difficulty.npz").write_bytes(b"PK")
    assert main(["analyze", "difficulty", str(sweep)]) == 0
    told = capsys.readouterr()
    assert "SAM: 1 runs scored at other steps are left out" in told.out
    assert "torn/difficulty.npz is no difficulty trace, or damaged: left out" in told.err


@pytest.mark.parametrize(
    ("recorded", "done", "whole"),
    [
        ((0, 2, 4), True, True),
        ((0, 2, 4), False, True),
        ((0, 2, 4, 6), False, True),  # just recorded
        ((0, 2, 4, 6), True, False),
        ((0, 2, 4, 6, 8), False, False),
        ((0, 1, 2, 4), False, False),
        ((0, 2), False, False),
    ],
)
def test_a_trace_that_lacks_steps_of_its_run_is_left_out(tmp_path, capsys, recorded, done, whole):
    folder = _run(tmp_path / "a", "ERM", recorded=recorded)
    if done:
        (folder / "done").touch()
    assert len(load_traces(find_runs([tmp_path]))) == whole
    told = capsys.readouterr().err
    expected = f"warning: {folder}/difficulty.npz has other steps than results.jsonl, trained partly without a trace"
    assert told == ("" if whole else f"{expected}: left out\n")


def test_the_command_draws_and_prints_the_ends(sweep, capsys):
    assert main(["analyze", "difficulty", str(sweep), "--output", str(sweep / "a.png")]) == 0
    assert (sweep / "a.png").stat().st_size > 10_000
    table = capsys.readouterr().out
    lines = [line.split() for line in table.splitlines() if line.split()[:1] in (["ERM"], ["SAM"])]
    assert [(line[1], line[2]) for line in lines[:6]] == [(m, s) for m in ("Loss", "GDM", "ADM") for s in ("0", "4")]
    assert main(["analyze", "difficulty", str(sweep), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == rows(load_traces(find_runs([sweep])))
    assert len(found) == 2 * 3 * 3
    assert (sweep / "difficulty.svg").exists()


def test_figures_of_pages_have_one_panel_each_and_the_drawing_all(sweep):
    methods = load_traces(find_runs([sweep]))
    panels = difficulty_panels(methods)
    assert [len(figure.axes) for figure in panels] == [1] * (3 * 2 + 4)
    drawn = [axes for axes in draw_difficulty(methods).axes if axes.axison]
    assert len(drawn) == 3 * 2 + 4
    one = [axes for axes in draw_difficulty(methods[:1]).axes if axes.axison]
    assert len(one) == 3 + 4
    line = panels[-2].axes[0].lines[-1]
    assert line.get_ydata() == pytest.approx(methods[1].figures["ADM"]["correctness_correlation"])
    assert not [figure for figure in panels if "$" in inline(figure)]


def test_the_last_step_is_labelled_and_one_checkpoint_alone_is_seen(sweep):
    panels = {
        figure.axes[0].get_title(): figure.axes[0] for figure in difficulty_panels(load_traces(find_runs([sweep])))
    }
    axes = panels["correlation with one checkpoint earlier"]
    assert axes.get_xticks()[-1] == 4
    assert {line.get_marker() for line in axes.lines} == {"o"}
    assert next(iter(panels.values())).lines[-1].get_linestyle() == "-"  # of the medians


def test_scores_that_are_all_zero_or_no_number_are_drawn(tmp_path):
    folder = _run(tmp_path / "a", "ERM", steps=(0, 1, 2))
    trace = Trace.begin([(1, i) for i in range(12)], MEASURES)
    for step, value in enumerate((0.0, np.nan, np.inf)):
        trace = trace.with_checkpoint(step, dict.fromkeys(MEASURES, np.full(12, value, np.float32)), np.ones(12, bool))
    trace.save(folder / "difficulty.npz")
    methods = load_traces(find_runs([tmp_path]))
    draw_difficulty(methods).canvas.draw()
    assert all(row["variation"] is None for row in rows(methods))


def test_a_correlation_says_of_how_many_runs_it_is(tmp_path, capsys):
    for name in "abc":
        folder = _run(tmp_path / name, "ERM")
        trace = load_trace(folder / "difficulty.npz")
        if name != "b":
            trace.correct[:] = True
            trace.save(folder / "difficulty.npz")
    (method,) = load_traces(find_runs([tmp_path]))
    assert method.figures["ADM"]["correctness_runs"].tolist() == [1] * len(method.step)
    assert {row["correctness_runs"] for row in rows([method])} == {1}
    assert main(["analyze", "difficulty", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count(" (1 runs)") == 3 * 2


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        ([], "no difficulty.npz in any of the 2 runs: train (or sweep launch) with --trace_difficulty"),
        (["--output", "x.gif"], "x.gif names no figure format"),
        (["--algorithms", "FSAM"], "none of the 2 runs is as the flags ask"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, capsys, flags, error):
    for name in ("ERM", "SAM"):
        (_run(tmp_path / name, name) / "difficulty.npz").unlink()
    assert main(["analyze", "difficulty", str(tmp_path), *flags]) == 2
    told = capsys.readouterr().err.strip()
    assert error in told
    assert len(told.splitlines()) == 1


def test_runs_on_several_datasets_are_not_mixed(tmp_path, capsys):
    _run(tmp_path / "a", "ERM")
    _run(tmp_path / "b", "ERM", dataset="PACS")
    assert main(["analyze", "difficulty", str(tmp_path)]) == 2
    assert "the runs are on PACS, RotatedDigits: choose one by --dataset" in capsys.readouterr().err


def test_a_run_of_train_is_analysed(tmp_path, capsys):
    flags = ["--steps", "3", "--checkpoint_freq", "2", "--hparams", HPARAMS, "--trace_difficulty", "10"]
    assert main(["train", "--algorithm", "SAM", *flags, "--output_dir", str(tmp_path)]) == 0
    assert main(["analyze", "difficulty", str(tmp_path)]) == 0
    assert "figure:" in capsys.readouterr().out
