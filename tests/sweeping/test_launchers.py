from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.run_files import ExitCode
from domainbed_adm.sweeping import pool
from domainbed_adm.sweeping.launchers import LAUNCHERS
from domainbed_adm.sweeping.launchers.local import dummy, gpus, local, multi_gpu
from domainbed_adm.sweeping.pool import Outcome, Pool


def python(code: str) -> str:
    return shlex.join([sys.executable, "-S", "-c", code])


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DOMAINBED_ADM_WORKERS", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


def written_environment(path: Path, *names: str) -> str:
    return python(f"import os, json; json.dump([os.environ.get(n) for n in {names}], open({str(path)!r}, 'w'))")


@pytest.mark.parametrize("jobs", [1, 3])
def test_local_returns_exit_codes_in_order_and_tells_how_each_ended(
    capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    fails = python("import sys; print('first', file=sys.stderr); print('bad luck ', file=sys.stderr); sys.exit(3)")
    ended = {}
    codes = local(
        [python("pass"), fails, python("print(1)")],
        labels=["one", "two", "three"],
        jobs=jobs,
        on_end=lambda index, outcome: ended.update({index: (outcome.code, outcome.stderr)}),
    )
    assert codes == [0, 3, 0]
    assert ended == {0: (0, []), 1: (3, ["first", "bad luck "]), 2: (0, [])}
    lines = capsys.readouterr().out.splitlines()
    assert [line[:5] for line in lines] == ["[1/3]", "[2/3]", "[3/3]"]
    assert sorted(line[6:-8].rsplit(" (", 1)[0].strip() for line in lines) == [
        "done   one",
        "done   three",
        "failed two",
    ]


def test_a_command_that_cannot_start_is_a_failed_job() -> None:
    errors: list[str] = []
    assert local(["/no/such/program --x"], on_end=lambda _, outcome: errors.extend(outcome.stderr)) == [
        ExitCode.NOT_RUN
    ]
    assert "No such file or directory" in errors[0]


def test_the_last_lines_of_a_long_stderr_are_kept() -> None:
    code = "import sys; [print('line', i, 'x' * 100, file=sys.stderr) for i in range(5000)]"
    errors: list[str] = []
    local([python(code)], on_end=lambda _, outcome: errors.extend(outcome.stderr))
    assert [line.split()[1] for line in errors] == [str(i) for i in range(4980, 5000)]


def test_what_is_skipped_does_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = [f"touch {tmp_path}/{i}" for i in range(3)]
    assert local(commands, labels=["a", "b", "c"], skip=lambda index: index == 1) == [0, 75, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "2"]
    assert "runs elsewhere: b" in capsys.readouterr().out


def test_local_runs_as_many_at_a_time_as_told(tmp_path: Path) -> None:
    waits = f"import os, time; open({str(tmp_path)!r} + '/' + str(os.getpid()), 'w')\n"
    waits += "end = time.monotonic() + 10\n"
    waits += f"while len(os.listdir({str(tmp_path)!r})) < 3 and time.monotonic() < end: time.sleep(0.01)\n"
    waits += "raise SystemExit(time.monotonic() >= end)"
    assert local([python(waits)] * 3, jobs=3) == [0, 0, 0]


def test_local_shares_the_cpus_among_the_jobs_unless_the_user_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(7)), raising=False)
    command = written_environment(tmp_path / "env", "DOMAINBED_ADM_WORKERS")
    for jobs, share in ((2, "3"), (1000, "0")):
        local([command], jobs=jobs)
        assert json.loads((tmp_path / "env").read_text()) == [share]
    monkeypatch.setenv("DOMAINBED_ADM_WORKERS", "7")
    local([command], jobs=2)
    assert json.loads((tmp_path / "env").read_text()) == ["7"]


def test_multi_gpu_gives_each_job_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5,")
    paths = [tmp_path / str(i) for i in range(5)]
    assert multi_gpu([written_environment(path, "CUDA_VISIBLE_DEVICES") for path in paths]) == [0] * 5
    assert {json.loads(path.read_text())[0] for path in paths} == {"4", "GPU-5"}


def test_gpus_are_those_visible_else_those_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A (UUID: x)'\necho 'GPU 1: A (UUID: y)'\necho '  MIG 1g (UUID: z)'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpus() == ["0", "1"]
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        UserError, match="multi_gpu found no GPU: nvidia-smi -L lists none; use --command_launcher local"
    ):
        multi_gpu([python("pass")])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="found no GPU: CUDA_VISIBLE_DEVICES is ''"):
        gpus()


def test_dummy_prints_and_runs_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert dummy([f"touch {tmp_path}/x"]) == [0]
    assert capsys.readouterr().out == f"Dummy launcher: touch {tmp_path}/x\n"
    assert not (tmp_path / "x").exists()


def test_every_launcher_takes_no_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    here = {"local": [], "multi_gpu": [], "dummy": []}
    assert {name: LAUNCHERS[name].start()([]) for name in here} == here


def test_an_interruption_ends_running_children_and_starts_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "GRACE", 0.3)
    stubborn = "import signal, time, os; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    stubborn += f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); print('up', flush=True); time.sleep(60)"

    def interrupt(index: int, outcome: Outcome) -> None:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    commands = [python("pass"), python(stubborn), python(f"open({str(tmp_path / 'late')!r}, 'w')")]
    start = time.monotonic()
    two = Pool([{}, {}])
    with pytest.raises(KeyboardInterrupt):
        two.run(commands[:2], interrupt, lambda index: False)
    assert two.run(commands[2:], interrupt, lambda index: False) == [(ExitCode.NOT_RUN, ["not started"], 0.0)]
    assert not (tmp_path / "late").exists()
    assert time.monotonic() - start < 20
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_an_interruption_before_all_is_submitted_ends_what_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit, submitted = pool.ThreadPoolExecutor.submit, []

    def interrupted(self: ThreadPoolExecutor, work: Callable[[], object]) -> object:
        submitted.append(work)
        if len(submitted) == 1:
            return submit(self, work)
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(pool.ThreadPoolExecutor, "submit", interrupted)
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        local([python(child), python("pass")], jobs=2)
    assert len(submitted) == 2
    assert not is_alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_to_the_sweep_ends_its_children(tmp_path: Path, number: int) -> None:
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    late = f"open({str(tmp_path / 'late')!r}, 'w')"
    script = f"from domainbed_adm.sweeping.launchers.local import local; local([{python(child)!r}, {python(late)!r}])"
    with subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True) as sweep:
        deadline = time.monotonic() + 20
        while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline:
            time.sleep(0.02)
        sweep.send_signal(number)
        _, errors = sweep.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert not (tmp_path / "late").exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_a_job_leaves_behind_ends_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "LEFTOVERS_GRACE", 0.2)
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    parent = f"import os, subprocess, sys, time; subprocess.Popen([sys.executable, '-S', '-c', {child!r}])\n"
    parent += f"while not os.path.exists({str(tmp_path / 'pid')!r}): time.sleep(0.01)\n"
    for code, ended in (("", 0), ("os.kill(os.getpid(), 9)", -9)):
        assert local([python(parent + code)]) == [ended]
        pid = int((tmp_path / "pid").read_text() or 0)
        (tmp_path / "pid").unlink()
        assert not pid or not is_alive(pid)


def is_alive(pid: int) -> bool:
    """Whether it runs; what has ended and waits to be reaped by init does not."""
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return False
        except OSError:
            return False
        time.sleep(0.02)
    return True
