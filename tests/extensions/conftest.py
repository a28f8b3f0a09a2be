"""Fixtures of the tests of extensions."""

import pytest

from tests.extending import registries_put_back

collect_ignore = ["example"]


@pytest.fixture(autouse=True)
def put_back():
    with registries_put_back():
        yield
