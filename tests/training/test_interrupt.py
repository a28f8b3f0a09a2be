"""Ctrl-C, which every process of the terminal hears, costs one line and no checkpoint, workers or not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import domainbed_adm
from domainbed_adm.cli import main
from domainbed_adm.system.process import terminate_as_interrupt
from domainbed_adm.training import loop
from domainbed_adm.training.resume import saved_step

FLAGS = ["--dataset", "Debug28", "--algorithm", "SAM", "--steps", "100000", "--checkpoint_freq", "100000"]
FLAGS += ["--checkpoint_every", "1", "--hparams", json.dumps({"cnn_width": 8, "batch_size": 3})]


@pytest.mark.parametrize("moment", ["workers start", "workers load"])
def test_interrupted_with_workers(tmp_path, monkeypatch, capsys, moment):
    command = [sys.executable, "-m", "domainbed_adm.scripts.train", *FLAGS, "--output_dir", str(tmp_path)]
    child = subprocess.Popen(
        [*command, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal's foreground job is
        env=os.environ | {"PYTHONPATH": str(Path(domainbed_adm.__file__).parents[1])},
    )
    with child:
        while "samples in+out" not in child.stdout.readline():  # printed just before the workers start
            assert child.poll() is None
        if moment == "workers start":
            time.sleep(0.3)
        while moment == "workers load" and not (tmp_path / "checkpoint.pkl").exists():
            time.sleep(0.05)
        os.killpg(child.pid, signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    told, begins = errors.removeprefix("domainbed-adm: interrupted: the same command "), "begins again\n"
    if moment == "workers load":
        begins = f"goes on from step {saved_step(tmp_path / 'checkpoint.pkl')}\n"
    assert told == begins
    assert (tmp_path / "err.txt").read_text() == "interrupted\n"
    assert child.returncode == 130

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_step", stop)
    assert main(["train", *FLAGS, "--output_dir", str(tmp_path), "--workers", "0"]) == 130
    assert ("resumed at step" in capsys.readouterr().out) == (moment == "workers load")


@pytest.mark.parametrize("ignored", [signal.SIGHUP, signal.SIGTERM])
def test_what_the_parent_ignores_as_nohup_does_stays_ignored(ignored):
    before = signal.signal(ignored, signal.SIG_IGN)
    try:
        with terminate_as_interrupt():
            signal.raise_signal(ignored)
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGTERM if ignored is signal.SIGHUP else signal.SIGHUP)
        assert signal.getsignal(ignored) == signal.SIG_IGN
    finally:
        signal.signal(ignored, before)
