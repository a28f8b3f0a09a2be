"""What the machine offers this process."""

from __future__ import annotations

import os

#: Environment variable with the number of loading processes that a run which another process started may have.
WORKERS_VARIABLE = "DOMAINBED_ADM_WORKERS"


def cpu_count() -> int:
    """Number of CPUs that this process may use: those of its affinity where the system has one, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
