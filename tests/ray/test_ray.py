"""The launcher on a real Ray of two nodes: loses nothing, doubles nothing, cancels gently; what it refuses."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from domainbed_adm.cli import main
from domainbed_adm.errors import UserError
from domainbed_adm.sweeping.launchers import LAUNCHERS
from domainbed_adm.sweeping.launchers.ray import _fits, _gpus
from tests.ray.local_ray import LocalRay, why_not

SWEEP = ["--datasets", "RotatedDigits", "--algorithms", "ERM", "--n_hparams", "1", "--test_envs", "0"]
SWEEP += ["--skip_confirmation", "--command_launcher", "ray"]
CONFORMS = """
import sys
from pathlib import Path
from domainbed_adm.errors import UserError
from domainbed_adm.sweeping.launchers import LAUNCHERS
from domainbed_adm.testing import check_launcher
card, folder = LAUNCHERS["ray"], Path(sys.argv[1])
check_launcher(card, folder, gpus_per_job=0.5)
try:
    card.start({"gpus_per_job": 2.0})
except UserError as error:
    print(error)
print(card.start()(["/no/such/program"], on_end=lambda index, outcome: outcome.stderr[-1]))
"""


@pytest.fixture(scope="module")
def ray() -> Iterator[LocalRay]:
    if reason := why_not():
        pytest.skip(reason)
    with LocalRay() as running:
        yield running


def launch(ray: LocalRay, folder: Path, steps: int, *flags: str, quiet: bool = False) -> subprocess.Popen[str]:
    words = [str(folder), *SWEEP, "--gpus_per_job", "0.5", *flags]
    return ray.start([sys.executable, "-m", "tests.ray.launching", str(steps), *words], quiet)


def logs(folder: Path) -> list[list[str]]:
    return [path.read_text().splitlines() for path in folder.glob("*/log")]


def steps(folder: Path) -> list[list[int]]:
    return [[int(line) for line in path.read_text().split()] for path in folder.glob("*/steps")]


def wait_for(true: Callable[[], bool], launching: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 100
    while not true():
        if launching.poll() is not None or time.monotonic() > end:
            launching.kill()
            pytest.fail(str(launching.communicate()))
        time.sleep(0.02)


def running(folder: Path) -> list[list[str]]:
    """The last start of those that run: step, process, worker, GPU."""
    return [log[-1].split()[1:] for log in logs(folder) if log and log[-1].startswith("start")]


def is_alive(pid: str) -> bool:
    return Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_text() != ""


@pytest.mark.xdist_group("ray")
def test_it_conforms_and_refuses_more_gpus_than_there_are(ray: LocalRay, tmp_path: Path) -> None:
    checking = ray.start([sys.executable, "-c", CONFORMS, str(tmp_path)], cwd=tmp_path)
    out, err = checking.communicate(timeout=100)
    assert checking.returncode == 0, err
    told = out.splitlines()
    assert "--gpus_per_job 2: no node of this Ray has more than 1 GPUs" in told
    assert "No such file or directory" in told[-2]
    assert told[-1] == "[127]"


@pytest.mark.xdist_group("ray")
def test_a_launch_that_is_interrupted_ends_its_jobs_gently_and_goes_on(ray: LocalRay, tmp_path: Path) -> None:
    launching = launch(ray, tmp_path, 10_000, "--n_trials", "6", "--jobs", "3")
    wait_for(lambda: sum(map(bool, steps(tmp_path))) == 3, launching)
    jobs = running(tmp_path)
    assert {gpu for *_, gpu in jobs} <= {"0", "1"}
    launching.send_signal(signal.SIGINT)
    err = launching.communicate(timeout=100)[1]
    assert launching.returncode == 130
    assert err.endswith("domainbed-adm: interrupted: the same launch goes on, each job from its last checkpoint\n")
    assert [log[-1] for log in logs(tmp_path)] == ["told"] * 3
    assert not any(is_alive(pid) for _, pid, *_ in jobs)

    again = launch(ray, tmp_path, 1, "--n_trials", "6")
    err = again.communicate(timeout=100)[1]
    assert again.returncode == 0, err
    assert sorted(len(log) for log in logs(tmp_path)) == [2, 2, 2, 4, 4, 4]
    assert all(log[-1] == "done" for log in logs(tmp_path))
    assert sum(log[-2].startswith("start 0 ") for log in logs(tmp_path)) == 3


@pytest.mark.xdist_group("ray")
def test_a_worker_and_a_node_lost_lose_no_job(ray: LocalRay, tmp_path: Path) -> None:
    launching = launch(ray, tmp_path, 30, "--n_trials", "12")
    wait_for(lambda: len(running(tmp_path)) == 4 and all(steps(tmp_path)), launching)
    latest = min(tmp_path.glob("*/steps"), key=lambda path: len(path.read_text()))  # it has long to go
    os.kill(int(latest.with_name("log").read_text().split()[3]), signal.SIGKILL)
    wait_for(lambda: sum(log[-1] == "done" for log in logs(tmp_path) if log) >= 3, launching)
    ray.remove_node()
    out, err = launching.communicate(timeout=100)
    assert launching.returncode == 0, out + err
    assert steps(tmp_path) == [list(range(1, 31))] * 12
    assert all(log[-1] == "done" and log.count("done") == 1 for log in logs(tmp_path))
    assert any(log.count("told") for log in logs(tmp_path))  # the killed worker's
    assert sum(line.startswith("start") for log in logs(tmp_path) for line in log) <= 12 + 1 + 2


def refused(capsys: pytest.CaptureFixture[str], folder: Path, *flags: str) -> str:
    assert main(["sweep", "launch", str(folder), *SWEEP, *flags]) == 2
    assert not folder.exists()
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_an_address_where_nothing_answers_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    with socket.socket() as bound:  # not listening: nobody else gets the port
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        told = refused(capsys, tmp_path / "out", "--ray_address", address)
    assert f"no Ray answers at {address}: " in told
    for wrong in ("local", "host", "host:x"):
        told = refused(capsys, tmp_path / "out", "--ray_address", wrong)
        assert "--ray_address must be auto, HOST:PORT or ray://HOST:PORT, not" in told


class Quiet(BaseHTTPRequestHandler):
    def log_message(self, *what: object) -> None:
        pass


def test_what_is_no_ray_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    with HTTPServer(("127.0.0.1", 0), Quiet) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            told = refused(capsys, tmp_path / "out", "--ray_address", f"127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
    assert "is no Ray: its port is 6379" in told


def test_without_ray_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    told = refused(capsys, tmp_path / "out")
    assert told == "domainbed-adm: error: --command_launcher ray needs Ray: pip install 'domainbed-adm[ray]'\n"


def test_its_flags_are_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, tmp_path / "out", "--command_launcher", "local", "--gpus_per_job", "0.5")
    assert "--gpus_per_job is for --command_launcher ray, not local" in told
    assert "--gpus_per_job must be at least 0, not -1" in refused(capsys, tmp_path / "out", "--gpus_per_job", "-1")


class Nodes:
    """Stands in for the module ``ray``."""

    def __init__(self, *resources: dict[str, float]) -> None:
        self._resources = resources

    def nodes(self) -> list[dict[str, object]]:
        return [{"Alive": True, "Resources": one} for one in self._resources]


def test_how_many_jobs_fit_a_node() -> None:
    node = {"Resources": {"CPU": 16.0, "GPU": 4.0}}
    per_job = (0, 0.25, 0.3, 0.1, 1, 2, 3, 5)
    assert [_fits(node, gpus) for gpus in per_job] == [16, 16, 12, 16, 4, 2, 1, 0]
    assert _fits({"Resources": {"CPU": 3.0}}, 0.5) == 0
    assert _gpus(Nodes({"CPU": 1.0}, {"CPU": 1.0, "GPU": 2.0}), None) == 1
    assert _gpus(Nodes({"CPU": 1.0}), None) == 0
    with pytest.raises(UserError, match=r"must be a fraction of one GPU or a whole number, not 1\.5"):
        _gpus(Nodes({"CPU": 1.0, "GPU": 2.0}), 1.5)
    with pytest.raises(UserError, match="no node of this Ray has a CPU for a job beside its GPUs"):
        _gpus(Nodes({"GPU": 2.0}), 1)
    with pytest.raises(UserError, match="no node of this Ray has more than 0 GPUs"):
        _gpus(Nodes(), 0.5)


def test_without_jobs_it_fills_the_cluster() -> None:
    assert LAUNCHERS["ray"].jobs > 67_200
    assert LAUNCHERS["local"].jobs == 1
