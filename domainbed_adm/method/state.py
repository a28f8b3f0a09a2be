"""What a training step keeps from call to call, as part of a module's state dict."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class StepState(nn.Module, MutableMapping[str, Tensor]):
    """A step counter and named tensors that come into being during training; saved and loaded with the module.

    The counter is a Python integer, so that progress is known without asking the device; in the state dict it is the
    tensor ``update_count`` (DomainBed's name). Loading takes over the tensors that the state dict has, whatever their
    shapes, and drops the others: a fresh state loads the state of a run in its middle. A state is true also when empty.
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

    def __bool__(self) -> bool:
        return True

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


SCORES = "difficulty_memory"
SCORED_AT = "difficulty_scored_at"
NEVER_SEEN = -1.0


class RememberedScores:
    """Scores from when a sample was last seen, for weighting "memory": the ADM paper's v^(t+1).

    They stand in a step's state as the tensor ``difficulty_memory``, one score per sample of the training set, -1 for a
    sample never seen (scores are >= 0). Which samples were seen is also kept on the CPU, so that asking does not wait
    for the device; the device is asked once after the tensor was loaded or moved. Where only a share of each batch is
    scored, ``difficulty_scored_at`` holds the step of each sample's score, int64 on the CPU, -1 for none.
    """

    def __init__(self, state: MutableMapping[str, Tensor]) -> None:
        self.state = state
        self._tensor: Tensor | None = None
        self._seen = torch.empty(0, dtype=torch.bool)

    def recall(self, index: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """The scores of these samples when last seen, and which have one; the state stays as it is.

        Args:
            index: int64 on the CPU, shape (B,), >= 0: which sample each one is.
            like: a tensor of the device to answer on.

        Returns:
            Scores of shape (B,), -1 where never seen, in single precision at least; booleans of shape (B,) on the CPU.
        """
        scores, seen = self._with_room(index, like)
        return scores[index.to(like.device, non_blocking=True)], seen[index]

    def oldest(self, index: Tensor, count: int) -> Tensor:
        """The places in a batch of the ``count`` samples whose scores are oldest, those never scored first.

        A sample drawn twice counts once, while others are left. Equal ages are taken as far from each other in the
        batch as can be, so that no domain is left behind: by place x 2654435769 modulo 2^32, the golden ratio's steps.

        Args:
            index: int64 on the CPU, shape (B,), >= 0: which sample each one is.
            count: of places, at most B.

        Returns:
            Places, int64 on the CPU, shape (count,), ascending.
        """
        identity = index.numpy()
        scored_at = self._scored_at(int(identity.max()) + 1).numpy()[identity]
        repeated = np.ones(len(identity), dtype=bool)
        repeated[np.unique(identity, return_index=True)[1]] = False
        spread = np.arange(len(identity)) * 2654435769 % 2**32
        return torch.from_numpy(np.sort(np.lexsort((spread, scored_at, repeated))[:count]))

    def remember(self, index: Tensor, scores: Tensor, step: int | None = None, smoothing: float = 0.0) -> None:
        """Keep these scores, making room for samples that are new, and the step they are of where it is given.

        Our choice: of a sample that stands in the batch more than once the largest, so that order does not matter. With
        ``smoothing`` s in [0, 1) what is kept is s times the mean so far plus 1 - s times the new score; a sample's
        first score is its first mean.
        """
        if step is not None:
            scored_at = self._scored_at(int(index.max()) + 1)
            scored_at[index] = step
            self.state[SCORED_AT] = scored_at
        kept, self._seen = self._with_room(index, scores)
        place = index.to(kept.device, non_blocking=True)
        before = kept[place] if smoothing else None
        kept.scatter_reduce_(0, place, scores.to(kept.dtype), "amax", include_self=False)
        if before is not None:
            mean = torch.where(before >= 0, smoothing * before + (1 - smoothing) * kept[place], kept[place])
            kept[place] = mean
        self._seen[index] = True
        self.state[SCORES] = self._tensor = kept

    def _scored_at(self, size: int) -> Tensor:
        """The step of each sample's score; of a state that has scores alone, all are as old as can be."""
        if SCORED_AT in self.state:
            scored_at = self.state[SCORED_AT].cpu()
        elif SCORES in self.state:
            scored_at = (self.state[SCORES].cpu() >= 0).long() - 1
        else:
            scored_at = torch.empty(0, dtype=torch.int64)
        room = 2 * size - len(scored_at) if len(scored_at) < size else 0
        return torch.cat([scored_at, scored_at.new_full((room,), -1)]) if room else scored_at

    def _with_room(self, index: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and seen samples of the state, or longer copies where ``index`` needs room."""
        dtype = torch.promote_types(like.dtype, torch.float32) if like.is_floating_point() else torch.float32
        if SCORES not in self.state:
            scores, seen = like.new_empty(0, dtype=dtype), torch.empty(0, dtype=torch.bool)
        else:
            scores = self.state[SCORES]
            if scores is not self._tensor:
                self._tensor, self._seen = scores, (scores >= 0).cpu()
            seen = self._seen
        size = int(index.max()) + 1
        if len(scores) < size:
            more = 2 * size - len(scores)
            scores = torch.cat([scores, scores.new_full((more,), NEVER_SEEN)])
            seen = torch.cat([seen, seen.new_zeros(more)])
        return scores.to(like.device), seen
