"""A real Ray of two nodes on this machine, in a network namespace of its own: nothing listens on its interfaces.

``python -m tests.ray.local_ray``, in that namespace, is the cluster: it prints its address as a line of JSON, obeys the
lines ``remove`` and ``add`` of its input, answers each, and ends with its input.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
#: Of each node.
CPUS, GPUS = 2, 1


def why_not() -> str | None:
    """Why no cluster can be made here, None where one can."""
    if importlib.util.find_spec("ray") is None:
        return "needs Ray: pip install 'domainbed-adm[ray]'"
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        return "needs Linux's unshare and nsenter"
    done = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True, check=False)
    return f"needs a network namespace of its own: {done.stderr.strip()}" if done.returncode else None


class LocalRay:
    """The cluster, while open; its processes are gone afterwards, whatever became of them."""

    address: str

    def __enter__(self) -> LocalRay:
        self._folder = tempfile.mkdtemp(prefix="ray")  # no longer: it holds sockets
        own = {"HOME": self._folder, "TMPDIR": self._folder, "RAY_TMPDIR": self._folder, "RAY_USAGE_STATS_ENABLED": "0"}
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "CUDA_", "DOMAINBED_ADM_"))}
        self._environment = {**keep, **own, "PYTHONPATH": str(REPOSITORY)}
        command = ["unshare", "--net", sys.executable, "-m", __name__]
        with (Path(self._folder) / "errors").open("w") as errors:
            self._process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        try:
            self.address = json.loads(self._answer())["address"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=20)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def remove_node(self) -> None:
        """Kill every process of the second node."""
        self._tell("remove")

    def add_node(self) -> None:
        """Another second node."""
        self._tell("add")

    def start(self, command: Sequence[str], quiet: bool = False, **options: Any) -> subprocess.Popen[str]:
        """Start a command beside the cluster, which it finds by RAY_ADDRESS."""
        enter = ["nsenter", f"--net=/proc/{self._process.pid}/ns/net", "--", *command]
        environment = {**self._environment, "RAY_ADDRESS": self.address}
        pipe = subprocess.DEVNULL if quiet else subprocess.PIPE
        return subprocess.Popen(enter, env=environment, stdout=pipe, stderr=pipe, text=True, **options)

    def processes(self) -> Iterator[int]:
        """All that is in the namespace."""
        own = self._namespace(self._process.pid) or self._known
        self._known = own
        for path in Path("/proc").iterdir():
            if path.name.isdecimal() and own and self._namespace(int(path.name)) == own:
                yield int(path.name)

    _known: str | None = None

    def _answer(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("Ray did not start: " + (Path(self._folder) / "errors").read_text()[-2000:])
        list(self.processes())  # by now it is in its namespace, whose name is kept
        return line

    def _tell(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self._answer()

    @staticmethod
    def _namespace(pid: int) -> str | None:
        try:
            return os.readlink(f"/proc/{pid}/ns/net")  # noqa: PTH115
        except OSError:
            return None


def loopback_up() -> None:
    """What ``ip link set lo up`` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_:
        fcntl.ioctl(any_, 0x8914, struct.pack("16sh14x", b"lo", 0x1 | 0x40))  # SIOCSIFFLAGS: up, running


def main() -> None:
    """Be the cluster."""
    loopback_up()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from ray.cluster_utils import Cluster

    node = {"num_cpus": CPUS, "num_gpus": GPUS, "object_store_memory": 80 * 2**20}
    sooner = {"health_check_initial_delay_ms": 1000, "health_check_period_ms": 500}  # that a node is gone
    head = {**node, "include_dashboard": False, "_system_config": sooner}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(**node)

    def answer(**what: str) -> None:
        print(json.dumps(what), file=answers, flush=True)

    answer(address=cluster.address)
    for line in sys.stdin:
        if line == "remove\n":
            for second in list(cluster.worker_nodes):
                cluster.remove_node(second, allow_graceful=False)
        else:
            cluster.add_node(**node)
        answer(done=line.strip())
    cluster.shutdown()


if __name__ == "__main__":
    main()
