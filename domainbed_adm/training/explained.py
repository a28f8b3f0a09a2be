"""What torch, and DomainBed's code, say in one line: what was too large, and which hparam to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from domainbed_adm.errors import UserError
from domainbed_adm.training.compilation import not_compiled
from domainbed_adm.upstream.host import failed_inside

_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")


@contextmanager
def torch_errors_explained(what: str) -> Iterator[None]:
    """Within the block, what torch says is one line: too little memory, BatchNorm's too small batch, no compiled code.

    Raises:
        UserError: it said so; the message says which hparam to change.
        MemoryError: never; it becomes a UserError.
        Exception: as raised, where it is another; one of DomainBed's code becomes a UserError.
    """
    try:
        yield
    except Exception as error:
        no_memory = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
        if no_memory or any(sign in str(error) for sign in _NO_MEMORY):
            told = f"out of memory: {what}: lower the hparam batch_size (or image_size), or take a smaller network"
        elif "Expected more than 1 value per channel when training" in str(error):
            told = (
                f"{what}: BatchNorm needs more than one value of each channel in a batch: raise the hparam batch_size, "
            )
            told += "or set freeze_bn to true"
        elif not_compiled_told := not_compiled(error):
            told = not_compiled_told
        elif in_checkout := failed_inside(error):
            told = f"{what}: {in_checkout}"
        else:
            raise
        raise UserError(told) from error
