"""Fixtures of the tests that run in the small host."""

import sys
from pathlib import Path

import pytest

from domainbed_adm import upstream
from tests.extending import registries_put_back
from tests.upstream.hosting import MORE

collect_ignore = ["host"]
HOST = Path(__file__).parent / "host"


def forget_host():
    for name in [name for name in sys.modules if name.partition(".")[0] == "domainbed"]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def own_process(monkeypatch):
    """Leave the process as it was: modules, path, arguments, streams, and what was registered."""
    monkeypatch.delenv(upstream.VARIABLE, raising=False)
    for name in ("path", "argv", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, list(sys.path) if name == "path" else getattr(sys, name))
    forget_host()
    with registries_put_back():
        yield
    forget_host()


@pytest.fixture
def host(monkeypatch):
    """The small host, registered."""
    monkeypatch.setenv(upstream.VARIABLE, str(HOST))
    return upstream.register()


@pytest.fixture
def copy_of_host(tmp_path):
    """A copy of the small host that a test may break."""
    import shutil

    shutil.copytree(HOST, tmp_path / "host", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "host"


@pytest.fixture
def checkout(monkeypatch, copy_of_host):
    """The small host with more algorithms, named by the variable."""
    file = copy_of_host / "domainbed/algorithms.py"
    file.write_text(file.read_text() + MORE)
    monkeypatch.setenv(upstream.VARIABLE, str(copy_of_host))
    return copy_of_host
