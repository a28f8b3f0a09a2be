"""The sections that are tables: comparisons under one selection method, the cost of a step, how the sweep was made."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from domainbed_adm.leaderboard import Board
from domainbed_adm.leaderboard.board import seeds, spoken, versions
from domainbed_adm.leaderboard.comparison import comparison_sheet, comparisons
from domainbed_adm.leaderboard.hessian import Eigenvalues
from domainbed_adm.leaderboard.last_models import epoch_time, step_time
from domainbed_adm.leaderboard.published import published_hessian, published_sheets
from domainbed_adm.model_selection import SelectionMethod
from domainbed_adm.recorded_run import Run, is_official
from domainbed_adm.report.section_verdict import BASELINES
from domainbed_adm.report.sweep_folder import SweepFolder
from domainbed_adm.report.tables import UNKNOWN, Cell, Row, Table, number, of_sheet, text

#: Flags that tell runs apart, or say where one lies.
_OF_ONE_RUN = {"dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed", "seed", "output_dir"}
#: A setting with more values is told by their number and, where they are numbers, the lowest and highest.
_MOST_LISTED = 5
#: Of a larger sweep the page lists so many runs; ``load_runs(folder).to_frame()`` has all.
_MOST_RUNS = 1000
_OFF = ("null", "false", "0", "0.0")


def comparison_tables(board: Board, selection: SelectionMethod, found: Eigenvalues) -> tuple[list[Table], list[str]]:
    """All methods against the baseline, and ours beside the published numbers; a line for each that is not there."""
    tables, absent = [], []
    base = _baseline(board.algorithms)
    methods = [name for name in board.algorithms if name != base]
    if base is None:
        absent.append(f"No comparison: none of {', '.join(BASELINES)} is among the methods.")
    elif not methods:
        absent.append(f"No comparison: {base} is the only method.")
    elif rows := [row for row in comparisons(board, selection, base, methods) if row.difference.n]:
        sheet = comparison_sheet(board, selection, rows)
        # the page says once how the sweep was made
        sheet = replace(sheet, note=sheet.note.replace(board.sweep_line, "").strip())
        tables.append(of_sheet(sheet, without=("Baseline",)))
    else:
        absent.append(f"No comparison: no method shares a trial and test environment with {base}.")
    published = published_sheets(board, selection)
    if published:
        tables += map(of_sheet, published)
    else:
        absent.append("Nothing here has a published number to stand beside.")
    if hessian := published_hessian(board, found):
        tables.append(of_sheet(hessian))
    return tables, absent


def cost_tables(board: Board) -> list[Table]:
    """A table for each dataset of the board and each device, a row for each method that has step times there."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in board.runs:
        groups.setdefault((run.dataset, _device(run)), []).append(run)
    order = list(board.environments)
    keys = sorted(groups, key=lambda key: (order.index(key[0]), key[1]))
    tables = [_cost_table(*key, groups[key], board.algorithms) for key in keys]
    return [table for table in tables if table.rows]


def origin(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What made the sweep, as (term, what is known of it)."""
    training = sorted({seed for run in runs if isinstance(seed := run.args.get("seed"), int)})
    many = f"{len(training)} different; each record names its run's"
    return [
        ("Versions", versions(runs)),
        ("Devices", _recorded(runs, "device")),
        ("Threads", _recorded(runs, "threads")),
        ("Trial seeds", spoken(seeds(runs, "trial_seed"))),
        ("Hyperparameter seeds", f"{spoken(seeds(runs, 'hparams_seed'))} (0 means the defaults)"),
        ("Training seeds", many if len(training) > _MOST_LISTED else spoken(training) or "not recorded"),
    ]


def runs_table(sweep: SweepFolder) -> Table | None:
    """Each run with its seeds, how far it came and where; None without records."""
    states = {run.folder: run.state for run in sweep.runs}
    rows = []
    for run in sweep.recorded[:_MOST_RUNS]:
        made, seconds = run.provenance, _training_seconds(run)
        seeds_of = [number(value if isinstance(value, int) else None, "d") for value in _seeds(run)]
        cells = [*seeds_of, number(run.last_step, "d"), number(seconds and seconds / 60, ".1f")]
        cells.append(_whole(made, "threads"))
        cells += [text(str(made.get("device", UNKNOWN))), text(states.get(run.folder, UNKNOWN)), text(run.folder.name)]
        rows.append(Row([run.algorithm, run.dataset, " ".join(map(str, run.test_envs))], cells))
    columns = ["trial", "hparams", "seed", "last step", "minutes", "threads", "device", "state", "folder"]
    more = len(sweep.recorded) - len(rows)
    note = "minutes: of training steps, without evaluation and start."
    note += f" The first {_MOST_RUNS} of {len(sweep.recorded)} runs." if more else ""
    return Table("Runs", ["Method", "Dataset", "test_envs"], columns, rows, note) if rows else None


def _seeds(run: Run) -> list[Any]:
    return [run.trial_seed, run.hparams_seed, run.args.get("seed")]


def _whole(made: dict[str, Any], name: str) -> Cell:
    value = made.get(name)
    return number(value if isinstance(value, int) else None, "d")


def _training_seconds(run: Run) -> float | None:
    """Sum over checkpoints of the mean time of a step, each times the steps since the one before."""
    order = np.argsort(run.steps, kind="stable")
    steps = np.diff(run.steps[order], prepend=-1)
    seconds = float(np.nansum(run.column("step_time")[order] * steps))
    return seconds or None


def shared_settings(runs: Iterable[Run], kind: str) -> list[str]:
    """``name = value`` of each flag ("args") or hyperparameter ("hparams") with one value in all runs that have it.

    Those that are off (null, false, 0) are left out.
    """
    shared = {name: next(iter(values)) for name, values in _settings(runs, kind).items() if len(values) == 1}
    return [f"{name} = {value}" for name, value in shared.items() if value not in _OFF]


def differing_settings(runs: Iterable[Run]) -> Table | None:
    """The flags and hyperparameters with several values, and in how many runs each."""
    runs = list(runs)
    rows = []
    for kind in ("args", "hparams"):
        for name, values in _settings(runs, kind).items():
            if len(values) > 1:
                label = f"--{name}" if kind == "args" else name
                rows.append(Row([label], [text(_told(values)), number(sum(values.values()), "d")]))
    return Table("Settings that differ between runs", ["Setting"], ["Values", "Runs"], rows) if rows else None


def _baseline(names: Collection[str]) -> str | None:
    return next((name for name in BASELINES if name in names), None)


def _device(run: Run) -> str:
    """Where it was trained; both devices of a run that went on elsewhere."""
    known = dict.fromkeys(str(made_by["device"]) for made_by in run.provenances if made_by.get("device"))
    return ", then ".join(known) or "a device that was not recorded"


def _cost_table(dataset: str, device: str, runs: list[Run], algorithms: Sequence[str]) -> Table:
    own = {name: [run for run in runs if run.algorithm == name] for name in algorithms}
    seconds = {name: time for name in own if (time := step_time(own[name])) is not None}
    epochs = {name: _epoch_time(own[name]) for name in seconds} if is_official(dataset) else {}
    peaks = {name: _peak(own[name]) for name in seconds}
    base, longest = _baseline(seconds), max(seconds.values(), default=0.0)
    timed = ["s an epoch"] if any(epochs.values()) else []
    columns = [*([f"× {base}"] if base else []), "ms a step", *timed, *(["peak GiB"] if any(peaks.values()) else [])]
    rows = []
    for name, value in seconds.items():
        ratio = [number(value / seconds[base] if seconds[base] else None, ".2f")] if base else []
        milliseconds = number(1000 * value, ".1f", share=value / longest if longest else None)
        epoch = [number(epochs[name], ".1f")] if timed else []
        rows.append(Row([name], [*ratio, milliseconds, *epoch, number(peaks[name], ".2f")][: len(columns)]))
    return Table(f"{dataset}, on {device}", ["Method"], columns, rows)


def _epoch_time(runs: list[Run]) -> float | None:
    known = [seconds for run in runs if math.isfinite(seconds := epoch_time(run))]
    return float(np.median(known)) if known else None


def _peak(runs: list[Run]) -> float | None:
    """The highest peak memory; 0, which a CPU records, is none."""
    peaks = np.concatenate([np.empty(0), *(run.column("mem_gb") for run in runs)])
    return float(peaks[peaks > 0].max()) if (peaks > 0).any() else None


def _recorded(runs: Sequence[Run], name: str) -> str:
    values = {str(made_by[name]) for run in runs for made_by in run.provenances if made_by.get(name)}
    return ", ".join(sorted(values)) or "not recorded"


def _settings(runs: Iterable[Run], kind: str) -> dict[str, Counter[str]]:
    """Of each setting, the number of runs with each value."""
    settings: dict[str, Counter[str]] = {}
    for run in runs:
        for name, value in (run.args if kind == "args" else run.hparams).items():
            if not (kind == "args" and name in _OF_ONE_RUN):
                settings.setdefault(name, Counter())[value if isinstance(value, str) else json.dumps(value)] += 1
    return dict(sorted(settings.items()))


def _told(values: Counter[str]) -> str:
    if len(values) <= _MOST_LISTED:
        return ", ".join(f"{value} ({count})" for value, count in sorted(values.items()))
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return f"{len(values)} values"
    return f"{len(values)} values, {min(numbers):.3g} to {max(numbers):.3g}"
