"""``results.jsonl``: one JSON object a line, written at each checkpoint; after training, the only interface.

Keys are DomainBed's, sorted:

==============================  =======================================================================
``step``, ``epoch``             the step evaluated after, from 0; passes over the smallest environment
``loss`` and other step values  means since the last checkpoint
``skipped_fraction``            ours, in fp16: share of the steps whose gradient overflowed
``step_time``, ``mem_gb``       seconds a step; peak memory of the device in GiB
``wall_time``                   ours: seconds since the record before (since the start for the first), all included
``env{i}_in_acc``               accuracy on the in-split of environment i, a fraction; ``_out_acc`` the out-split
``averaged_weights``            ours, with hparam ``averaging``: 1: figures are of averaged weights, 0: of the last ones
``last_env{i}_in_acc``          ours, of the last weights where those without ``last_`` are of averaged ones
``swad_segments``               ours, of SWAD's result: segments in it; ``swad_start_step``, ``swad_end_step``
``hparams``, ``args``           objects: all hyperparameters, all flags
``provenance``                  ours: ``version``, ``git_commit``, ``torch``, ``device``, ``seed``, ``n_steps`` (the
                                length of the run), ``environments``, ``reduced_images`` (of each environment, see
                                ``train --cache``), ...
==============================  =======================================================================

``record_lines`` decodes a line; the numbers of a run go into one table (see ``recorded_run``).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_adm.errors import UserError
from domainbed_adm.record_lines import Line, decode_line, decode_lines, decoded_object
from domainbed_adm.recorded_run import Column, Columns, Run, Runs, one_of_each
from domainbed_adm.run_files import PLAN, RESULTS
from domainbed_adm.system.console import printable, warn
from domainbed_adm.system.disk import replacing, writing

Record = dict[str, Any]
#: Bytes that are read of either end of a file; a record has about 1,500.
_END = 8192


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
    last = {record.step: line for line, record in decode_lines(_bytes(path), path)}
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
        planned = f". Of this sweep no run has got so far: domainbed-adm sweep status {root}" * (root / PLAN).exists()
        raise UserError(f"found no {looked} in {root} or its folders; {root} holds: {held}{planned}")
    return one_of_each(runs)


def read_runs(path: Path) -> list[Run]:
    """The runs recorded in one ``results.jsonl``, one as a rule; texts as they are, else as ``load_runs``.

    Raises:
        UserError: the system refuses.
    """
    return decode_runs(_bytes(path), path)


def read_ends(path: Path) -> list[Run]:
    """As :func:`read_runs`, but of one whole run no more than its first and its last record.

    Raises:
        UserError: the system refuses.
    """
    with _reading(path), open(path, "rb", buffering=0) as file:  # noqa: PTH123 - faster than Path.open
        head = tail = file.read(_END)
        if len(head) == _END:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
            tail = file.read()
    try:
        first = decode_line(head.partition(b"\n")[0])
        last = decode_line(tail.removesuffix(b"\n").rpartition(b"\n")[2], first)
    except (ValueError, RecursionError):  # a line is longer, or is none
        return read_runs(path)
    if first.args != last.args or first.step >= last.step:
        return read_runs(path)  # of several runs, of a run with one record, or with doubled ones
    return [_run([first, last], path, shown=False)]


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
    records = [record for _, record in decode_lines(content, path)]
    runs: dict[str, list[Line]] = {"": records} if records else {}
    written = {record.args for record in records}
    if len(written) > 1:  # several runs, or the same flags written in two ways
        flags = {args: json.dumps(decoded_object(args, shown), sort_keys=True) for args in written}
        runs = {}
        for record in records:
            runs.setdefault(flags[record.args], []).append(record)
    return [_run(own, path, shown) for own in runs.values()]


def _run(records: list[Line], path: Path, shown: bool) -> Run:
    last = {record.step: record for record in records}  # where the first of the step stood
    if len(last) < len(records):
        warn(f"{path}: {len(records) - len(last)} steps are recorded twice; the last of each counts")
    provenances: list[dict[str, Any]] = []
    for written in dict.fromkeys(record.provenance for record in records):
        made_by = decoded_object(written, shown)
        if made_by and made_by not in provenances:
            provenances.append(made_by)
    args, hparams = (decoded_object(written, shown) for written in (records[-1].args, records[-1].hparams))
    return Run(path.parent, args, hparams, tuple(provenances), *_table(list(last.values())))


def _table(records: list[Line]) -> tuple[Columns, Column]:
    columns = records[0].form.columns
    if all(record.form is records[0].form for record in records):
        return columns, np.array([record.numbers for record in records], np.float64)
    columns = Columns(tuple(dict.fromkeys(name for record in records for name in record.form.columns.names)))
    table = np.full((len(records), len(columns.names)), np.nan)
    for row, record in zip(table, records, strict=True):
        row[[columns.place[name] for name in record.form.columns.names]] = np.array(record.numbers, np.float64)
    return columns, table
