"""Where a record comes from: versions, commit, device, threads, seed, data."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import torch

import domainbed_adm


def provenance(device: torch.device, seed: int, data: dict[str, Any]) -> dict[str, Any]:
    """The ``provenance`` object of a run's records (see ``records``); ``data`` says what it was trained on."""
    return {
        "version": domainbed_adm.__version__,
        "git_commit": git_commit(Path(__file__).resolve().parents[2]),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "seed": seed,
        **data,
    }


def git_commit(folder: Path) -> str | None:
    """The commit that is checked out in ``folder``, with ``+`` where files differ from it; None outside a checkout."""
    if not (folder / ".git").exists():
        return None
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + "+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else commit
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *command: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *command], capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()
