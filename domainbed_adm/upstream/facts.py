"""What a run of DomainBed knows and does not tell an algorithm: its number of steps, its inputs' normalisation.

Both are read from where DomainBed states them, never assumed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

#: DomainBed's datasets of random noise: no pixels, so that ADM's step is in the inputs' own units.
NOISE = ("Debug28", "Debug224")
#: Steps of a torchvision transform that turn an image into pixels in [0, 1].
_TO_UNIT = ("ToTensor",)
#: Steps that are arbitrary code.
_OPAQUE = ("Lambda",)

Std = list[float] | None


class Unknown(Exception):
    """The dataset does not state its normalisation; the message says why."""


def input_std(dataset: Any) -> Std:
    """The ``std`` by which a dataset's inputs are normalised, one per channel; None where they are pixels in [0, 1].

    It is read from a torchvision ``Normalize`` in the transform of every environment. A transform that has none and
    consists of torchvision's own steps, ``ToTensor`` among them, gives pixels; so do tensors within [0, 1].

    Args:
        dataset: an instance, DomainBed's or ours; indexing gives its environments.

    Raises:
        Unknown: it cannot be read, or differs between environments.
    """
    if hasattr(dataset, "normalization"):
        return list(dataset.normalization.std) if dataset.normalization else None
    if type(dataset).__name__ in NOISE:
        return None
    found = {std for environment in environments(dataset) for std in _stds(environment)}
    if not found:
        raise Unknown("it has no environments")
    if len(found) > 1:
        raise Unknown("its environments are normalised differently")
    std = found.pop()
    return None if std is None else list(std)


def environments(dataset: Any) -> list[Any]:
    """The environments of a dataset."""
    return list(getattr(dataset, "datasets", None) or [dataset[i] for i in range(len(dataset))])


def _stds(part: Any) -> Iterator[tuple[float, ...] | None]:
    """Normalisations of the data sets that a torch data set is made of.

    Raises:
        Unknown: one of them states none.
    """
    if getattr(part, "transform", None) is not None:
        yield _of_transform(part.transform)
    elif hasattr(part, "tensors"):
        inputs = part.tensors[0]
        if inputs.min() < 0 or inputs.max() > 1:
            raise Unknown("its tensors are not within [0, 1]")
        yield None
    elif hasattr(part, "datasets"):
        for inner in part.datasets:
            yield from _stds(inner)
    elif hasattr(part, "dataset"):
        yield from _stds(part.dataset)
    else:
        raise Unknown(f"its {type(part).__name__} states no transform")


def _of_transform(transform: Any) -> tuple[float, ...] | None:
    steps = list(_flat(transform))
    stated = [tuple(float(value) for value in step.std) for step in steps if type(step).__name__ == "Normalize"]
    if len(stated) == 1:
        return stated[0]
    if stated:
        raise Unknown("its transform normalises twice")
    for step in steps:
        if not type(step).__module__.startswith("torchvision.") or type(step).__name__ in _OPAQUE:
            raise Unknown(f"its transform has no Normalize, and a {type(step).__name__} of its own")
    if not any(type(step).__name__ in _TO_UNIT for step in steps):
        raise Unknown("its transform has neither a Normalize nor a ToTensor")
    return None


def _flat(transform: Any) -> Iterator[Any]:
    inner = getattr(transform, "transforms", None)
    if inner is None:
        yield transform
    else:
        for step in inner:
            yield from _flat(step)


def watch(dataset_class: type[Any], note: Callable[[Any, dict[str, Any]], None]) -> None:
    """From now on, ``note(dataset, hparams)`` is called for each instance of this very class, once it is built.

    ``hparams`` is the dict that its constructor got: DomainBed's contract is ``cls(root, test_envs, hparams)``.
    """
    build = dataset_class.__init__
    if hasattr(vars(dataset_class).get("__init__"), "watched"):
        return

    @functools.wraps(build)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        if type(self) is dataset_class:
            note(self, next((one for one in (*args, *kwargs.values()) if isinstance(one, dict)), {}))

    __init__.watched = True  # type: ignore[attr-defined]
    dataset_class.__init__ = __init__
