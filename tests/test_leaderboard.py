from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest

from domainbed_adm.leaderboard import Board, domainbed_sheets, layouts, paper_sheets
from domainbed_adm.leaderboard.board import Entry, spoken
from domainbed_adm.leaderboard.notes import missing_line, provenance_line
from domainbed_adm.leaderboard.rows import as_csv, tidy_rows
from domainbed_adm.model_selection import SELECTION_METHODS
from domainbed_adm.records import load_runs
from tests.runs import DATA, as_runs, record

TRAINING, LOO, ORACLE = SELECTION_METHODS.values()
MADE_BY = {"version": "0.1.0", "git_commit": "abcdef0123456789", "torch": "2.9.1", "environments": ["ink", "oil"]}


def own_runs(algorithm: str = "ERM", dataset: str = "Mine", trials: int = 2, **more) -> list[dict]:
    """Two environments held out in turn; trial t has test accuracies 0.5 + t / 10 and 0.6 + t / 10."""
    return [
        record(
            (0.5 + trial / 10, 0.3),
            (0.6 + trial / 10, 0.3),
            test_envs=(env,),
            trial_seed=trial,
            algorithm=algorithm,
            dataset=dataset,
            **more,
        )
        for trial in range(trials)
        for env in range(2)
    ]


def board(*records: dict) -> Board:
    return Board(as_runs(*records), SELECTION_METHODS.values())


def test_text_equals_domainbeds_line_for_line() -> None:
    found = Board(load_runs(DATA / "domainbed_sweep"), SELECTION_METHODS.values())
    sheets = [sheet for method in SELECTION_METHODS.values() for sheet in domainbed_sheets(found, method)]
    expected = (DATA / "domainbed_sweep_tables.txt").read_text()
    assert layouts.domainbed_text(sheets, found.total).splitlines() == expected.splitlines()


def test_an_entry_is_mean_and_standard_error_in_percent() -> None:
    values = [0.5, 0.6, 0.9]
    assert Entry.of(values).mean == pytest.approx(200 / 3)
    assert Entry.of(values).sem == pytest.approx(100 * np.std(values) / 3**0.5)
    assert Entry.of([]) == Entry(None, None, 0)
    assert Entry.of([0.5]) == Entry(50.0, None, 1)
    assert Entry.average([Entry(50.0, 1.0, 3), Entry(70.0, 1.0, 2)]) == Entry(60.0, None, 0)
    assert Entry.average([Entry(50.0, 1.0, 3), Entry(None, None, 0)]).mean is None


def test_order_of_algorithms_datasets_and_names_of_environments() -> None:
    found = board(
        *own_runs("Theirs", "Zoo", provenance=MADE_BY),
        *own_runs("SAM", "Zoo"),
        *own_runs("Other", "Anon"),
        *own_runs("URM", "Anon"),
        *own_runs("DANN", "Anon"),
        *own_runs("ERM", "PACS"),
    )
    assert found.algorithms == ["ERM", "DANN", "URM", "SAM", "Theirs", "Other"]
    assert found.environments == {
        "PACS": dict(enumerate("ACPS")),
        "Zoo": {0: "ink", 1: "oil"},
        "Anon": {0: "0", 1: "1"},
    }


def test_x_where_missing_and_a_line_that_says_what() -> None:
    found = board(*own_runs("ERM"), *own_runs("SAM")[:1])
    sheet = domainbed_sheets(found, TRAINING)[0]
    assert [layouts.written(entry, 1, " +/- ") for entry in sheet.rows[1][1:]] == ["50.0", "X", "X"]
    assert "SAM                   50.0 +/- 0.0          X                     X    " in layouts.domainbed_text(
        [sheet], 4
    )
    line = missing_line(found, TRAINING)
    assert line is not None
    assert "no number for SAM on Mine (test environment 1); " in line
    assert "fewer than 2 trials for SAM on Mine (test environment 0)" in line
    assert missing_line(board(*own_runs()), ORACLE) is None


def test_leave_one_domain_out_without_pairs_says_so_once() -> None:
    line = missing_line(board(*(one for i in range(6) for one in own_runs(f"M{i}"))), LOO)
    assert line is not None
    assert line.startswith(
        "leave-one-domain-out cross-validation: "
        "no number for M0 on Mine, M1 on Mine, M2 on Mine, M3 on Mine and 2 more. It needs also the runs that hold out"
    )
    assert line.endswith("there are none: sweep launch adds them unless it has --single_test_envs")


def test_averages_are_over_trials_of_the_mean_over_environments() -> None:
    found = board(*own_runs(trials=3))
    entry = found.over_environments(TRAINING, "Mine", "ERM")
    assert (entry.mean, entry.n) == (pytest.approx(65.0), 3)
    assert entry.sem == pytest.approx(100 * np.std([0.55, 0.65, 0.75]) / 3**0.5)
    broken = board(*own_runs(trials=3)[:-1])
    assert broken.over_environments(TRAINING, "Mine", "ERM").n == 3
    assert broken.over_environments(TRAINING, "Mine", "ERM", whole_trials=True).n == 2


def test_paper_rows_are_optimizer_curriculum_difficulty() -> None:
    names = ["FSAM_SPL_GDM", "SAM_SSPL_ADM", "ERM", "SPL_Loss", "Theirs", "SAGM"]
    (sheet,) = paper_sheets(board(*(one for name in names for one in own_runs(name))), TRAINING)
    assert [row[:4] for row in sheet.rows] == [
        ("ERM", "Adam", "-", "-"),
        ("SPL_Loss", "Adam", "SPL", "Loss"),
        ("SAM_SSPL_ADM", "SAM", "SSPL", "ADM"),
        ("SAGM", "SAGM", "-", "-"),
        ("FSAM_SPL_GDM", "F-SAM", "SPL", "GDM"),
        ("Theirs", "-", "-", "-"),
    ]
    assert sheet.columns == ("Mine", "Avg")
    assert [layouts.written(entry, sheet.digits, "±") for entry in sheet.rows[0][4:]] == ["60.00±3.54", "60.00"]


def test_best_is_the_highest_printed_number_of_a_column_ties_included() -> None:
    better = [{**one, "env0_in_acc": 0.9} for one in own_runs("SAM")]
    (sheet,) = paper_sheets(
        board(*own_runs("ERM"), *better, *({**one, "args": {**one["args"], "algorithm": "SAGM"}} for one in better)),
        TRAINING,
    )
    assert sheet.best() == {(1, 4), (2, 4), (1, 5), (2, 5)}
    assert paper_sheets(board(*own_runs()), TRAINING)[0].best() == set()


def test_the_note_names_selection_splits_trials_seeds_and_versions() -> None:
    found = board(*own_runs(provenance=MADE_BY), *own_runs("SAM"))
    line = provenance_line(found, TRAINING, [2, 2, 0])
    for part in (
        "training-domain validation set: out-splits of the source environments",
        "n = 2 trials",
        "Trial seeds 0, 1; hparams seeds 0; holdout_fraction 0.2",
        "Versions: domainbed_adm 0.1.0 (commit abcdef0123), torch 2.9.1; not recorded.",
    ):
        assert part in line
    assert "over n = 1 trial (no error where n = 1). Trial" in provenance_line(found, TRAINING, [1, 0])
    assert "over n = 1 to 3 trials (no error where n = 1). Trial" in provenance_line(found, TRAINING, [3, 1, 0, 2])
    assert "averaged" not in line
    averaged = board(*own_runs(hparams={"averaging": "swad"}), *own_runs("SAM", hparams={"averaging": "ema"}))
    told = "Runs with averaged weights: 4 by ema, 4 by swad (its result, whatever the selection method). Trial seeds"
    assert told in provenance_line(averaged, TRAINING, [2])
    assert spoken([0, 1, 2, 3]) == "0 to 3"
    assert spoken([0, 2, 3, 5]) == "0, 2, 3, 5"
    assert spoken([0, 1, 2, 10**300]) == f"0, 1, 2, {10**300}"


def test_latex_is_a_whole_document_with_names_escaped_and_best_in_bold() -> None:
    better = [{**one, "env0_in_acc": 0.9} for one in own_runs("SAM_SSPL_ADM", "my_set&more")]
    found = board(*own_runs("ERM", "my_set&more"), *better)
    document = layouts.latex_document(domainbed_sheets(found, TRAINING), found.total)
    assert document.startswith("\\documentclass{article}\n")
    assert document.endswith("\\end{document}\n")
    assert document.count("\\toprule") == document.count("\\end{tabular}") == 2
    assert r"SAM\_SSPL\_ADM & \textbf{90.0 $\pm$ 0.0} & \textbf{65.0 $\pm$ 3.5} & \textbf{77.5} \\" in document
    assert r"Dataset: my\_set\&more" in document
    assert (
        layouts.latex_escape("<50% {x}~^\\#$±")
        == r"$<$50\% \{x\}\textasciitilde{}\textasciicircum{}\textbackslash{}\#\$$\pm$"
    )


@pytest.mark.parametrize("sheets", [domainbed_sheets, paper_sheets])
def test_a_selection_method_without_numbers_is_one_line_in_our_layouts(sheets, capsys) -> None:
    made = sheets(board(*own_runs()), LOO)
    line = "No number: leave-one-domain-out cross-validation needs also the runs that hold out pairs of environments"
    document = layouts.latex_document(made, 4)
    assert document.count(f"\\noindent {line}, and there are none: sweep launch adds them unless") == len(made)
    assert "tabular" not in document
    layouts.show_sheet(made[-1])
    assert capsys.readouterr().out.startswith(f"\n{made[-1].title}\n{line}, and there are none: ")


def test_tidy_rows_as_json_and_csv() -> None:
    found = board(*own_runs(provenance=MADE_BY))
    rows = tidy_rows(found, [TRAINING, LOO])
    assert len(rows) == 4
    first = json.loads(json.dumps(rows))[0]
    assert first == {
        "selection": "training-domain",
        "dataset": "Mine",
        "algorithm": "ERM",
        "environment": "ink",
        "environment_index": 0,
        "quantity": "accuracy",
        "unit": "%",
        "measured_on": "Mine",
        "attack": "",
        "mean": pytest.approx(55.0),
        "sem": pytest.approx(5 / 2**0.5),
        "n": 2,
        "trial_seeds": [0, 1],
        "hparams_seeds": [0],
        "selection_splits": TRAINING.splits,
        "versions": "domainbed_adm 0.1.0 (commit abcdef0123), torch 2.9.1",
    }
    lines = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [(line["selection"], line["mean"] != "", line["n"], line["trial_seeds"]) for line in lines] == [
        ("training-domain", True, "2", "0 1"),
        ("training-domain", True, "2", "0 1"),
        ("leave-one-domain-out", False, "0", ""),
        ("leave-one-domain-out", False, "0", ""),
    ]


def test_names_that_latex_or_a_spreadsheet_would_obey_do_no_harm() -> None:
    found = board(*own_runs("[x]"), *own_runs("*y"), *own_runs("=1+1"), *own_runs("ERM", "ColoredMNIST"))
    document = layouts.latex_document(domainbed_sheets(found, TRAINING), found.total)
    assert "\n{}[x] & " in document
    assert "\n{}*y & " in document
    lines = list(csv.DictReader(io.StringIO(as_csv(tidy_rows(found, [TRAINING])))))
    assert {line["algorithm"] for line in lines} == {"ERM", "[x]", "*y", "'=1+1"}
    assert {"+90%", "+80%", "-90%"} <= {line["environment"] for line in lines}  # ColoredMNIST's, as they are
