from __future__ import annotations

import pytest

from tests.datasets.classification.files import make_small


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every official file has few images."""
    make_small(monkeypatch)
