"""A study from a plan to its page, with small runs."""

import html
import json
import re

import pytest
import yaml

from domainbed_adm.cli import main
from domainbed_adm.sweeping.plan import planned_jobs

#: What all tests here read is made once.
pytestmark = pytest.mark.xdist_group("study")

PLAN = {
    "about": "a small one",
    "datasets": ["Debug28"],
    "steps": 3,
    "n_trials": 2,
    "checkpoint_freq": 2,
    "trace_difficulty": 6,
    "hparams": {"cnn_width": 8, "batch_size": 4},
    "arms": {
        "plain <b>": {"algorithm": "ERM", "match_passes": "SPL_GDM"},
        "GDM": {"algorithm": "SPL_GDM"},
        "random": {"algorithm": "SPL_Random", "control_of": "GDM"},
    },
    "primary": {"arm": "GDM", "baseline": "plain <b>"},
    "smallest_difference": 1.0,
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("study")
    plan, folder = root / "plan.yaml", root / "out"
    plan.write_text(yaml.safe_dump(PLAN, sort_keys=False))
    assert main(["study", str(plan), "--output_dir", str(folder), "--pilot"]) == 0
    assert not (folder / "study.json").exists()
    piloted = {path.name for path in folder.iterdir() if (path / "done").exists()}
    assert main(["study", str(plan), "--output_dir", str(folder), "--jobs", "2"]) == 0
    return plan, folder, piloted


def test_the_pilots_runs_count_and_all_arms_ran(study):
    _, folder, piloted = study
    jobs = planned_jobs(folder)
    assert len(jobs) == 3 * 3 * 2
    assert all((job.output_dir / "done").exists() for job in jobs)
    assert len(piloted) == 2 * 3 * 2
    assert piloted <= {job.name for job in jobs}


def test_the_page_and_the_text_say_the_same(study):
    _, folder, _ = study
    page, text = (folder / "study.html").read_text(), (folder / "study.md").read_text()
    words = re.search(r'<p class="verdict">(.*?)</p>', page)[1]
    assert f"**{html.unescape(words)}**" in text
    assert "plain <b>" not in page  # escaped
    assert "plain &lt;b&gt;" in page
    for heading in ("Difference to plain <b>", "Each arm against its controls", "Difficulty and later correctness"):
        assert f"## {heading}" in text
        assert html.escape(heading) in page
    assert page.count("<svg") == 2
    assert "of the planned runs are not finished" not in page
    row = next(line for line in text.splitlines() if line.startswith("| plain <b> | ERM, as many passes as SPL_GDM"))
    assert "0.0 |" in row or "passes" in row


def test_again_it_only_writes_the_page(study, capsys, monkeypatch):
    plan, folder, _ = study
    monkeypatch.setattr("domainbed_adm.scripts.study.Launch", None)
    assert main(["study", str(plan), "--output_dir", str(folder), "--title", "Again"]) == 0
    assert "<h1>Again</h1>" in (folder / "study.html").read_text()
    assert "The plan is fixed" not in capsys.readouterr().out


def test_a_changed_plan_is_refused_and_nothing_is_lost(study, tmp_path, capsys):
    _, folder, _ = study
    other = tmp_path / "plan.yaml"
    other.write_text(yaml.safe_dump(PLAN | {"steps": 4}, sort_keys=False))
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert main(["study", str(other), "--output_dir", str(folder)]) == 2
    assert "began with another plan (steps)" in capsys.readouterr().err
    assert main(["study", str(other), "--output_dir", str(folder), "--pilot"]) == 2
    assert "has begun: its number of trials is fixed" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_workers_may_run_it(tmp_path, capsys):
    plan, folder = tmp_path / "plan.yaml", tmp_path / "out"
    plan.write_text(yaml.safe_dump(PLAN | {"n_trials": 2}, sort_keys=False))
    assert main(["study", str(plan), "--output_dir", str(folder), "--plan_only"]) == 0
    assert "sweep work --output_dir" in capsys.readouterr().out
    assert len(planned_jobs(folder)) == 18
    assert json.loads((folder / "study.json").read_text())["smallest_difference"] == 1.0
