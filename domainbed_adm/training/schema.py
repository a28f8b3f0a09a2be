"""What a file must hold, said as a value, and checked in one place.

A spec is one of these; the last may be anything that knows ``in`` and ``str``, as the ranges of hparams do:

====================  ==================================================
``{"a": spec}``       a dict that has at least these keys
``(spec, spec)``      a sequence of just these
``Listed(spec)``      a sequence of any number of these, or of so many
``Named(spec)``       a dict from names to these
``Maybe(spec)``       this, or None
``Number(0, 1)``      a value that is in it
====================  ==================================================
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Spec = Any


@dataclass(frozen=True)
class Listed:
    """A sequence of items that each fit; ``length`` None: of any number."""

    item: Spec
    length: int | None = None


@dataclass(frozen=True)
class Named:
    """A dict from strings to items that each fit, but those whose name ends in ``free``."""

    item: Spec
    free: tuple[str, ...] = ()


@dataclass(frozen=True)
class Maybe:
    """What fits, or None."""

    item: Spec


@dataclass(frozen=True)
class Kind:
    """A value of one type."""

    type_: type
    words: str

    def __str__(self) -> str:
        return self.words

    def __contains__(self, value: object) -> bool:
        return isinstance(value, self.type_)


@dataclass(frozen=True)
class Like:
    """A tensor of one shape and dtype."""

    shape: torch.Size
    dtype: torch.dtype

    def __str__(self) -> str:
        return f"a tensor of {self.dtype} and shape {tuple(self.shape)}"

    def __contains__(self, value: object) -> bool:
        return isinstance(value, Tensor) and value.shape == self.shape and value.dtype == self.dtype


class Counter(Like):
    """Such a tensor of one number, finite and not negative."""

    def __str__(self) -> str:
        return f"a finite tensor of {self.dtype}, shape {tuple(self.shape)} and no negative number"

    def __contains__(self, value: object) -> bool:
        return super().__contains__(value) and isinstance(value, Tensor) and 0 <= value.item() < math.inf


class Dense:
    """A tensor that is not sparse, has numbers, and is no larger than the memory behind it."""

    def __str__(self) -> str:
        return "a dense tensor"

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
            return False
        return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


class Plain:
    """Values of JSON's types, tuples among them, a few levels deep."""

    def __str__(self) -> str:
        return "a plain value"

    def __contains__(self, value: object) -> bool:
        return _is_plain(value, 8)


def _is_plain(value: object, levels: int) -> bool:
    if isinstance(value, (list, tuple)):
        return levels > 0 and all(_is_plain(item, levels - 1) for item in value)
    if isinstance(value, dict):
        return levels > 0 and all(isinstance(k, str) and _is_plain(item, levels - 1) for k, item in value.items())
    return value is None or isinstance(value, (bool, int, float, str))


FLOAT, TEXT, DICT = Kind(float, "a float"), Kind(str, "a text"), Kind(dict, "a dict")
PLAIN, DENSE = Plain(), Dense()
#: A module's state dict; torch lets modules keep what they like under one name.
WEIGHTS = Named(DENSE, ("_extra_state",))


def fault(value: object, spec: Spec, place: str = "") -> str | None:
    """Say where a value that was read does not fit.

    Args:
        value: what stands in a file.
        spec: what should.
        place: where it stands ("position"); the whole file where empty.

    Returns:
        The first such place, what must stand there and what does; None where all fits.
    """
    return next(_faults(value, spec, place), None)


def _faults(value: Any, spec: Spec, place: str) -> Iterator[str]:
    if isinstance(spec, Maybe):
        if value is not None:
            yield from _faults(value, spec.item, place)
    elif isinstance(spec, (dict, Named)):
        yield from _faults_of_dict(value, spec, place)
    elif isinstance(spec, (tuple, Listed)):
        yield from _faults_of_sequence(value, spec, place)
    elif value not in spec:
        yield f"{place} must be {spec}, not {shown(value)}"


def _faults_of_dict(value: Any, spec: dict[Any, Spec] | Named, place: str) -> Iterator[str]:
    if not isinstance(value, dict) or not (isinstance(spec, dict) or all(isinstance(key, str) for key in value)):
        yield f"{place} must be a dict of names, not {shown(value)}"
        return
    if isinstance(spec, Named):
        spec = {key: spec.item for key in value if not key.endswith(spec.free)}
    for key, item in spec.items():
        if key not in value:
            yield f"{place} lacks {key}"
        else:
            inner = " ".join(str(key).split())[:60]
            yield from _faults(value[key], item, f"{place}.{inner}" if place else inner)


def _faults_of_sequence(value: Any, spec: tuple[Spec, ...] | Listed, place: str) -> Iterator[str]:
    length = len(spec) if isinstance(spec, tuple) else spec.length
    if not isinstance(value, (list, tuple)):
        yield f"{place} must be a list, not {shown(value)}"
    elif length is not None and len(value) != length:
        yield f"{place} must be a list of {length}, not {shown(value)}"
    else:
        for i, item in enumerate(value):
            yield from _faults(item, spec[i] if isinstance(spec, tuple) else spec.item, f"{place}[{i}]")


def shown(value: object) -> str:
    """A value in a few words on one line."""
    if isinstance(value, Tensor) and (value.ndim or value.is_meta):
        return str(Like(value.shape, value.dtype))
    return " ".join(reprlib.repr(value).split())
