"""One Slurm for all tests that need one; they run in one process (``xdist_group``), one after another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.slurm.local_slurm import LocalSlurm, local_slurm, missing


@pytest.fixture(scope="session")
def _daemons() -> Iterator[LocalSlurm]:
    if why := missing():
        pytest.skip(why)
    with local_slurm() as slurm:
        yield slurm


@pytest.fixture
def slurm(_daemons: LocalSlurm, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSlurm]:
    """A Slurm without jobs, which commands of this process and its children use."""
    for name in ("SLURM_CONF", "PATH"):
        monkeypatch.setenv(name, _daemons.environment[name])
    yield _daemons
    _daemons.cancel_all()
