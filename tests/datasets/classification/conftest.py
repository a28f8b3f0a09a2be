from __future__ import annotations

import pytest

from domainbed_adm.datasets.classification import cifar
from tests.datasets.classification.files import SMALL, small_files


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every official file has few images."""
    for name in list(cifar.CIFAR):
        monkeypatch.setitem(cifar.CIFAR, name, small_files(name))
    monkeypatch.setattr(cifar, "CORRUPTED_IMAGES", SMALL)
