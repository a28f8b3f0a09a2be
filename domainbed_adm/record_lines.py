"""One line of ``results.jsonl``: its numbers checked and typed, its objects kept as bytes.

Every line of a run repeats its flags, hyperparameters and provenance: as bytes they are compared with those of the line
before, and decoded once a run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from domainbed_adm.recorded_run import ACCURACY, Columns
from domainbed_adm.system.console import printable_values, warn

_OBJECTS = ("args", "hparams", "provenance")


class _Identity(msgspec.Struct):
    """What a record's ``args`` must hold."""

    trial_seed: int
    dataset: str
    algorithm: str
    test_envs: Annotated[list[Annotated[int, msgspec.Meta(ge=0)]], msgspec.Meta(min_length=1)]
    hparams_seed: int

    def __post_init__(self) -> None:
        if len(set(self.test_envs)) < len(self.test_envs):
            raise ValueError("test_envs names an environment twice")


class Line(NamedTuple):
    """One line, its objects still as bytes, its numbers in the order of its form, the step first."""

    args: bytes
    hparams: bytes
    provenance: bytes
    numbers: tuple[float | None, ...]
    form: _Form

    @property
    def step(self) -> float:
        """The step it was written after."""
        return float(self.numbers[0] or 0)


class _Form:
    """How the lines with these numbers are decoded, the step first, their ranges checked."""

    def __init__(self, numbers: tuple[str, ...]) -> None:
        nothing = msgspec.Raw(b"{}")
        fields: list[Any] = [("f0", msgspec.Raw), ("f1", msgspec.Raw, nothing), ("f2", msgspec.Raw, nothing)]
        fields.append(("f3", Annotated[float, msgspec.Meta(ge=0)]))
        for i, name in enumerate(numbers[1:], start=4):
            number: Any = Annotated[float, msgspec.Meta(ge=0, le=1)] if ACCURACY.fullmatch(name) else float
            fields.append((f"f{i}", number | None, None))
        names = {f"f{i}": name for i, name in enumerate((*_OBJECTS, *numbers))}
        kind = msgspec.defstruct("Record", fields, rename=names, forbid_unknown_fields=True, kw_only=True, gc=False)
        self._decoder = msgspec.json.Decoder(kind)
        self.columns = Columns(numbers)

    def decode(self, line: bytes) -> Line:
        args, hparams, provenance, *numbers = msgspec.structs.astuple(self._decoder.decode(line))
        return Line(bytes(args), bytes(hparams), bytes(provenance), tuple(numbers), self)


_form = lru_cache(maxsize=256)(_Form)
_by_name = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decode_lines(content: bytes, path: Path) -> Iterator[tuple[bytes, Line]]:
    """The lines that are records, as they are and decoded; a warning for each that is none."""
    form: _Form | None = None
    args = b""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line and not line.isspace():
            try:
                record = _decoded(line, form)
                if record.args != args:  # another run, which may record fewer numbers: each run has a form of its own
                    record = _decoded(line, None)
                    args = record.args
                form = record.form
                _check(record)
            except RecursionError:
                warn(f"{path} line {number} left out: lists and objects nested too deep")
            except (ValueError, msgspec.DecodeError) as error:
                warn(f"{path} line {number} left out: {error}")
            else:
                yield line, record


def decode_line(line: bytes, alike: Line | None = None) -> Line:
    """One line, decoded; ``alike`` is one that may record the same numbers.

    Raises:
        ValueError: it is no record.
    """
    try:
        record = _decoded(line, alike.form if alike else None)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    _check(record)
    return record


def _decoded(line: bytes, form: _Form | None) -> Line:
    """Decode a line, by ``form`` where that fits."""
    if form:
        with suppress(msgspec.DecodeError):
            return form.decode(line)
    with suppress(msgspec.DecodeError):
        return _form_of(line).decode(line)
    line = _strict(line)
    return _form_of(line).decode(line)


def _form_of(line: bytes) -> _Form:
    return _form(("step", *(name for name in _by_name.decode(line) if name not in {"step", *_OBJECTS})))


def _strict(line: bytes) -> bytes:
    """The line in the form that records have.

    NaN, Infinity and numbers beyond a float, which Python writes, become null; values that are no numbers go. Half a
    character, which Python writes for a name of a file that is not UTF-8, is escaped.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        record = printable_values(json.loads(line, parse_constant=lambda _: None))
    except ValueError as error:
        raise ValueError("not a whole JSON object (torn?)") from error
    if isinstance(record, dict):
        record = {
            name: None if isinstance(value, int) and abs(value) >= 2**63 else value
            for name, value in record.items()
            if name in {"step", *_OBJECTS} or ACCURACY.fullmatch(name) or type(value) in {int, float, type(None)}
        }
    return msgspec.json.encode(record)


def _check(record: Line) -> None:
    """See that a record's objects are objects, and that its ``args`` identify a run.

    Raises:
        ValueError: the message says what is wrong.
    """
    n_envs = record.form.columns.n_envs
    if max(_held_out(record.args)) >= n_envs > 0:
        raise ValueError("args.test_envs names an environment without accuracies")
    for name in ("hparams", "provenance"):
        if not getattr(record, name).startswith(b"{"):
            raise ValueError(f"{name} is not a JSON object")


@lru_cache(maxsize=256)
def _held_out(args: bytes) -> list[int]:
    try:
        return msgspec.json.decode(args, type=_Identity).test_envs
    except msgspec.DecodeError as error:
        raise ValueError(f"args: {error}") from error


@lru_cache(maxsize=1024)
def decoded_object(value: bytes, shown: bool) -> dict[str, Any]:
    """An object of a line; where ``shown``, what a terminal would obey is escaped in its texts."""
    decoded: dict[str, Any] = msgspec.json.decode(value)
    return printable_values(decoded) if shown and (b"\\" in value or not value.isascii()) else decoded
