"""What a training step keeps from call to call, as part of a module's state dict."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn


class StepState(nn.Module, MutableMapping[str, Tensor]):
    """A step counter and named tensors that come into being during training; saved and loaded with the module.

    The counter is a Python integer, so that progress is known without asking the device; in the state dict it is the
    tensor ``update_count`` (DomainBed's name). Loading takes over the tensors that the state dict has, whatever their
    shapes, and drops the others: a fresh state loads the state of a run in its middle.
    """

    def __init__(self) -> None:
        super().__init__()
        self.update_count = 0

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._buffers[name]
        if tensor is None:
            raise KeyError(name)
        return tensor

    def __setitem__(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(name, tensor)

    def __delitem__(self, name: str) -> None:
        del self._buffers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._buffers)

    def __len__(self) -> int:
        return len(self._buffers)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "update_count"] = torch.tensor(self.update_count)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        own = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
        count = own.pop("update_count", None)
        if count is None:
            missing_keys.append(prefix + "update_count")
            return
        self.update_count = int(count)
        self.clear()
        for name, tensor in own.items():
            self[name] = tensor.detach().clone()
