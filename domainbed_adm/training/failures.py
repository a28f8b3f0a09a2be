"""What can go wrong in a run, told in one line: numbers that are not finite, too little memory, too small a batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from domainbed_adm.errors import NonFiniteError, UserError
from domainbed_adm.run_files import DIVERGED
from domainbed_adm.system.disk import replacing

if TYPE_CHECKING:
    from domainbed_adm.training.setup import Setup

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
_BATCH_NORM = "Expected more than 1 value per channel when training"


@contextmanager
def torch_errors_explained(what: str) -> Iterator[None]:
    """Within the block, what torch says of too little memory, or of a batch too small for BatchNorm, is one line.

    Args:
        what: what is done there, for the message.

    Raises:
        UserError: it said so; the message says which hparam to change.
        MemoryError: never; it becomes a UserError.
        RuntimeError: as raised, where it is another.
        ValueError: as raised, where it is another.
    """
    try:
        yield
    except (MemoryError, RuntimeError, ValueError) as error:
        no_memory = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
        if no_memory or any(sign in str(error) for sign in _NO_MEMORY):
            raise UserError(
                f"out of memory: {what}: lower the hparam batch_size (or image_size), or take a smaller network"
            ) from error
        if str(error).startswith(_BATCH_NORM):
            raise UserError(
                f"{what}: BatchNorm needs more than one value of each channel in a batch: raise the hparam batch_size, "
                "or set freeze_bn to true"
            ) from error
        raise


@contextmanager
def explained(run: Setup, step: int, output_dir: Path) -> Iterator[None]:
    """Within the block, one step of the run; what goes wrong there says where, and what to do.

    Raises:
        NonFiniteError: a number was not finite; ``diverged.json`` says at which step, with which method and hparams.
        UserError: as :func:`torch_errors_explained`.
    """
    try:
        with torch_errors_explained(run.in_words(step)):
            yield
    except NonFiniteError as error:
        about = {name: run.args[name] for name in ("algorithm", "dataset", "test_envs", "seed", "trial_seed")}
        report = {"step": step, "error": str(error), **about, "hparams": run.hparams}
        with replacing(output_dir / DIVERGED) as file:
            file.write(json.dumps(report, indent=1, sort_keys=True).encode() + b"\n")
        raise NonFiniteError(
            f"{run.args['algorithm']} on {run.args['dataset']}, step {step}: {error} (lr {run.hparams['lr']:g}; "
            f"see {output_dir / DIVERGED})"
        ) from error
