"""What the checks share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

BATCH = 12
CLASSES = 3


def same_state(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two state dicts have the same keys and, bit for bit, the same values."""
    return a.keys() == b.keys() and all(
        torch.equal(a[key], b[key]) if isinstance(a[key], Tensor) else a[key] == b[key] for key in a
    )


def name_of(part: object) -> str:
    """Name of a part's class, or of a function."""
    return getattr(part, "__name__", type(part).__name__)
