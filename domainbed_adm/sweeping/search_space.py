"""What a search chooses from: a range or a list of values for each hparam. Loads neither torch nor Optuna.

As JSON: ``{"lr": {"low": 1e-5, "high": 1e-3, "log": true}, "optimizer": ["adam", "sgd"]}``. A range
holds both its ends; ``log`` searches it on a logarithmic scale. An hparam without one has the range of its random draw.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from domainbed_adm.datasets.cards import get_card
from domainbed_adm.errors import UserError, unknown_name
from domainbed_adm.hparams_registry import hparams_of
from domainbed_adm.method.hparams import Hparam, Log2Integer, LogUniform, Number, OneOf, Uniform

#: DomainBed draws them for every network; these read them.
_LARGER_THAN = {"resnet_dropout": 32, "vit_dropout": 10**9}
#: Drawn always, and read where another hparam has this value.
_ONLY_WITH = {"ema_decay": ("averaging", "ema"), "swad_tolerance_ratio": ("averaging", "swad")}


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included, spread evenly or, with ``log``, evenly in their logarithms."""

    low: float
    high: float
    log: bool = False
    integer: bool = False

    def at(self, share: float) -> float:
        """The value at a share in [0, 1] of the way; integers are rounded down, so that each has its share."""
        low, high = self.low, self.high + self.integer
        value = low * (high / low) ** share if self.log else low + (high - low) * share
        value = min(max(value, self.low), self.high)
        return int(value) if self.integer else value

    def spread(self, count: int) -> list[Any]:
        """So many values from end to end, fewer where there are not so many integers."""
        shares = [i / (count - 1) for i in range(count)] if count > 1 else [0.5]
        return list(dict.fromkeys(self.at(share) for share in shares))

    def __str__(self) -> str:
        kind = ("integers " if self.integer else "") + f"{self.low:g} to {self.high:g}"
        return kind + (", logarithmic" if self.log else "")


@dataclass(frozen=True)
class Values:
    """Some values, each as likely."""

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at a share in [0, 1] of the way."""
        return self.values[min(int(share * len(self.values)), len(self.values) - 1)]

    def spread(self, count: int) -> list[Any]:
        """All of them."""
        return list(self.values)

    def __str__(self) -> str:
        return ", ".join(map(json.dumps, self.values))


Space = dict[str, Range | Values]


def space_of(
    algorithm: str, dataset: str, names: Iterable[str], given: Mapping[str, Any], fixed: Mapping[str, Any]
) -> Space:
    """What to search.

    Args:
        algorithm: its name.
        dataset: its name.
        names: hparams to search, those in ``given`` besides; where both are empty, all that a random search draws and
            the run reads.
        given: ranges as JSON, by name.
        fixed: what ``--hparams`` fixes.

    Raises:
        UserError: a name or a range is wrong, or nothing is left to search.
    """
    hparams, names = hparams_of(algorithm, dataset), list(dict.fromkeys([*names, *given]))
    side = max(get_card(dataset).input_shape[1:])
    unread = {name for name, (other, value) in _ONLY_WITH.items() if fixed.get(other) != value}
    unread |= {name for name, least in _LARGER_THAN.items() if side <= least}
    drawn = [name for name, hparam in hparams.items() if hparam.draw and name not in unread]
    space: Space = {}
    for name in names or [name for name in drawn if name not in fixed]:
        hparam = hparams.get(name)
        if hparam is None or hparam.set_by_run:
            known = [known for known, spec in hparams.items() if not spec.set_by_run]
            raise UserError(unknown_name(known, name, f"hparam of {algorithm}"))
        if name in fixed:
            raise UserError(f"hparam {name} is to be searched, and --hparams fixes it: leave out one of the two")
        if name in given:
            space[name] = _given(hparam, given[name])
        elif hparam.draw:
            space[name] = _of_draw(hparam.draw)
        else:
            ranged = ", ".join(drawn)
            raise UserError(f"hparam {name} has no range of its own ({ranged} have): give one by --search_space")
    if not space:
        raise UserError(f"nothing to search: --hparams fixes all of {', '.join(drawn)}; name others by --search_space")
    return space


def read_space(text: str) -> dict[str, Any]:
    """The JSON object of ``--search_space``, given as text or as the path of a file.

    Raises:
        UserError: there is no such file, or it is no JSON object.
    """
    path = Path(text)
    try:
        given = json.loads(text if text.lstrip().startswith("{") else path.read_bytes())
    except OSError as error:
        raise UserError(f"--search_space is JSON or a file of it; {text} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"--search_space is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UserError('--search_space must be a JSON object such as {"rho": {"low": 0.01, "high": 0.2, "log": true}}')
    return given


def as_json(space: Space) -> dict[str, Any]:
    """As :func:`from_json` reads it."""
    return {name: list(one.values) if isinstance(one, Values) else asdict(one) for name, one in space.items()}


def from_json(written: Mapping[str, Any]) -> Space:
    """A space that :func:`as_json` wrote."""
    return {name: Values(tuple(one)) if isinstance(one, list) else Range(**one) for name, one in written.items()}


def _of_draw(draw: Uniform | OneOf) -> Range | Values:
    if isinstance(draw, OneOf):
        return Values(draw.values)
    if isinstance(draw, Log2Integer):
        return Range(int(2**draw.low), -int(-(2**draw.high) // 1) - 1, log=True, integer=True)
    if isinstance(draw, LogUniform):
        return Range(float(10**draw.low), float(10**draw.high), log=True)
    return Range(draw.low, draw.high)


def _given(hparam: Hparam, given: Any) -> Range | Values:
    what, valid = f"--search_space: hparam {hparam.name}", hparam.valid
    if isinstance(given, list):
        for value in given:
            if isinstance(value, (list, dict)):
                raise UserError(f"{what}: values are numbers, texts, true, false or null, not {json.dumps(value)}")
            _check(what, hparam, value)
        if len(set(map(json.dumps, given))) < max(2, len(given)):
            raise UserError(f"{what} has no two different values, or one twice: give others, or fix it by --hparams")
        return Values(tuple(given))
    if not isinstance(given, dict) or not {"low", "high"} <= given.keys() <= {"low", "high", "log"}:
        raise UserError(f'{what} must be a list of values or {{"low": a, "high": b, "log": true}}')
    if not isinstance(valid, Number) or valid.multiple_of > 1:
        raise UserError(f"{what} is {valid}: give a list of values in place of a range")
    low, high, log = given["low"], given["high"], given.get("log", False)
    for value in (low, high):
        _check(what, hparam, value)
    if not isinstance(log, bool) or not low < high or (log and low <= 0):
        raise UserError(f"{what}: low must be below high{' and above 0' if log else ''}, and log true or false")
    return Range(low, high, log, valid.integer)


def _check(what: str, hparam: Hparam, value: Any) -> None:
    if hparam.valid is not None and value not in hparam.valid:
        raise UserError(f"{what} must be {hparam.valid}, not {json.dumps(value)}: {hparam.help}")
