"""A study's plan: what it may hold, what a mistake is told, and that it stays as it was when the study began."""

import json

import pytest
import yaml

from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.studying.plan import STUDY, begin, fixed_plan, read_plan, statement

PLAN = {
    "datasets": ["RotatedDigits", "Letters"],
    "steps": 10,
    "n_trials": 2,
    "hparams": {"cnn_width": 8},
    "arms": {
        "SAM": {"algorithm": "SAM"},
        "longer SAM": {"algorithm": "SAM", "match_passes": "SAM_SSPL_ADM"},
        "ADM": {"algorithm": "SAM_SSPL_ADM"},
        "random": {"algorithm": "SAM_SSPL_Random", "control_of": "ADM"},
        "hard first": {
            "algorithm": "SAM_SSPL_ADM",
            "hparams": {"curriculum_order": "hard_first"},
            "control_of": "ADM",
        },
    },
    "primary": {"arm": "ADM", "baseline": "SAM"},
    "smallest_difference": 1.0,
}


def write(tmp_path, **changed):
    path = tmp_path / "plan.yaml"
    path.write_text(
        yaml.safe_dump({name: value for name, value in (PLAN | changed).items() if value is not None}, sort_keys=False)
    )
    return path


def test_its_arms_are_sweeps_of_single_test_environments(tmp_path):
    plan = read_plan(write(tmp_path))
    jobs = plan.jobs(tmp_path)
    assert {arm: len(own) for arm, own in jobs.items()} == dict.fromkeys(plan.arms, 2 * (6 + 5))
    names = [job.name for own in jobs.values() for job in own]
    assert len(set(names)) == len(names)
    first = jobs["hard first"][0]
    assert json.loads(first.train_args["hparams"]) == {"cnn_width": 8, "curriculum_order": "hard_first"}
    assert jobs["longer SAM"][0].n_steps == 14
    assert [plan.passes(arm) for arm in plan.arms] == [6, 6, 8, 6, 8]
    told = "\n".join(statement(plan, jobs))
    assert "11 environments held out one by one, 2 trials each, 110 runs" in told
    assert "Primary comparison: ADM against SAM" in told


def test_a_dataset_has_a_length_and_hparams_of_its_own(tmp_path):
    own = {"Letters": {"steps": 20, "hparams": {"cnn_width": 16, "lr": 0.01}}}
    plan = read_plan(write(tmp_path, by_dataset=own))
    jobs = plan.jobs(tmp_path)
    for arm in ("SAM", "hard first"):
        for job in jobs[arm]:
            letters = job.train_args["dataset"] == "Letters"
            changed = {"cnn_width": 16, "lr": 0.01} if letters else {"cnn_width": 8}
            assert json.loads(job.train_args["hparams"]) == changed | plan.arms[arm].hparams
            assert job.n_steps == (20 if letters else 10)
        assert len(jobs[arm]) == 2 * (6 + 5)
    assert begin(tmp_path / "study", plan)
    assert fixed_plan(tmp_path / "study") == plan


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"by_dataset": {"Leters": {"steps": 20}}}, "by_dataset: unknown dataset of this study 'Leters'. Did you mean"),
        ({"by_dataset": {"Letters": {"hparams": {"roh": 1}}}}, "unknown hparam 'roh'"),
        ({"arms": {**PLAN["arms"], "ADM": {"algorithm": "SAM_SSPL_ADN"}}}, "Did you mean SAM_SSPL_ADM"),
        ({"primary": None}, "it names no primary comparison: add primary:"),
        ({"primary": {"arm": "ADM", "baseline": "ADM"}}, "primary compares ADM with itself"),
        ({"primary": {"arm": "AMD", "baseline": "SAM"}}, "primary arm: unknown arm 'AMD'. Did you mean"),
        ({"arms": {**PLAN["arms"], "twin": {"algorithm": "SAM"}}}, "SAM and twin train the same"),
        ({"arms": {"SAM": {"algorithm": "SAM"}}}, "two arms or more"),
        ({"arms": {**PLAN["arms"], "SAM": {"algorithm": "SAM", "control_of": "SAM"}}}, "control_of"),
        ({"arms": {**PLAN["arms"], "SAM": {"algorithm": "SAM", "hparams": {"roh": 1}}}}, "unknown hparam 'roh'"),
        ({"arms": {**PLAN["arms"], "SAM": {"algorithm": "SAM", "step": 1}}}, "unknown field `step`"),
        ({"smallest_difference": 0}, "smallest_difference must be above 0"),
        ({"selection": "leave-one-domain-out"}, "selection of a study"),
        ({"n_trials": 1}, "pilot_trials must be from 2"),
        ({"datasets": "PACS"}, "Expected `array`"),
        ({"lr": 1}, "unknown field `lr`"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_started(tmp_path, changed, message, capsys):
    path, folder = write(tmp_path, **changed), tmp_path / "study"
    with pytest.raises(UserError, match=message):
        read_plan(path)
    assert main(["study", str(path), "--output_dir", str(folder)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not folder.exists()


def test_a_plan_is_fixed_when_it_begins(tmp_path):
    folder, plan = tmp_path / "study", read_plan(write(tmp_path))
    assert fixed_plan(folder) is None
    assert begin(folder, plan)
    assert not begin(folder, plan)
    assert fixed_plan(folder) == plan
    arms = {**PLAN["arms"], "SAM": {"algorithm": "SAM", "hparams": {"rho": 0.1}}}
    other = read_plan(write(tmp_path, smallest_difference=0.5, arms=arms))
    before = (folder / STUDY).read_bytes()
    with pytest.raises(UserError, match=r"began with another plan \(arms SAM, smallest_difference\)"):
        begin(folder, other)
    assert (folder / STUDY).read_bytes() == before
    (folder / STUDY).write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        begin(folder, plan)


def test_help_shows_a_plan_that_can_be_read(tmp_path, capsys):
    from domainbed_adm.scripts.study import EXAMPLES

    shown = EXAMPLES.split("a plan:\n")[1]
    path = tmp_path / "shown.yaml"
    path.write_text("\n".join(line.removeprefix("  ") for line in shown.splitlines()))
    assert main(["study", str(path), "--dry_run"]) == 0
    out = capsys.readouterr().out
    assert "Smallest difference of interest: 1 percentage points" in out
    assert main(["study", str(path)]) == 2
    assert "--output_dir results/study" in capsys.readouterr().err
