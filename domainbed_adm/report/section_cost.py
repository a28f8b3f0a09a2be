"""What a step of each method cost, as its runs measured it while they trained."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from domainbed_adm.leaderboard import Board
from domainbed_adm.records import Record
from domainbed_adm.report.baseline import baseline
from domainbed_adm.report.section_leaderboard import Row, Table, number

_NO_DEVICE = "a device that was not recorded"


def cost_tables(records: Iterable[Record], board: Board) -> list[Table]:
    """A table for each dataset of the board and each device, a row for each method measured there."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        device = (record.get("provenance") or {}).get("device") or _NO_DEVICE
        groups.setdefault((record["args"]["dataset"], str(device)), []).append(record)
    order = list(board.environments)
    keys = sorted(groups, key=lambda key: (order.index(key[0]), key[1]))
    tables = [_table(*key, groups[key], board.algorithms) for key in keys]
    return [table for table in tables if table.rows]


def _table(dataset: str, device: str, records: list[Record], algorithms: Sequence[str]) -> Table:
    own = {name: [one for one in records if one["args"]["algorithm"] == name] for name in algorithms}
    seconds = {name: _step_time(found) for name, found in own.items()}
    measured = {name: value for name, value in seconds.items() if value is not None}
    base = baseline(measured)
    longest = max(measured.values(), default=0.0)
    rows = []
    for name, value in measured.items():
        ratio = value / measured[base] if base and measured[base] else None
        share = value / longest if longest else None
        cells = [number(1000 * value, ".1f", share=share), number(_peak(own[name]), ".2f")]
        rows.append(Row([name], [*([number(ratio, ".2f")] if base else []), *cells]))
    columns = [*([f"× {base}"] if base else []), "ms a step", "peak GiB"]
    return Table(f"{dataset}, on {device}", ["Method"], columns, rows)


def _step_time(records: list[Record]) -> float | None:
    """Median over the records, without those of a run's first step, which warms up, where there are others."""
    timed = [(record["step"], value) for record in records if (value := _positive(record.get("step_time"))) is not None]
    later = [value for step, value in timed if step > 0]
    return median(later or [value for _, value in timed]) if timed else None


def _peak(records: list[Record]) -> float | None:
    """The highest peak memory; 0, which a CPU records, is none."""
    return max((value for record in records if (value := _positive(record.get("mem_gb")))), default=None)


def _positive(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 < value <= sys.float_info.max else None
