"""Where a record comes from: versions, commit, device, threads, seed, data."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import torch

import domainbed_adm
from domainbed_adm.training.setup import Setup


def data_identity(run: Setup) -> dict[str, Any]:
    """What its records keep of the data: of each environment the name, number of samples and fingerprint."""
    return {
        "environments": run.dataset.environments,
        "samples": [len(environment) for environment in run.dataset.datasets],
        "fingerprints": [environment.fingerprint for environment in run.dataset.datasets],
    }


def provenance(run: Setup) -> dict[str, Any]:
    """The ``provenance`` object of a run's records (see ``records``)."""
    return {
        "version": domainbed_adm.__version__,
        "git_commit": _git_commit(Path(__file__).resolve().parents[2]),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "seed": run.args["seed"],
        **data_identity(run),
    }


def _git_commit(folder: Path) -> str | None:
    """The commit that is checked out in ``folder``, with ``+`` where files differ from it; None outside a checkout."""

    def git(*command: str) -> str:
        words = ["git", "-C", str(folder), *command]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        if not (folder / ".git").exists():
            return None
        return git("rev-parse", "HEAD") + "+" * bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None
