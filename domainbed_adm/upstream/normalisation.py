"""The normalisation of a DomainBed dataset's inputs, read from where the dataset states it, never assumed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

#: DomainBed's datasets of random noise: no pixels, so that ADM's step is in the inputs' own units.
NOISE = ("Debug28", "Debug224")

Std = list[float] | None


class NotStatedError(Exception):
    """The dataset does not state its normalisation; the message says why."""


def input_std(dataset: Any) -> Std:
    """The ``std`` by which a dataset's inputs are normalised, one per channel; None where they are pixels in [0, 1].

    It is read from a torchvision ``Normalize`` in the transform of every environment. A transform that has none and
    consists of torchvision's own steps, ``ToTensor`` among them, gives pixels; so do tensors within [0, 1].

    Args:
        dataset: an instance, DomainBed's or ours; indexing gives its environments.

    Raises:
        NotStatedError: it cannot be read, or differs between environments.
    """
    if hasattr(dataset, "normalization"):
        return list(dataset.normalization.std) if dataset.normalization else None
    if type(dataset).__name__ in NOISE:
        return None
    environments = getattr(dataset, "datasets", None) or [dataset[i] for i in range(len(dataset))]
    stated = {std for environment in environments for std in _stds(environment)}
    if len(stated) != 1:
        raise NotStatedError("its environments are normalised differently" if stated else "it has no environments")
    std = stated.pop()
    return None if std is None else list(std)


def _stds(part: Any) -> Iterator[tuple[float, ...] | None]:
    """What each of the data sets states that a torch data set is made of.

    Raises:
        NotStatedError: one of them states nothing.
    """
    if getattr(part, "transform", None) is not None:
        yield _of_transform(part.transform)
    elif hasattr(part, "tensors"):
        if part.tensors[0].min() < 0 or part.tensors[0].max() > 1:
            raise NotStatedError("its tensors are not within [0, 1]")
        yield None
    elif hasattr(part, "datasets") or hasattr(part, "dataset"):
        for inner in getattr(part, "datasets", None) or [part.dataset]:
            yield from _stds(inner)
    else:
        raise NotStatedError(f"its {type(part).__name__} states no transform")


def _of_transform(transform: Any) -> tuple[float, ...] | None:
    steps = {type(step).__name__: step for step in _steps(transform)}
    if "Normalize" in steps:
        if sum(type(step).__name__ == "Normalize" for step in _steps(transform)) > 1:
            raise NotStatedError("its transform normalises twice")
        return tuple(map(float, steps["Normalize"].std))
    for name, step in steps.items():
        if not type(step).__module__.startswith("torchvision.") or name == "Lambda":  # arbitrary code
            raise NotStatedError(f"its transform has no Normalize, and a {name} of its own")
    if "ToTensor" not in steps:
        raise NotStatedError("its transform has neither a Normalize nor a ToTensor")
    return None


def _steps(transform: Any) -> Iterator[Any]:
    """The steps of nested transforms, in their order."""
    if not hasattr(transform, "transforms"):
        yield transform
        return
    for step in transform.transforms:
        yield from _steps(step)
