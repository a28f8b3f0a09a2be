"""What a step of each method cost, as its runs measured it while they trained."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domainbed_adm.leaderboard import Board
from domainbed_adm.recorded_run import Column, Run
from domainbed_adm.report.section_comparison import baseline
from domainbed_adm.report.tables import Row, Table, number

_NO_DEVICE = "a device that was not recorded"


def cost_tables(board: Board) -> list[Table]:
    """A table for each dataset of the board and each device, a row for each method that has step times there."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in board.runs:
        groups.setdefault((run.dataset, _device(run)), []).append(run)
    order = list(board.environments)
    keys = sorted(groups, key=lambda key: (order.index(key[0]), key[1]))
    tables = [_table(*key, groups[key], board.algorithms) for key in keys]
    return [table for table in tables if table.rows]


def _device(run: Run) -> str:
    """Where it was trained; both devices of a run that went on elsewhere."""
    known = dict.fromkeys(str(made_by["device"]) for made_by in run.provenances if made_by.get("device"))
    return ", then ".join(known) or _NO_DEVICE


def _table(dataset: str, device: str, runs: list[Run], algorithms: Sequence[str]) -> Table:
    own = {name: [run for run in runs if run.algorithm == name] for name in algorithms}
    seconds = {name: time for name in own if (time := _step_time(own[name])) is not None}
    peaks = {name: _peak(own[name]) for name in seconds}
    base, longest = baseline(seconds), max(seconds.values(), default=0.0)
    columns = [*([f"× {base}"] if base else []), "ms a step", *(["peak GiB"] if any(peaks.values()) else [])]
    rows = []
    for name, value in seconds.items():
        ratio = [number(value / seconds[base] if seconds[base] else None, ".2f")] if base else []
        milliseconds = number(1000 * value, ".1f", share=value / longest if longest else None)
        rows.append(Row([name], [*ratio, milliseconds, number(peaks[name], ".2f")][: len(columns)]))
    return Table(f"{dataset}, on {device}", ["Method"], columns, rows)


def _step_time(runs: list[Run]) -> float | None:
    """Median over the records, without those of a run's first step, which warms up, where there are others."""
    steps, times = _positive(runs, "step_time")
    later = times[steps > 0]
    return float(np.median(later if len(later) else times)) if len(times) else None


def _peak(runs: list[Run]) -> float | None:
    """The highest peak memory; 0, which a CPU records, is none."""
    _, peaks = _positive(runs, "mem_gb")
    return float(peaks.max()) if len(peaks) else None


def _positive(runs: list[Run], name: str) -> tuple[Column, Column]:
    """The steps at which the number is above 0, and the numbers."""
    steps, values = (np.concatenate([np.empty(0), *(run.column(of) for run in runs)]) for of in ("step", name))
    return steps[values > 0], values[values > 0]
