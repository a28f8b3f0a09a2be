"""What is left of a failed job: failed.json, and one line that says why."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from domainbed_adm.sweeping import failures

CUDA = """Traceback (most recent call last):
  File "loop.py", line 3, in step
    raise RuntimeError
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.
Compile with `TORCH_USE_CUDA_DSA` to enable device-side assertions.
"""

REASONS = [
    (1, "no luck", 1, "exit code 1: no luck"),
    (1, CUDA, 2, "exit code 1 (2 attempts): torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."),
    (2, "warning: x\ndomainbed-adm: error: no folder x", 1, "exit code 2: no folder x"),
    (-9, "", 3, "killed by SIGKILL (3 attempts): a system that runs out of memory does so"),
    (-100, "", 1, "killed by 100"),
    (1, "last words\n\n", 1, "exit code 1: last words"),
]


@pytest.mark.parametrize(("code", "stderr", "attempts", "reason"), REASONS)
def test_the_reason_is_one_line(tmp_path: Path, code: int, stderr: str, attempts: int, reason: str) -> None:
    failures.write(tmp_path / "job", code, stderr.splitlines(), attempts)
    failure = failures.read(tmp_path / "job")
    assert failure is not None
    assert failure.reason == reason


def test_the_file_says_all(tmp_path: Path) -> None:
    failures.write(tmp_path, -15, ["a", "ValueError: b"], 2, "SAM on PACS")
    contents = json.loads((tmp_path / "failed.json").read_text())
    assert contents.pop("time").endswith("+00:00")
    assert contents == {
        "exit_code": None,
        "signal": "SIGTERM",
        "exception": "ValueError: b",
        "stderr": ["a", "ValueError: b"],
        "attempts": 2,
        "job": "SAM on PACS",
    }


GOOD = {
    "exit_code": 1,
    "signal": None,
    "exception": "ValueError: b",
    "stderr": ["a"],
    "attempts": 2,
    "time": "2026-01-01T00:00:00+00:00",
    "job": "SAM on PACS",
}
WRONG = [
    *({"attempts": value} for value in ("2", True, -1, 2.0, None, 10**400, [])),
    *({"exit_code": value} for value in ("1", False, -1, 1.5, 10**400, {}, None)),
    *({"exit_code": None, "signal": value} for value in (9, True, [], {"a": 1})),
    {"signal": "SIGKILL"},
    *({"stderr": value} for value in (3, "a", None, {"a": "b"}, ["a", 1], [["a"]])),
    *({name: value} for name in ("exception", "time", "job") for value in (1, None, ["a"])),
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_a_field_of_another_type_is_no_failure(tmp_path: Path, change: dict) -> None:
    path = tmp_path / "failed.json"
    path.write_text(json.dumps(GOOD))
    assert failures.read(tmp_path) == failures.Failure(**GOOD)
    path.write_text(json.dumps(GOOD | change))
    assert failures.read(tmp_path) is None


def test_a_file_of_a_newer_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "failed.json").write_text(json.dumps(GOOD | {"more": 1}))
    assert failures.read(tmp_path) == failures.Failure(**GOOD)


def test_a_file_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "failed.json").write_text(json.dumps({name: value for name, value in GOOD.items() if name != "job"}))
    found = failures.read(tmp_path)
    assert found is not None
    assert found.job == ""


def test_what_a_terminal_would_obey_is_escaped(tmp_path: Path) -> None:
    """The file keeps the bytes, who reads it does not."""
    line = "ValueError: \x1b[31mred\x1b[0m \r\ud800"
    failures.write(tmp_path, -9, [line, "café"], 1, "job\x07")
    assert json.loads((tmp_path / "failed.json").read_text())["stderr"] == [line, "café"]
    found = failures.read(tmp_path)
    assert found is not None
    assert found.reason == r"killed by SIGKILL: ValueError: \x1b[31mred\x1b[0m \r\ud800"
    assert found.stderr == [r"ValueError: \x1b[31mred\x1b[0m \r\ud800", "café"]
    assert found.job == r"job\x07"


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    """A pipe would be waited for."""
    os.mkfifo(tmp_path / "failed.json")
    assert failures.read(tmp_path) is None


@pytest.mark.parametrize(
    "contents", ["", "{}", "[1]", '"x"', "null", "[" * 100_000, "9" * 5000, '{"exit_code": 1, "more": 2}', "\xff"]
)
def test_a_damaged_file_is_none(tmp_path: Path, contents: str) -> None:
    (tmp_path / "failed.json").write_text(contents, encoding="latin-1")
    assert failures.read(tmp_path) is None
