"""Launchers of other packages, in both hosts; what cannot be one says why."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.extensions import _SWEEPS, LauncherCard, LauncherFlag, add_launcher
from domainbed_adm.registry import load_extensions
from domainbed_adm.run_args import FLAGS
from domainbed_adm.scripts.sweep import build_parser
from domainbed_adm.sweeping.jobs import DONE, Job, Sweep
from domainbed_adm.sweeping.launchers import LAUNCHERS
from domainbed_adm.sweeping.pool import Outcome
from domainbed_adm.testing import check_launcher
from domainbed_adm.upstream.launchers import host_launcher
from tests.extending import install

DIGITS = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True)
SWEEP = ["--datasets", "RotatedDigits", "--algorithms", "ERM", "--n_trials", "1", "--n_hparams", "1"]
SWEEP += ["--single_test_envs", "--skip_confirmation"]
HERE = f"{__name__}:"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path / "site")
    load_extensions()


@pytest.mark.parametrize("name", ["local", "multi_gpu", "each", "queued"])
def test_they_conform(example: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    (tmp_path / "out").mkdir()
    check_launcher(LAUNCHERS[name], tmp_path / "out")


def splits(commands: list[str]) -> list[int]:
    return [subprocess.call(command.split()) for command in commands]


def twice(commands: list[str]) -> list[int]:
    return [subprocess.call(shlex.split(command)) for command in [*commands, *commands]][: len(commands)]


def pops(commands: list[str]) -> list[int]:
    """As DomainBed's multi_gpu."""
    return [subprocess.call(shlex.split(commands.pop(0))) for _ in range(len(commands))]


def optimist(commands: list[str]) -> list[int]:
    return [min(0, subprocess.call(shlex.split(command))) for command in commands]


def deaf(commands: list[str], skip: Any = lambda index: False) -> list[int]:
    return [skip(index) * 0 + subprocess.call(shlex.split(command)) for index, command in enumerate(commands)]


def liar(commands: list[str], on_end: Any = lambda index, outcome: None) -> list[int]:
    codes = [subprocess.call(shlex.split(command)) for command in commands]
    for index in range(len(commands)):
        on_end(index, Outcome(0, [], 0.0))
    return codes


def test_a_launcher_may_pop_its_commands(tmp_path: Path) -> None:
    check_launcher(LauncherCard("mine", "-", HERE + "pops"), tmp_path)


def something(commands: list[str]) -> list[int]:
    return [0]


WRONG = {
    splits: "must run once, ran 0 times",
    twice: "command 0 must run once, ran 2 times",
    optimist: r"must return the exit codes \[0, 3, 75, 130, 0\], in order, not \[0, 0, 0, 0, 0\]",
    deaf: "ran a command that skip told it to leave",
    liar: "on_end got 0 for exit code",
}


@pytest.mark.parametrize("function", WRONG, ids=lambda function: function.__name__)
def test_the_check_finds(tmp_path: Path, function: Any) -> None:
    with pytest.raises((AssertionError, UserError), match=WRONG[function]):
        check_launcher(LauncherCard("mine", "-", HERE + function.__name__), tmp_path)


def test_the_wrong_number_of_exit_codes_is_one_line() -> None:
    with pytest.raises(UserError, match="launcher mine returned 1 exit codes for 0 commands"):
        LauncherCard("mine", "-", HERE + "something").start()([])


def touches(monkeypatch: pytest.MonkeyPatch) -> None:
    command = property(lambda job: shlex.join(["sh", "-c", 'mkdir -p "$0"; touch "$0/done"', str(job.output_dir)]))
    monkeypatch.setattr(Job, "command", command)


def test_one_as_in_domainbed_runs_jobs(
    example: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    touches(monkeypatch)
    assert main(["sweep", "launch", str(tmp_path / "out"), "--command_launcher", "each", *SWEEP]) == 0
    assert {job.state for job in DIGITS.jobs(tmp_path / "out")} == {DONE}
    assert main(["sweep", "launch", str(tmp_path), "--queue_log", "x", *SWEEP]) == 2
    assert "--queue_log is for --command_launcher queued, not local\n" in capsys.readouterr().err


def test_workers_are_handed_over_with_the_launchers_flags(
    example: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"  # stands in for the interpreter that runs the workers
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$*" >> "$0.words"\n')
    python.chmod(0o755)
    monkeypatch.setattr("domainbed_adm.sweeping.workers.sys.executable", str(python))
    folder, log = tmp_path / "o ut", tmp_path / "log"
    launch = ["sweep", "launch", str(folder), "--command_launcher", "queued", "--queue_log", str(log), "--jobs", "3"]
    assert main([*launch, *SWEEP, "--retries", "2"]) == 0
    assert "the workers are handed over: sweep status tells how far they are\n" in capsys.readouterr().out
    assert log.read_text() == "worker 1/3\nworker 2/3\nworker 3/3"
    words, end = tmp_path / "python.words", time.monotonic() + 10
    while not (words.exists() and words.read_text().count("\n") == 3) and time.monotonic() < end:
        time.sleep(0.02)
    begin = f"-m domainbed_adm.scripts.sweep work --output_dir {folder}"
    assert sorted(words.read_text().splitlines()) == [f"{begin} --place {k}/3 --retries 2" for k in (1, 2, 3)]
    assert json.loads((folder / "sweep.json").read_text())["launches"]


def in_turn(commands: list[str], follow: Any) -> list[int]:
    codes = [main(["sweep", *shlex.split(command)[3:]]) for command in commands]
    left.append(follow())
    return codes


left: list[int] = []


def test_workers_that_are_waited_for_are_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    touches(monkeypatch)
    card = LauncherCard("in_turn", "-", HERE + "in_turn", takes="workers")
    monkeypatch.setitem(LAUNCHERS, "in_turn", card)
    launch = ["sweep", "launch", str(tmp_path), "--command_launcher", "in_turn", "--jobs", "2", *SWEEP]
    assert main(launch) == 0
    assert left.pop() == 0
    out = capsys.readouterr().out
    assert f"[6/6] done   {DIGITS.jobs(tmp_path)[5].label}\n" in out
    assert main(launch) == 0  # nothing to do: no worker is started
    assert not left

    monkeypatch.setattr(Job, "command", property(lambda job: "false"))
    assert main([*launch, "--steps", "3"]) == 1
    told = capsys.readouterr().err
    assert "the workers have ended. 6 jobs: 0 done, 0 running, 0 incomplete, 6 failed, 0 not launched\n" in told
    assert "  6 x exit code 1" in told


def refuses(queue: str | None) -> None:
    raise UserError(f"no queue {queue}")


def test_what_a_check_refuses_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    queue = LauncherFlag("queue", "which")
    monkeypatch.setitem(LAUNCHERS, "q", LauncherCard("q", "-", "nowhere:x", flags=(queue,), check=HERE + "refuses"))
    launch = ["sweep", "launch", str(tmp_path / "out"), "--command_launcher", "q", "--queue", "a", *SWEEP]
    assert main(launch) == 2
    assert capsys.readouterr().err == "domainbed-adm: error: no queue a\n"
    assert not (tmp_path / "out").exists()


BAD = [
    (LauncherCard("no name", "-", "a:b"), "its name must be letters"),
    (LauncherCard("mine", "-", "no path"), "its path must be 'module:function', not 'no path'"),
    (LauncherCard("local", "-", "my_package:b"), "launcher 'local' of my_package cannot be added: domainbed_adm has"),
    (LauncherCard("mine", "-", "a:b", takes="runs"), "it takes jobs or workers, not 'runs'"),  # type: ignore[arg-type]
    (LauncherCard("mine", "-", "a:b", flags=(LauncherFlag("steps", "-"),)), "flag 'steps' of a cannot be added"),
    (LauncherCard("mine", "-", "a:b", flags=(LauncherFlag("jobs_per_gpu", "-"),)), "flag 'jobs_per_gpu' of a cannot"),
    (LauncherCard("mine", "-", "a:b", flags=(LauncherFlag("x", "-", kind=list),)), "must be a str, int, float or bool"),
]


@pytest.mark.parametrize(("card", "told"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_added_says_why(card: LauncherCard, told: str) -> None:
    before = dict(LAUNCHERS)
    with pytest.raises(UserError, match=told):
        add_launcher(card)
    assert before == LAUNCHERS


def test_no_flag_of_sweep_can_be_a_launchers() -> None:
    launchers = {flag.name for card in LAUNCHERS.values() for flag in card.flags}
    assert {action.dest for action in build_parser()._actions} - launchers <= _SWEEPS | FLAGS.keys()


def test_domainbeds_sweep_reads_their_flags_from_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch = host_launcher(LAUNCHERS["local"])
    commands = [shlex.join([sys.executable, "-S", "-c", f"raise SystemExit({code})"]) for code in (0, 3)]
    monkeypatch.setenv("DOMAINBED_ADM_LAUNCHER", "--jobs 2 --no-reuse_processes")
    launch(commands)
    assert capsys.readouterr().out.endswith("1 of 2 commands failed\n")
    for words in ("--jobs 0", "--queue x", "--jobs x", "'"):
        monkeypatch.setenv("DOMAINBED_ADM_LAUNCHER", words)
        with pytest.raises(UserError, match="^DOMAINBED_ADM_LAUNCHER: "):
            launch(commands)
