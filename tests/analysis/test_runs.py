import argparse

import pytest

from domainbed_adm.analysis.runs import find_runs, labels, with_checkpoint
from domainbed_adm.errors import UserError
from tests.runs import record, write


@pytest.fixture
def sweep(tmp_path):
    """Four runs without a model, in folders whose names say nothing."""
    runs = [("SAM", 0, 0), ("ERM", 1, 0), ("ERM", 0, 1), ("ERM", 0, 0)]
    for i, (algorithm, test_env, trial) in enumerate(runs):
        one = record(
            (0.5, 0.5), (0.5, 0.5), algorithm=algorithm, test_envs=(test_env,), trial_seed=trial, hparams={"rho": 0.1}
        )
        write(tmp_path / "abcd"[i], one)
    return tmp_path


def named(runs):
    return labels([run.args for run in runs])


def test_a_sweep_is_its_runs_in_the_tables_order(sweep):
    runs = find_runs([sweep])
    assert [run.folder.name for run in runs] == ["d", "c", "b", "a"]
    assert named(runs)[0] == "ERM, test env 0, trial 0"
    assert named(runs)[-1] == "SAM, test env 0, trial 0"
    assert runs[0].hparams == {"rho": 0.1}


def test_runs_keep_the_order_given_and_count_once(sweep):
    assert [run.folder.name for run in find_runs([sweep / "a", sweep, sweep / "b"])] == ["a", "d", "c", "b"]


@pytest.mark.parametrize(
    ("filters", "folders"),
    [
        ({"algorithms": ["ERM"]}, "dcb"),
        ({"algorithms": ["SAM", "ERM"], "test_envs": [0], "trial_seed": 0}, "da"),
        ({"test_envs": ["c"]}, "b"),
        ({"trial_seed": 1}, "c"),
        ({"dataset": "PACS"}, "dcba"),
        ({"dataset": None, "algorithms": None}, "dcba"),
    ],
)
def test_filters(sweep, filters, folders):
    assert [run.folder.name for run in find_runs([sweep], argparse.Namespace(**filters))] == list(folders)


def test_filters_that_leave_nothing_say_what_there_is(sweep):
    with pytest.raises(UserError) as told:
        find_runs([sweep], argparse.Namespace(algorithms=["SMA"]))
    assert str(told.value) == (
        "none of the 4 runs is as the flags ask; they have --algorithms ERM, SAM; --dataset PACS; "
        "--test_envs 0 (A), 1 (C); --trial_seed 0, 1"
    )


def test_labels_tell_datasets_hparams_and_doubles_apart():
    one = {"algorithm": "SAM", "dataset": "PACS", "test_envs": [1, 2], "trial_seed": 0, "hparams_seed": 0}
    assert labels([one]) == ["SAM, test env 1 2, trial 0"]
    found = labels([one, one, one | {"dataset": "VLCS"}, one | {"hparams_seed": 3}])
    assert found == [
        "SAM on PACS, test env 1 2, trial 0 (1)",
        "SAM on PACS, test env 1 2, trial 0 (2)",
        "SAM on VLCS, test env 1 2, trial 0",
        "SAM on PACS, test env 1 2, hparams 3, trial 0",
    ]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "none does not exist: give the output_dir of a run or of a sweep"),
        ("file", "file is a file: give the output_dir"),
        ("empty", "no run in .*empty: give the output_dir of a run, which holds results.jsonl"),
    ],
)
def test_a_path_without_a_run(tmp_path, name, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=message):
        find_runs([tmp_path / name])


def test_no_checkpoint_says_how_to_keep_one(sweep, capsys):
    keep = "do not give --skip_model_save to train; --save_model_every_checkpoint keeps"
    with pytest.raises(UserError, match=f"no model.pkl in any of the 4 runs. To keep models, {keep}"):
        with_checkpoint(find_runs([sweep]))
    (sweep / "a" / "model.pkl").touch()
    runs = find_runs([sweep])
    assert with_checkpoint(runs) == runs[-1:]
    assert "3 of 4 runs have no model.pkl: left out" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"no model_step9.pkl in .*/a \(there are model.pkl\). To keep models"):
        with_checkpoint(runs[-1:], "model_step9.pkl")
