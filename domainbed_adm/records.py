"""``results.jsonl``: one JSON object a line, written at each checkpoint; after training, the only interface.

Keys are DomainBed's, sorted:

==============================  =======================================================================
``step``, ``epoch``             the step evaluated after, from 0; passes over the smallest environment
``loss`` and other step values  means since the last checkpoint
``step_time``, ``mem_gb``       seconds a step; peak memory of the device in GiB
``wall_time``                   ours: seconds since the record before (since the start for the first), all included
``env{i}_in_acc``               accuracy on the in-split of environment i, a fraction; ``_out_acc`` the out-split
``hparams``, ``args``           objects: all hyperparameters, all flags
``provenance``                  ours: ``version``, ``git_commit``, ``torch``, ``device``, ``seed``, ``environments``
==============================  =======================================================================
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from domainbed_adm.errors import UserError
from domainbed_adm.run_files import RESULTS
from domainbed_adm.system.console import printable, warn
from domainbed_adm.system.disk import replacing, writing

Record = dict[str, Any]

#: What a record's ``args`` must hold for a run to be found again, and the type of each.
_REQUIRED_ARGS = {"trial_seed": int, "dataset": str, "algorithm": str, "test_envs": list, "hparams_seed": int}
_ACCURACY = re.compile(r"env[0-9]{1,9}_(in|out)_acc")
#: Levels of lists and objects in a record; DomainBed's have three.
_DEEPEST = 50
_TOO_DEEP = f"lists and objects nested deeper than {_DEEPEST} levels"


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


def load_records(input_dir: str | Path) -> list[Record]:
    """Read the records of a sweep (``<input_dir>/*/results.jsonl``, sorted by folder), of one run, or of both.

    A line that is no record gets a warning with its file and number, and is left out. Of several records of one step of
    one run (DomainBed appends to a file where a run is started again), the last counts. In names and other texts, what
    a terminal would obey is escaped (see :func:`~domainbed_adm.system.console.printable`).

    Raises:
        UserError: there is no such folder, no record in it, or it cannot be read.
    """
    root = Path(input_dir)
    with _reading(root):
        if not root.is_dir():
            raise UserError(f"no folder {root}: --input_dir is the output_dir of a sweep or of one run")
        # no glob, which passes over folders that may not be read
        files = [folder / RESULTS for folder in (root, *sorted(root.iterdir())) if (folder / RESULTS).is_file()]
        held = ", ".join(sorted(printable(path.name) for path in root.iterdir())[:5]) or "nothing"
    records = [record for path in files for record in _without_doubles(read_file(path), path)]
    if not records:
        looked = "record" if files else RESULTS
        raise UserError(f"found no {looked} in {root} or its folders; {root} holds: {held}")
    return [_printable(record) for record in records]


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


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, dict):
        return {printable(name): _printable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_printable(item) for item in value]
    return value


def _without_doubles(records: list[Record], path: Path) -> list[Record]:
    """The last record of each step of each run, where its first one stood."""
    last = {(json.dumps(record["args"], sort_keys=True), record["step"]): record for record in records}
    if len(last) < len(records):
        warn(f"{path}: {len(records) - len(last)} steps are recorded twice; the last of each counts")
    return list(last.values())


def keep_steps(path: Path, steps: Sequence[int]) -> None:
    """Leave one record of each of these steps in a run's ``results.jsonl``, in this order; of doubles the last.

    What else it holds, torn lines too, is gone; the file is replaced whole.

    Raises:
        UserError: the system refuses; the file is as it was.
    """
    last = {record["step"]: record for record in read_file(path)}
    kept = [last[step] for step in steps if step in last]
    with replacing(path) as file:
        file.writelines(json.dumps(record, sort_keys=True).encode() + b"\n" for record in kept)


def read_file(path: Path) -> list[Record]:
    """The records of one ``results.jsonl``, texts as they are; a line that is none gets a warning and is left out.

    Raises:
        UserError: the system refuses.
    """
    with _reading(path):
        lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            fault = fault_of(record)
        except RecursionError:
            fault = _TOO_DEEP
        except ValueError:
            fault = "not a whole JSON object (torn?)"
        if fault:
            warn(f"{path} line {number} left out: {fault}")
        else:
            records.append(record)
    return records


def fault_of(record: object) -> str | None:
    """Name what keeps ``record`` from being a record; None where nothing does."""
    if not isinstance(record, dict):
        return "not a JSON object"
    if _is_too_deep(record):
        return _TOO_DEEP
    args = record.get("args")
    if not isinstance(args, dict):
        return "no args"
    fault = _fault_of_args(args)
    if fault:
        return fault
    for name in ("hparams", "provenance"):
        if not isinstance(record.get(name, {}), dict):
            return f"{name} is not a JSON object"
    for name, value in record.items():
        if _ACCURACY.fullmatch(name) and not (value is None or _is_nan(value) or _is_fraction(value)):
            return f"{name} is not a number in [0, 1]"
    if environment_count(record) and not all(_knows(record, env) for env in args["test_envs"]):
        return "args.test_envs names an environment without accuracies"
    step = finite(record.get("step"))
    return "no step" if step is None or step < 0 else None


def _fault_of_args(args: dict[str, Any]) -> str | None:
    for name, kind in _REQUIRED_ARGS.items():
        if not _is(args.get(name), kind):
            return f"args has no {name} of type {kind.__name__}"
    envs = args["test_envs"]
    numbers = all(_is(env, int) and env >= 0 for env in envs)
    if not envs or not numbers or len(set(envs)) < len(envs):
        return "args.test_envs is not a list of distinct environment numbers"
    return None


def _is(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _is_fraction(value: object) -> bool:
    number = finite(value)
    return number is not None and 0 <= number <= 1


def _is_too_deep(record: Record) -> bool:
    level: list[Any] = [record]
    for _ in range(_DEEPEST):
        items = (item for one in level for item in (one.values() if isinstance(one, dict) else one))
        level = [item for item in items if isinstance(item, dict | list)]
    return bool(level)


def finite(value: object) -> float | None:
    """``value`` as a float, where it is a finite number that a float holds; None else, a boolean being no number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def accuracy(record: Record, environment: int, split: str) -> float | None:
    """Accuracy in [0, 1] on one split ("in" or "out") of one environment; None where absent, null or NaN."""
    value = finite(record.get(f"env{environment}_{split}_acc"))
    return value if _is_fraction(value) else None


def environment_count(record: Record) -> int:
    """How many environments the record has accuracies of, whether null or not."""
    count = 0
    while _knows(record, count):
        count += 1
    return count


def _knows(record: Record, environment: int) -> bool:
    return f"env{environment}_in_acc" in record or f"env{environment}_out_acc" in record
