"""What the machine offers this process."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """Number of CPUs that this process may use: those of its affinity where the system has one, else all."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
