"""What a sweep's records lack."""

import pytest

from domainbed_adm.cli import main
from domainbed_adm.leaderboard.missing import missing_runs
from domainbed_adm.model_selection import SELECTION_METHODS
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
