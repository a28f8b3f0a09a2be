"""What the machine offers this process."""

from __future__ import annotations

import contextlib
import math
import os
from pathlib import Path

#: The control group of this process, and where the limits of all are (version 2 of control groups).
_GROUP, _GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def cpu_count() -> int:
    """Number of CPUs that this process may use: those of its affinity where the system has one, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def memory() -> float:
    """Bytes of main memory that this process may take: the machine's, or less where a control group has a limit.

    Infinite where the system does not tell.
    """
    try:
        limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, OSError, ValueError):
        return math.inf
    with contextlib.suppress(OSError, StopIteration):
        groups = _GROUP.read_text().splitlines()
        group = Path(next(line[4:] for line in groups if line.startswith("0::/")))
        for folder in (group, *group.parents):
            with contextlib.suppress(OSError, ValueError):  # no limit: "max"
                limits.append(int((_GROUPS / folder / "memory.max").read_text()))
    return min(limits)
