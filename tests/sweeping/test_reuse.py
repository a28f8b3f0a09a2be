"""Jobs that run one after another in forks of a worker end as those with a process each."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from domainbed_adm.sweeping import pool
from domainbed_adm.sweeping.jobs import DONE, Job, Sweep
from domainbed_adm.sweeping.launch import Launch
from domainbed_adm.sweeping.launchers.local import local, multi_gpu
from domainbed_adm.sweeping.pool import Outcome
from tests.torture import launchers as torture

#: Python runs it as it starts: training then is to run the code in the job's folder, where there is some.
SITE = """\
import os, sys, types
from domainbed_adm.scripts import train
if "WITHOUT_TORCH" in os.environ:  # what the worker imports beforehand, for seconds
    for name in "training.loop", "training.resume", "training.setup", "datasets.in_memory":
        sys.modules["domainbed_adm." + name] = types.ModuleType(name)
    sys.modules["torch._dynamo"] = types.ModuleType("_dynamo")
before = train.main
def main(words):
    folder = words[words.index("--output_dir") + 1]
    code = open(folder + "/code").read() if os.path.exists(folder + "/code") else ""
    exec(code, {})
    return 0 if code else before(words)
train.main = main
"""
#: Training in a process of its own, of which the former holds too.
FRESH = (
    "import sys; from domainbed_adm.cli import run; from domainbed_adm.scripts import train; "
    "sys.exit(run(train.main, sys.argv[1:]))"
)
TIMES = {"step_time", "wall_time"}

needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in /proc")


@pytest.fixture
def run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Commands that look like training and run code; returns their outcomes in order, all in one worker.

    It imports no torch, which no such code needs but that of one test.
    """
    package = tmp_path / "site"
    package.mkdir()
    (package / "sitecustomize.py").write_text(SITE)
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{package}{os.pathsep}{path or Path.cwd()}")
    monkeypatch.setenv("WITHOUT_TORCH", "1")

    def run(*codes: str, reuse: bool = True) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}
        commands = []
        for i, code in enumerate(codes):
            folder = tmp_path / f"job{i}"
            folder.mkdir(exist_ok=True)
            (folder / "code").write_text(code)
            program = ["-m", "domainbed_adm.scripts.train"] if reuse else ["-c", FRESH]
            commands.append(shlex.join([sys.executable, *program, "--output_dir", str(folder)]))
        local(commands, reuse_processes=reuse, on_end=lambda index, outcome: outcomes.update({index: outcome}))
        return [outcomes[i] for i in range(len(codes))]

    return run


def test_records_and_weights_are_those_of_a_process_a_job_in_every_order(tmp_path: Path) -> None:
    sweep = Sweep(
        ["RotatedDigits"],
        ["SAM_SSPL_ADM", "FSAM_SPL_GDM"],
        n_hparams=1,
        n_trials=1,
        steps=4,
        hparams='{"cnn_width": 8, "batch_size": 6}',
        single_test_envs=True,
    )
    told = []
    for name, reuse, step in (("own", False, 1), ("one", True, -1)):
        jobs = [job for job in sweep.jobs(tmp_path / name, {"workers": 0}) if job.train_args["test_envs"] == [1]]
        assert local([job.command for job in jobs][::step], reuse_processes=reuse) == [0] * len(jobs)
        told.append([left_by(job, tmp_path / name) for job in jobs])
    assert told[0] == told[1]


def left_by(job: Job, sweep_dir: Path) -> tuple[Any, ...]:
    """The records without times, the model's bytes, and err.txt."""
    import torch

    lines = (job.output_dir / "results.jsonl").read_text().replace(str(sweep_dir), "").splitlines()
    records = [{name: value for name, value in json.loads(line).items() if name not in TIMES} for line in lines]
    weights = torch.load(job.output_dir / "model.pkl", weights_only=True)["model_dict"]
    bits = {name: value.numpy().tobytes() for name, value in weights.items()}
    return records, bits, (job.output_dir / "err.txt").read_bytes()


def test_each_job_begins_as_a_fresh_process_does(run_code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a job does to its process is not there for the next one, and a fork has what a process would have."""
    monkeypatch.delenv("WITHOUT_TORCH")
    state = """
import gc, json, os, random, signal, sys, threading, warnings
import numpy, torch
cudnn, numbers = torch.backends.cudnn, (1, 2, 13, 15)
state = [torch.rand(1).item() == 1, torch.initial_seed() == 7, torch.get_num_threads(), str(torch.get_default_dtype())]
state += [cudnn.deterministic, cudnn.benchmark, torch.is_grad_enabled(), torch.cuda.is_initialized(), gc.isenabled()]
state += [threading.active_count(), os.getsid(0) == os.getpid(), "OF_ANOTHER" in os.environ, os.getcwd()]
state += [[str(signal.getsignal(n)) for n in numbers], [int(n) for n in signal.pthread_sigmask(signal.SIG_BLOCK, [])]]
state += [[os.path.realpath(f"/dev/fd/{n}") for n in (0, 1)], len(os.listdir("/dev/fd")), sys.stdout.isatty()]
print(json.dumps(state), file=sys.stderr)
warnings.warn("told once")
random.seed(7); torch.manual_seed(7); torch.set_num_threads(2); torch.set_default_dtype(torch.float64)
cudnn.deterministic = True; signal.signal(15, signal.SIG_IGN); os.environ["OF_ANOTHER"] = "1"
torch.set_grad_enabled(False); os.chdir("/"); threading.Thread(target=threading.Event().wait, daemon=True).start()
open("/dev/null"); gc.disable()
"""
    first, second = run_code(state, state)
    (fresh,) = run_code(state, reuse=False)
    assert first.code == second.code == fresh.code == 0, first.stderr
    assert first.stderr == second.stderr == fresh.stderr
    assert "told once" in first.stderr[1]


def test_a_job_that_ends_badly_costs_itself_alone(run_code: Any) -> None:
    ends = {
        "pass": 0,
        "os.kill(os.getpid(), 9)": -signal.SIGKILL,
        "import ctypes; ctypes.string_at(0)": -signal.SIGSEGV,
        "os.abort()": -signal.SIGABRT,
        "os._exit(7)": 7,
        "raise SystemExit(5)": 5,
        "raise ValueError('no luck')": 1,
        "from domainbed_adm.errors import UserError; raise UserError('a mistake')": 2,
        "print('well', file=sys.stderr)": 0,
    }
    outcomes = run_code(*(f"import os, sys; print(os.getppid(), file=sys.stderr, flush=True); {end}" for end in ends))
    assert [outcome.code for outcome in outcomes] == list(ends.values())
    assert len({outcome.stderr[0] for outcome in outcomes}) == 1  # one worker, there to the end
    last = [outcome.stderr[-1] for outcome in outcomes[6:]]
    assert last == ["ValueError: no luck", "domainbed-adm: error: a mistake", "well"]
    assert [len(outcome.stderr) for outcome in outcomes[-2:]] == [2, 2]  # nothing of the others


def test_a_worker_that_is_killed_costs_its_job_and_is_replaced(run_code: Any, tmp_path: Path) -> None:
    said = "import os, sys; print(os.getppid(), file=sys.stderr); "
    kill = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); "
    kill += "os.kill(os.getppid(), 9); import time; time.sleep(60)"
    outcomes = run_code(said, said + kill, said)
    assert [outcome.code for outcome in outcomes] == [0, -signal.SIGKILL, 0]
    assert outcomes[0].stderr == outcomes[1].stderr != outcomes[2].stderr
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_a_job_leaves_behind_ends_with_it(run_code: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.sweeping.test_launchers import is_alive

    monkeypatch.setattr(pool, "LEFTOVERS_GRACE", 0.2)
    leaves = "import subprocess, sys; print(subprocess.Popen(['sleep', '60']).pid, file=sys.stderr)"
    (outcome,) = run_code(leaves)
    assert not is_alive(int(outcome.stderr[0]))


def test_commands_that_do_not_train_run_as_ever() -> None:
    commands = [shlex.join([sys.executable, "-S", "-c", f"raise SystemExit({n})"]) for n in (0, 4)]
    assert local(commands, reuse_processes=True) == [0, 4]


def test_each_job_on_a_gpu_sees_it_alone(run_code: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-5")
    seen_by = tmp_path / "seen"
    seen_by.mkdir()
    both = f"import os, time; folder = {str(seen_by)!r}; end = time.monotonic() + 60\n"
    both += "open(f\"{folder}/{os.environ['CUDA_VISIBLE_DEVICES']}_{os.getpid()}\", 'w')\n"
    both += "while len(os.listdir(folder)) < 4 and time.monotonic() < end: time.sleep(0.02)\n"
    both += "raise SystemExit(time.monotonic() >= end)"
    commands = []
    for i in range(4):
        folder = tmp_path / f"job{i}"
        folder.mkdir()
        (folder / "code").write_text(both)
        commands.append(shlex.join([sys.executable, "-m", "domainbed_adm.scripts.train", "--output_dir", str(folder)]))
    assert multi_gpu(commands, jobs_per_gpu=2, reuse_processes=True) == [0] * 4
    seen = sorted(path.name.rpartition("_")[0] for path in seen_by.iterdir())
    assert seen == ["4", "4", "GPU-5", "GPU-5"]


@needs_proc
@pytest.mark.parametrize("stubborn", [False, True])
def test_an_interruption_ends_jobs_gently_then_not(run_code: Any, tmp_path: Path, stubborn: bool) -> None:
    script = """
import signal, sys
from domainbed_adm.sweeping import pool
from domainbed_adm.sweeping.launchers.local import local
pool.GRACE = float(sys.argv[1])
local(sys.argv[2:], reuse_processes=True)
"""
    grace = "1" if stubborn else "30"
    folder = tmp_path / "job"
    folder.mkdir()
    code = "import os, signal, time\n" + ("signal.signal(15, signal.SIG_IGN)\n" if stubborn else "")
    code += f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
    code += "try:\n    signal.getsignal(15) or signal.signal(15, lambda *_: sys.exit(3)); time.sleep(60)\n"
    code += f"finally: open({str(tmp_path / 'gentle')!r}, 'w')\n"
    (folder / "code").write_text(code)
    command = shlex.join([sys.executable, "-m", "domainbed_adm.scripts.train", "--output_dir", str(folder)])
    words = [sys.executable, "-c", script, grace, command]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as launcher:
        end = time.monotonic() + 60
        while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < end:
            time.sleep(0.02)
        worker = torture.children(launcher.pid)[0]
        launcher.send_signal(signal.SIGTERM)
        errors = launcher.communicate(timeout=30)[1]
    assert "KeyboardInterrupt" in errors
    assert (tmp_path / "gentle").exists() != stubborn
    for pid in (worker, int((tmp_path / "pid").read_text())):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_launch_tells_what_its_jobs_took(tmp_path: Path) -> None:
    sweep = Sweep(["RotatedDigits"], ["ERM"], n_hparams=1, n_trials=1, single_test_envs=True)
    jobs = sweep.jobs(tmp_path)[:2]

    def launcher(commands: list[str], **options: Any) -> list[int]:
        for i, job in enumerate(jobs):
            job.output_dir.mkdir()
            line = {"step": 0, "mem_gb": 1.5 + i, "args": {**job.train_args}, "hparams": {}}
            (job.output_dir / "results.jsonl").write_text(json.dumps(line) + "\n")
            (job.output_dir / "done").touch()
            options["on_end"](i, Outcome(0, [], 10.0 + 4 * i))
        return [0, 0]

    launch = Launch(jobs, launcher, 1, retries=0)
    assert launch.taken() == "no job was run to its end"
    assert launch.run() == 0
    assert all(job.state == DONE for job in jobs)
    assert launch.taken() == (
        f"2 jobs took 12.0 s each (10.0 to 14.0), and at most 2.50 GiB of GPU memory ({jobs[1].label})"
    )
