"""What a sweep's records lack."""

import pytest

from domainbed_adm.cli import main
from domainbed_adm.leaderboard.notes import missing_runs
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.sweeping.jobs import Sweep
from domainbed_adm.sweeping.plan import add_to_plan
from tests.runs import as_runs, record, write

ALL = list(SELECTION_METHODS.values())
SINGLE = [SELECTION_METHODS["training-domain"], SELECTION_METHODS["oracle"]]
ACCURACIES = ((0.5, 0.5),) * 3
EVERY = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]


def sweep(held_out, algorithm="ERM", **more):
    return [record(*ACCURACIES, test_envs=envs, algorithm=algorithm, **more) for envs in held_out]


def test_nothing_is_missing_of_a_whole_sweep():
    assert missing_runs(as_runs(*sweep(EVERY)), ALL) == []
    assert missing_runs(as_runs(*sweep(EVERY[:3])), SINGLE) == []


def test_pairs_are_needed_by_leave_one_domain_out_alone():
    assert missing_runs(as_runs(*sweep(EVERY[:4])), SINGLE) == []
    assert missing_runs(as_runs(*sweep(EVERY[:4])), ALL) == [
        "missing: ERM on PACS, test_envs 0 2, trial 0, hparams 0",
        "missing: ERM on PACS, test_envs 1 2, trial 0, hparams 0",
    ]


def test_the_product_of_methods_trials_and_seeds_is_wanted():
    records = sweep(EVERY[:3]) + sweep([(0,)], "SAM", trial_seed=1)
    lines = missing_runs(as_runs(*records), SINGLE)
    assert len(lines) == 2 * 2 * 3 - 4
    assert "missing: SAM on PACS, test_envs 2, trial 1, hparams 0" in lines


@pytest.mark.parametrize("known", ["args", "hparams", "others"])
def test_a_run_that_did_not_reach_its_end_is_unfinished(known):
    records = sweep(EVERY[:2], step=600) + sweep(EVERY[2:3], step=300)
    for one in records:
        if known == "args":
            one["args"]["steps"] = 601
        elif known == "hparams":
            one["hparams"] = {"total_steps": 601}
    assert missing_runs(as_runs(*records), SINGLE) == [
        "unfinished: ERM on PACS, test_envs 2, trial 0, hparams 0: step 300 of 600"
    ]


def test_the_command_lists_them_beside_the_tables(tmp_path, capsys):
    for i, one in enumerate(sweep(EVERY[:4])):
        write(tmp_path / str(i), one)
    assert main(["collect_results", "--input_dir", str(tmp_path), "--missing", "--json"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("[")
    assert "missing: ERM on PACS, test_envs 1 2, trial 0, hparams 0" in shown.err
    assert main(["collect_results", "--input_dir", str(tmp_path), "--missing", "--selection", "oracle"]) == 0
    assert "nothing is missing" in capsys.readouterr().err


def test_what_a_launch_planned_is_wanted_and_nothing_else(tmp_path, capsys):
    planned = [("PACS", "ERM", (0,), 0, 0), ("PACS", "SAM", (2,), 1, 0), ("PACS", "SAM", (0, 2), 1, 0)]
    runs = as_runs(*sweep(EVERY[:2]))
    single = "missing: SAM on PACS, test_envs 2, trial 1, hparams 0"
    assert missing_runs(runs, SINGLE, planned) == [single]
    assert missing_runs(runs, ALL, planned) == [single, "missing: SAM on PACS, test_envs 0 2, trial 1, hparams 0"]
    add_to_plan(tmp_path, Sweep(["PACS"], ["ERM", "SAM"], n_hparams=1, n_trials=1, single_test_envs=True))
    for number, one in enumerate(sweep(EVERY[:2])):
        write(tmp_path / str(number), one)
    assert main(["collect_results", "--input_dir", str(tmp_path), "--missing", "--csv"]) == 0
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("missing: ")]
    names = [("ERM", 2), ("ERM", 3), ("SAM", 0), ("SAM", 1), ("SAM", 2), ("SAM", 3)]
    assert told == [f"missing: {name} on PACS, test_envs {env}, trial 0, hparams 0" for name, env in names]
