"""What a hyperparameter is, as data: its default, its valid range, its meaning, its random draw. Loads no torch."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Number:
    """A valid range: reals from ``low`` to ``high``, the ends excluded where ``open_`` says so; or integers."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    integer: bool = False
    multiple_of: int = 1

    def __str__(self) -> str:
        kind = "an integer" if self.integer else "a number"
        kind = f"a multiple of {self.multiple_of}" if self.multiple_of > 1 else kind
        left = "(" if self.open_low or self.low == -math.inf else "["
        right = ")" if self.open_high or self.high == math.inf else "]"
        return f"{kind} in {left}{self.low:g}, {self.high:g}{right}"

    def __contains__(self, value: object) -> bool:
        kinds = (int, np.integer) if self.integer else (int, float, np.integer, np.floating)
        if isinstance(value, bool) or not isinstance(value, kinds):
            return False
        number = float(value) if -sys.float_info.max <= value <= sys.float_info.max else math.nan
        above = number > self.low if self.open_low else number >= self.low
        below = number < self.high if self.open_high else number <= self.high
        return above and below and (self.multiple_of == 1 or number % self.multiple_of == 0)


@dataclass(frozen=True)
class Choice:
    """A valid range: one of some values, type and all (True is not 1)."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return "one of " + ", ".join(map(json.dumps, self.values))

    def __contains__(self, value: object) -> bool:
        return any(type(value) is type(valid) and value == valid for valid in self.values)


@dataclass(frozen=True)
class Either:
    """A valid range: a value of one of two."""

    one: Container[Any]
    other: Container[Any]

    def __str__(self) -> str:
        return f"{self.one}, or {self.other}"

    def __contains__(self, value: object) -> bool:
        return value in self.one or value in self.other


@dataclass(frozen=True)
class Text:
    """A valid range: a string that is not empty, or None."""

    def __str__(self) -> str:
        return "a name or null"

    def __contains__(self, value: object) -> bool:
        return value is None or (isinstance(value, str) and bool(value))


@dataclass(frozen=True)
class Shares:
    """A valid range: a list of rising numbers between 0 and 1."""

    def __str__(self) -> str:
        return "a list of rising numbers in (0, 1)"

    def __contains__(self, value: object) -> bool:
        within = Number(0, 1, open_low=True, open_high=True)
        return isinstance(value, list) and all(share in within for share in value) and sorted(set(value)) == value


@dataclass(frozen=True)
class Uniform:
    """A draw, uniform in [low, high). Like every draw it makes one call of NumPy that stays the same for ever."""

    low: float
    high: float

    def draw(self, random: np.random.RandomState) -> float:
        """One value."""
        return random.uniform(self.low, self.high)


class LogUniform(Uniform):
    """A draw: 10 ** u, with u uniform in [low, high)."""

    def draw(self, random: np.random.RandomState) -> float:
        """One value."""
        return float(10 ** super().draw(random))


class Log2Integer(Uniform):
    """A draw: the integer part of 2 ** u, with u uniform in [low, high)."""

    def draw(self, random: np.random.RandomState) -> int:
        """One value."""
        return int(2 ** super().draw(random))


@dataclass(frozen=True)
class OneOf:
    """A draw: one of some values, each as likely."""

    values: tuple[Any, ...]

    def draw(self, random: np.random.RandomState) -> Any:
        """One value."""
        return self.values[random.choice(len(self.values))]


@dataclass(frozen=True)
class Hparam:
    """One hyperparameter; all that is said of it is said here.

    Attributes:
        name: in ``--hparams`` and in records, unique over all methods.
        default: where the user gives none.
        valid: what ``in`` it is a valid value; None where any value is.
        help: its meaning, in a few words.
        draw: of a random search; None keeps the default.
        argument: of the part's constructor that takes it, where it has another name there.
        set_by_run: whether the run knows the value (its steps, its dataset's normalisation) and a user cannot give it.
    """

    name: str
    default: Any
    valid: Container[Any] | None
    help: str
    draw: Uniform | OneOf | None = None
    argument: str = ""
    set_by_run: bool = False


FLAG = Choice((False, True))
#: Steps of a run; far above any use.
STEPS = Number(1, 10**9, integer=True)
