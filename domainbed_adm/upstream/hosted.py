"""The classes of DomainBed's algorithms, for our engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from domainbed_adm.errors import UserError
from domainbed_adm.upstream.host import import_part, lacks
from domainbed_adm.upstream.methods import HostMethod


def hosted_class(method: HostMethod) -> type[nn.Module]:
    """DomainBed's class, with its own ``update`` and ``predict``.

    It gets a dict of hparams of its own. Where there is no GPU, what it moves to one (TRM and RDM do so always) stays.

    Raises:
        UserError: the checkout has no such class, or it cannot be imported.
    """
    theirs = getattr(import_part(method.root, "algorithms"), method.own_name, None)
    if not isinstance(theirs, type):
        raise UserError(lacks(method.root, f"domainbed.algorithms.{method.own_name}"))

    class Hosted(theirs):  # type: ignore[misc, valid-type]
        checkout = method.root

        def __init__(
            self, input_shape: Sequence[int], num_classes: int, num_domains: int, hparams: dict[str, Any]
        ) -> None:
            with _without_gpu():
                super().__init__(tuple(input_shape), num_classes, num_domains, dict(hparams))

        def update(self, minibatches: Sequence[Any], unlabeled: Sequence[Tensor] | None = None) -> dict[str, float]:
            with _without_gpu():
                return super().update(minibatches, unlabeled)  # type: ignore[no-any-return]

    Hosted.__name__ = Hosted.__qualname__ = method.name
    Hosted.__doc__ = theirs.__doc__
    return Hosted


def checkout_of(algorithm: object) -> Path | None:
    """The folder of the checkout that this algorithm, or class of one, is of; None of our own."""
    found = getattr(algorithm, "checkout", None)
    return found if isinstance(found, Path) else None


@contextmanager
def _without_gpu() -> Iterator[None]:
    """Within the block ``.cuda()`` changes nothing where there is no GPU."""
    if torch.cuda.is_available():
        yield
        return
    kinds: tuple[Any, ...] = (Tensor, nn.Module)
    before = [kind.cuda for kind in kinds]
    try:
        for kind in kinds:
            kind.cuda = lambda self, *args, **kwargs: self
        yield
    finally:
        for kind, own in zip(kinds, before, strict=True):
            kind.cuda = own


@contextmanager
def without_pretrained(algorithm: type[nn.Module]) -> Iterator[None]:
    """Within the block DomainBed's networks fetch no pretrained weights, as for a model whose weights are loaded."""
    if not checkout_of(algorithm):
        yield
        return
    import timm
    import torchvision

    def unfetched(make: Any) -> Any:
        def made(*args: Any, **kwargs: Any) -> Any:
            return make(*args, **{**kwargs, "pretrained": False})

        return made

    places: list[tuple[Any, str]] = [(torchvision.models, "resnet18"), (torchvision.models, "resnet50")]
    places.append((timm, "create_model"))
    before = [getattr(module, name) for module, name in places]
    try:
        for (module, name), make in zip(places, before, strict=True):
            setattr(module, name, unfetched(make))
        yield
    finally:
        for (module, name), make in zip(places, before, strict=True):
            setattr(module, name, make)
