"""A folder ``tensorboard`` of events: the figures as scalars, the traced difficulties as histograms.

Its tags are those of DomainBed's forks: ``te_<held-out environments>/summary/<figure>`` and ``.../all/env0_in_acc``;
beside them are ``.../in_acc/<environment>``, ``.../difficulty/<measure>``, and ``config`` and ``status`` as text.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np

from domainbed_adm.loggers.interface import LoggedRun, Logger
from domainbed_adm.run_files import TENSORBOARD
from domainbed_adm.system.disk import writing


class TensorBoard(Logger):
    """TensorBoard then shows nothing that was written earlier for steps that the run trains again."""

    def __init__(self, run: LoggedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder, self._prefix = run.folder / TENSORBOARD, "te_" + "_".join(run.held_out)
        self.last_step = min(run.last_step, run.next_step - 1)
        self._hook, self._step = threading.excepthook, self.last_step
        threading.excepthook = self._quiet
        with writing(self._folder):
            self._events: Any = SummaryWriter(str(self._folder), purge_step=self.last_step + 1)
            if self.last_step < 0:
                text = json.dumps(run.config, indent=1, sort_keys=True)
                self._events.add_text(f"{self._prefix}/config", f"```\n{text}\n```", 0)

    def log(self, step: int, figures: Mapping[str, float], scores: Mapping[str, np.ndarray]) -> None:
        """As :class:`Logger` says."""
        self._step = step
        with writing(self._folder):
            for name, value in figures.items():
                group = "" if "/" in name else "all/" if name.endswith("_acc") else "summary/"
                if name.removeprefix("difficulty/") not in scores:
                    self._events.add_scalar(f"{self._prefix}/{group}{name}", value, step)
            for name, values in scores.items():
                self._events.add_histogram(f"{self._prefix}/difficulty/{name}", values[np.isfinite(values)], step)
            self._events.flush()

    def end(self, status: str) -> None:
        """As :class:`Logger` says."""
        try:
            with writing(self._folder):
                self._events.add_text(f"{self._prefix}/status", status, max(0, self._step))
                self._events.close()
        finally:
            threading.excepthook = self._hook

    def _quiet(self, args: threading.ExceptHookArgs) -> None:
        """Say nothing of what the writing thread meets: it is raised again by the next call to write."""
        if not (isinstance(args.exc_value, OSError) and type(args.thread).__module__.startswith("tensorboard.")):
            self._hook(args)
