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
        self._resting = False
        self._kept: tuple[Tensor, ...] | None = None  # the gradient of a lone mini-batch, with its graph

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
        total = [torch.zeros_like(param) for param in self.params]
        for x, y in self._on_device():
            torch._foreach_add_(total, self._derived(self._share(x, y)))
        _check_finite(total, "gradient")
        return total

    def hessian_product(self, vector: Sequence[Tensor]) -> list[Tensor]:
        """Hessian of L at theta times a vector, both shaped as the parameters.

        As :meth:`hessian_products`, of one vector.

        Raises:
            NonFiniteError: it is not finite.
        """
        return self.hessian_products([vector])[0]

    def hessian_products(self, vectors: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Hessian of L at theta times each vector, all shaped as the parameters.

        By deriving g . v, so the Hessian is never there. A mini-batch's graph of g is made once for all vectors, and
        within :meth:`at_rest` once for all calls where the sample is one mini-batch. Cost: about 2 forward and backward
        passes, a fifth less where the graph is there; memory of one mini-batch's graph of a gradient, and of
        two copies of the parameters for each vector.

        Raises:
            NonFiniteError: one is not finite.
        """
        totals = [[torch.zeros_like(param) for param in self.params] for _ in vectors]
        for x, y in self._on_device():
            self._add_products(totals, vectors, x, y)
        for total in totals:
            _check_finite(total, "Hessian")
        return totals

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Within the block the parameters must not move, so that the graph of a lone mini-batch serves all products."""
        self._resting = True
        try:
            yield
        finally:
            self._resting, self._kept = False, None

    def _add_products(
        self, totals: Sequence[list[Tensor]], vectors: Sequence[Sequence[Tensor]], x: Tensor, y: Tensor
    ) -> None:
        # a function for each mini-batch, so that its graph is gone before the next one's is made
        gradient = self._kept
        if gradient is None:
            gradient = self._derived(self._share(x, y), create_graph=True)
            if self._resting and len(y) == self.size:
                self._kept = gradient
        curved = [i for i, part in enumerate(gradient) if part.requires_grad]
        for number, (total, vector) in enumerate(zip(totals, vectors, strict=True)):
            product = torch.autograd.grad(
                [gradient[i] for i in curved],
                self.params,
                [vector[i] for i in curved],
                retain_graph=self._kept is not None or number < len(vectors) - 1,
                allow_unused=True,
                materialize_grads=True,
            )
            torch._foreach_add_(total, product)

    def _share(self, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(self.predict(x), y, reduction="sum") / self.size

    def _derived(self, value: Tensor, *, create_graph: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(
            value, self.params, create_graph=create_graph, allow_unused=True, materialize_grads=True
        )

    def _on_device(self) -> Iterator[tuple[Tensor, Tensor]]:
        like = self.params[0]
        for x, y in self._batches:
            yield x.to(like.device, like.dtype), y.to(like.device)


def _check_finite(total: list[Tensor], what: str) -> None:
    if not math.isfinite(sum(torch.stack(torch._foreach_norm(total)).double().tolist())):
        raise NonFiniteError(f"the {what} of the loss is not finite at this model")
