"""How a sweep was made: versions, devices, seeds, flags and hyperparameters, as its records say."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from domainbed_adm.leaderboard.board import seeds, spoken, versions
from domainbed_adm.recorded_run import Run
from domainbed_adm.report.tables import Row, Table, number, text

#: Flags that tell runs apart, or say where one lies.
_OF_ONE_RUN = {"dataset", "algorithm", "test_envs", "trial_seed", "hparams_seed", "seed", "output_dir"}
#: A setting with more values is told by their number and, where they are numbers, the lowest and highest.
_MOST_LISTED = 5
_OFF = ("null", "false", "0", "0.0")


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


def _recorded(runs: Sequence[Run], name: str) -> str:
    values = {str(made_by[name]) for run in runs for made_by in run.provenances if made_by.get(name)}
    return ", ".join(sorted(values)) or "not recorded"


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
