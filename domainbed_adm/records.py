"""``results.jsonl``: one JSON object a line, written at each checkpoint; after training, the only interface.

Keys are DomainBed's, sorted:

==============================  =======================================================================
``step``, ``epoch``             the step evaluated after, from 0; passes over the smallest environment
``loss`` and other step values  means since the last checkpoint
``skipped_fraction``            ours, in fp16: share of the steps whose gradient overflowed
``step_time``, ``mem_gb``       seconds a step; peak memory of the device in GiB
``wall_time``                   ours: seconds since the record before (since the start for the first), all included
``env{i}_in_acc``               accuracy on the in-split of environment i, a fraction; ``_out_acc`` the out-split
``hparams``, ``args``           objects: all hyperparameters, all flags
``provenance``                  ours: ``version``, ``git_commit``, ``torch``, ``device``, ``seed``, ``environments``,
                                ``reduced_images`` (of each environment, see ``train --cache``), ...
==============================  =======================================================================

Every line of a run repeats its flags, hyperparameters and provenance: as bytes they are compared with those of the line
before, and decoded once a run. Its numbers are checked and typed, and go into one table (see ``recorded_run``).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from domainbed_adm.errors import UserError
from domainbed_adm.recorded_run import ACCURACY, Column, Columns, Run, Runs, one_of_each
from domainbed_adm.run_files import RESULTS
from domainbed_adm.system.console import printable, printable_values, warn
from domainbed_adm.system.disk import replacing, writing

Record = dict[str, Any]

_OBJECTS = ("args", "hparams", "provenance")


def append(path: str | Path, record: Record) -> None:
    """Add one record as one whole line, and wait until it is on the disk.

    A line that an interruption tore is closed first, so that it spoils no other.

    Args:
        path: the run's ``results.jsonl``; created where absent.
        record: values of JSON's types or NumPy's; a number that is not finite is written as null.

    Raises:
        UserError: the system refuses; the file is as it was.
        OSError: never; it becomes a UserError.
    """
    line = json.dumps(_plain(record), sort_keys=True, allow_nan=False).encode() + b"\n"
    with writing(Path(path)), Path(path).open("a+b", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            while line:  # a disk that is filling up takes a part
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def keep_steps(path: Path, steps: Sequence[int]) -> None:
    """Leave one record of each of these steps in a run's ``results.jsonl``, in this order; of doubles the last.

    What else it holds, torn lines too, is gone; the file is replaced whole.

    Raises:
        UserError: the system refuses; the file is as it was.
    """
    last = {record.step: line for line, record in _decode_lines(_bytes(path), path)}
    with replacing(path) as file:
        file.writelines(last[step] + b"\n" for step in steps if step in last)


def load_runs(path: str | Path) -> Runs:
    """Read the runs of a sweep (``<path>/*/results.jsonl``, sorted by folder), of one run, or of both.

    A line that is no record gets a warning with its file and number, and is left out. Of several records of one step
    of one run (DomainBed appends to a file where a run is started again), the last counts. What is no number in a
    record is missing: null, NaN, a text.

    Two runs of the same dataset, algorithm, test environments, trial and hparams seed (of other ``--steps`` or
    ``--hparams``, say) are not mixed, as DomainBed would: the one that trained to the higher step counts, of equals the
    last folder's, and a warning names both.

    In names and other texts, what a terminal would obey is escaped (see
    :func:`~domainbed_adm.system.console.printable`).

    Raises:
        UserError: there is no such folder, no record in it, or it cannot be read.
    """
    root = Path(path)
    with _reading(root):
        if not root.is_dir():
            raise UserError(f"no folder {root}: give the output_dir of a sweep or of one run")
        # no glob, which passes over folders that may not be read
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
        files = [file for file in (root / RESULTS, *(root / name / RESULTS for name in names)) if file.is_file()]
    runs = [run for file in files for run in decode_runs(_bytes(file), file, shown=True)]
    if not runs:
        looked = "record" if files else RESULTS
        held = ", ".join(sorted(map(printable, os.listdir(root)))[:5]) or "nothing"  # noqa: PTH208
        raise UserError(f"found no {looked} in {root} or its folders; {root} holds: {held}")
    return one_of_each(runs)


def read_runs(path: Path) -> list[Run]:
    """The runs recorded in one ``results.jsonl``, one as a rule; texts as they are, else as ``load_runs``.

    Raises:
        UserError: the system refuses.
    """
    return decode_runs(_bytes(path), path)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Within the block, a system that refuses to read ``path`` is one line.

    Raises:
        UserError: it refuses.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {error.filename or path}: {error.strerror}") from error


def _bytes(path: Path) -> bytes:
    with _reading(path), open(path, "rb") as file:  # noqa: PTH123 - faster than Path.open
        return file.read()


def decode_runs(content: bytes, path: Path, *, shown: bool = False) -> list[Run]:
    """The runs in the content of the ``results.jsonl`` at ``path``.

    Where ``shown``, what a terminal would obey is escaped in texts.
    """
    records = [record for _, record in _decode_lines(content, path)]
    runs: dict[str, list[_Line]] = {"": records} if records else {}
    written = {record.args for record in records}
    if len(written) > 1:  # several runs, or the same flags written in two ways
        flags = {args: json.dumps(_decoded_object(args, shown), sort_keys=True) for args in written}
        runs = {}
        for record in records:
            runs.setdefault(flags[record.args], []).append(record)
    return [_run(own, path, shown) for own in runs.values()]


def _run(records: list[_Line], path: Path, shown: bool) -> Run:
    last = {record.step: record for record in records}  # where the first of the step stood
    if len(last) < len(records):
        warn(f"{path}: {len(records) - len(last)} steps are recorded twice; the last of each counts")
    provenances: list[dict[str, Any]] = []
    for written in dict.fromkeys(record.provenance for record in records):
        made_by = _decoded_object(written, shown)
        if made_by and made_by not in provenances:
            provenances.append(made_by)
    args, hparams = (_decoded_object(written, shown) for written in (records[-1].args, records[-1].hparams))
    return Run(path.parent, args, hparams, tuple(provenances), *_table(list(last.values())))


def _table(records: list[_Line]) -> tuple[Columns, Column]:
    columns = records[0].form.columns
    if all(record.form is records[0].form for record in records):
        return columns, np.array([record.numbers for record in records], np.float64)
    columns = Columns(tuple(dict.fromkeys(name for record in records for name in record.form.columns.names)))
    table = np.full((len(records), len(columns.names)), np.nan)
    for row, record in zip(table, records, strict=True):
        row[[columns.place[name] for name in record.form.columns.names]] = np.array(record.numbers, np.float64)
    return columns, table


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


class _Line(NamedTuple):
    """One line, its objects still as bytes, its numbers in the order of its form, the step first."""

    args: bytes
    hparams: bytes
    provenance: bytes
    numbers: tuple[float | None, ...]
    form: _Form

    @property
    def step(self) -> float:
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

    def decode(self, line: bytes) -> _Line:
        args, hparams, provenance, *numbers = msgspec.structs.astuple(self._decoder.decode(line))
        return _Line(bytes(args), bytes(hparams), bytes(provenance), tuple(numbers), self)


_form = lru_cache(maxsize=256)(_Form)
_by_name = msgspec.json.Decoder(dict[str, msgspec.Raw])


def _decode_lines(content: bytes, path: Path) -> Iterator[tuple[bytes, _Line]]:
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


def _decoded(line: bytes, form: _Form | None) -> _Line:
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


def _check(record: _Line) -> None:
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
def _decoded_object(value: bytes, shown: bool) -> dict[str, Any]:
    decoded: dict[str, Any] = msgspec.json.decode(value)
    return printable_values(decoded) if shown and (b"\\" in value or not value.isascii()) else decoded
