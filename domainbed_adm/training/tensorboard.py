"""``tensorboard/``: the figures of each record as scalars, and histograms of the traced difficulties.

Tags are those of DomainBed's forks: ``te_<held-out environments>/summary/<figure>`` and ``.../all/env0_in_acc``;
histograms are ``.../difficulty/<measure>``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_adm.errors import UserError
from domainbed_adm.system.disk import writing
from domainbed_adm.training.setup import Setup

#: Adds a record's numbers, and a histogram of each measure's finite scores; a UserError where the system refuses.
Write = Callable[[Mapping[str, Any], Mapping[str, np.ndarray]], None]


@contextmanager
def opened(run: Setup, folder: Path, next_step: int) -> Iterator[Write]:
    """Within the block, a function that writes a record's events; the file is closed at the end.

    Args:
        run: the run.
        folder: where; made where absent.
        next_step: where the run goes on; TensorBoard shows nothing that was written for later steps.

    Raises:
        UserError: tensorboard is not installed, or the system refuses to write; an error of the block goes first.
    """
    check_available()
    from torch.utils.tensorboard import SummaryWriter

    prefix = "te_" + "_".join(run.dataset.environments[env] for env in run.args["test_envs"])

    def write(record: Mapping[str, Any], scores: Mapping[str, np.ndarray]) -> None:
        with writing(folder):
            for name, value in record.items():
                if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
                    group = "all" if name.endswith("_acc") else "summary"
                    events.add_scalar(f"{prefix}/{group}/{name}", value, record["step"])
            for name, values in scores.items():
                finite = values[np.isfinite(values)]
                events.add_histogram(f"{prefix}/difficulty/{name}", finite, record["step"])
            events.flush()

    with _no_traceback_of_the_writing_thread():
        with writing(folder):
            events: Any = SummaryWriter(str(folder), purge_step=next_step)
        try:
            yield write
        except BaseException:
            with suppress(Exception):
                events.close()
            raise
        with writing(folder):
            events.close()


@contextmanager
def _no_traceback_of_the_writing_thread() -> Iterator[None]:
    """What the thread that writes meets is raised again by the next call: it need not print it as well."""
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
