"""What can befall the processes that load data, and the run that started them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import domainbed_adm
from domainbed_adm.datasets.base import Environment, TensorEnvironment
from domainbed_adm.errors import LoadingError, UserError
from domainbed_adm.training import loading_processes
from domainbed_adm.training.batches import Schedule, TaskDataset, TrainTask, split_environments
from domainbed_adm.training.loading_processes import open_stream


def tasks(environments, batch_size=2):
    splits = split_environments([len(environment) for environment in environments], [0], 0, 0.0)
    return TaskDataset(environments, splits, [0], 0, {"batch_size": batch_size, "class_balanced": False})


class Harmful(Environment):
    """Harms the process that loads its first sample."""

    targets = np.zeros(1, np.int64)

    def __init__(self, harm):
        self.harm = harm

    def __getitem__(self, index):
        if self.harm == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("a mistake of the dataset's author")


def harmed(harm):
    return list(open_stream(tasks([Harmful(harm)] * 2), Schedule(3, 3, []), 2, pin_memory=False))


def test_a_killed_worker_is_told_and_may_be_tried_again():
    with pytest.raises(LoadingError, match="^a process that loads data was killed, perhaps for want of memory: "):
        harmed("kill")


def test_a_mistake_in_a_dataset_keeps_its_traceback():
    with pytest.raises(ValueError, match="a mistake of the dataset's author"):
        harmed("mistake")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid(s) 5215) exited unexpectedly"),
        RuntimeError("DataLoader worker (pid 5215) is killed by signal: Killed. "),
        RuntimeError("DataLoader worker (pid 5215) is killed by signal: Bus error. ... out of shared memory."),
        RuntimeError("Pin memory thread exited unexpectedly"),
        ConnectionResetError(104, "Connection reset by peer"),
        ConnectionRefusedError(111, "Connection refused"),
        FileNotFoundError(2, "No such file or directory"),
        EOFError(),
    ],
    ids=repr,
)
def test_however_a_worker_ends_the_run_may_be_tried_again(error):
    def batches():
        raise error
        yield

    with pytest.raises(LoadingError, match="another try may do"):
        list(loading_processes._checked(batches(), 2))
    with pytest.raises(type(error)):
        list(loading_processes._checked(batches(), 0))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            RuntimeError("unable to write to file </torch_5215_1>: No space left on device (28)"),
            r"^a batch of 0 MiB does not fit into the shared memory, \d+ of \d+ MiB of /dev/shm are free: "
            "give --workers 0, ",
        ),
        (
            RuntimeError("unable to open shared memory object </torch_1> in read-write mode: Too many open files (24)"),
            "^too many open files: raise the limit",
        ),
    ],
)
def test_memory_that_cannot_be_shared_is_one_line(monkeypatch, error, message):
    def refused(_):
        raise error

    monkeypatch.setattr(torch.Tensor, "share_memory_", refused)
    data = loading_processes._Shared(tasks([TensorEnvironment(torch.zeros(3, 1), [0] * 3)] * 2))
    with pytest.raises(UserError, match=message):
        list(loading_processes._checked(iter([data[TrainTask(0)]]), 2))


def test_a_batch_that_cannot_be_sent_ends_the_worker(capfd):
    """By default it would be dropped, and the run would wait for it for ever."""
    with pytest.raises(SystemExit):
        run_end(lambda: loading_processes._end_worker(OSError(24, "Too many open files"), None))
    assert "cannot hand over a batch: [Errno 24] Too many open files" in capfd.readouterr().err


def run_end(function):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "_exit", sys.exit)
        function()


def test_many_domains_cost_no_more_open_files():
    environments = [TensorEnvironment(torch.full((3, 1), float(i)), [0] * 3) for i in range(150)]
    batches = list(open_stream(tasks(environments), Schedule(20, 20, []), 2, pin_memory=False))
    assert [batch.task.step for batch in batches] == list(range(20))
    minibatches, _ = batches[-1].minibatches(torch.device("cpu"))
    assert [x.flatten().tolist() for x, _ in minibatches] == [[float(i)] * 2 for i in range(1, 150)]


@pytest.mark.parametrize("limit", [20, 24, 40])
def test_too_few_files_are_refused_before_a_process_starts(monkeypatch, limit):
    monkeypatch.setattr("resource.getrlimit", lambda _: (limit, limit))
    data = tasks([TensorEnvironment(torch.zeros(3, 1), [0] * 3)] * 2)
    with pytest.raises(UserError, match="^too many open files: raise the limit"):
        open_stream(data, Schedule(1, 1, []), 2, pin_memory=False)
    assert len(list(open_stream(data, Schedule(1, 1, []), 0, pin_memory=False))) == 1


SCRIPT = """
import multiprocessing, os, time
import torch
from domainbed_adm.datasets.base import TensorEnvironment
from domainbed_adm.training.batches import Schedule
from domainbed_adm.training.loading_processes import open_stream
from tests.training.test_loading_processes import tasks

if __name__ == "__main__":
    stream = open_stream(tasks([TensorEnvironment(torch.zeros(3, 1), [0] * 3)] * 2), Schedule(999, 999, []), 2, False)
    next(stream)
    from multiprocessing import forkserver
    workers = [child.pid for child in multiprocessing.active_children()]
    print(forkserver._forkserver._forkserver_pid, *workers, flush=True)
    time.sleep(60)
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_they_end_with_the_run_however_it_ends(tmp_path):
    (tmp_path / "run.py").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}  # the script imports from these tests
    command = [sys.executable, str(tmp_path / "run.py")]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    with run:
        pids = [int(pid) for pid in run.stdout.readline().split()]
        assert len(pids) == 3
        assert all(map(alive, pids))
        run.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.1)
    assert not any(map(alive, pids))


def test_a_run_that_hung_up_is_no_traceback_of_its_workers(capsys):
    for error, told in (
        (ConnectionResetError(), False),
        (EOFError(), False),
        (OSError(24, "Too many open files"), True),
    ):
        loading_processes._silent_when_run_is_gone(type(error), error, None)
        assert bool(capsys.readouterr().err) == told


def test_a_temporary_folder_of_a_long_name_is_one_line(tmp_path):
    folder = tmp_path / ("x" * 130)
    folder.mkdir()
    flags = ["--dataset", "Debug28", "--steps", "1", "--workers", "1", "--output_dir", str(tmp_path / "run")]
    environment = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(Path(domainbed_adm.__file__).parents[1])}
    command = [sys.executable, "-m", "domainbed_adm", "train", *flags]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "domainbed-adm: error: the path of TMPDIR is too long for a socket: set a shorter one, or give --workers 0\n"
    )
