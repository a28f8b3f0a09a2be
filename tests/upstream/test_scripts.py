"""The commands: DomainBed's scripts with their own flags, and the jobs that a sweep launches."""

import hashlib
import json
import shlex
import sys

import pytest

from domainbed_adm import upstream
from domainbed_adm.cli import main
from domainbed_adm.datasets.cards import CARDS
from domainbed_adm.errors import UserError
from domainbed_adm.run_files import ExitCode
from domainbed_adm.upstream.registration import through_us
from tests.extending import EXAMPLE, environment, install
from tests.system.test_lock import held_elsewhere
from tests.upstream.conftest import HOST


def train(tmp_path, *flags, algorithm="SAM_SSPL_ADM"):
    command = ["upstream", "train", "--domainbed", str(HOST), "--algorithm", algorithm, *flags]
    return main([*command, "--output_dir", str(tmp_path / "run")])


def record(folder):
    return json.loads((folder / "results.jsonl").read_text().splitlines()[-1])


@pytest.mark.parametrize(
    ("flags", "steps"),
    [
        (["--steps", "4"], 4),
        (["--step=4"], 4),
        (["--st", "4", "--dataset", "Photos"], 4),
        ([], 3),
        (["--dataset", "Pixels"], 3),
        (["--steps", "0"], 3),
        (["--dataset", "RotatedDigits", "--steps", "2"], 2),
    ],
)
def test_a_curriculum_ends_where_the_run_ends(tmp_path, flags, steps):
    """By the script's own parser, abbreviations included; without --steps by the dataset's N_STEPS."""
    assert train(tmp_path, *flags) == 0
    found = record(tmp_path / "run")
    assert found["hparams"]["total_steps"] == steps
    assert found["step"] == steps - 1
    assert (tmp_path / "run/done").exists()


def test_a_dataset_may_set_its_steps_when_it_is_built(tmp_path, copy_of_host):
    file = copy_of_host / "domainbed/datasets.py"
    code = (
        "class Counted(Pixels):\n    def __init__(self, *a):\n        super().__init__(*a)\n        self.N_STEPS = 2\n"
    )
    file.write_text(file.read_text() + "\n\n" + code)
    flags = ["--domainbed", str(copy_of_host), "--dataset", "Counted", "--algorithm", "SPL_ADM"]
    assert main(["upstream", "train", *flags, "--output_dir", str(tmp_path / "run")]) == 0
    assert record(tmp_path / "run")["hparams"]["total_steps"] == 2


def test_the_hosts_own_algorithms_run_as_before(tmp_path):
    assert train(tmp_path, "--steps", "2", algorithm="Smoothed") == 0
    assert "total_steps" not in record(tmp_path / "run")["hparams"]


def test_a_folder_that_another_process_trains_in_is_left_alone(tmp_path, capsys):
    with held_elsewhere(tmp_path / "run"):
        assert train(tmp_path, "--steps", "2") == ExitCode.LOCKED == 75
        error = capsys.readouterr().err
        assert error == f"domainbed-adm: error: {tmp_path / 'run'} is being trained by another process\n"
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert train(tmp_path, "--steps", "2") == 0


def test_a_run_keeps_its_lock_while_it_trains(tmp_path, copy_of_host):
    """Also where the script reads its flags twice."""
    file = copy_of_host / "domainbed/scripts/train.py"
    code = file.read_text().replace("main(parser.parse_args())", "parser.parse_args()\n    main(parser.parse_args())")
    asked = "from domainbed_adm.system.disk import is_locked\n    (folder / 'asked').write_text(str(is_locked(folder)))"
    file.write_text(code.replace("torch.manual_seed(args.seed)", asked))
    flags = ["--steps", "1", "--algorithm", "ERM", "--output_dir", str(tmp_path / "run")]
    assert main(["upstream", "train", "--domainbed", str(copy_of_host), *flags]) == 0
    assert (tmp_path / "run/asked").read_text() == "True"
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["asked", "done", "results.jsonl"]


WRONG = {
    "Digits is trained on train: hold out all else: --test_envs 1": ["--dataset", "Digits"],
    "DigitsC is trained on train: hold out all else: --test_envs $(seq 1 25)": [
        "--dataset=DigitsC",
        "--test_envs",
        "1",
    ],
    "unknown algorithm 'SAM_SSPL_ADN'. Did you mean SAM_SSPL_ADM?": ["--algorithm", "SAM_SSPL_ADN"],
    "weighting 'memory' needs to know which samples": ["--hparams", '{"weighting": "memory"}'],
    "averaging 'ema' is done by our own engine": ["--hparams", '{"averaging": "ema"}'],
    "hparam total_steps is set by the run and cannot be given": ["--hparams", '{"total_steps": 5}'],
    "--hparams is not JSON": ["--hparams", "{rho: 1}"],
}


@pytest.mark.parametrize("message", WRONG)
def test_what_cannot_work_is_said_before_anything_is_written(tmp_path, capsys, message):
    assert train(tmp_path, *WRONG[message]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_memory_is_no_concern_of_methods_without_a_curriculum(tmp_path):
    assert train(tmp_path, "--hparams", '{"weighting": "memory"}', "--steps", "2", algorithm="SAM") == 0


@pytest.mark.parametrize("flags", [["--help"], ["train", "--help"], ["sweep", "-h"]])
def test_help(capsys, monkeypatch, flags):
    monkeypatch.setenv(upstream.VARIABLE, str(HOST))
    with pytest.raises(SystemExit) as end:
        main(["upstream", *flags])
    assert end.value.code == 0
    out = capsys.readouterr().out
    assert ("--domainbed PATH" in out) == (flags == ["--help"])
    assert ("--data_dir DATA_DIR" in out) == (len(flags) == 2)


@pytest.mark.parametrize("flags", [[], ["--steps", "3"], ["../train"]])
def test_no_script(capsys, flags):
    with pytest.raises(SystemExit) as end:
        main(["upstream", *flags])
    assert end.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_error_of_the_hosts_parser_is_the_hosts(capsys, tmp_path):
    with pytest.raises(SystemExit) as end:
        train(tmp_path, "--steps", "many")
    assert end.value.code == 2
    assert "invalid int value: 'many'" in capsys.readouterr().err


def test_a_sweeps_jobs_know_our_methods_and_keep_their_folders(monkeypatch, tmp_path, capsys):
    """Jobs are new processes, extensions in them; flags keep their quoting, folders the host's hashes."""
    install(monkeypatch, tmp_path / "site")
    paths = [str(tmp_path / "site"), str(EXAMPLE)]
    monkeypatch.setenv("PYTHONPATH", environment(*paths)["PYTHONPATH"])
    flags = [
        "--domainbed",
        str(HOST),
        "--steps",
        "3",
        "--hparams",
        '{"rho": 0.1, "batch_size": 4}',
        "--dataset",
        "Stripes",
    ]
    flags += ["--algorithms", "SPL_Margin", "--data_dir", "no data", "--command_launcher", "local"]
    assert main(["upstream", "sweep", "launch", *flags, "--output_dir", str(tmp_path / "my sweep")]) == 0
    folders = [path.parent for path in (tmp_path / "my sweep").glob("*/done")]
    assert len(folders) == 2
    for folder in folders:
        found = record(folder)
        assert found["hparams"]["batch_size"] == 4
        assert found["hparams"]["total_steps"] == 3
        args, names = found["args"], ("algorithm", "dataset", "data_dir", "seed", "steps", "hparams")
        flags = {name: args[name] for name in names} | {"test_envs": args["test_envs"][0]}
        assert folder.name == hashlib.md5(json.dumps(flags, sort_keys=True).encode()).hexdigest()
    capsys.readouterr()
    assert main(["collect_results", "--input_dir", str(tmp_path / "my sweep")]) == 0
    out = capsys.readouterr().out
    assert "Total records: 2" in out
    assert "SPL_Margin" in out
    assert (
        main(["upstream", "collect_results", "--domainbed", str(HOST), "--input_dir", str(tmp_path / "my sweep")]) == 0
    )
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["SPL_Margin"]


def test_every_launcher_is_redirected_the_checkouts_own_included(tmp_path, capsys, copy_of_host):
    file = copy_of_host / "domainbed/command_launchers.py"
    file.write_text(
        file.read_text() + '\n\nREGISTRY["cluster"] = lambda commands: print("submit:", *commands, sep="\\n")\n'
    )
    flags = ["--algorithms", "ERM", "SAM_SSPL_ADM", "--hparams", '{"rho": 0.1}', "--data_dir", "no data"]
    flags += ["--output_dir", str(tmp_path / "my sweep"), "--command_launcher", "cluster"]
    assert main(["upstream", "sweep", "launch", f"--domainbed={copy_of_host}", *flags]) == 0
    out = capsys.readouterr().out
    commands = [shlex.split(line) for line in out.splitlines() if line != "submit:"]
    assert len(commands) == 6
    start = [sys.executable, "-m", "domainbed_adm.upstream", "train", "--domainbed", str(copy_of_host)]
    assert all(command[:6] == start for command in commands)
    assert all(command[command.index("--hparams") + 1] == '{"rho": 0.1}' for command in commands)


def test_our_engines_runs_are_read_by_the_hosts_collector(tmp_path, capsys):
    for algorithm in ("SAM", "ERM"):
        run = ["--dataset", "Debug28", "--steps", "2", "--hparams", '{"cnn_width": 8, "batch_size": 4}']
        assert main(["train", "--algorithm", algorithm, *run, "--output_dir", str(tmp_path / "runs" / algorithm)]) == 0
    capsys.readouterr()
    assert main(["upstream", "collect_results", "--domainbed", str(HOST), "--input_dir", str(tmp_path / "runs")]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["ERM", "SAM"]


@pytest.mark.parametrize("start", ["python", "python3", "/usr/bin/python3.11 -u"])
def test_the_start_of_a_command_is_replaced_and_no_more(host, start):
    found = through_us(
        f"{start} -m domainbed.scripts.train --hparams '{{\"python -m domainbed.scripts.train\": 1}}'", host.host
    )
    options = ["-u"] if "-u" in start else []
    head = [sys.executable, *options, "-m", "domainbed_adm.upstream", "train", "--domainbed", str(HOST)]
    assert shlex.split(found) == [*head, "--hparams", '{"python -m domainbed.scripts.train": 1}']


def test_a_command_that_is_not_understood_is_told(host):
    with pytest.raises(UserError, match="has no job command of the form `python -m domainbed"):
        host.host.command_launchers.REGISTRY["dummy"](["sbatch train.sh"])


def test_a_dataset_of_official_test_sets_trains_on_its_training_images(tmp_path):
    assert train(tmp_path, "--dataset", "Digits", "--test_envs", "1", "--steps", "2", "--hparams", SMALL) == 0
    assert record(tmp_path / "run")["args"]["test_envs"] == [1]


SMALL = '{"batch_size": 4}'
SWEEP = """
import argparse
from domainbed import datasets

DATASETS = [name for name in datasets.DATASETS if "Debug" not in name]
parser = argparse.ArgumentParser()
parser.add_argument("command")
parser.add_argument("--datasets", nargs="+", default=DATASETS)
print(*parser.parse_args().datasets)
"""


def test_a_sweep_never_holds_out_the_training_images(capsys, copy_of_host):
    """With DomainBed's own flag and default: of all datasets ours with official test sets are left out, or refused."""
    (copy_of_host / "domainbed/scripts/sweep.py").write_text(SWEEP)
    sweep = ["upstream", "sweep", "--domainbed", str(copy_of_host), "launch"]
    assert main(sweep) == 0
    out, told = capsys.readouterr()
    official = [name for name, card in CARDS.items() if card.official_split]
    every = out.split()
    assert set(every) & set(CARDS) == {name for name in CARDS if "Debug" not in name} - set(official)
    assert {"Pixels", "RotatedDigits"} < set(every)
    assert told == (
        f"warning: the sweep leaves out {len(official)} datasets that are trained on train alone: "
        "use `domainbed-adm sweep`, or `domainbed-adm upstream train` with --test_envs\n"
    )
    assert main([*sweep, "--datasets", "RotatedDigits", "Pixels"]) == 0
    assert capsys.readouterr() == ("RotatedDigits Pixels\n", "")
    assert main([*sweep, "--datasets", "RotatedDigits", "CIFAR10"]) == 2
    told = capsys.readouterr().err
    assert "CIFAR10 is trained on train, and DomainBed's sweep would hold that out, too: use" in told
    assert told.count("\n") == 1
