"""Arrays of workers in a real Slurm; the workers are stand-ins, which end when they are told to, or let go."""

from __future__ import annotations

import shlex
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from domainbed_adm.errors import UserError
from domainbed_adm.sweeping.launchers import LAUNCHERS
from domainbed_adm.sweeping.launchers import slurm_array as launcher
from domainbed_adm.sweeping.launchers.slurm_array import Array, Task
from domainbed_adm.testing import check_launcher
from tests.slurm.local_slurm import MAX_ARRAY_SIZE, LocalSlurm, wait_until

pytestmark = pytest.mark.xdist_group("slurm")

#: A folder whose name a shell would run, and Slurm take for a pattern.
EVIL = 'it\'s; $(touch owned) "here" & `touch owned` %A %%'
#: Told to end it ends with 130, as a worker; else with 0 once the folder has the file ``go``.
WORKER = """
trap 'exit 130' TERM
cd "$1"
echo "$SLURM_ARRAY_TASK_ID on $SLURMD_NODENAME gpu $CUDA_VISIBLE_DEVICES" >> lives.txt
until [ -e go ]; do sleep 0.05; done
"""


def commands(folder: Path, workers: int) -> list[str]:
    return [shlex.join(["bash", "-c", WORKER, "worker", str(folder)])] * workers


def submit(folder: Path, workers: int, **options: str) -> Array:
    array = launcher.submit(commands(folder, workers), folder, options, "local")
    assert array
    return array


def lives(folder: Path) -> Counter[str]:
    """How often each task has begun."""
    path = folder / "lives.txt"
    return Counter(line.split()[0] for line in path.read_text().splitlines()) if path.exists() else Counter()


def wait_for_lives(folder: Path, *counts: int) -> None:
    wait_until(lambda: sorted(lives(folder).values()) == sorted(counts), 20, f"{counts} lives in {folder}")


def said(folder: Path, array: Array) -> dict[int, list[str]]:
    """What each task said, in lines."""
    files = [folder / "slurm" / f"{array.id}_{index}.out" for index in range(array.tasks)]
    return {index: path.read_text().splitlines() for index, path in enumerate(files)}


def test_workers_are_one_array_which_nobody_submits_twice(tmp_path: Path, slurm: LocalSlurm) -> None:
    folder = tmp_path / EVIL
    assert launcher.tasks(folder) == []
    barrier = threading.Barrier(3)

    def at_once(_: int) -> Array | None:
        barrier.wait()
        return launcher.submit(commands(folder, 5), folder, {"gres": "gpu:1"}, "local")

    with ThreadPoolExecutor(3) as threads:
        [array] = [one for one in threads.map(at_once, range(3)) if one]
    assert array == launcher.submitted(folder)
    wait_for_lives(folder, 1, 1, 1, 1)  # of five, on four CPUs
    now = launcher.tasks(folder)
    assert sorted((task.array, task.index) for task in now) == [(array.id, str(i)) for i in range(5)]
    assert launcher.described(now).startswith(f"array {array.id}: 4 running on n1 x 2, n2 x 2; 1 pending")
    gpus = [line.split(" on ")[1] for line in (folder / "lives.txt").read_text().splitlines()]
    assert sorted(gpus) == ["n1 gpu 0", "n1 gpu 1", "n2 gpu 0", "n2 gpu 1"]
    assert launcher.tasks(tmp_path) == []  # another folder's
    (folder / "go").touch()
    wait_until(lambda: not launcher.tasks(folder), 20, "the array ends")
    assert lives(folder) == dict.fromkeys("01234", 1)
    (folder / "go").unlink()
    assert launcher.submit(["true"], folder, {}, "local")  # it has ended: another may be submitted
    wait_until(lambda: not launcher.tasks(folder), 20, "the array ends")
    assert not Path("owned").exists()
    assert not (folder / "owned").exists()


def test_what_is_cancelled_ends_for_good(tmp_path: Path, slurm: LocalSlurm) -> None:
    array = submit(tmp_path, 5)
    wait_for_lives(tmp_path, 1, 1, 1, 1)
    slurm.ask("scancel", f"{array.id}_2")  # one of them, by hand
    wait_for_lives(tmp_path, 1, 1, 1, 1, 1)
    assert len(launcher.cancel(tmp_path)) == 4
    assert launcher.cancel(tmp_path) == []
    assert launcher.tasks(tmp_path) == []
    for lines in said(tmp_path, array).values():
        assert lines[-1].endswith("exit code 130 (COMPLETING)")
    assert slurm.tasks(str(array.id)) == []
    assert sum(lives(tmp_path).values()) == 5
    array = submit(tmp_path, 1)  # at once
    wait_until(lambda: sum(lives(tmp_path).values()) == 6, 20, "it works again")


def test_who_is_preempted_comes_back(tmp_path: Path, slurm: LocalSlurm) -> None:
    array = submit(tmp_path, 4, partition="low")
    wait_for_lives(tmp_path, 1, 1, 1, 1)
    [urgent] = slurm.ask(
        "sbatch", "--parsable", "-p", "high", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1"
    )
    wait_until(lambda: slurm.tasks(urgent, "%T") == ["RUNNING"], 20, "the urgent job runs")
    wait_until(lambda: [task.state for task in launcher.tasks(tmp_path)] == ["PENDING"] * 4, 20, "all wait")
    with pytest.raises(AssertionError):  # they live: nothing else is submitted
        submit(tmp_path, 4)
    wait_until(lambda: not slurm.tasks(urgent), 20, "the urgent job ends")
    slurm.hasten(str(array.id), lambda: set(lives(tmp_path).values()) == {2}, 60, "all come back")
    (tmp_path / "go").touch()
    wait_until(lambda: not launcher.tasks(tmp_path), 20, "the array ends")
    for index, lines in said(tmp_path, array).items():
        task = f"task {array.id}_{index}"
        mine = [line.partition(" on ")[0] for line in lines if line.startswith(task)]
        # what the first life says last, its exit code, is lost where Slurm ends it first
        told = [line for line in mine if ": exit code " not in line]
        assert told == [f"{task}, life 0,", f"{task}: back into the queue", f"{task}, life 1,"]
        assert mine[-1].startswith(f"{task}: exit code 0")


def test_a_slurm_that_refuses_is_one_line_and_nothing_is_left(tmp_path: Path, slurm: LocalSlurm) -> None:
    folder = tmp_path / "sweep"
    for options, told in (
        ({"partition": "main", "gres": "gpu:9"}, "sbatch: Batch job submission failed: Requested node configuration"),
        ({"time": "soon"}, "sbatch: Invalid --time specification"),
        ({"no-such": "x"}, "sbatch: sbatch: unrecognized option '--no-such=x'"),
    ):
        with pytest.raises(UserError) as error:
            submit(folder, 1, **options)
        assert str(error.value).startswith(told)
        assert str(error.value).isprintable()
    with pytest.raises(UserError, match=r"no partition 'hihg'. Did you mean high\? It has: main, low, high"):
        launcher.check({"partition": "main,hihg"})
    with pytest.raises(UserError, match=f"{MAX_ARRAY_SIZE + 1} tasks is more than .* [(]{MAX_ARRAY_SIZE}, MaxArra"):
        launcher.check({}, MAX_ARRAY_SIZE + 1)
    assert launcher.check({"partition": "low"}, MAX_ARRAY_SIZE) == "local"
    assert not folder.exists()
    assert slurm.tasks() == []


def test_a_machine_without_slurm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="no scontrol here: --command_launcher slurm needs a machine"):
        launcher.check({})


def test_a_slurm_that_does_not_answer_is_an_error_and_no_empty_queue(
    tmp_path: Path, slurm: LocalSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=gone\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\nMessageTimeout=1\n")
    monkeypatch.setenv("SLURM_CONF", str(conf))
    monkeypatch.setattr(launcher, "_PATIENCE", 1.0)
    with pytest.raises(UserError, match="squeue"):
        launcher.tasks(tmp_path)


def test_what_was_submitted_is_told_in_words() -> None:
    now = [
        Task(17, "0", "RUNNING", "n1", "None"),
        Task(17, "1", "PENDING", "", "Resources"),
        Task(17, "2", "RUNNING", "n2", "None"),
        Task(17, "3", "PENDING", "", "BeginTime"),
    ]
    assert launcher.described(now) == "array 17: 2 running on n1, n2; 2 pending (BeginTime, Resources)"


def test_it_is_a_launcher_of_any_commands(tmp_path: Path, slurm: LocalSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    """As DomainBed's sweep, which tells no folder, hands them over."""
    monkeypatch.chdir(tmp_path)
    check_launcher(LAUNCHERS["slurm"], tmp_path, slurm="partition=low", wait=True)
