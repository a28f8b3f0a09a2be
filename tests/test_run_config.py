"""``train --config``: a file of flags, overridden by those given; another run's folder repeats that run."""

from __future__ import annotations

import json

import pytest

from domainbed_adm import UserError
from domainbed_adm.cli import main
from domainbed_adm.run_args import RunArgs
from domainbed_adm.scripts.train import parse
from tests.runs import record, write

CONFIG = """
dataset: Debug28
algorithm: SAM
epochs: 3
test_envs: [1, 2]
cache: true
hparams: {rho: 0.1, lr: 0.01}
trial_seed: 4
seed:
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    return str(path)


def test_flags_of_a_file_and_given_ones_over_it(config):
    expected = {"dataset": "Debug28", "algorithm": "SAM", "trial_seed": 4, "hparams": '{"rho": 0.1, "lr": 0.01}'}
    assert parse(["--config", config]) == RunArgs(**expected, test_envs=(1, 2), epochs=3, cache=True)
    given = ["--steps", "7", "--test_envs", "0", "--no-cache", "--seed", "2", "--hparams", "{}"]
    ours = RunArgs(**expected | {"hparams": "{}"}, test_envs=(0,), steps=7, seed=2)
    assert parse([*given, "--config", config]) == ours


def test_a_runs_folder_repeats_it(tmp_path):
    args = RunArgs(dataset="Debug28", algorithm="SAM", steps=5, test_envs=(1,), output_dir="elsewhere").recorded()
    one = record((0.5, 0.5), (0.5, 0.5), (0.5, 0.5), dataset="Debug28", algorithm="SAM")
    hparams = {"rho": 0.2, "batch_size": 8, "total_steps": 5, "lr": 1e-3}
    write(tmp_path, one | {"args": args, "hparams": hparams})
    ours = parse(["--config", str(tmp_path), "--seed", "3", "--output_dir", "again"])
    assert json.loads(ours.hparams or "") == {"rho": 0.2, "batch_size": 8}
    assert (ours.steps, ours.test_envs, ours.seed, ours.output_dir) == (5, (1,), 3, "again")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("stepz: 3", "unknown flag 'stepz'. Did you mean steps?"),
        ("steps: many", "argument --steps: invalid int value: 'many'"),
        ("- steps", "must map flags of train to values"),
        ("steps: [", "is not YAML"),
        ("!!python/object/apply:os.getcwd []", "is not YAML"),
        ("steps: 0", "--steps must be"),
        ("hparams: {lr: 2020-01-01}", "hparams must be made of JSON's types"),
    ],
)
def test_a_mistake_in_a_config_is_one_line(tmp_path, capsys, content, message):
    path = tmp_path / "run.yaml"
    path.write_text(content)
    command = ["--config", str(path), "--output_dir", str(tmp_path / "run")]
    with pytest.raises(UserError) as told:
        parse(command, raising=True)
    assert message in str(told.value)
    assert "\n" not in str(told.value)
    assert not (tmp_path / "run").exists()


def test_a_config_that_is_not_there_is_one_line(tmp_path, capsys):
    for path, message in ((tmp_path / "no.yaml", "no file"), (tmp_path, "holds no run")):
        assert main(["train", "--config", str(path)]) == 2
        told = capsys.readouterr().err
        assert message in told
        assert told.count("\n") == 1
