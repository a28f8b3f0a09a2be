"""How a sweep was made: versions, devices, seeds, flags and hyperparameters, as its records say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from domainbed_adm.leaderboard.origins import seeds, spoken, versions
from domainbed_adm.recorded_run import Run
from domainbed_adm.report.tables import Row, Table, number, text

#: Flags that tell runs apart, or say where one lies.
_IDENTITY = {"dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed", "seed", "output_dir"}
#: A setting with more values is told by their number and, where they are numbers, the lowest and highest.
_MOST_LISTED = 5
_OFF = ("null", "false", "0", "0.0")


def origin(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What made the sweep, as (term, what is known of it)."""
    training = {seed for run in runs if isinstance(seed := run.args.get("seed"), int)}
    return [
        ("Versions", versions(runs)),
        ("Devices", ", ".join(_known(runs, "device")) or "not recorded"),
        ("Threads", ", ".join(_known(runs, "threads")) or "not recorded"),
        ("Trial seeds", spoken(seeds(runs, "trial_seed"))),
        ("Hyperparameter seeds", f"{spoken(seeds(runs, 'hparams_seed'))} (0 means the defaults)"),
        ("Training seeds", _few(sorted(training))),
    ]


def _known(runs: Sequence[Run], name: str) -> list[str]:
    return sorted({str(made_by[name]) for run in runs for made_by in run.provenances if made_by.get(name)})


def _few(numbers: list[int]) -> str:
    """The numbers, or how many they are."""
    if len(numbers) > _MOST_LISTED:
        return f"{len(numbers)} different; each record names its run's"
    return spoken(numbers) if numbers else "not recorded"


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


def _settings(runs: Iterable[Run], kind: str) -> dict[str, dict[str, int]]:
    """Of each setting, the number of runs with each value."""
    settings: dict[str, dict[str, int]] = {}
    for run in runs:
        for name, value in (run.args if kind == "args" else run.hparams).items():
            if not (kind == "args" and name in _IDENTITY):
                written = value if isinstance(value, str) else json.dumps(value)
                counts = settings.setdefault(name, {})
                counts[written] = counts.get(written, 0) + 1
    return dict(sorted(settings.items()))


def _told(values: dict[str, int]) -> str:
    if len(values) <= _MOST_LISTED:
        return ", ".join(f"{value} ({count})" for value, count in sorted(values.items()))
    numbers = [value for value in map(_number, values) if value is not None]
    between = f", {min(numbers):.3g} to {max(numbers):.3g}" if len(numbers) == len(values) else ""
    return f"{len(values)} values{between}"


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None
