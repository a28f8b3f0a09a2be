"""``python -m benchmarks.precision_accuracy``: what it launches, and what it pairs."""

import pytest

from benchmarks import precision_accuracy
from benchmarks.precision_accuracy import FAST, compared, main
from domainbed_adm.errors import UserError
from domainbed_adm.scripts.sweep import parse
from tests.runs import record, write


def runs(root, algorithm, shift):
    """Of two trials and three environments; the test accuracy is 50 % and ``shift`` points per environment more."""
    for trial in range(2):
        for env in range(3):
            pairs = [(0.8, 0.8)] * 3
            pairs[env] = (0.5 + shift * (env + 1) / 100, 0.5)
            one = record(*pairs, test_envs=(env,), algorithm=algorithm, trial_seed=trial)
            write(root / f"{algorithm}{trial}{env}", one)


def test_runs_are_paired_by_environment_and_trial(tmp_path):
    for algorithm, shift in (("ERM", 1.0), ("SAM", -2.0)):
        runs(tmp_path / "slow", algorithm, 0.0)
        runs(tmp_path / "fast", algorithm, shift)
    erm, sam = compared("PACS", tmp_path / "slow", tmp_path / "fast")
    assert (erm["algorithm"], erm["pairs"], erm["environments"]) == ("ERM", "6", "3")
    assert (erm["fp32"], erm["fast"], erm["difference"]) == ("50.00", "52.00", "+2.00")
    assert erm["interval"] == "-0.48 to +4.48"  # 2 -+ t(0.975, 2) / sqrt(3)
    assert (sam["difference"], sam["interval"]) == ("-4.00", "-8.97 to +0.97")


def test_the_two_sweeps_differ_in_what_makes_them_fast(tmp_path, monkeypatch):
    launched = []

    def command(line):
        launched.append(parse(line[1:]))
        for algorithm in ("ERM", "SAM"):
            runs(tmp_path / launched[-1].output_dir, algorithm, len(launched))
        return 0

    monkeypatch.setattr(precision_accuracy, "command", command)
    folders = ["--work_dir", str(tmp_path / "runs"), "--output_dir", str(tmp_path / "out")]
    assert main(["--datasets", "PACS", "--images", "7", "--steps", "30", *folders]) == 0
    slow, fast = (vars(flags) for flags in launched)
    unlike = {name for name in slow if slow[name] != fast[name]}
    assert unlike == {"output_dir", *FAST}
    assert (slow["precision"], fast["precision"], fast["cache"]) == ("fp32", "bf16", True)
    assert (slow["steps"], slow["n_trials"], slow["n_hparams"], slow["single_test_envs"]) == (30, 3, 1, True)
    (path,) = (tmp_path / "out").glob("precision-accuracy-*.csv")
    assert path.read_text().count("\nmade images,") == 2


def test_a_run_that_fails_ends_it(tmp_path, monkeypatch):
    monkeypatch.setattr(precision_accuracy, "command", lambda line: 1)
    with pytest.raises(UserError, match="failed"):
        main(["--datasets", "PACS", "--images", "7", "--work_dir", str(tmp_path)])
