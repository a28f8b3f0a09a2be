"""Peak memory of a piece of code in bytes of tensor storage: exact, and the same on every machine."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class PeakMemory(TorchDispatchMode):
    """Within the block, counts the bytes of storages made in it that are alive; ``peak`` is the most at one time."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = 0
        self.peak = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation, and count what it returns."""
        tree_map_only(torch.Tensor, self._note, (args, kwargs))  # inputs that are new to us were made before the block
        result = func(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._count, result)
        return result

    def _note(self, tensor: torch.Tensor) -> torch.Tensor:
        self._known.add(tensor.untyped_storage())
        return tensor

    def _count(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known.add(storage)
            size = storage.nbytes()
            weakref.finalize(storage, self._free, size)
            self.alive += size
            self.peak = max(self.peak, self.alive)
        return tensor

    def _free(self, size: int) -> None:
        self.alive -= size
