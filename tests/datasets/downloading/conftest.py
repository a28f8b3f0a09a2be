"""A server's address is reached directly, whatever proxy the machine has, and gdown's cookies stay out of the home."""

import sys
from pathlib import Path

import gdown
import pytest


@pytest.fixture(autouse=True)
def direct(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    cookies: Path = tmp_path_factory.mktemp("gdown") / "cookies.txt"
    monkeypatch.setattr(sys.modules[gdown.download.__module__], "DEFAULT_COOKIES_FILE", str(cookies))
