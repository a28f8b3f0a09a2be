"""MLflow. Its own variables say where to: MLFLOW_TRACKING_URI, and MLFLOW_EXPERIMENT_NAME (default domainbed_adm)."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from domainbed_adm.loggers.interface import LoggedRun, Logger

#: The most characters of a parameter that every version takes, and the most parameters at once.
_LONGEST, _AT_ONCE = 500, 100
_STATUS = {"finished": "FINISHED", "interrupted": "KILLED"}


class MLflow(Logger):
    """The same run there goes on, by the id that the run's folder keeps; which steps it has, the server says."""

    def __init__(self, run: LoggedRun) -> None:
        for name, value in (("MAX_RETRIES", "2"), ("TIMEOUT", "20")):  # its own would hold up the run for minutes
            os.environ.setdefault(f"MLFLOW_HTTP_REQUEST_{name}", value)
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        if "id" in run.state:
            self._id = run.state["id"]
            self._client.update_run(self._id, status="RUNNING")
            steps = [metric.step for metric in self._client.get_metric_history(self._id, "epoch")]
            self.last_step = max(steps, default=-1)
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "domainbed_adm")
        experiment = self._client.get_experiment_by_name(name)
        try:
            where = experiment.experiment_id if experiment else self._client.create_experiment(name)
        except MlflowException:  # another run has just created it
            where = self._client.get_experiment_by_name(name).experiment_id
        args = run.config["args"]
        tags = {"algorithm": args["algorithm"], "dataset": args["dataset"], "held_out": " ".join(run.held_out)}
        tags |= {"folder": str(run.folder.resolve())}
        self._id = self._client.create_run(where, run_name=run.title, tags=tags).info.run_id
        run.state["id"] = self._id
        self._log_config(run.config)

    def _log_config(self, config: Mapping[str, Mapping[str, Any]]) -> None:
        from mlflow.entities import Param

        parameters = [
            Param(_valid(f"{group}/{name}"), str(value)[:_LONGEST])
            for group, values in config.items()
            for name, value in values.items()
        ]
        for first in range(0, len(parameters), _AT_ONCE):
            self._client.log_batch(self._id, params=parameters[first : first + _AT_ONCE])

    def log(self, step: int, figures: Mapping[str, float], scores: Mapping[str, np.ndarray]) -> None:
        """As :class:`Logger` says."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(_valid(name), value, now, step) for name, value in figures.items()])

    def end(self, status: str) -> None:
        """As :class:`Logger` says."""
        self._client.set_tag(self._id, "status", status)
        self._client.set_terminated(self._id, _STATUS.get(status, "FAILED"))


def _valid(name: str) -> str:
    """A name as every store takes it."""
    return re.sub(r"[^\w\-./: ]", "_", name, flags=re.ASCII)
