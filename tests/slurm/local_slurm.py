"""A real Slurm on this machine, as long as a block runs, or ``python -m tests.slurm.local_slurm COMMAND`` a command.

munged, slurmctld and a slurmd for each of two nodes, of Debian's packages slurm-wlm and munge, as root: on loopback
alone, in a folder of its own, beside any other Slurm. Nodes have two CPUs and two GPUs, of no use.
Partitions are ``main``, and ``low`` and ``high`` on the same nodes: a job in high preempts one in low, which has
``GRACE`` seconds from its SIGTERM. There is no accounting. Each daemon is a child of the process that made it, and dies
with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

#: Seconds from SIGTERM to SIGKILL for a job that is preempted, and for one that is cancelled.
GRACE, KILL_WAIT = 30, 30
#: Seconds without an answer after which a node is down, and its jobs go back into the queue.
NODE_TIMEOUT = 10
#: The largest index of an array's task, and one more.
MAX_ARRAY_SIZE = 101
NODES = ("n1", "n2")
CONFIGURATION = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
GresTypes=gpu
SlurmdParameters=config_overrides
MaxArraySize={array}
KillWait={kill_wait}
SlurmdTimeout={node_timeout}
ReturnToService=2
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=4000 Gres=gpu:2
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=4000 Gres=gpu:2
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=60 PriorityTier=5 PreemptMode=OFF
PartitionName=low Nodes=n1,n2 MaxTime=60 PriorityTier=1 GraceTime={grace}
PartitionName=high Nodes=n1,n2 MaxTime=60 PriorityTier=9 PreemptMode=OFF
"""
_COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
_PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def missing() -> str | None:
    """Why there can be no Slurm here, None where there can."""
    if os.getuid() != 0:
        return "a Slurm of one's own needs root"
    absent = [name for name in _COMMANDS if shutil.which(name, path=_PATH) is None]
    return f"no {', '.join(absent)}: make slurm installs Debian's slurm-wlm and munge" if absent else None


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Look every 0.1 s; an AssertionError where it is not so in time."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not in {seconds:g} s"
        time.sleep(0.1)


class LocalSlurm:
    """The daemons by name: ``munged``, ``slurmctld``, ``n1``, ``n2``; ``folder`` is theirs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf")}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Return when every node takes jobs."""
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            ports = [one.getsockname()[1] for one in sockets]
        self._configure(ports)
        folder = self.folder
        munge = [
            "--key-file",
            folder / "munge.key",
            "--socket",
            folder / "munge.socket",
            "--seed-file",
            folder / "seed",
        ]
        munge += ["--pid-file", folder / "munge.pid", "--log-file", folder / "munge.log"]
        self._daemon("munged", "munged", "--foreground", "--force", *munge)
        wait_until((folder / "munge.socket").exists, 10, "munged answers")
        self._daemon("slurmctld", "slurmctld", "-D", "-c")
        for node in NODES:
            self.start_node(node)
        idle = ("sinfo", "-h", "-N", "-p", "main", "-t", "idle", "-o", "%N")
        wait_until(lambda: self.ask(*idle) == list(NODES), 30, "all nodes idle")

    def start_node(self, node: str) -> None:
        """Start the slurmd of a node."""
        (self.folder / f"spool-{node}").mkdir(exist_ok=True)
        self._daemon(node, "slurmd", "-D", "-N", node)

    def _configure(self, ports: list[int]) -> None:
        host = socket.gethostname().partition(".")[0]
        told = CONFIGURATION.format(
            host=host,
            ports=ports,
            folder=self.folder,
            array=MAX_ARRAY_SIZE,
            grace=GRACE,
            kill_wait=KILL_WAIT,
            node_timeout=NODE_TIMEOUT,
        )
        self.folder.chmod(0o755)  # munged wants nobody to write here, and all to reach its socket
        (self.folder / "state").mkdir()
        (self.folder / "slurm.conf").write_text(told)
        (self.folder / "munge.key").write_bytes(os.urandom(1024))
        (self.folder / "munge.key").chmod(0o600)
        # files that are devices, and do no harm
        gpus = "".join(
            f"NodeName=n[1-2] Name=gpu File={file} Flags=nvidia_gpu_env\n" for file in ("/dev/null", "/dev/zero")
        )
        (self.folder / "gres.conf").write_text(gpus)
        version = subprocess.run(["slurmctld", "-V"], env=self.environment, capture_output=True, text=True, check=True)
        older = tuple(map(int, version.stdout.split()[-1].split(".")[:2])) < (23, 2)  # which asks no cgroup for this
        (self.folder / "cgroup.conf").write_text("" if older else "CgroupPlugin=disabled\n")

    def _daemon(self, name: str, *command: str | Path) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            # in a session of its own, as Ctrl-C is for the tests, which then end it
            self.daemons[name] = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    def ask(self, *command: str) -> list[str]:
        """The sorted lines that a command of Slurm prints; none where it fails."""
        told = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        return sorted(told.stdout.split("\n")[:-1])

    def tasks(self, job: str = "", what: str = "%i %T %N %r") -> list[str]:
        """What squeue says of a job's tasks, or of all."""
        return self.ask("squeue", "-h", "-r", "-o", what, *(["-j", job] if job else []))

    def hasten(self, job: str, true: Callable[[], bool], seconds: float, what: str) -> None:
        """Wait until something is so, and let requeued tasks of an array start, which Slurm holds for two minutes."""
        end = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < end, f"{what}: not in {seconds:g} s: {self.tasks()}"
            for task in self.tasks(job, "%i %r"):
                if task.endswith(" BeginTime"):
                    self.ask("scontrol", "update", f"JobId={task.split()[0]}", "StartTime=now+2")
            with contextlib.suppress(AssertionError):
                wait_until(true, 4, what)

    def cancel_all(self) -> None:
        """End all jobs; return when none is left."""
        self.ask("scancel", "--user=root")
        wait_until(lambda: not self.tasks(), KILL_WAIT + 10, "all jobs end")

    def stop(self) -> None:
        """End the jobs and the daemons."""
        alive = {name for name, daemon in self.daemons.items() if daemon.poll() is None}
        try:
            if {"slurmctld", *NODES} <= alive:
                self.cancel_all()
        finally:
            for name in reversed(list(self.daemons)):
                daemon = self.daemons[name]
                daemon.terminate()
                try:
                    daemon.wait(10)
                except subprocess.TimeoutExpired:
                    daemon.kill()
                    daemon.wait()

    def logs(self) -> str:
        """The ends of what the daemons said."""
        ends = (f"{path.name}:\n{path.read_text(errors='replace')[-3000:]}" for path in self.folder.glob("*.out"))
        return "\n".join(ends)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@contextlib.contextmanager
def local_slurm() -> Iterator[LocalSlurm]:
    """A Slurm that serves within the block, and leaves nothing."""
    with tempfile.TemporaryDirectory(prefix="slurm_", ignore_cleanup_errors=True) as name:
        slurm = LocalSlurm(Path(name))
        try:
            try:
                slurm.start()
            except AssertionError as error:
                raise RuntimeError(f"Slurm does not start: {error}\n{slurm.logs()}") from error
            yield slurm
        finally:
            slurm.stop()


def main() -> int:
    """Run a command, by default a shell, with a Slurm of its own."""
    if why := missing():
        sys.exit(why)
    command = sys.argv[1:] or [os.environ.get("SHELL", "sh")]
    with local_slurm() as slurm:
        return subprocess.run(command, env=slurm.environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
