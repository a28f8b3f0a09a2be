"""Named sweeps: flags of ``sweep`` as YAML data, in the folder ``sweeps`` of the repository."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from domainbed_adm.errors import UserError, lookup, unknown_name

#: Flags that a named sweep may set, and the types of their values.
FLAGS: dict[str, tuple[type, ...]] = {
    "datasets": (list,),
    "algorithms": (list,),
    "task": (str,),
    "n_hparams_from": (int,),
    "n_hparams": (int,),
    "n_trials": (int,),
    "steps": (int,),
    "hparams": (dict,),
    "holdout_fraction": (int, float),
    "single_test_envs": (bool,),
    "data_dir": (str,),
    "output_dir": (str,),
    "command_launcher": (str,),
    "jobs": (int,),
    "retries": (int,),
    "trace_difficulty": (bool,),
    "tensorboard": (bool,),
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
        Its flags by name, and ``about``, its one line ("" where the file has none). ``hparams`` is JSON text.

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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"sweep {name} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"sweep {name} must map flags of sweep to values, as in sweeps/smoke.yaml")
    return _flags(name, content)


def _flags(name: str, content: dict[Any, Any]) -> dict[str, Any]:
    about = str(content.pop("about", ""))
    for key, value in content.items():
        if key not in FLAGS:
            raise UserError(f"sweep {name}: {unknown_name([*FLAGS, 'about'], str(key), 'flag')}")
        if not isinstance(value, FLAGS[key]) or (isinstance(value, bool) and bool not in FLAGS[key]):
            wanted = " or ".join(kind.__name__ for kind in FLAGS[key])
            raise UserError(f"sweep {name}: {key} must be of type {wanted}, not {value!r}")
    if any(not isinstance(item, str) for key in ("datasets", "algorithms") for item in content.get(key, [])):
        raise UserError(f"sweep {name}: datasets and algorithms must be lists of names")
    if "hparams" in content:
        content["hparams"] = json.dumps(content["hparams"])
    return {**content, "about": about}
