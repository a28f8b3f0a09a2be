"""What torch says where memory is not enough, as one line that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from domainbed_adm.errors import UserError

_SIGNS = ("can't allocate memory", "not enough memory", "out of memory")


@contextmanager
def memory_errors_explained(what: str) -> Iterator[None]:
    """Within the block, memory that is not enough is one line.

    Args:
        what: what is done there, for the message.

    Raises:
        UserError: it was not enough.
        MemoryError: never; it becomes a UserError.
        RuntimeError: as raised, where it is another.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        named = isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError))
        if not named and not any(sign in str(error) for sign in _SIGNS):
            raise
        raise UserError(
            f"out of memory: {what}: lower the hparam batch_size (or image_size), or take a smaller network"
        ) from error
