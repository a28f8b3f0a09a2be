"""Named sweeps: flags of ``sweep`` as YAML data, in the folder ``sweeps`` of the repository."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import yaml

from domainbed_adm.datasets.layout import expanded
from domainbed_adm.errors import UserError, lookup, unknown_name
from domainbed_adm.run_args import EVERY_JOB, RunArgs
from domainbed_adm.sweeping.jobs import Sweep

#: Flags that a named sweep may set, and the types of their values.
FLAGS: dict[str, Any] = {
    **get_type_hints(Sweep),
    **{name: kind for name, kind in get_type_hints(RunArgs).items() if name in EVERY_JOB},
    **{"output_dir": str, "command_launcher": str, "jobs": int, "retries": int, "hparams": dict[str, Any]},
}


def folder() -> Path:
    """Where the named sweeps lie: in the installed package, or in a checkout beside it."""
    spec = find_spec("domainbed_adm.named_sweeps")
    installed = list(spec.submodule_search_locations or ()) if spec else []
    return Path(installed[0]) if installed else Path(__file__).parents[2] / "sweeps"


def names() -> list[str]:
    """Names of the sweeps that come with the package, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def load(name: str) -> dict[str, Any]:
    """Read a named sweep.

    Args:
        name: of a sweep that comes with the package, or the path of a ``.yaml`` file.

    Returns:
        Its flags by name, and ``about``, its one line ("" where the file has none). ``hparams`` is JSON text, and ``~``
        in ``output_dir`` is expanded.

    Raises:
        UserError: there is no such sweep, or it is not a mapping of flags to values of their types.
    """
    if name.endswith((".yaml", ".yml")):
        path = Path(name)
        if not path.is_file():
            raise UserError(f"no file {name}: --sweep takes a YAML file or one of {', '.join(names())}")
    else:
        path = lookup({known: folder() / f"{known}.yaml" for known in names()}, name, "sweep")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"sweep {name} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"sweep {name} must map flags of sweep to values, as in sweeps/smoke.yaml")
    about = str(content.pop("about", ""))
    return {flag: _value(name, flag, value) for flag, value in content.items()} | {"about": about}


def _value(sweep: str, flag: Any, value: Any) -> Any:
    """The value of a flag as the command line would give it.

    Raises:
        UserError: there is no such flag, or the value is not of its type.
    """
    if flag not in FLAGS:
        raise UserError(f"sweep {sweep}: {unknown_name([*FLAGS, 'about'], str(flag), 'flag')}")
    try:
        value = msgspec.convert(value, FLAGS[flag])
        if flag == "hparams":
            return json.dumps(value)
    except (ValueError, TypeError, RecursionError) as error:  # TypeError: a date or a set, which JSON does not know
        raise UserError(f"sweep {sweep}: {flag} cannot be {str(value)[:200]}: {error}") from None
    return str(expanded(value)) if flag == "output_dir" else value
