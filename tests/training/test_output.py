"""out.txt and err.txt hold what was printed, names that no encoding can write too."""

import io
import sys

import pytest

from domainbed_adm.cli import run
from domainbed_adm.errors import UserError
from domainbed_adm.training.observers import teed


def fail(folder):
    with teed(folder):
        print("caf\udce9 é", end="")
        raise UserError("no folder caf\udce9")


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", r"caf\udce9 é"), ("ascii", r"caf\udce9 \xe9")])
def test_a_name_that_cannot_be_encoded_is_escaped(tmp_path, monkeypatch, encoding, shown):
    stream = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    assert run(fail, tmp_path) == 2
    assert stream.buffer.getvalue() == shown.encode()
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == r"caf\udce9 é"
    assert (tmp_path / "err.txt").read_text(encoding="utf-8") == r"no folder caf\udce9" + "\n"
