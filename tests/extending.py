"""What tests of extensions share: the example package as if it were installed, and registries that are put back."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from domainbed_adm import algorithms, registry
from domainbed_adm.datasets import cards
from domainbed_adm.loggers import LOGGERS
from domainbed_adm.method.cards import CURRICULA, DIFFICULTIES, FLATNESS
from domainbed_adm.method.grid import METHODS
from domainbed_adm.sweeping.launchers import LAUNCHERS

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "tests/extensions/example"
TABLES = (
    METHODS,
    DIFFICULTIES,
    CURRICULA,
    FLATNESS,
    cards.CARDS,
    LAUNCHERS,
    LOGGERS,
    algorithms._classes,
)


@contextlib.contextmanager
def registries_put_back():
    """What is added within the block is gone after it; entry points are found anew."""
    before, called = [dict(table) for table in TABLES], set(registry._called)
    try:
        yield
    finally:
        for table, old in zip(TABLES, before, strict=True):
            table.clear()
            table.update(old)
        registry._called.clear()
        registry._called.update(called)
        for name in [name for name in sys.modules if name.partition(".")[0] == "adm_example"]:
            del sys.modules[name]


def installed(folder, target="adm_example:extend", name="adm-example"):
    """Write what pip leaves of an installed package; returns the folders for the Python path."""
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[domainbed_adm.extensions]\n{name} = {target}\n")
    return [str(folder), str(EXAMPLE)]


def install(monkeypatch, folder, **what):
    """Install in this process."""
    for path in installed(folder, **what):
        monkeypatch.syspath_prepend(path)
    registry._called.clear()


def environment(*paths):
    """The environment of a child process with these folders, and this package, on its Python path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), str(ROOT)])}
