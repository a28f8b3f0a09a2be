"""What ``output_dir`` holds of this run: nothing, a part to go on from, or all of it. What is another's is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

from domainbed_adm import records
from domainbed_adm.errors import UserError
from domainbed_adm.run_args import identity
from domainbed_adm.run_files import CHECKPOINT, DONE, MODEL, RESULTS, TENSORBOARD, files_of_run
from domainbed_adm.training.batches import Schedule
from domainbed_adm.training.checkpoint_file import Position, load_position, unlike
from domainbed_adm.training.setup import Setup


def claim(output_dir: Path, restart: bool) -> None:
    """Make sure that a run's files can be written to ``output_dir``; with ``restart``, remove those of an earlier one.

    Raises:
        UserError: they cannot.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        probe = output_dir / ".writable"
        probe.touch()
        probe.unlink()
        if shutil.disk_usage(output_dir).free < 2**20:
            raise UserError(f"--output_dir {output_dir}: the disk is full")
        if restart:
            for path in files_of_run(output_dir):
                path.unlink(missing_ok=True)
            shutil.rmtree(output_dir / TENSORBOARD, ignore_errors=True)
    except OSError as error:
        raise UserError(f"--output_dir {output_dir} cannot be written: {error.strerror}") from error


def is_finished(run: Setup, output_dir: Path) -> bool:
    """Whether the run is done, and all that was asked of it is there.

    Raises:
        UserError: it is done, but its records or its model are lost; or another run is done.
    """
    if not (output_dir / DONE).exists():
        return False
    _check_recorded(run, output_dir / RESULTS, run.n_steps, "the finished run had")
    if not run.args["skip_model_save"] and not (output_dir / MODEL).exists():
        raise UserError(
            f"{output_dir} holds this run, finished, but no model.pkl (trained with --skip_model_save, or removed): "
            "--restart redoes the run; with --skip_model_save it is left as it is"
        )
    return True


def find_position(run: Setup, output_dir: Path) -> Position:
    """Where to begin: at the checkpoint, records beyond it dropped; else at the start.

    Raises:
        UserError: the checkpoint cannot be used, records are lost that it counts, or they are another run's.
    """
    checkpoint, path = output_dir / CHECKPOINT, output_dir / RESULTS
    position = load_position(checkpoint, run) if checkpoint.exists() else Position()
    _check_recorded(run, path, position.next_step, "the checkpoint counts")
    if path.exists():
        records.keep_steps(path, checkpoints_before(run, position.next_step))
    return position


def checkpoints_before(run: Setup, next_step: int) -> list[int]:
    """The steps that are recorded before ``next_step``."""
    schedule = Schedule(run.n_steps, run.checkpoint_freq, ())
    return [step for step in range(next_step) if schedule.is_checkpoint(step)]


def _check_recorded(run: Setup, path: Path, next_step: int, counted: str) -> None:
    """Refuse records of another run or of other data, and a file that lacks one of a checkpoint before ``next_step``.

    Raises:
        UserError: the message names what differs, or how many there are.
    """
    runs = records.read_runs(path) if path.exists() else []
    for other in runs:
        for made_by in other.provenances or ({},):
            data = {name: made_by[name] for name in ("environments", "samples", "fingerprints") if name in made_by}
            difference = unlike(run, identity(other.args, other.hparams) | data)
            if difference:
                raise UserError(
                    f"{path.parent} holds another run: {difference}. Give another --output_dir, or --restart"
                )
    expected = set(checkpoints_before(run, next_step))
    kept = expected.intersection(step for other in runs for step in other.steps.tolist())
    if kept != expected:
        raise UserError(
            f"{path} has {len(kept)} of the {len(expected)} records that {counted}: put the file back, or --restart"
        )
