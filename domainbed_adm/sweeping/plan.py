"""``sweep.json``: what a sweep's folder should hold in the end, as its launches wrote it. Reading it needs no data.

It keeps what each launch ran over, not its jobs, so that it stays small. A launch adds itself; the same one again takes
the place of the earlier. A launch that was a mistake leaves with ``sweep delete_incomplete``, once none of its jobs has
a folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

import domainbed_adm
from domainbed_adm.errors import UserError
from domainbed_adm.run_files import PLAN
from domainbed_adm.sweeping.jobs import NOT_LAUNCHED, Job, Sweep, with_states
from domainbed_adm.system.disk import replacing
from domainbed_adm.system.lock import run_lock


@dataclass(frozen=True)
class _Launch:
    """One launch: what it ran over, the number of environments of each dataset then, this package's version then."""

    sweep: Sweep
    environments: dict[str, int]
    version: str = domainbed_adm.__version__


@dataclass(frozen=True)
class _Plan:
    launches: list[_Launch]


def add_to_plan(folder: Path, sweep: Sweep) -> None:
    """Add a launch to the plan of ``folder``.

    Raises:
        UserError: the plan there cannot be read, or the system refuses to write it.
    """
    with run_lock(folder, needed=False):
        others = [launch for launch in _launches(folder) if launch.sweep != sweep]
        _write(folder, [*others, _Launch(sweep, sweep.environment_counts())])


def planned_jobs(folder: Path) -> list[Job]:
    """The jobs of all launches in a sweep's folder, each once; none where it has no plan, as one of DomainBed's.

    Raises:
        UserError: ``sweep.json`` is no plan.
    """
    jobs: dict[str, Job] = {}
    for launch in _launches(folder):
        jobs.update((job.name, job) for job in _jobs(folder, launch))
    return list(jobs.values())


def planned_runs(folder: Path) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """Each planned job as (dataset, algorithm, test_envs, trial_seed, hparams_seed); none where there is no plan.

    Raises:
        UserError: ``sweep.json`` is no plan.
    """
    keys = (
        (of["dataset"], of["algorithm"], tuple(of["test_envs"]), of["trial_seed"], of["hparams_seed"])
        for of in (job.train_args for job in planned_jobs(folder))
    )
    return list(dict.fromkeys(keys))


def drop_from_plan(folder: Path) -> None:
    """Take the launches of which no job has a folder out of the plan, and the plan away where none is left.

    Raises:
        UserError: ``sweep.json`` is no plan, or the system refuses to write it.
    """
    empty = [
        launch
        for launch in _launches(folder)
        if all(state == NOT_LAUNCHED for _, state in with_states(_jobs(folder, launch)))
    ]
    if empty:
        with run_lock(folder, needed=False):
            _write(folder, [launch for launch in _launches(folder) if launch not in empty])


def _jobs(folder: Path, launch: _Launch) -> list[Job]:
    return launch.sweep.jobs(folder, counts=launch.environments)


def _launches(folder: Path) -> list[_Launch]:
    path = folder / PLAN
    if not path.exists():
        return []
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Plan).launches
    except ValueError as error:
        raise UserError(f"{path} is no plan of a sweep ({error}): remove it, and launch the sweep again") from error


def _write(folder: Path, launches: list[_Launch]) -> None:
    if not launches:
        (folder / PLAN).unlink(missing_ok=True)
        return
    with replacing(folder / PLAN) as file:
        file.write(msgspec.json.format(msgspec.json.encode(_Plan(launches))) + b"\n")
