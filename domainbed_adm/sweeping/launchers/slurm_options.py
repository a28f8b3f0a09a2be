"""What is asked of a Slurm: options of sbatch by their long names, from ``--slurm`` and from a site's file in YAML."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import yaml

from domainbed_adm.errors import UserError

#: What the launcher itself gives, or what would not submit one array here, and what to do instead.
_TAKEN = {
    "array": "give --workers",
    "job-name": "it tells the sweep's folder",
    "wrap": "it is the launcher's",
    "clusters": "launch where that cluster's sbatch submits",
    **dict.fromkeys(("parsable", "test-only", "wait", "quiet", "help", "usage", "version"), "it is the launcher's"),
}
_NAME = re.compile(r"[a-z]+(-[a-z0-9]+)*")
EXAMPLE = "partition=gpu,time=4:00:00,gres=gpu:1"


def read_options(text: str | None, file: str | None) -> dict[str, str]:
    """Options of sbatch by name, "" for one that takes no value: those of the file, and over them those of the text.

    The file is ``~/.config/domainbed-adm/slurm.yaml``, where there is one, unless another is given.

    Raises:
        UserError: an option is malformed or the launcher's, or the file given cannot be read.
    """
    path = Path(file).expanduser() if file else default_file()
    if file and not path.is_file():
        raise UserError(f"--slurm_file {file}: no such file")
    options = _from_file(path) if path.is_file() else {}
    return options | _from_text(text or "")


def default_file() -> Path:
    """Where a site's options lie, for a user."""
    config = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(config) / "domainbed-adm" / "slurm.yaml"


def words(options: Mapping[str, str]) -> list[str]:
    """The options as words of sbatch's command line."""
    return [f"--{name}={value}" if value else f"--{name}" for name, value in options.items()]


def _from_text(text: str) -> dict[str, str]:
    """``NAME=VALUE`` or ``NAME``, with commas between; a comma in brackets is part of a value, as in n[1,3].

    Raises:
        UserError: a piece is malformed.
    """
    pieces = re.split(r",(?![^\[]*\])", text) if text.strip() else []
    options: dict[str, str] = {}
    for piece in pieces:
        name, equals, value = piece.partition("=")
        if equals and not value.strip():
            raise UserError(f"--slurm: {name.strip()} has no value in {text!r}; an example is {EXAMPLE}")
        options |= _option("--slurm", name, value)
    return options


def _from_file(path: Path) -> dict[str, str]:
    try:
        # every scalar as its text: YAML takes 4:00:00 for the number 14400
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)  # noqa: S506 - makes texts alone
    except (OSError, yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    content = content or {}
    if not isinstance(content, dict):
        raise UserError(f"{path} must map options of sbatch to values, a line each: 'partition: gpu'")
    options: dict[str, str] = {}
    for name, value in content.items():
        if not isinstance(value, str):
            raise UserError(f"{path}: {str(name)[:80]} must have one value, as 'partition: gpu'")
        if value != "false":
            options |= _option(str(path), name, "" if value == "true" else value)
    return options


def _option(where: str, name: str, value: str) -> dict[str, str]:
    name, value = name.strip().replace("_", "-"), value.strip()
    if len(name) < 2 or not _NAME.fullmatch(name):
        raise UserError(f"{where}: {name!r} is no long option of sbatch; an example is {EXAMPLE}")
    if name in _TAKEN:
        raise UserError(f"{where}: {name} cannot be given here: {_TAKEN[name]}")
    if not value.isprintable():
        raise UserError(f"{where}: the value of {name} must be one line of text")
    if name == "signal" and not re.fullmatch(r"TERM@\d+", value):
        raise UserError(f"{where}: signal must be TERM@SECONDS, which ends a run at its last checkpoint, not {value!r}")
    return {name: value}
