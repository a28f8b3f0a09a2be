"""The figures of each record as a row of ``metrics.csv``, for spreadsheets and pandas."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

import numpy as np

from domainbed_adm.loggers.interface import LoggedRun, Logger
from domainbed_adm.run_files import METRICS
from domainbed_adm.system.disk import replacing


class Csv(Logger):
    """Writes the file anew at each record, from the records that are kept, so that it is whole whenever it is read.

    The first column is the step. A figure that a record lacks, or that is not finite, is an empty cell.
    """

    def __init__(self, run: LoggedRun) -> None:
        self._path, self._rows = run.folder / METRICS, list[dict[str, float]]()

    def log(self, step: int, figures: Mapping[str, float], scores: Mapping[str, np.ndarray]) -> None:
        """As :class:`Logger` says."""
        self._rows.append({"step": step, **figures})
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(name for row in self._rows for name in row)))
        writer.writeheader()
        writer.writerows(self._rows)
        with replacing(self._path) as file:
            file.write(text.getvalue().encode("utf-8", "backslashreplace"))
