"""What is installed and found on this machine: small looks, each bounded in time. Loads no torch in this process."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import domainbed_adm
from domainbed_adm.datasets.layout import FOLDER
from domainbed_adm.errors import UserError, one_line
from domainbed_adm.system.process import cpu_count, git_commit

Found = dict[str, str]
#: Name by name, as pip knows them.
_PACKAGES = ("torch", "torchvision", "numpy", "scipy", "scikit-learn", "pillow", "rich", "msgspec", "filelock")
#: Free space below which a run may find no room for its models, GiB.
_LEAST_ROOM = 2.0
_DEVICES = """
import json, torch
cuda, found = torch.cuda, {}
for i in range(cuda.device_count()):
    free, total = cuda.mem_get_info(i)
    bf16 = cuda.get_device_capability(i) >= (8, 0)
    found[f"cuda:{i}"] = f"{cuda.get_device_name(i)}, {total / 2**30:.1f} GiB, {free / 2**30:.1f} free, bf16 {bf16}"
if torch.backends.mps.is_available():
    found["mps"] = "available; runs are trained on CUDA or the CPU"
built = torch.version.cuda or getattr(torch.version, "hip", None)
print(json.dumps({"devices": found, "built": built, "threads": torch.get_num_threads()}))
"""
_HOLD = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def examine(
    output_dir: Path, data_dir: Path | None, domainbed: str | None, timeout: float
) -> tuple[dict[str, Found], list[str]]:
    """What is found, by title and name, and what would hold up a run, each with what to do.

    The looks go on side by side, and each may take ``timeout`` seconds. Nothing is left in the folders.
    """
    problems: list[str] = []
    looks: dict[str, Callable[[], Found]] = {
        "versions": _versions,
        "extras": _extras,
        "devices": lambda: _devices(timeout, problems),
        "cpu": lambda: _cpu(problems),
        "disk": lambda: _disk({"output_dir": output_dir, "data_dir": data_dir}, problems),
        "locks": lambda: _locks(output_dir, timeout, problems),
        "caches": lambda: _caches(data_dir),
        "clusters": lambda: _clusters(timeout),
        "DomainBed": lambda: _domainbed(domainbed, problems),
    }
    results: dict[str, Found] = {}

    def look(title: str) -> None:
        try:
            results[title] = looks[title]()
        except subprocess.TimeoutExpired:
            return  # told below
        except Exception as error:  # whatever it is, the others are of use
            results[title] = {"failed": one_line(error)}
            problems.append(f"{title}: {one_line(error)}: please tell us, with all of this")

    threads = [threading.Thread(target=look, args=(title,), daemon=True) for title in looks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout + 1)
    late = [title for title in looks if title not in results]
    told = [
        f"{title}: no answer in {timeout:g} s: a disk or a driver hangs, or all is busy; try --timeout {4 * timeout:g}"
        for title in late
    ]
    return {title: results.get(title, {"failed": "no answer"}) for title in looks}, [*problems, *told]


def _versions() -> Found:
    found = {"domainbed_adm": domainbed_adm.__version__}
    found["git commit"] = git_commit(Path(domainbed_adm.__file__).resolve().parents[1]) or "no checkout"
    found |= {"python": f"{platform.python_version()} at {sys.executable}", "system": platform.platform()}
    return found | {name: _version(name) or "missing" for name in _PACKAGES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _extras() -> Found:
    """Of each extra of this package, which of its packages are there."""
    extras: dict[str, list[str]] = {}
    try:
        required = metadata.requires("domainbed-adm") or []
    except metadata.PackageNotFoundError:
        return {"unknown": "domainbed-adm is not installed: pip install ."}
    for line in required:
        name, extra = re.match(r"[\w.-]+", line), re.search(r"""extra == ["']([\w-]+)""", line)
        if name and extra and extra[1] != "dev":
            version = _version(name[0])
            extras.setdefault(extra[1], []).append(f"{name[0]} {version or 'missing'}")
    return {f"[{extra}]": ", ".join(packages) for extra, packages in sorted(extras.items())}


def _devices(timeout: float, problems: list[str]) -> Found:
    command = [sys.executable, "-W", "ignore", "-c", _DEVICES]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        problems.append(
            f"torch cannot be imported or does not see its devices: {last}. Install it anew, see pytorch.org"
        )
        return {"failed": last}
    told = json.loads(ended.stdout)
    if not told["devices"] and shutil.which("nvidia-smi"):
        built = f"CUDA {told['built']}" if told["built"] else "the CPU alone"
        problems.append(
            f"nvidia-smi is here but torch, built for {built}, sees no GPU: runs train on the CPU. Look at nvidia-smi "
            "and CUDA_VISIBLE_DEVICES, and install the torch of your driver's CUDA"
        )
    devices: Found = told["devices"]
    return devices | {"built for": str(told["built"] or "CPU"), "torch threads": str(told["threads"])}


def _cpu(problems: list[str]) -> Found:
    found = {"CPUs": f"{os.cpu_count()}, of which this process may use {cpu_count()}"}
    quota = _quota()
    if quota is not None:
        found["cgroup"] = f"{quota:g} CPUs' time"
        if quota < cpu_count():
            problems.append(
                f"the container has the time of {quota:g} CPUs, but {cpu_count()} are shown to it: give --jobs, "
                f"--workers and --threads that together are at most {max(1, int(quota))}"
            )
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        text = _read(Path("/sys/fs/cgroup", name))
        if text.isdecimal() and int(text) < 2**60:
            found["cgroup memory"] = f"{int(text) / 2**30:.1f} GiB"
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        found["memory"] = f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "DOMAINBED_ADM_WORKERS")
    return found | {name: os.environ[name] for name in variables if name in os.environ}


def _quota() -> float | None:
    """CPUs whose time the cgroup has, of version 2 or 1; None without a limit."""
    folder = Path("/sys/fs/cgroup")
    words = _read(folder / "cpu.max").split() or [
        _read(folder / "cpu" / f"cpu.cfs_{n}_us") for n in ("quota", "period")
    ]
    return int(words[0]) / int(words[1]) if len(words) == 2 and all(map(str.isdecimal, words)) else None


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _disk(folders: dict[str, Path | None], problems: list[str]) -> Found:
    found = {}
    for name, folder in folders.items():
        if folder is None:
            found[name] = "not given"
        elif not folder.is_dir():
            found[name] = f"{folder}: no folder"
            problems.append(f"--{name} {folder} is no folder: mkdir -p it, or give another")
        else:
            free = shutil.disk_usage(folder).free / 2**30
            found[name] = f"{folder.resolve()}: {free:.1f} GiB free"
            if free < _LEAST_ROOM:
                problems.append(f"the disk of --{name} {folder} has {free:.1f} GiB free: make room, or give another")
    return found


def _locks(folder: Path, timeout: float, problems: list[str]) -> Found:
    """Whether a lock that this process holds in the folder keeps another process out."""
    advice = "two runs might train in one folder unseen: use a disk with flock (NFS 4, Lustre mounted with flock)"
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".doctor") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            command = [sys.executable, "-S", "-c", _HOLD, file.name]
            other = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except OSError as error:
        problems.append(f"--output_dir {folder} cannot be written or has no locks ({error.strerror}); {advice}")
        return {"flock": f"fails: {error.strerror}"}
    if other.returncode and "BlockingIOError" in other.stderr:
        return {"flock": "holds between processes"}
    problems.append(f"a lock in --output_dir {folder} does not keep another process out: {advice}")
    return {"flock": "does not hold"}


def _caches(data_dir: Path | None) -> Found:
    found = {}
    if data_dir:
        for folder in sorted(data_dir.glob(f"{FOLDER}/*")):
            found[f"{FOLDER}/{folder.name}"] = f"{_size(list(folder.glob('*.pixels'))):.2f} GiB"
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")
    weights = Path(home, "hub", "checkpoints").expanduser()
    for path in sorted(weights.glob("*.pth")) if weights.is_dir() else ():
        found[f"weights {path.name}"] = f"{_size([path]):.2f} GiB"
    return found | {"torch hub": f"{weights}{'' if weights.is_dir() else ', not there yet'}"}


def _size(paths: list[Path]) -> float:
    return sum(path.stat().st_size for path in paths) / 2**30


def _clusters(timeout: float) -> Found:
    found = {"Slurm": "not here: no sbatch", "Ray": "not installed"}
    if shutil.which("sbatch"):
        found["Slurm"] = "sbatch found, no answer of its controller"
        with suppress(OSError, subprocess.TimeoutExpired):
            command = ["sinfo", "--noheader", "--format=%P %a %D %G"]
            ended = subprocess.run(command, capture_output=True, text=True, timeout=min(5, timeout), check=False)
            if not ended.returncode:
                found["Slurm"] = "; ".join(ended.stdout.split("\n")[:10]).strip("; ")
    if find_spec("ray"):
        found["Ray"] = f"{_version('ray')}, RAY_ADDRESS {os.environ.get('RAY_ADDRESS', 'not set')}"
    return found | {name: os.environ[name] for name in ("SLURM_JOB_ID",) if name in os.environ}


def _domainbed(path: str | None, problems: list[str]) -> Found:
    from domainbed_adm.upstream.host import VARIABLE, find

    try:
        root = find(path)
    except UserError as error:
        if path or os.environ.get(VARIABLE):
            problems.append(str(error))
        return {"checkout": "not found; only upstream and DomainBed's own algorithms need it"}
    return {"checkout": str(root), "git commit": git_commit(root) or "no checkout"}
