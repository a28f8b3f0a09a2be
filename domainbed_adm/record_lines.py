"""A line of ``results.jsonl`` and how it is decoded: its numbers checked and typed, its objects left as bytes.

Every line of a run repeats its flags, hyperparameters and provenance: as bytes they are compared with those of the line
before, and decoded once a run (:func:`decoded_object`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from domainbed_adm.recorded_run import Columns
from domainbed_adm.system.console import printable_values, warn

_ACCURACY = re.compile(r"env[0-9]{1,9}_(in|out)_acc")
_OBJECTS = ("args", "hparams", "provenance")
_NOTHING = msgspec.Raw(b"{}")

_Fraction = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Step = Annotated[float, msgspec.Meta(ge=0)]
_Environment = Annotated[int, msgspec.Meta(ge=0)]


class _Identity(msgspec.Struct):
    """What a record's ``args`` must hold."""

    trial_seed: int
    dataset: str
    algorithm: str
    test_envs: Annotated[list[_Environment], msgspec.Meta(min_length=1)]
    hparams_seed: int

    def __post_init__(self) -> None:
        if len(set(self.test_envs)) < len(self.test_envs):
            raise ValueError("test_envs names an environment twice")


class Line(NamedTuple):
    """One line, its objects still as bytes."""

    args: bytes
    hparams: bytes
    provenance: bytes
    numbers: tuple[float | None, ...]
    columns: Columns

    @property
    def step(self) -> float:
        """The step that it was recorded at."""
        return float(self.numbers[0] or 0)


class _Form:
    """How the lines with one set of names are decoded: numbers, ``step`` first, their ranges checked."""

    def __init__(self, numbers: tuple[str, ...]) -> None:
        fields: list[Any] = [("f0", msgspec.Raw), ("f1", msgspec.Raw, _NOTHING), ("f2", msgspec.Raw, _NOTHING)]
        for i, name in enumerate(numbers, start=3):
            number: Any = _Fraction if _ACCURACY.fullmatch(name) else float
            fields.append(("f3", _Step) if name == "step" else (f"f{i}", number | None, None))
        names = {f"f{i}": name for i, name in enumerate((*_OBJECTS, *numbers))}
        kind = msgspec.defstruct("Record", fields, rename=names, forbid_unknown_fields=True, kw_only=True, gc=False)
        self._decoder = msgspec.json.Decoder(kind)
        self.columns = Columns(numbers)

    def decode(self, line: bytes) -> Line:
        """Decode a line.

        Raises:
            msgspec.DecodeError: it is of another form, or no record.
        """
        args, hparams, provenance, *numbers = msgspec.structs.astuple(self._decoder.decode(line))
        return Line(bytes(args), bytes(hparams), bytes(provenance), tuple(numbers), self.columns)


_form = lru_cache(maxsize=256)(_Form)
_by_name = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _form_of(line: bytes) -> _Form:
    """The form of a line.

    Raises:
        msgspec.DecodeError: it is no JSON object.
    """
    return _form(("step", *(name for name in _by_name.decode(line) if name not in {"step", *_OBJECTS})))


def decode_lines(content: bytes, path: Path) -> Iterator[tuple[bytes, Line]]:
    """The lines that are records, as they are and decoded; a warning for each that is none."""
    form: _Form | None = None
    args = b""
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line and not line.isspace():
            try:
                form, record = _decoded(line, form)
                if record.args != args:  # another run, which may record fewer numbers: each run has a form of its own
                    form, record = _decoded(line, None)
                    args = record.args
                _check(record)
            except RecursionError:
                warn(f"{path} line {number} left out: lists and objects nested too deep")
            except (ValueError, msgspec.DecodeError) as error:
                warn(f"{path} line {number} left out: {error}")
            else:
                yield line, record


def _decoded(line: bytes, form: _Form | None) -> tuple[_Form, Line]:
    """The line, and the form it has: ``form`` where that fits.

    Raises:
        ValueError: it is no JSON.
        msgspec.DecodeError: it is no record; the message says why.
    """
    if form:
        try:
            return form, form.decode(line)
        except msgspec.DecodeError:
            pass
    try:
        form = _form_of(line)
        return form, form.decode(line)
    except msgspec.DecodeError:
        line = _strict(line)
    form = _form_of(line)
    return form, form.decode(line)


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
            if name in _OBJECTS
            or name == "step"
            or _ACCURACY.fullmatch(name)
            or type(value) in {int, float, type(None)}
        }
    return msgspec.json.encode(record)


def _check(record: Line) -> None:
    """See that a record's objects are objects, and that its ``args`` identify a run.

    Raises:
        ValueError: the message says what is wrong.
    """
    held_out = _held_out(record.args)
    if record.columns.n_envs and max(held_out) >= record.columns.n_envs:
        raise ValueError("args.test_envs names an environment without accuracies")
    for name, value in (("hparams", record.hparams), ("provenance", record.provenance)):
        if value[:1] != b"{":
            raise ValueError(f"{name} is not a JSON object")


@lru_cache(maxsize=256)
def _held_out(args: bytes) -> list[int]:
    """The test environments in these ``args``.

    Raises:
        ValueError: they do not identify a run.
    """
    try:
        return msgspec.json.decode(args, type=_Identity).test_envs
    except msgspec.DecodeError as error:
        raise ValueError(f"args: {error}") from error


@lru_cache(maxsize=1024)
def decoded_object(value: bytes, shown: bool) -> dict[str, Any]:
    """One of a record's objects; where ``shown``, what a terminal would obey in its texts is escaped."""
    decoded: dict[str, Any] = msgspec.json.decode(value)
    return printable_values(decoded) if shown and (b"\\" in value or not value.isascii()) else decoded
