"""The mean cross-entropy over a fixed sample as a function of the parameters: value, gradient, Hessian times vector.

All are accumulated over the sample's mini-batches, so that memory is that of one. With BatchNorm in training mode a
sample's loss depends on its mini-batch; the function is then that of these mini-batches, which never change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from domainbed_adm.errors import NonFiniteError

Batches = Iterable[tuple[Tensor, Tensor]]


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Within the block a GPU computes float32 as float32, always the same, and attention can be derived twice."""
    cudnn = torch.backends.cudnn
    with (
        cudnn.flags(enabled=cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False),
        sdpa_kernel(SDPBackend.MATH),
    ):
        yield


class MeanLoss:
    """L(theta) = 1/n sum_i l_i in nats, theta being where ``params`` are at each call.

    ``predict`` turns inputs into logits and reads the parameters; those not in ``params`` are constants. Iterating
    ``batches`` gives the same mini-batches (x, y) every time, n samples in all.
    """

    def __init__(
        self, predict: Callable[[Tensor], Tensor], params: Sequence[Tensor], batches: Batches, size: int
    ) -> None:
        self.predict, self.params, self.size, self._batches = predict, list(params), size, batches

    def value(self) -> float:
        """L(theta); may be infinite or NaN. Cost: 1 forward pass."""
        return self.value_and_accuracy()[0]

    def value_and_accuracy(self) -> tuple[float, float]:
        """L(theta), and the fraction of right predictions in the mode the model is in. Cost: 1 forward pass."""
        sums = torch.zeros(2, dtype=torch.float64, device=self.params[0].device)
        with torch.no_grad():
            for x, y in self._on_device():
                logits = self.predict(x)
                losses = F.cross_entropy(logits, y, reduction="none").double()
                sums += torch.stack([losses.sum(), (logits.argmax(1) == y).double().sum()])
        loss, accuracy = (sums / self.size).tolist()
        return loss, accuracy

    def gradient(self) -> list[Tensor]:
        """The gradient at theta, one tensor per parameter. Cost: 1 forward and 1 backward pass.

        Raises:
            NonFiniteError: it is not finite.
        """
        return self._sum(lambda x, y: self._derived(self._share(x, y)), "gradient")

    def hessian_product(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """Hessian of L at theta times a vector, both shaped as the parameters.

        By deriving g . v, so the Hessian is never there. Cost: about 2 forward and backward passes; memory of one
        mini-batch's graph of a gradient, and three copies of the parameters.

        Raises:
            NonFiniteError: it is not finite.
        """

        def product(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
            gradient = self._derived(self._share(x, y), create_graph=True)
            return self._derived(torch.stack([(g * v).sum() for g, v in zip(gradient, vector, strict=True)]).sum())

        return self._sum(product, "Hessian")

    def _share(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.predict(x), y, reduction="sum") / self.size

    def _derived(self, value: Tensor, create_graph: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            value, self.params, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )

    def _sum(self, of_batch: Callable[[Tensor, Tensor], tuple[Tensor, ...]], what: str) -> list[Tensor]:
        # a function for each mini-batch, so that its graph is gone before the next one's is made
        total = [torch.zeros_like(param) for param in self.params]
        for x, y in self._on_device():
            torch._foreach_add_(total, of_batch(x, y))
        if not math.isfinite(sum(torch.stack(torch._foreach_norm(total)).double().tolist())):
            raise NonFiniteError(f"the {what} of the loss is not finite at this model")
        return total

    def _on_device(self) -> Iterator[tuple[Tensor, Tensor]]:
        like = self.params[0]
        for x, y in self._batches:
            yield x.to(like.device, like.dtype), y.to(like.device)
