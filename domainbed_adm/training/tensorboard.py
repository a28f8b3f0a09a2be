"""``tensorboard/``: the figures of each record as scalars, and histograms of the traced difficulties.

Tags are those of DomainBed's forks: ``te_<held-out environments>/summary/<figure>`` and ``.../all/env0_in_acc``;
histograms are ``.../difficulty/<measure>``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_adm.errors import UserError
from domainbed_adm.training.setup import Setup

FOLDER_NAME = "tensorboard"


class TensorBoard:
    """Writes one run's events.

    Args:
        run: the run.
        folder: where; made where absent.
        next_step: where the run goes on; TensorBoard shows nothing that was written for later steps.

    Raises:
        UserError: tensorboard is not installed.
    """

    def __init__(self, run: Setup, folder: Path, next_step: int) -> None:
        check_available()
        from torch.utils.tensorboard import SummaryWriter

        held_out = "_".join(run.dataset.environments[env] for env in run.args["test_envs"])
        self._prefix = f"te_{held_out}"
        self._writer = SummaryWriter(str(folder), purge_step=next_step)

    def write(self, record: Mapping[str, Any], scores: Mapping[str, np.ndarray]) -> None:
        """Add a record's numbers, and a histogram of each measure's finite scores."""
        step = record["step"]
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                group = "all" if name.endswith("_acc") else "summary"
                self._writer.add_scalar(f"{self._prefix}/{group}/{name}", value, step)
        for name, values in scores.items():
            self._writer.add_histogram(f"{self._prefix}/difficulty/{name}", values[np.isfinite(values)], step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()


def check_available() -> None:
    """Refuse to begin where events cannot be written.

    Raises:
        UserError: tensorboard is not installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError("--tensorboard needs tensorboard: pip install tensorboard") from error
