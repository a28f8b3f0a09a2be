"""What another package adds is known to every command of our engine; what cannot be added says why."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from domainbed_adm import algorithms, datasets, extensions
from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.extensions import (
    RHO,
    Card,
    Cost,
    DatasetCard,
    Hparam,
    Number,
    add_algorithm,
    add_curriculum,
    add_dataset,
    add_difficulty,
    add_flatness,
    folder_card,
)
from domainbed_adm.hparams_registry import default_hparams, random_hparams
from domainbed_adm.leaderboard.board import Board
from domainbed_adm.leaderboard.paper import paper_labels
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES, FLATNESS, WEIGHTINGS
from domainbed_adm.method.grid import METHODS, grid
from domainbed_adm.recorded_run import Runs
from domainbed_adm.registry import get_method, load_extensions
from domainbed_adm.testing import check_algorithm, check_curriculum, check_difficulty, check_flatness
from domainbed_adm.training.difficulty_trace import load_trace
from tests.extending import EXAMPLE, environment, install, installed

KNOWN = list(METHODS)
RULES, WEIGHTERS, SCORES = list(FLATNESS), list(CURRICULA), list(DIFFICULTIES)
CELLS = [f"_{curriculum}_{score}" for curriculum in (*WEIGHTERS, "Capped") for score in (*SCORES, "Margin")]
#: All that the grid holds with the example's parts.
GRID = {"ERM"} | {f"{flat}{cell}".strip("_") for flat in ("", *RULES, "Reverse") for cell in ("", *CELLS)}
HERE = "tests.extensions.test_extensions"


def listed(capsys, what, *flags):
    assert main(["list", what, *flags, "--json"]) == 0
    return {row[what.removesuffix("s")]: row for row in json.loads(capsys.readouterr().out)}


def test_the_grid_grows_by_the_methods_of_each_part_and_no_draw_moves(monkeypatch, tmp_path, capsys):
    before = {name: random_hparams(name, "PACS", 7) for name in KNOWN}
    install(monkeypatch, tmp_path)
    assert list(listed(capsys, "algorithms"))[:28] == KNOWN[:28]
    rows = listed(capsys, "algorithms", "--all")
    assert list(rows)[: len(KNOWN)] == KNOWN
    assert set(rows) == {*GRID - {""}, "Centred"}
    assert list(rows) == algorithms.ALGORITHMS
    assert rows["SAM_SPL_Margin"]["cost both"] == "6F"
    assert rows["Reverse_Capped_ADM"]["cost descent"] == "7F"
    assert rows["Centred"]["cost memory"] == "3F"
    assert {name: random_hparams(name, "PACS", 7) for name in KNOWN} == before
    assert default_hparams("SSPL_Margin", "PACS")["margin_power"] == 2.0
    assert 1 < random_hparams("SSPL_Margin", "PACS", 7)["margin_power"] < 3
    readers = listed(capsys, "hparams")
    assert (readers["margin_power"]["read by"], readers["centring"]["read by"]) == ("Margin", "Centred")
    assert readers["rho"]["read by"] == "SAM, SAGM, FSAM, GSAM, Reverse"
    assert readers["weighting"]["read by"] == "SPL, SSPL, Capped"
    assert listed(capsys, "datasets")["Stripes"]["steps"] == 6
    assert list(datasets.CARDS)[-1] == "Stripes"


def test_an_extension_is_loaded_once_when_a_name_is_looked_up(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path)
    assert "SPL_Margin" not in METHODS
    get_method("ERM")
    load_extensions()
    assert "SPL_Margin" in METHODS


def test_its_parts_conform(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path)
    assert algorithms.get_algorithm_class("Centred") is algorithms.Centred
    check_algorithm(algorithms.Centred)
    check_algorithm(algorithms.get_algorithm_class("FSAM_SSPL_Margin"))
    hparams = default_hparams("Reverse_Capped_Margin", "Stripes")
    check_difficulty(DIFFICULTIES["Margin"].build(hparams))
    check_curriculum(CURRICULA["Capped"].build(hparams))
    check_flatness(FLATNESS["Reverse"].build(hparams))


@pytest.mark.parametrize("algorithm", ["Reverse_Capped_Margin", "Centred"])
def test_it_trains_by_the_command(monkeypatch, tmp_path, algorithm):
    install(monkeypatch, tmp_path / "site")
    hparams = json.dumps({"cnn_width": 8, "batch_size": 4, "margin_power": 3, "centring": 0.25})
    flags = [
        "--dataset",
        "Stripes",
        "--algorithm",
        algorithm,
        "--hparams",
        hparams,
        "--output_dir",
        str(tmp_path / "run"),
    ]
    assert main(["train", *flags]) == 0
    record = json.loads((tmp_path / "run/results.jsonl").read_text().splitlines()[-1])
    assert record["step"] == 5
    assert record["hparams"].get("margin_power" if "Margin" in algorithm else "centring") in (3, 0.25)
    trained = torch.load(tmp_path / "run/model.pkl", weights_only=True)
    assert trained["args"]["algorithm"] == algorithm


def test_its_difficulty_is_traced_and_analysed(monkeypatch, tmp_path, capsys):
    """A run traced without the package is read beside one traced with it, and goes on only by the scores it has."""
    flags = [
        "--dataset",
        "Debug28",
        "--algorithm",
        "ERM",
        "--steps",
        "3",
        "--hparams",
        '{"cnn_width": 8, "batch_size": 4}',
    ]
    flags += ["--trace_difficulty", "8", "--checkpoint_freq", "1"]
    assert main(["train", *flags, "--output_dir", str(tmp_path / "a")]) == 0
    install(monkeypatch, tmp_path / "site")
    assert main(["train", *flags, "--output_dir", str(tmp_path / "b"), "--trial_seed", "1"]) == 0
    names = [list(load_trace(tmp_path / run / "difficulty.npz").scores) for run in "ab"]
    assert names == [["Loss", "GDM", "ADM", "ADM_linear"], ["Loss", "GDM", "ADM", "ADM_linear", "Margin"]]
    traced = load_trace(tmp_path / "b" / "difficulty.npz").scores
    assert np.allclose(traced["Margin"], traced["Loss"] ** 2)
    pytest.importorskip("matplotlib")
    capsys.readouterr()
    for runs, measures in (("b", ["Loss", "GDM", "ADM", "Margin"]), ("ab", ["Loss", "GDM", "ADM"])):
        output = ["--output", str(tmp_path / "figure.svg"), "--json"]
        assert main(["analyze", "difficulty", *(str(tmp_path / run) for run in runs), *output]) == 0
        rows = json.loads(capsys.readouterr().out)
        assert list(dict.fromkeys(row["measure"] for row in rows)) == measures
        assert {row["runs"] for row in rows} == {len(runs)}


def test_sweeps_know_it_and_so_do_their_jobs(monkeypatch, tmp_path, capsys):
    install(monkeypatch, tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", environment(tmp_path / "site", EXAMPLE)["PYTHONPATH"])
    flags = [
        "--algorithms",
        "SPL_Margin",
        "--datasets",
        "Stripes",
        "--n_trials",
        "1",
        "--n_hparams",
        "1",
        "--steps",
        "2",
    ]
    flags += ["--hparams", '{"cnn_width": 8, "batch_size": 4}', "--output_dir", str(tmp_path / "sweep"), "--jobs", "2"]
    assert main(["sweep", "launch", *flags, "--skip_confirmation"]) == 0
    assert len(list((tmp_path / "sweep").glob("*/done"))) == 2
    capsys.readouterr()
    assert main(["collect_results", "--input_dir", str(tmp_path / "sweep")]) == 0
    assert "SPL_Margin" in capsys.readouterr().out


def test_listing_with_an_extension_loads_no_torch(tmp_path):
    code = "import sys; from domainbed_adm.cli import main; main(['list', 'algorithms']); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    env = environment(*installed(tmp_path))
    out = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60).stdout
    assert "SAGM_SPL_Margin" in out
    assert out.split()[-1] == "False"


def test_one_call_in_a_script_is_enough():
    add_difficulty(part("Ones"))
    assert get_method("FSAM_SPL_Ones").difficulty == "Ones"
    add_curriculum(part("Even"))
    assert get_method("Even_Ones").curriculum == "Even"
    assert len(METHODS) == (1 + len(RULES)) * (1 + (len(WEIGHTERS) + 1) * (len(SCORES) + 1))
    add_flatness(part("Flat", RHO))
    assert get_method("Flat").flatness == "Flat"
    assert len(METHODS) == (2 + len(RULES)) * (1 + (len(WEIGHTERS) + 1) * (len(SCORES) + 1))
    assert default_hparams("Flat_Even_Ones", "PACS")["rho"] == 0.05
    add_dataset(folder_card("DomainNet", "domain_net", ("clipart", "sketch")))
    assert datasets.get_dataset_class("DomainNet").ENVIRONMENTS == ["clipart", "sketch"]


def test_costs_are_the_cards():
    add_difficulty(part("Dear", cost=Cost(forwards=3, input_gradient=True)))
    add_flatness(part("Thrice", cost=Cost(passes=3)))
    add_algorithm(part("Mine", cost=Cost(passes=2, forwards=1, input_gradient=True)))
    assert [get_method("SPL_Dear").passes(weighting) for weighting in WEIGHTINGS] == [7, 7, 6]
    assert [get_method("Thrice_SPL_Dear").passes(weighting) for weighting in WEIGHTINGS] == [13, 12, 12]
    assert [get_method("Mine").passes(weighting) for weighting in WEIGHTINGS] == [8, 8, 8]


def test_the_papers_layout_leaves_the_grids_columns_empty():
    add_algorithm(part("Mine"))
    assert paper_labels(Board(Runs([]), []), "Mine", ["PACS"]) == ("Mine", "-", "-", "-")


def test_a_class_that_cannot_be_imported_is_one_line():
    add_flatness(Card("Lost", "-", "-", "nowhere.flatness:Lost"))
    with pytest.raises(UserError, match=r"Lost cannot be loaded from nowhere.flatness:Lost: No module named 'nowhere'"):
        FLATNESS["Lost"].build({})
    add_dataset(DatasetCard("Gone", "-", "-", f"{HERE}:Gone", None))
    with pytest.raises(UserError, match=r"Gone cannot be loaded from .*no attribute 'Gone'"):
        datasets.get_dataset_class("Gone")


def part(name, *hparams, **facts):
    return Card(name, "-", "-", f"{HERE}:{name}", hparams, **facts)


MINE = Hparam("mine", 1.0, None, "-")
WRONG = {
    "difficulty 'ADM' of tests cannot be added: domainbed_adm has that name": lambda: add_difficulty(part("ADM")),
    "curriculum 'SPL' of tests cannot be added: domainbed_adm has": lambda: add_curriculum(part("SPL")),
    "flatness 'SAM' of tests cannot be added: domainbed_adm has": lambda: add_flatness(part("SAM")),
    "algorithm 'SAM_SPL_ADM' of tests cannot be added: domainbed_adm has": lambda: add_algorithm(part("SAM_SPL_ADM")),
    "dataset 'PACS' of domainbed_adm cannot": lambda: add_dataset(folder_card("PACS")),
    "hparam 'rho' of tests cannot be added: domainbed_adm has": lambda: add_difficulty(
        part("New", Hparam("rho", 1.0, None, "-"))
    ),
    "hparam 'lr' of tests cannot be added: domainbed_adm has": lambda: add_algorithm(
        part("New", Hparam("lr", 1.0, None, "-"))
    ),
    "difficulty 'my_own': its name must match": lambda: add_difficulty(part("my_own")),
    "'New': its path must be 'module:Class', not 'New'": lambda: add_difficulty(Card("New", "-", "-", "New")),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_added_says_why_and_changes_nothing(message):
    names = list(METHODS)
    with pytest.raises(UserError, match=message):
        WRONG[message]()
    assert list(METHODS) == names
    assert grid().keys() <= set(names)


def test_duplicates_name_both_packages(monkeypatch, tmp_path, capsys):
    install(monkeypatch, tmp_path)
    load_extensions()
    with pytest.raises(UserError, match=r"'Margin' of tests cannot be added: adm_example has that name"):
        add_difficulty(part("Margin"))
    with pytest.raises(UserError, match=r"'margin_power' of tests cannot be added: adm_example has"):
        add_algorithm(part("New", Hparam("margin_power", 1.0, None, "-")))
    with pytest.raises(UserError, match=r"'Stripes' of tests cannot be added: adm_example has"):
        add_dataset(DatasetCard("Stripes", "-", "-", f"{HERE}:Stripes", ("0", "1")))


def test_a_part_whose_methods_are_taken_is_not_added():
    add_algorithm(part("SPL_Tred"))
    with pytest.raises(UserError, match=r"algorithm 'SPL_Tred' of tests cannot be added: tests"):
        add_difficulty(part("Tred"))
    assert "Tred" not in DIFFICULTIES
    assert "SSPL_Tred" not in METHODS


def test_two_parts_may_share_an_hparam():
    add_difficulty(part("One", MINE))
    add_difficulty(part("Two", MINE, RHO))
    assert default_hparams("SPL_Two", "PACS")["mine"] == 1.0


@pytest.mark.parametrize("target", ["adm_example:missing", "not_there:extend", "adm_example:margin"])
def test_an_extension_that_cannot_be_loaded_is_one_line(monkeypatch, tmp_path, capsys, target):
    install(monkeypatch, tmp_path, target=target, name="broken")
    assert main(["list", "algorithms"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("domainbed-adm: error: extension broken of broken cannot be loaded: ")
    assert error.count("\n") == 1


def test_every_public_name_is_there():
    assert all(hasattr(extensions, name) for name in extensions.__all__)
    assert 3 in Number(0)
