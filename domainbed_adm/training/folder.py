"""What ``output_dir`` holds of this run: nothing, a part to go on from, or all of it. What is another's is refused."""

from __future__ import annotations

from pathlib import Path

from domainbed_adm import records
from domainbed_adm.errors import UserError
from domainbed_adm.run_args import differences, identity
from domainbed_adm.run_files import CHECKPOINT, DONE, MODEL, RESULTS
from domainbed_adm.system.console import printable_values
from domainbed_adm.training.batches import Schedule
from domainbed_adm.training.checkpoint_file import Position, data_identity, load_position
from domainbed_adm.training.setup import Setup


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
    recorded = records.read_runs(path) if path.exists() else []
    ours, our_data = identity(run.args, run.hparams), data_identity(run)
    for theirs, about in ((one, about) for one in recorded for about in one.provenances or ({},)):
        data = {name: about[name] for name in our_data if name in about}
        unlike = differences(
            printable_values(identity(theirs.args, theirs.hparams) | data),
            printable_values(ours | {name: our_data[name] for name in data}),
        )
        if unlike:
            raise UserError(f"{path.parent} holds another run: {unlike}. Give another --output_dir, or --restart")
    expected = set(checkpoints_before(run, next_step))
    kept = expected.intersection(step for one in recorded for step in one.steps.tolist())
    if kept != expected:
        raise UserError(
            f"{path} has {len(kept)} of the {len(expected)} records that {counted}: put the file back, or --restart"
        )
