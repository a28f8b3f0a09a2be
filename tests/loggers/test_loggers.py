"""Loggers watch a run: they get its figures once each, whatever happens to the run, and never change or stop it."""

import csv
import json
import sys

import numpy as np
import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.extensions import LoggerCard, add_logger
from domainbed_adm.loggers.interface import Logger, figures_of
from domainbed_adm.loggers.watching import Watch
from domainbed_adm.run_args import RunArgs
from domainbed_adm.scripts import sweep
from domainbed_adm.scripts import train as script
from tests.extending import registries_put_back
from tests.training.test_resume import assert_same, outcome, train, train_killed

CONFIG = {"args": {"algorithm": "ERM", "dataset": "PACS", "test_envs": [1], "hparams_seed": 0, "trial_seed": 2}}
CONFIG["hparams"] = {"lr": 0.1}
ENVIRONMENTS = ["art", "photo", "sketch"]
ACCURACIES = {f"env{i}_{kind}_acc": i / 8 + (kind == "in") / 2 for i in range(3) for kind in ("in", "out")}
RECORDS = [{"step": step, "epoch": step, "loss": 1.0 / (step + 1), **ACCURACIES, **CONFIG} for step in (0, 2, 4)]


class Memory(Logger):
    """Keeps what it is told; as ``fails`` says it raises, and it draws at random."""

    told: list = []
    fails = ""

    def __init__(self, run):
        self.last_step = run.last_step
        self._call("init", run.title)

    def log(self, step, figures, scores):
        self._call("log", step)

    def end(self, status):
        self._call("end", status)

    def _call(self, what, value):
        np.random.random()
        if Memory.fails == what:
            raise ConnectionError("the network is down")
        Memory.told.append((what, value))


@pytest.fixture
def memory():
    Memory.told, Memory.fails = [], ""
    with registries_put_back():
        add_logger(LoggerCard("memory", f"{__name__}:Memory", "a list"))
        yield Memory


def watch(folder, *names, next_step=0, kept=()):
    return Watch(names, folder, CONFIG, ENVIRONMENTS, next_step, kept)


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_accuracies_have_names_and_means():
    figures = figures_of(RECORDS[0] | {"nan": float("nan"), "none": None}, ENVIRONMENTS)
    assert {"step", "nan", "none", "args"}.isdisjoint(figures)
    assert figures["loss"] == 1
    assert figures["in_acc/photo"] == figures["env1_in_acc"] == figures["test_in"] == 0.625
    assert figures["out_acc/sketch"] == 0.25
    assert (figures["train_in"], figures["train_out"]) == (0.625, 0.125)


def test_records_and_weights_are_those_of_a_run_that_nobody_watches_and_csv_has_them(tmp_path, memory):
    assert train(tmp_path / "alone", "ERM", resnet_dropout=0.1) == 0
    assert train(tmp_path / "watched", "ERM", "--logger", "csv", "--logger", "memory", resnet_dropout=0.1) == 0
    assert_same(tmp_path / "alone", tmp_path / "watched")
    records, _ = outcome(tmp_path / "watched")
    assert [float(row["loss"]) for row in rows(tmp_path / "watched")] == [record["loss"] for record in records]
    title = "ERM on Debug28, 0 held out"
    assert memory.told == [("init", title), ("log", 0), ("log", 2), ("log", 4), ("end", "finished")]


@pytest.mark.parametrize("where", ["step", "record", "checkpoint"])
def test_no_step_is_missing_or_double_after_a_kill(tmp_path, monkeypatch, memory, where):
    flags = ["--logger", "csv", "memory", "--checkpoint_every", "1"]
    train_killed(monkeypatch, 2 if where == "record" else 3, tmp_path, "ERM", *flags, where=where)
    assert train(tmp_path, "ERM", *flags) == 0
    assert [value for what, value in memory.told if what == "log"] == [0, 2, 4]
    assert memory.told[-1] == ("end", "finished")
    assert [row["step"] for row in rows(tmp_path)] == ["0", "2", "4"]


@pytest.mark.parametrize("fails", ["init", "log", "end"])
def test_one_that_fails_is_left_out_with_one_warning_and_is_told_later(tmp_path, capsys, memory, fails):
    memory.fails = fails
    assert train(tmp_path / "run", "ERM", "--logger", "memory") == 0
    told = capsys.readouterr().err
    assert told.count("warning: --logger memory failed, and the run goes on without it: the network is down") == 1
    memory.fails, memory.told = "", []
    assert train(tmp_path / "run", "ERM", "--logger", "memory") == 0
    steps = [] if fails == "end" else [0, 2, 4]
    assert memory.told == [
        ("init", "ERM on Debug28, 0 held out"),
        *(("log", step) for step in steps),
        ("end", "finished"),
    ]
    memory.told = []
    assert train(tmp_path / "run", "ERM", "--logger", "memory") == 0
    assert memory.told == []


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_what_is_not_installed_is_one_line_before_training(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    flags = ["--dataset", "Debug28", "--logger", name, "--output_dir", str(tmp_path / "run")]
    with pytest.raises(UserError, match=f"--logger {name} needs {name}: pip install {name}"):
        script.main(flags)
    assert not (tmp_path / "run").exists()


def test_names_are_checked_and_tensorboard_is_an_alias():
    with pytest.raises(UserError, match="unknown logger 'wanbd'. Did you mean wandb"):
        RunArgs(logger=("wanbd",))
    assert script.parse(["--logger", "csv", "--logger", "tensorboard", "--tensorboard"]).loggers == [
        "csv",
        "tensorboard",
    ]
    with (
        registries_put_back(),
        pytest.raises(UserError, match="logger 'csv' of mine cannot be added: domainbed_adm has"),
    ):
        add_logger(LoggerCard("csv", "mine:Csv", "-"))


def test_a_restart_logs_anew(tmp_path):
    assert train(tmp_path, "ERM", "--logger", "csv") == 0
    assert train(tmp_path, "ERM", "--restart") == 0
    assert not (tmp_path / "metrics.csv").exists()
    assert not (tmp_path / "loggers.json").exists()


@pytest.mark.filterwarnings("default")
def test_mlflow_goes_on_with_its_run_in_a_local_store(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    watch(tmp_path, "mlflow").observe(RECORDS[0], {})  # and is killed; the step is trained again
    (tmp_path / "loggers.json").write_text((tmp_path / "loggers.json").read_text().replace('"step": 0', '"step": -1'))
    again = watch(tmp_path, "mlflow", next_step=2)
    for record in RECORDS:
        again.observe(record, {"ADM": np.array([1.0, 2.0, np.nan])})
    again.end("finished")
    assert "warning: --logger" not in capsys.readouterr().err
    client = MlflowClient()
    [run] = client.search_runs([client.get_experiment_by_name("domainbed_adm").experiment_id])
    assert (run.info.status, run.data.tags["status"], run.data.params["hparams/lr"]) == ("FINISHED", "finished", "0.1")
    assert run.data.params["args/dataset"] == "PACS"
    history = client.get_metric_history(run.info.run_id, "in_acc/photo")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.625), (2, 0.625), (4, 0.625)]
    assert run.data.metrics["difficulty/ADM"] == 1.5


@pytest.mark.filterwarnings("default")
def test_wandb_offline_goes_on_with_its_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    first = watch(tmp_path, "wandb")
    first.observe(RECORDS[0], {})
    first.end("interrupted")
    name = json.loads((tmp_path / "loggers.json").read_text())["wandb"]["id"]
    again = watch(tmp_path, "wandb", next_step=2, kept=RECORDS[:1])
    for record in RECORDS:
        again.observe(record, {})
    again.end("finished")
    assert "warning: --logger" not in capsys.readouterr().err
    assert len(list((tmp_path / "wandb").glob(f"offline-run-*-{name}/run-{name}.wandb"))) == 2
    assert json.loads((tmp_path / "loggers.json").read_text())["wandb"] == {"id": name, "status": "finished", "step": 4}


def test_a_sweep_whose_jobs_could_not_log_is_not_launched(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    flags = ["launch", "--output_dir", str(tmp_path / "sweep"), "--datasets", "Debug28", "--algorithms", "ERM"]
    with pytest.raises(UserError, match="--logger wandb needs wandb: pip install wandb"):
        sweep.main([*flags, "--skip_confirmation", "--command_launcher", "local", "--logger", "wandb"])
    assert not (tmp_path / "sweep").exists()
