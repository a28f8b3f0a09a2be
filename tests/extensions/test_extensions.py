"""What another package adds is known to every command of our engine; what cannot be added says why."""

import json
import subprocess
import sys

import pytest
import torch

from domainbed_adm import algorithms, datasets, extensions
from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.extensions import (
    Card,
    DatasetCard,
    Hparam,
    Number,
    add_algorithm,
    add_curriculum,
    add_dataset,
    add_difficulty,
    folder_card,
)
from domainbed_adm.hparams_registry import default_hparams, random_hparams
from domainbed_adm.leaderboard.sheets import _paper_labels
from domainbed_adm.method import cards as methods
from domainbed_adm.system.entry_points import load_extensions
from domainbed_adm.testing import check_algorithm, check_difficulty
from tests.extending import EXAMPLE, environment, install, installed

GROWN = {f"{flat}{curriculum}_Margin" for flat in ("", "SAM_", "SAGM_", "FSAM_") for curriculum in ("SPL", "SSPL")}
KNOWN = list(methods.METHODS)


def listed(capsys, what, *flags):
    assert main(["list", what, *flags, "--json"]) == 0
    return {row[what.removesuffix("s")]: row for row in json.loads(capsys.readouterr().out)}


def test_the_grid_grows_by_a_difficultys_methods_and_no_draw_moves(monkeypatch, tmp_path, capsys):
    before = {name: random_hparams(name, "PACS", 7) for name in KNOWN}
    install(monkeypatch, tmp_path)
    rows = listed(capsys, "algorithms")
    assert list(rows)[:28] == KNOWN
    assert set(rows) == {*KNOWN, *GROWN, "Centred"}
    assert list(rows) == algorithms.ALGORITHMS
    assert rows["SAM_SPL_Margin"]["cost both"] == "6F"
    assert rows["Centred"]["cost memory"] == "3F"
    assert {name: random_hparams(name, "PACS", 7) for name in KNOWN} == before
    assert default_hparams("SSPL_Margin", "PACS")["margin_power"] == 2.0
    assert 1 < random_hparams("SSPL_Margin", "PACS", 7)["margin_power"] < 3
    assert listed(capsys, "hparams")["margin_power"]["read by"] == "Margin"
    assert listed(capsys, "datasets")["Stripes"]["steps"] == 6
    assert datasets.DATASETS[-1] == "Stripes"


def test_an_extension_is_loaded_once_when_a_name_is_looked_up(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path)
    assert "SPL_Margin" not in methods.METHODS
    methods.get_method("ERM")
    load_extensions()
    assert "SPL_Margin" in methods.METHODS


def test_its_parts_conform(monkeypatch, tmp_path):
    install(monkeypatch, tmp_path)
    assert algorithms.get_algorithm_class("Centred") is algorithms.Centred
    check_algorithm(algorithms.Centred)
    check_algorithm(algorithms.get_algorithm_class("FSAM_SSPL_Margin"))
    from adm_example.difficulty import Margin

    check_difficulty(Margin(2.0))


@pytest.mark.parametrize("algorithm", ["SAM_SSPL_Margin", "Centred"])
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
    add_difficulty(Card("Ones", "one for all", "-", build=lambda hparams: None))
    assert methods.get_method("FSAM_SPL_Ones").difficulty == "Ones"
    add_curriculum(Card("Even", "one for all", "-", build=lambda hparams: None))
    assert methods.get_method("Even_Ones").curriculum == "Even"
    assert len(methods.METHODS) == 28 + 8 + 4 * 4
    add_dataset(folder_card("DomainNet", "domain_net", ("clipart", "sketch")))
    assert datasets.get_dataset_class("DomainNet").ENVIRONMENTS == ["clipart", "sketch"]


def test_the_papers_layout_leaves_the_grids_columns_empty():
    add_algorithm(Card("Mine", "-", "-", build=lambda erm: erm))
    assert _paper_labels("Mine") == ("Mine", "-", "-")


def some(hparams):
    """The code of a part that is never made."""


MINE = Hparam("mine", 1.0, None, "-")
WRONG = {
    "difficulty 'ADM' of tests.* cannot be added: domainbed_adm has that name": lambda: add_difficulty(
        Card("ADM", "-", "-", build=some)
    ),
    "curriculum 'SPL' of tests.*: domainbed_adm has": lambda: add_curriculum(Card("SPL", "-", "-", build=some)),
    "algorithm 'SAM_SPL_ADM' of tests.*: domainbed_adm has": lambda: add_algorithm(
        Card("SAM_SPL_ADM", "-", "-", build=some)
    ),
    "dataset 'PACS' of domainbed_adm cannot": lambda: add_dataset(folder_card("PACS")),
    "hparam 'rho' of tests.*: domainbed_adm has": lambda: add_difficulty(
        Card("New", "-", "-", ("rho",), build=some), [Hparam("rho", 1.0, None, "-")]
    ),
    "difficulty 'my_own': its name must match": lambda: add_difficulty(Card("my_own", "-", "-", build=some)),
    "'New': its card needs build": lambda: add_difficulty(Card("New", "-", "-")),
    "'New': no Hparam is given for mine": lambda: add_algorithm(Card("New", "-", "-", ("mine",), build=some)),
    "does not list the hparam 'mine'": lambda: add_algorithm(Card("New", "-", "-", build=some), [MINE]),
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_be_added_says_why_and_changes_nothing(message):
    names = list(methods.METHODS)
    with pytest.raises(UserError, match=message):
        WRONG[message]()
    assert list(methods.METHODS) == names
    assert methods.grid().keys() <= set(names)


def test_duplicates_name_both_packages(monkeypatch, tmp_path, capsys):
    install(monkeypatch, tmp_path)
    load_extensions()
    with pytest.raises(UserError, match=r"'Margin' of tests\.\S+ cannot be added: adm_example has that name"):
        add_difficulty(Card("Margin", "-", "-", build=some))
    with pytest.raises(UserError, match=r"'margin_power' of tests\.\S+ cannot be added: adm_example has"):
        add_algorithm(Card("New", "-", "-", ("margin_power",), build=some), [Hparam("margin_power", 1.0, None, "-")])
    with pytest.raises(UserError, match=r"'Stripes' of tests\.\S+ cannot be added: adm_example has"):
        add_dataset(DatasetCard("Stripes", "-", "-", "", ("0", "1")), some)


def test_a_part_whose_methods_are_taken_is_not_added():
    add_algorithm(Card("SPL_Tred", "-", "-", build=some))
    with pytest.raises(UserError, match=r"algorithm 'SPL_Tred' of tests\.\S+ cannot be added: tests"):
        add_difficulty(Card("Tred", "-", "-", build=some))
    assert "Tred" not in methods.DIFFICULTIES
    assert "SSPL_Tred" not in methods.METHODS


def test_two_parts_of_one_package_may_share_an_hparam():
    add_difficulty(Card("One", "-", "-", ("mine",), build=some), [MINE])
    add_difficulty(Card("Two", "-", "-", ("mine", "rho"), build=some), [MINE])
    add_difficulty(Card("Three", "-", "-", ("mine",), build=some))
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
