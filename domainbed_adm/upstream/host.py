"""Finds a DomainBed checkout and checks that it has what we use of it. Loads no torch until a part is imported."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from domainbed_adm.errors import UserError, one_line

VARIABLE = "DOMAINBED_DIR"
_INSTALL = "pip install '.[upstream]' in the folder of domainbed_adm"
#: What we use of DomainBed's modules.
_USED = {
    "algorithms": ("ALGORITHMS", "get_algorithm_class", "ERM"),
    "hparams_registry": ("default_hparams", "random_hparams"),
    "datasets": ("DATASETS", "get_dataset_class"),
    "command_launchers": ("REGISTRY",),
}


@dataclass(frozen=True)
class Host:
    """A DomainBed that has what we use: its folder and its modules."""

    root: Path
    algorithms: ModuleType
    hparams_registry: ModuleType
    datasets: ModuleType
    command_launchers: ModuleType


def find(path: str | None = None) -> Path:
    """The folder that holds the package ``domainbed``; from now on Python finds it there.

    Args:
        path: ``--domainbed``; None: by the environment variable ``DOMAINBED_DIR``, else as ``python -m`` would.

    Raises:
        UserError: there is none, or another one is already imported.
    """
    asked = path or os.environ.get(VARIABLE)
    root = _checkout(asked, "--domainbed" if path else VARIABLE) if asked else _importable()
    if "domainbed" in sys.modules:
        imported = Path(next(iter(sys.modules["domainbed"].__path__))).resolve().parent
        if imported != root:
            raise UserError(f"the DomainBed at {imported} is already imported, {root} cannot be")
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return root


def _checkout(path: str, source: str) -> Path:
    root = Path(path).expanduser().resolve()
    if not root.is_dir():
        raise UserError(f"{source} {path} is no folder")
    if not (root / "domainbed").is_dir():
        folder = root.parent if root.name == "domainbed" else "the folder that git clone made"
        raise UserError(f"{source} {path} holds no folder domainbed: give {folder}")
    return root


def _importable() -> Path:
    importlib.invalidate_caches()
    spec = importlib.util.find_spec("domainbed")
    for place in [*(spec.submodule_search_locations or () if spec else ()), "domainbed"]:
        if (Path(place) / "algorithms.py").is_file():
            return Path(place).resolve().parent
    raise UserError(
        f"no DomainBed found: give --domainbed PATH, or set {VARIABLE}, or have it on the Python path "
        "(git clone https://github.com/facebookresearch/DomainBed makes one)"
    )


def open_host(root: Path) -> Host:
    """Import the modules that we use.

    Raises:
        UserError: something that we use is not there, or something that DomainBed imports is not installed.
    """
    return Host(root, **{module: import_part(root, module) for module in _USED})


def import_part(root: Path, module: str) -> ModuleType:
    """Import one of the modules that we use.

    Raises:
        UserError: something that we use of it is not there, or something that it imports is not installed.
    """
    try:
        found = importlib.import_module(f"domainbed.{module}")
    except ImportError as error:
        raise UserError(missing_import(root, error)) from error
    for name in _USED[module]:
        if not hasattr(found, name):
            raise UserError(lacks(root, f"domainbed.{module}.{name}"))
    return found


def failed_inside(error: BaseException) -> str | None:
    """What to say of an error that comes out of an imported DomainBed's code; None where it does not."""
    imported = sys.modules.get("domainbed")
    place, trace = None, error.__traceback__
    while imported and trace:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.is_relative_to(next(iter(imported.__path__))):
            place = f"{path}, line {trace.tb_lineno}"
        trace = trace.tb_next
    return place and f"DomainBed's code failed: {type(error).__name__}: {one_line(error)} ({place})"


def lacks(root: Path, name: str) -> str:
    """The message for a checkout that lacks something that we use."""
    return f"the DomainBed at {root} has no {name}: it is too old or changed; known to work is commit b93c22a"


def missing_import(root: Path, error: ImportError) -> str:
    """The message for a checkout that imports what is not there."""
    if not isinstance(error, ModuleNotFoundError):
        return f"the DomainBed at {root} cannot be imported ({error}): {_INSTALL}"
    if (error.name or "").partition(".")[0] == "domainbed":
        return lacks(root, str(error.name))
    return f"the DomainBed at {root} imports {error.name}, which is not installed: {_INSTALL}"
