"""``tensorboard/``: the figures of each record as scalars, and histograms of the traced difficulties.

Tags are those of DomainBed's forks: ``te_<held-out environments>/summary/<figure>`` and ``.../all/env0_in_acc``;
histograms are ``.../difficulty/<measure>``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_adm.errors import UserError
from domainbed_adm.system.disk import writing
from domainbed_adm.training.setup import Setup


class TensorBoard:
    """Writes one run's events.

    Args:
        run: the run.
        folder: where; made where absent.
        next_step: where the run goes on; TensorBoard shows nothing that was written for later steps.

    Raises:
        UserError: tensorboard is not installed, or the system refuses to write.
    """

    def __init__(self, run: Setup, folder: Path, next_step: int) -> None:
        check_available()
        from torch.utils.tensorboard import SummaryWriter

        held_out = "_".join(run.dataset.environments[env] for env in run.args["test_envs"])
        self._prefix = f"te_{held_out}"
        self._folder = folder
        with writing(folder):
            self._writer = SummaryWriter(str(folder), purge_step=next_step)

    def write(self, record: Mapping[str, Any], scores: Mapping[str, np.ndarray]) -> None:
        """Add a record's numbers, and a histogram of each measure's finite scores.

        Raises:
            UserError: the system refuses to write.
        """
        with writing(self._folder):
            self._write(record, scores)

    def _write(self, record: Mapping[str, Any], scores: Mapping[str, np.ndarray]) -> None:
        step = record["step"]
        for name, value in record.items():
            if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                group = "all" if name.endswith("_acc") else "summary"
                self._writer.add_scalar(f"{self._prefix}/{group}/{name}", value, step)
        for name, values in scores.items():
            self._writer.add_histogram(f"{self._prefix}/difficulty/{name}", values[np.isfinite(values)], step)
        self._writer.flush()

    def close(self) -> None:
        """Close the file.

        Raises:
            UserError: the system refuses to write what is left.
        """
        with writing(self._folder):
            self._writer.close()


@contextmanager
def opened(run: Setup, folder: Path, next_step: int) -> Iterator[TensorBoard]:
    """Within the block, a :class:`TensorBoard`; it is closed at the end, which hides no error of the block.

    Raises:
        UserError: tensorboard is not installed, or the system refuses to write.
    """
    with _told_once():
        events = TensorBoard(run, folder, next_step)
        try:
            yield events
        except BaseException:
            with suppress(Exception):
                events.close()
            raise
        events.close()


@contextmanager
def _told_once() -> Iterator[None]:
    """Within the block, the thread that writes prints no traceback: what it meets is raised again by the next call."""
    before = threading.excepthook

    def hook(args: threading.ExceptHookArgs) -> None:
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
            before(args)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


def check_available() -> None:
    """Refuse to begin where events cannot be written.

    Raises:
        UserError: tensorboard is not installed.
    """
    try:
        import tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError("--tensorboard needs tensorboard: pip install tensorboard") from error
