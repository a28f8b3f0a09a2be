"""What an analysis of one model costs, said before it starts: Hessian-vector products, forward passes, seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from domainbed_adm.analysis.mean_loss import MeanLoss
from domainbed_adm.system.console import printable


class Cost(NamedTuple):
    """Bounds of an analysis, and the seconds an image takes in one product and in one forward pass."""

    samples: int  # of images, each measured by itself
    images: int  # of all of these together
    products: tuple[int, int]  # Hessian-vector products of each sample, at least and at most
    passes: int  # forward passes of each sample
    product_seconds: float = 0.0  # of an image
    pass_seconds: float = 0.0

    @property
    def seconds(self) -> tuple[float, float]:
        """What it takes at least and at most."""
        low, high = (self.images * (n * self.product_seconds + self.passes * self.pass_seconds) for n in self.products)
        return low, high


def timed(cost: Cost, loss: MeanLoss) -> Cost:
    """The cost with the seconds of one image, by one forward pass of ``loss`` and, where some are due, one product.

    Raises:
        NonFiniteError: the product is not finite.
    """
    loss.value()  # what a first pass alone pays
    pass_seconds, product_seconds = _seconds(loss, lambda: loss.value()), 0.0
    if cost.products[1]:
        ones: list[Tensor] = [torch.ones_like(param) for param in loss.params]
        product_seconds = _seconds(loss, lambda: loss.hessian_product(ones))
    return cost._replace(product_seconds=product_seconds / loss.size, pass_seconds=pass_seconds / loss.size)


def announce(title: str, cost: Cost, to_save: Sequence[str]) -> None:
    """Print to the standard error stream what is about to be done, how long it takes, and the flags that save most."""
    least, most = cost.products
    low, high = cost.seconds
    print(f"{printable(title)}: {cost.samples} samples of {cost.images} images in all. Each takes", file=sys.stderr)
    if most:
        one = cost.product_seconds * cost.images / cost.samples
        print(f"  {least} to {most} Hessian-vector products (about {one:.2g} s each)", file=sys.stderr)
    one = cost.pass_seconds * cost.images / cost.samples
    print(f"  {cost.passes} forward passes (about {one:.2g} s each)", file=sys.stderr)
    span = f"about {low:.0f} to {high:.0f} s" if most else f"about {low:.0f} s"
    print(f"  {span}; less by {', '.join(to_save)}", file=sys.stderr, flush=True)


def _seconds(loss: MeanLoss, work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if loss.params[0].is_cuda:
        torch.cuda.synchronize(loss.params[0].device)
    return time.perf_counter() - start
