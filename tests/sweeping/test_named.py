from __future__ import annotations

import json
from pathlib import Path

import pytest

from domainbed_adm.datasets.cards import CARDS, FOLDERS
from domainbed_adm.errors import UserError
from domainbed_adm.method.grid import unnamed_methods
from domainbed_adm.scripts.sweep import build_parser
from domainbed_adm.sweeping import plan
from domainbed_adm.sweeping.jobs import Sweep, check_sweep
from domainbed_adm.sweeping.launchers import LAUNCHERS

FIELDS = Sweep.__dataclass_fields__
SIZES = {"smoke": 30, "smoke_classification": 18, "paper_dg": 624, "full_grid": 67200}
SIZES |= {"paper_cifar": 78, "paper_fine_grained": 144, "fsam_cifar": 24, "fsam_cifar_wrn": 24}


def test_the_named_sweeps_are_these() -> None:
    assert list(plan.named_sweeps()) == sorted(SIZES)


@pytest.mark.parametrize("name", SIZES)
def test_a_named_sweep_passes_its_checks_and_has_its_size_and_line(name: str) -> None:
    flags = plan.read_named_sweep(name)
    sweep = Sweep(**{key: value for key, value in flags.items() if key in FIELDS})
    check_sweep(sweep, needs_data=False)
    assert sweep.count() == SIZES[name]
    assert flags["about"]
    assert f"| `{name}` |" in (plan.named_sweeps()[name].parent / "README.md").read_text()
    assert f"{SIZES[name]} runs" in (plan.named_sweeps()[name].parent / "README.md").read_text()


def test_full_grid_is_the_whole_grid_and_paper_dg_the_posters_rows() -> None:
    assert plan.read_named_sweep("full_grid")["algorithms"] == unnamed_methods()
    paper = plan.read_named_sweep("paper_dg")
    assert len(paper["algorithms"]) == 13
    assert set(paper["datasets"]) == {name for name, card in CARDS.items() if card.path == FOLDERS}
    assert json.loads(paper["hparams"]) == {"resnet18": True}


def test_every_flag_a_named_sweep_may_set_is_a_flag_of_sweep() -> None:
    flags = {action.dest for action in build_parser()._actions}
    assert set(plan.FLAGS) <= flags
    only_here = {"help", "command", "folder", "sweep", "seed", "dry_run", "plan_only", "skip_confirmation"}
    only_here |= {"images_per_second", "rate_from"}
    of_launchers = {flag.name for card in LAUNCHERS.values() for flag in card.flags}
    assert flags - set(plan.FLAGS) - of_launchers == only_here
    assert set(FIELDS) <= set(plan.FLAGS)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    path = tmp_path / "mine.yaml"
    path.write_text("output_dir: ~/res\nworkers: 2\ntrace_difficulty: true\n")
    flags = plan.read_named_sweep(str(path))
    assert flags == {"output_dir": "/home/me/res", "workers": 2, "trace_difficulty": True, "about": ""}


def test_a_file_of_the_users(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("steps: 5\nhparams: {lr: 0.1}\n")
    assert plan.read_named_sweep(str(path)) == {"steps": 5, "hparams": '{"lr": 0.1}', "about": ""}


WRONG = {
    "algoritms: [ERM]": "unknown flag 'algoritms'. Did you mean algorithms?",
    "skip_confirmation: true": "unknown flag 'skip_confirmation'",
    "steps: many": "steps cannot be many: Expected `int | null`, got `str`",
    "steps: true": "steps cannot be True: Expected `int | null`, got `bool`",
    "single_test_envs: 1": "single_test_envs cannot be 1: Expected `bool`, got `int`",
    "datasets: PACS": "datasets cannot be PACS: Expected `array`, got `str`",
    "datasets: [1]": "datasets cannot be [1]: Expected `str`, got `int`",
    "steps: 2020-01-01": "steps cannot be 2020-01-01: Expected `int | null`, got `date`",
    "hparams: {lr: 2020-01-01}": "hparams cannot be {'lr': datetime.date(2020, 1, 1)}: Object of type date is not JSON",
    "hparams: {lr: !!set {a}}": "hparams cannot be {'lr': {'a'}}: Object of type set is not JSON",
    "hparams: &a {lr: *a}": "hparams cannot be {'lr': {'lr': {...}}}: Circular reference",
    "data_dir: &a [*a]": "data_dir cannot be [[...]]: Expected `str | null`, got `array`",
    "? [a, b]\n: 1": "is not YAML",
    "a: " + 3000 * "[": "is not YAML: maximum recursion depth exceeded",
    "[1, 2]": "must map flags of sweep to values",
    "": "must map flags of sweep to values",
    "a: [": "is not YAML",
    "!!python/object/apply:os.getcwd []": "is not YAML",
}


@pytest.mark.parametrize(("content", "message"), WRONG.items())
def test_a_mistake_in_a_file_is_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        plan.read_named_sweep(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_sweep_names_the_nearest() -> None:
    with pytest.raises(
        UserError,
        match=r"unknown sweep 'smoky'. Did you mean smoke\? Valid: fsam_cifar, fsam_cifar_wrn, full_grid",
    ):
        plan.read_named_sweep("smoky")
    with pytest.raises(UserError, match=r"no file none.yaml: --sweep takes a YAML file or one of fsam_cifar"):
        plan.read_named_sweep("none.yaml")
