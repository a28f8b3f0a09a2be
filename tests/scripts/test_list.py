from __future__ import annotations

import json
import subprocess
import sys

import pytest

from domainbed_adm.cli import main as cli
from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.hparams_registry import hparams_of
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES, FLATNESS
from domainbed_adm.method.grid import METHODS, unnamed_methods
from domainbed_adm.sweeping import plan

NAMES = {
    "algorithms": set(METHODS),
    "datasets": set(CARDS),
    "sweeps": set(plan.named_sweeps()),
    "hparams": {name for algorithm in METHODS for name in hparams_of(algorithm, "PACS")},
}


def as_json(capsys: pytest.CaptureFixture[str], *flags: str) -> list[dict[str, str]]:
    assert cli(["list", *flags, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("what", NAMES)
def test_every_name_is_listed_whole(
    what: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    every = ["--all"] if what == "algorithms" else []
    assert {row[what.removesuffix("s")] for row in as_json(capsys, what, *every)} == NAMES[what]
    assert cli(["list", what, *every]) == 0
    first = {line.split()[0] for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert first >= NAMES[what]


@pytest.mark.parametrize("what", NAMES)
def test_every_row_is_filled(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert all(str(value) for row in as_json(capsys, what) for value in row.values())


def test_algorithms_have_their_line_paper_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["algorithm"]: row for row in as_json(capsys, "algorithms")}
    row = rows["SAM_SSPL_ADM"]
    assert (row["cost both"], row["cost descent"], row["cost memory"]) == ("8F", "7F", "7F")
    assert "FGSM" in row["about"]
    assert "BMVC 2025" in row["paper"]
    cli(["list", "algorithms"])
    assert "plain SAM is 6F" in capsys.readouterr().out


def test_algorithms_fit_120_columns_and_name_every_part(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["list", "algorithms"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 120
    assert "adm_estimator linear saves 1F of ADM." in printed
    assert all(part in printed for part in (*FLATNESS, *CURRICULA, *DIFFICULTIES))


def test_choices_are_printed_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["hparam"]: row for row in as_json(capsys, "hparams")}
    assert rows["resnet18"]["valid"] == "one of false, true"
    assert rows["adm_estimator"]["valid"] == 'one of "exact", "linear"'


def test_hparams_of_one_algorithm_on_one_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["hparam"]: row for row in as_json(capsys, "hparams", "--algorithm", "SAM", "--dataset", "PACS")}
    assert set(rows) == set(hparams_of("SAM", "PACS"))
    assert rows["lr"]["default"] == "5e-05"
    assert rows["rho"]["searched"] == "yes"
    assert rows["rho"]["valid"] == "a number in [0, inf)"


def test_hparams_of_all_say_where_defaults_differ_and_who_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    rows = {row["hparam"]: row for row in as_json(capsys, "hparams")}
    assert rows["lr"]["default"] == "0.001 (28 px); 5e-05 (larger)"
    assert rows["weight_decay"]["searched"] == "not 28 px"
    assert rows["total_steps"]["default"] == "by the run"
    readers = {
        "lr": "every method",
        "rho": "SAM, SAGM, FSAM, GSAM",
        "flatness_start": "SAM, SAGM, FSAM, ASAM, GSAM",
        "total_steps": "SAM, SAGM, FSAM, ASAM, GSAM, SPL, SSPL",
        "weighting": "SPL, SSPL",
        "input_std": "ADM",
        "sspl_eta": "SSPL",
    }
    assert {name: rows[name]["read by"] for name in readers} == readers


def test_mistakes_are_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["list", "hparams", "--algorithm", "SAMM"]) == 2
    assert "unknown algorithm 'SAMM'. Did you mean SAM?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli(["list", "datasets", "--algorithm", "SAM"])
    assert "--algorithm and --dataset go with hparams" in capsys.readouterr().err


LIGHT = """
import sys
from domainbed_adm.cli import main
for arguments in (
    *(["list", what] for what in ("algorithms", "datasets", "hparams", "sweeps")),
    ["sweep", "status", "--sweep", "smoke", "--output_dir", "nowhere"],
    ["collect_results", "--input_dir", "tests/data/domainbed_sweep"],
):
    assert main(arguments) == 0
heavy = {"torch", "torchvision", "sklearn", "scipy", "PIL"} & set(sys.modules)
assert not heavy, heavy
"""


def test_listing_counting_and_collecting_load_no_torch(pytestconfig: pytest.Config) -> None:
    subprocess.run([sys.executable, "-c", LIGHT], cwd=pytestconfig.rootpath, check=True, stdout=subprocess.DEVNULL)


def test_methods_that_run_only_by_name_stand_behind(capsys: pytest.CaptureFixture[str]) -> None:
    shown = [row["algorithm"] for row in as_json(capsys, "algorithms")]
    assert shown == unnamed_methods()
    assert "SAM_SSPL_Random" not in shown
    assert cli(["list", "algorithms"]) == 0
    assert "run only where they are named" in capsys.readouterr().out
