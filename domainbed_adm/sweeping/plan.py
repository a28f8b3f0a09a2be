"""Sweeps in files: ``sweep.json``, the plan of a sweep's folder, and named sweeps, flags of ``sweep`` in YAML.

A plan says what a folder should hold in the end, and is read without the data. It keeps what each launch ran over, not
its jobs, so that it stays small: workers read it, and make the jobs of it. A launch adds itself; the same one again
takes the place of the earlier. A launch that was a mistake leaves with ``sweep delete_incomplete``, once none of its
jobs has a folder.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

import domainbed_adm
from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import UserError, lookup, unknown_name
from domainbed_adm.recorded_run import with_length
from domainbed_adm.run_args import EVERY_JOB, RunArgs
from domainbed_adm.run_files import CLAIMS, PLAN
from domainbed_adm.sweeping.jobs import NOT_LAUNCHED, Job, Sweep, with_states
from domainbed_adm.sweeping.launchers import LAUNCHERS
from domainbed_adm.system.disk import LockedError, replacing, run_lock
from domainbed_adm.system.yaml_files import read_yaml

#: Flags that a named sweep may set beside those of launchers, and the types of their values.
FLAGS: dict[str, Any] = {
    **get_type_hints(Sweep),
    **{name: kind for name, kind in get_type_hints(RunArgs).items() if name in EVERY_JOB},
    **{"output_dir": str, "command_launcher": str, "jobs": int, "retries": int, "hparams": dict[str, Any]},
}
#: Seconds to wait for the others that write a plan, and between looks at whether they have.
_PATIENCE, _POLL = 60.0, 0.1


@dataclass(frozen=True)
class _Launch:
    """One launch: what it ran over, the number of environments of each dataset then, this package's version then.

    ``flags`` of ``train`` say how to run each job; they do not tell launches apart.
    """

    sweep: Sweep
    environments: dict[str, int]
    version: str = domainbed_adm.__version__
    flags: dict[str, Any] = field(default_factory=dict)

    def jobs(self, folder: Path) -> list[Job]:
        return self.sweep.jobs(folder, self.flags, self.environments)


def add_to_plan(folder: Path, sweep: Sweep, flags: Mapping[str, Any] | None = None) -> None:
    """Add a launch, whose jobs run with these flags of ``train``, to the plan of ``folder``.

    The file is written anew, so that its time is that of the last launch.
    """
    with _sole_writer(folder):
        others = [launch for launch in _launches(folder) if launch.sweep != sweep]
        _write(folder, [*others, _Launch(sweep, sweep.environment_counts(), flags=dict(flags or {}))])


@contextlib.contextmanager
def planned(folder: Path, sweep: Sweep, flags: Mapping[str, Any] | None = None) -> Iterator[None]:
    """As :func:`add_to_plan`; where the block ends in a UserError, the plan is again as it was.

    Raises:
        UserError: as the block does.
    """
    before = [launch for launch in _launches(folder) if launch.sweep == sweep]
    add_to_plan(folder, sweep, flags)
    try:
        yield
    except UserError:
        with _sole_writer(folder):
            _write(folder, [*(launch for launch in _launches(folder) if launch.sweep != sweep), *before])
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
        raise


def planned_sweeps(folder: Path) -> list[Sweep]:
    """What the launches in a sweep's folder run over."""
    return [launch.sweep for launch in _launches(folder)]


def planned_jobs(folder: Path, sweep: Sweep | None = None) -> list[Job]:
    """The jobs of all launches in a sweep's folder, or of one; each once, and as the last of its launches runs it.

    None where it has no plan, as one of DomainBed's.
    """
    launches = [launch for launch in _launches(folder) if sweep in (None, launch.sweep)]
    return list({job.name: job for launch in launches for job in launch.jobs(folder)}.values())


def planned_runs(folder: Path) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """Each planned job as (dataset, algorithm, test_envs, trial_seed, hparams_seed); none where there is no plan.

    The algorithm has its ``--epochs`` and ``--match_passes`` behind it where these are given.
    """
    flags = [job.train_args for job in planned_jobs(folder)]
    names = (with_length(f["algorithm"], f.get("epochs"), f.get("match_passes")) for f in flags)
    keys = (
        (f["dataset"], name, tuple(f["test_envs"]), f["trial_seed"], f["hparams_seed"])
        for f, name in zip(flags, names, strict=True)
    )
    return list(dict.fromkeys(keys))


def drop_from_plan(folder: Path) -> None:
    """Take the launches of which no job has a folder out of the plan, and the plan away where none is left."""
    if not (folder / PLAN).exists():
        return
    with _sole_writer(folder):  # nobody adds to the plan between reading and writing
        launches = _launches(folder)
        kept = [one for one in launches if any(state != NOT_LAUNCHED for _, state in with_states(one.jobs(folder)))]
        if kept != launches:
            _write(folder, kept)


def remove_from_plan(folder: Path, sweep: Sweep) -> None:
    """Take one launch out of the plan."""
    with _sole_writer(folder):
        _write(folder, [launch for launch in _launches(folder) if launch.sweep != sweep])


@contextlib.contextmanager
def _sole_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of the folder, once others that write its plan, as workers that begin together, have done.

    Raises:
        LockedError: it is held for a minute.
    """
    deadline = time.monotonic() + _PATIENCE
    with contextlib.ExitStack() as stack:
        while True:
            try:
                stack.enter_context(run_lock(folder, needed=False))
                break
            except LockedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_POLL * random.uniform(0.5, 1.5))
        yield


def _launches(folder: Path) -> list[_Launch]:
    path = folder / PLAN
    if not path.exists():
        return []
    try:
        launches = msgspec.json.decode(path.read_bytes(), type=dict[str, list[_Launch]])["launches"]
        for launch in launches:
            for name, value in launch.flags.items():
                if name not in EVERY_JOB:
                    raise ValueError(f"flag {name!r} is not known")
                msgspec.convert(value, FLAGS[name])
        return launches
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} is no plan of a sweep ({error}): remove it, and launch the sweep again") from error


def _write(folder: Path, launches: list[_Launch]) -> None:
    if not launches:
        for name in (PLAN, CLAIMS):
            (folder / name).unlink(missing_ok=True)
        return
    with replacing(folder / PLAN) as file:
        file.write(msgspec.json.format(msgspec.json.encode({"launches": launches})) + b"\n")


def named_sweeps() -> dict[str, Path]:
    """The files of the sweeps that come with the installed package, or lie beside it in a checkout, by sorted name."""
    spec = find_spec("domainbed_adm.named_sweeps")
    installed = list(spec.submodule_search_locations or ()) if spec else []
    folder = Path(installed[0]) if installed else Path(__file__).parents[2] / "sweeps"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_named_sweep(name: str) -> dict[str, Any]:
    """The flags of a named sweep, or of a ``.yaml`` file, by name, and ``about``, its one line ("" where it has none).

    ``hparams`` is JSON text, and ``~`` in ``output_dir`` is expanded.

    Raises:
        UserError: there is no such sweep, or it is not a mapping of flags to values of their types.
    """
    known = named_sweeps()
    path = Path(name) if name.endswith((".yaml", ".yml")) else lookup(known, name, "sweep")
    if not path.is_file():
        raise UserError(f"no file {name}: --sweep takes a YAML file or one of {', '.join(known)}")
    content = read_yaml(path, f"sweep {name}")
    if not isinstance(content, dict):
        raise UserError(f"sweep {name} must map flags of sweep to values, as in sweeps/smoke.yaml")
    about = str(content.pop("about", ""))
    return {flag: _value(name, flag, value) for flag, value in content.items()} | {"about": about}


def _value(sweep: str, flag: Any, value: Any) -> Any:
    kinds = FLAGS | {flag.name: flag.kind for card in LAUNCHERS.values() for flag in card.flags}
    if flag not in kinds:
        raise UserError(f"sweep {sweep}: {unknown_name([*kinds, 'about'], str(flag), 'flag')}")
    try:
        value = msgspec.convert(value, kinds[flag])
        if flag == "hparams":
            return json.dumps(value)
    except (ValueError, TypeError, RecursionError) as error:  # TypeError: a date or a set, which JSON does not know
        raise UserError(f"sweep {sweep}: {flag} cannot be {str(value)[:200]}: {error}") from None
    return str(expanded(value)) if flag == "output_dir" else value
