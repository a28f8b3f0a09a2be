"""Processes that train one model together: each takes its share of every batch, all take the same steps.

Rank r of N holds the samples r, r + N, r + 2 N, ... of a batch, ``batch[r::N]``: shares differ by one sample at most,
and so do they within each domain. Sums of gradients and of statistics, and the order of gathered scores, are equal on
all ranks bit for bit, so that each rank computes the same weights, figures and parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from domainbed_adm.errors import LostRankError, UserError
from domainbed_adm.method.gradients import Gradients, present


class Ranks:
    """This process among those that train together; by itself where ``count`` is 1, and then nothing costs anything.

    Above 1 ``torch.distributed``'s default group must be there, with a backend for tensors of the CPU, which carries
    sizes and identities, and of the model's device: "gloo", or "cpu:gloo,cuda:nccl". Every method but ``apart`` is to
    be called by all ranks in the same order.

    Attributes:
        rank: this process's number, from 0.
        count: how many there are.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank, self.count = rank, count

    def __str__(self) -> str:
        return f"process {self.rank + 1} of {self.count}"

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Within the block this process computes by itself; the others may wait for it meanwhile."""
        before, self.rank, self.count = (self.rank, self.count), 0, 1
        try:
            yield
        finally:
            self.rank, self.count = before

    def own(self, batch: Tensor) -> Tensor:
        """This rank's share of what stands for the whole batch."""
        return batch if self.count == 1 else batch[self.rank :: self.count]

    def own_places(self, places: Tensor) -> Tensor:
        """Of these places in the batch those in this rank's share, counted there; int64 on the CPU, ascending."""
        return places if self.count == 1 else places[places % self.count == self.rank] // self.count

    def places(self, own: Tensor) -> Tensor:
        """The reverse: where samples at these places of this rank's share stand in the batch."""
        return own if self.count == 1 else own * self.count + self.rank

    def totals(self, sizes: Sequence[int]) -> list[int]:
        """The sum of each number over the ranks. The device is not asked."""
        if self.count == 1:
            return list(sizes)
        total = torch.tensor(sizes, dtype=torch.int64)
        self._reduce(total)
        return total.tolist()

    def batch_sizes(self, own_sizes: Sequence[int]) -> list[int]:
        """Samples of each domain in the whole batch, given those in this rank's share.

        Raises:
            UserError: the share is not ``batch[rank::count]``.
        """
        sizes = self.totals(own_sizes)
        starts = [sum(sizes[:k]) for k in range(len(sizes))]
        expected = [
            len(range((self.rank - start) % self.count, n, self.count)) for start, n in zip(starts, sizes, strict=True)
        ]
        if list(own_sizes) != expected:
            raise UserError(
                f"{self} has {list(own_sizes)} samples of the domains' {sizes}, not {expected}: its share of a batch "
                f"must be batch[{self.rank}::{self.count}]"
            )
        return sizes

    def add_up(self, tensors: Gradients) -> None:
        """Sum each tensor over the ranks, in place; one message for all of one kind. None stands for none anywhere."""
        if self.count == 1:
            return
        kinds: dict[tuple[torch.dtype, torch.device], list[Tensor]] = {}
        for tensor in present(tensors):
            kinds.setdefault((tensor.dtype, tensor.device), []).append(tensor)
        for parts in kinds.values():
            flat = torch.cat([part.reshape(-1) for part in parts])
            self._reduce(flat)
            pieces = torch.split(flat, [part.numel() for part in parts])
            torch._foreach_copy_(parts, [piece.view(part.shape) for piece, part in zip(pieces, parts, strict=True)])

    def average(self, tensors: Gradients) -> None:
        """Take the mean of each tensor over the ranks, in place."""
        if self.count > 1 and (parts := present(tensors)):
            self.add_up(tensors)
            torch._foreach_div_(parts, self.count)

    def gather(self, own: Tensor, places: Tensor) -> Tensor:
        """One number of each sample, in the order of the batch.

        Args:
            own: of this rank's samples among those at ``places``, shape (k,).
            places: in the batch, int64 on the CPU, ascending; shape (n,).

        Returns:
            Shape (n,). The device is not asked.
        """
        if self.count == 1:
            return own
        owner, width = places % self.count, 1
        nth = torch.empty_like(places)
        for rank in range(self.count):
            held = owner == rank
            nth[held] = torch.arange(int(held.sum()))
            width = max(width, int(held.sum()))
        padded = own.new_zeros(width)
        padded[: len(own)] = own
        order = (owner * width + nth).to(own.device, non_blocking=True)
        return torch.cat(self.every(padded))[order]

    def every(self, own: Tensor) -> list[Tensor]:
        """The tensor of each rank; they have one shape.

        Raises:
            LostRankError: another rank is gone.
        """
        if self.count == 1:
            return [own]
        parts = [torch.empty_like(own) for _ in range(self.count)]
        try:
            dist.all_gather(parts, own.contiguous())
        except RuntimeError as error:
            raise LostRankError(f"{self} has lost another one") from error
        return parts

    def _reduce(self, tensor: Tensor) -> None:
        try:
            dist.all_reduce(tensor)
        except RuntimeError as error:
            raise LostRankError(f"{self} has lost another one") from error


#: One process.
ALONE = Ranks()
